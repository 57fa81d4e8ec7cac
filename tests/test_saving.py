"""An exhibit's three files belong together, whatever happens while they are saved, and say what they rest on."""

import errno
import io
import json
import os
import shlex
import sys
import time
from pathlib import Path

import pandas as pd
import pytest
import torch
from conftest import run_python, tiny_spec
from test_figures import PGD, SOME, Measured, by, trained
from test_figures import saved as figure_1
from test_notebooks import setup
from typer.testing import CliRunner

from rkdkit import attacks, cli, drawing, executors, figures, files
from rkdkit.measurements import CorrectPredictions
from rkdkit.provenance import environment
from rkdkit.references import Images, Snapshot
from rkdkit.saved import ExhibitFilesError, read_exhibit, write_exhibit
from rkdkit.store import DamagedFileError, StoreError
from rkdkit.trainings import Train

NAME = "fig1_peer_vs_teacher"
EMPTY = {"claims": [], "provenance": {"runs": []}}


def write(file, word, **summary):
    return write_exhibit(file, {"word": word, **summary}, picture=word.encode() * 100_000, numbers=word.encode())


def what_lies_there(file):
    """The word of a set that is read as whole, whose bytes are compared, too; or "noticed"."""
    try:
        word = read_exhibit(file)["word"]
    except ExhibitFilesError:
        return "noticed"
    assert file.with_suffix(".png").read_bytes() == word.encode() * 100_000
    assert file.with_suffix(".csv").read_bytes() == word.encode()
    return word


def temporaries(folder):
    return [path.name for path in folder.iterdir() if path.suffix not in (".png", ".csv", ".json")]


WATCHING = """
import io, sys

DISK = {"mkdir", "open", "stat", "lstat", "fsync", "rename", "replace", "link", "unlink", "remove", "close", "truncate"}

def touches_the_disk(function):
    "Whether a C function is a file's method, or one of the operating system's on files."
    if isinstance(getattr(function, "__self__", None), io.IOBase) or function is io.open:
        return True
    return getattr(function, "__module__", "") == "posix" and function.__name__ in DISK

def at_operation(n, act, seen):
    "Act right before the n-th file operation of this thread."
    def watch(frame, event, function):
        if event == "c_call" and touches_the_disk(function):
            seen.append(function.__name__)
            if len(seen) == n:
                act()
    sys.setprofile(watch)
"""
exec(WATCHING)

KILLED = f"""{WATCHING}
import os, signal
from pathlib import Path
from rkdkit import saved

before, places = sys.argv[1] == "True", Path(sys.argv[2])

def write(file, word):
    saved.write_exhibit(file, {{"word": word}}, picture=word.encode() * 100_000, numbers=word.encode())

n, ended = 0, 1
while ended:
    n += 1
    file = places / f"{{n:03d}}" / "fig0_any.json"
    file.parent.mkdir(parents=True)
    if before:
        write(file, "old")
    child = os.fork()
    if not child:
        at_operation(n, lambda: os.kill(os.getpid(), signal.SIGKILL), [])
        write(file, "new")
        os._exit(0)
    _, ended = os.waitpid(child, 0)
    assert ended in (0, signal.SIGKILL), ended
"""


@pytest.mark.parametrize("before", [True, False], ids=["an earlier set", "none before"])
def test_a_process_killed_at_any_file_operation_leaves_one_set_or_one_that_is_noticed(tmp_path, before):
    process = run_python(f"import sys; sys.argv[1:] = ['{before}', {str(tmp_path)!r}]\n{KILLED}", tmp_path / "store")
    _, errors = process.communicate(timeout=300)
    assert process.returncode == 0, errors
    sets = sorted(folder / "fig0_any.json" for folder in tmp_path.iterdir() if folder.name.isdigit())
    outcomes = [what_lies_there(file) for file in sets]
    assert len(outcomes) > 15, "it was killed at few operations"
    assert outcomes[-1] == "new", "the last was not killed"
    assert temporaries(sets[-1].parent) == []
    first = "old" if before else "noticed"
    parted = outcomes.count("noticed") if before else 2
    assert parted == 2, "only between the three renames"
    at_first = outcomes.count(first) if before else outcomes.count(first) - parted
    assert outcomes == [first] * at_first + ["noticed"] * parted + ["new"] * (len(outcomes) - at_first - parted)
    assert at_first > 10
    if not before:
        assert [file.exists() for file in sets] == [word == "new" for word in outcomes], "the JSON comes last"


def test_a_disk_full_at_any_file_operation_leaves_the_earlier_set_and_no_temporary(tmp_path):
    def full():
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    outcomes, complete, n = [], False, 0
    while not complete:
        n += 1
        file, seen, expected = tmp_path / str(n) / "fig0_any.json", [], "new"
        write(file, "old")
        try:
            at_operation(n, full, seen)  # noqa: F821 - of WATCHING
            write(file, "new")
            complete = len(seen) < n
        except OSError:
            expected = "noticed" if seen[:-1].count("replace") in (1, 2) else "old"
        finally:
            sys.setprofile(None)
        outcomes.append(what_lies_there(file))
        assert outcomes[-1] == expected, seen
        assert temporaries(file.parent) == [], seen
    assert outcomes.count("old") > 10
    assert outcomes.count("noticed") == 2, "where the second and the third cannot be renamed"
    assert outcomes[-1] == "new"


@pytest.mark.parametrize("n", [1, 2, 3])
def test_a_figure_that_cannot_be_saved_leaves_the_earlier_one(tmp_path, store, monkeypatch, n):
    snapshot = trained(store, tiny_spec()).snapshot()
    with executors.using(Measured()) as executor:
        asked = setup(output_dir=str(tmp_path / "made"))
        executor.gather([by(snapshot, PGD)])
        figure, _ = figures.new_figure()
        *_, summary = figures.save(asked, figure, pd.DataFrame({"value": [1]}))
        earlier = {path.name: path.read_bytes() for path in summary.parent.iterdir()}
        assert sorted(earlier) == [f"{NAME}.{suffix}" for suffix in ("csv", "json", "png")]
        calls, fsync = [], os.fsync

        def full(descriptor):
            calls.append(descriptor)
            if len(calls) == n:
                raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
            fsync(descriptor)

        with monkeypatch.context() as patch:
            patch.setattr(os, "fsync", full)
            with pytest.raises(StoreError, match=rf"Could not write .*{NAME}.json: No space left on device.*repeat"):
                figures.save(asked, figure, pd.DataFrame({"value": [2]}))
        assert {path.name: path.read_bytes() for path in summary.parent.iterdir()} == earlier
        figures.save(asked, figure, pd.DataFrame({"value": [2]}))
        assert read_exhibit(summary)["exhibit"] == NAME
        assert summary.with_suffix(".csv").read_text() == "value\n2\n"


def test_leftovers_of_killed_processes_are_cleared_but_not_those_of_others(tmp_path):
    file = tmp_path / f"{NAME}.json"
    leftovers = [tmp_path / f".{name}.{suffix}.0123.tmp" for name in (NAME, "fig2") for suffix in ("png", "json")]
    young = tmp_path / f".{NAME}.csv.0123.tmp"
    for path in (*leftovers, young):
        path.write_bytes(b"half")
    for path in leftovers:
        os.utime(path, (0, time.time() - 2 * files.LEFTOVER))
    write(file, "new")
    assert sorted(temporaries(tmp_path)) == sorted([young.name, *(path.name for path in leftovers[2:])])


def a_folder(path):
    path.unlink()
    path.mkdir()


def a_pipe(path):
    path.unlink()
    os.mkfifo(path)


def without_digests(path):
    summary = json.loads(path.read_text())
    del summary["files"]
    path.write_text(json.dumps(summary))


def digests_of_nothing(path):
    path.write_text(json.dumps({**json.loads(path.read_text()), "files": {}}))


@pytest.mark.parametrize(
    ("suffix", "change", "message"),
    [
        (".csv", lambda path: path.write_text("another"), r"{}.csv and {}.json do not belong together"),
        (".png", lambda path: path.write_bytes(path.read_bytes()[:-1]), r"{}.png and {}.json do not belong together"),
        (".png", Path.unlink, r"{}.png is not there"),
        (".csv", a_folder, r"{}.csv cannot be read: "),
        (".csv", a_pipe, r"{}.csv cannot be read: "),
        (".json", Path.unlink, r"{}.json is not there"),
        (".json", a_pipe, r"{}.json cannot be read: "),
        (".json", lambda path: path.write_bytes(path.read_bytes()[:-9]), r"{}.json is damaged"),
        (".json", lambda path: path.write_bytes(b"\xff\xfe\xfd"), r"{}.json is damaged"),
        (".json", lambda path: path.write_text("[" * 100_000), r"{}.json is damaged"),
        (".json", lambda path: path.write_text("[1]"), r"{}.json does not say which picture and numbers belong to it"),
        (".json", without_digests, r"{}.json does not say which picture and numbers belong to it"),
        (".json", digests_of_nothing, r"{}.png and {}.json do not belong together"),
    ],
)
def test_a_set_that_is_damaged_or_does_not_belong_together_is_named_with_the_command_that_makes_it(
    tmp_path, suffix, change, message
):
    file = tmp_path / f"{NAME}.json"
    write(file, "old", profile="small")
    assert what_lies_there(file) == "old"
    change(file.with_suffix(suffix))
    with pytest.raises(ExhibitFilesError, match=message.replace("{}", NAME)) as refused:
        read_exhibit(file)
    assert str(tmp_path / NAME) in str(refused.value)
    command = str(refused.value).partition("Make the three files again: ")[2]
    assert shlex.split(command)[:3] == ["rkdkit", "figures", NAME]
    assert f"output_dir={tmp_path}" in shlex.split(command)


def test_the_set_of_another_exhibit_is_not_believed(tmp_path):
    file, other = tmp_path / f"{NAME}.json", tmp_path / "tab1_white_box.json"
    write(file, "old")
    for suffix in (".png", ".csv", ".json"):
        other.with_suffix(suffix).write_bytes(file.with_suffix(suffix).read_bytes())
    assert what_lies_there(other) == "noticed"


def test_the_command_has_the_parameters_that_the_exhibit_was_made_with(tmp_path):
    file = tmp_path / f"{NAME}.json"
    settings = {"KD": {"t": 2}}
    overrides = {"n_train": None, "dataset": "digits:3,8", "milestones": [1, 2], "lr": 0.5, "settings": settings}
    write(file, "old", profile="smoke", overrides=overrides, seeds=[2, 3])
    file.with_suffix(".csv").unlink()
    with pytest.raises(ExhibitFilesError) as refused:
        read_exhibit(file)
    rkdkit, command, *words = shlex.split(str(refused.value).partition("Make the three files again: ")[2])
    assert (rkdkit, command) == ("rkdkit", "figures")
    assert words[:3] == [NAME, "--profile", "smoke"]
    assert set(words[3::2]) == {"-p"}
    notebooks, parameters = cli._asked([NAME], "smoke", words[4::2])
    assert list(notebooks) == [NAME]
    given = parameters[NAME]
    more = {**given.pop("more", {}), **given}
    expected = {
        **overrides,
        "n_train": "none",
        "profile": "smoke",
        "seed": 2,
        "n_seeds": 2,
        "output_dir": str(tmp_path),
    }
    assert {name: more[name] for name in expected} == expected


def test_a_hostile_summary_makes_no_other_command_and_no_other_error(tmp_path):
    file = tmp_path / f"{NAME}.json"
    for profile in ("../\0", 5, {}, "quick; rm -rf ~"):
        write(file, "old", profile=profile, overrides={"a": "; rm -rf ~"}, seeds="many")
        file.with_suffix(".csv").unlink()
        with pytest.raises(ExhibitFilesError) as refused:
            read_exhibit(file)
        words = shlex.split(str(refused.value).partition("Make the three files again: ")[2])
        assert words == ["rkdkit", "figures", NAME, "-p", "a=; rm -rf ~", "-p", f"output_dir={tmp_path}"]


def test_the_command_line_names_a_set_that_does_not_belong_together(tmp_path, monkeypatch):
    def drawn(notebooks, _):
        for each in notebooks:
            file = Path(each.parameters["output_dir"], f"{each.name}.json")
            write_exhibit(file, EMPTY, picture=b"", numbers=b"")
            if each.name.startswith("tab1_"):
                file.with_suffix(".csv").write_text("another")
            yield drawing.Drawn(each, 0.0)

    monkeypatch.setattr(drawing, "draw_all", drawn)
    arguments = ["figures", "fig2", "tab1", "--workers", "1", "-p", f"output_dir={tmp_path}"]
    done = CliRunner().invoke(cli.app, arguments)
    assert done.exit_code == 1
    assert isinstance(done.exception, SystemExit)
    assert f"{tmp_path}/tab1_white_box.csv and tab1_white_box.json do not belong together. Make" in done.output
    assert "Exhibits: 1, in " in done.output
    assert "Not made: tab1_white_box." in done.output + str(done.exception)


HERE = environment(torch.device("cpu"))
ELSEWHERE = {**HERE, "torch": "2.0.1", "git_commit": "0" * 40}


def answered(store, task, measured_with, judge=0):
    """Put the answer to a question into the store, as measured in some environment."""
    question = task.parts[judge].question_in(executors.current().context)
    store.write_answer(question, "00" * (len(SOME) // 8), measured_with)


def made(folder, tasks, deciding=(), specs=()):
    """The caption's last line and what the JSON says of where answers were measured."""

    def ask(executor):
        executor.gather([Train(spec) for spec in specs])
        executor.gather(deciding, deciding=True)
        executor.gather(tasks)

    caption, summary = figure_1(folder, ask)
    return caption.split("\n")[-1], summary["provenance"]["measured_with"]


def versions(environment_):
    return f"rkdkit {environment_['rkdkit']}, torch {environment_['torch']}"


@pytest.fixture
def snapshot(store):
    """A network that was trained with today's versions on today's device."""
    return trained_in(store, tiny_spec(), HERE).snapshot()


def trained_in(store, spec, *environments):
    run = trained(store, spec)
    folder = store.run_folder(spec)
    folder.write_record({**folder.read_record(), "environments": list(environments)})
    return run


def one_thread(device):
    return device.replace("cpu, 1 threads", "cpu, 1 thread")


def test_answers_measured_here_are_listed_and_change_nothing_in_the_caption(tmp_path, store, snapshot):
    tasks = [by(snapshot, PGD), by(snapshot, None)]
    before = made(tmp_path, tasks)
    assert before == (f"{versions(HERE)}; trained on {one_thread(HERE['device'])}.", [])
    for task in tasks:
        answered(store, task, HERE)
    assert made(tmp_path, tasks) == (before[0], [HERE])


def test_answers_measured_with_other_versions_are_in_the_json_and_in_the_caption(tmp_path, store, snapshot):
    one, other = by(snapshot, PGD), by(snapshot, None)
    answered(store, one, HERE)
    answered(store, other, ELSEWHERE)
    trained_on = f"; trained on {one_thread(HERE['device'])}."
    said = f"{versions(HERE)} (some answers measured with torch 2.0.1){trained_on}"
    assert made(tmp_path, [one, other]) == (said, [HERE, ELSEWHERE])
    assert made(tmp_path, [other]) == (said.replace("some ", ""), [ELSEWHERE])
    older = {**HERE, "rkdkit": "0.0.1", "torch": "1.9.0"}
    answered(store, one, older)
    said = f"{versions(HERE)} (some answers measured with rkdkit 0.0.1, torch 1.9.0 and 2.0.1){trained_on}"
    assert made(tmp_path, [one, other]) == (said, [older, ELSEWHERE])


def test_another_commit_or_another_numpy_alone_is_in_the_json_but_not_in_the_caption(tmp_path, store, snapshot):
    others = [{**HERE, "git_commit": "0" * 40}, {**HERE, "numpy": "1.0"}]
    tasks = [by(snapshot, PGD), by(snapshot, None)]
    for task, measured_with in zip(tasks, others, strict=True):
        answered(store, task, measured_with)
    assert made(tmp_path, tasks) == (f"{versions(HERE)}; trained on {one_thread(HERE['device'])}.", others)


def test_each_judges_answer_counts(tmp_path, store, snapshot):
    both = CorrectPredictions(images=SOME, judges=(snapshot, Snapshot(snapshot.spec, epoch=1)), attack=PGD)
    answered(store, both, HERE, judge=0)
    answered(store, both, ELSEWHERE, judge=1)
    assert made(tmp_path, [both])[1] == [HERE, ELSEWHERE]


def test_answers_that_chose_an_epoch_count(tmp_path, store, snapshot):
    deciding = by(snapshot, PGD, Images("digits", n=len(SOME) - 8))
    answered(store, by(snapshot, PGD), HERE)
    store.write_answer(deciding.question_in(executors.current().context), "00" * 15, ELSEWHERE)
    caption, measured_with = made(tmp_path, [by(snapshot, PGD)], [deciding])
    assert measured_with == [ELSEWHERE, HERE]
    assert "(some answers measured with torch 2.0.1)" in caption


def test_unfinished_progress_is_no_answer(tmp_path, store, snapshot):
    task = by(snapshot, PGD)
    question = task.question_in(executors.current().context)
    store.write_answer({**question, "unfinished": True}, [1], {})
    assert store.read_environment({**question, "unfinished": True}) == {}
    assert store.read_environment(question) is None
    assert made(tmp_path, [task])[1] == []
    assert by(Snapshot(tiny_spec(seed=9)), PGD).environments(executors.current().context) == []


def test_an_answer_that_does_not_say_where_it_was_measured_is_refused(store, snapshot):
    task = by(snapshot, PGD)
    for wrong in (5, [], "here", None):
        answered(store, task, wrong)
        with pytest.raises(DamagedFileError, match=r"answers/.*Delete .* and repeat the command"):
            task.environments(executors.current().context)


def test_devices_that_measured_are_named_if_they_are_not_those_that_trained(tmp_path, store, snapshot):
    trained_on = f"trained on {one_thread(HERE['device'])}"
    answered(store, by(snapshot, PGD), {**HERE, "device": "a GPU"})
    assert made(tmp_path, [by(snapshot, PGD)])[0] == f"{versions(HERE)}; {trained_on}; measured on a GPU."
    answered(store, by(snapshot, None), {**HERE, "device": "cpu, 21 threads"})
    tasks = [by(snapshot, PGD), by(snapshot, None)]
    assert made(tmp_path, tasks)[0] == f"{versions(HERE)}; {trained_on}; measured on a GPU and cpu, 21 threads."
    on_gpu = trained_in(store, tiny_spec(seed=1), {**HERE, "device": "a GPU"}).snapshot()
    answered(store, by(on_gpu, PGD), {**HERE, "device": "a GPU"})
    caption, measured_with = made(tmp_path, [by(on_gpu, PGD)])
    assert caption == f"{versions(HERE)}; trained on a GPU.", "it does not matter where it was drawn"
    assert measured_with == [{**HERE, "device": "a GPU"}]


def test_networks_trained_with_other_versions_are_named_and_one_thread_is_one(tmp_path, store):
    single = {**HERE, "device": "cpu, 1 threads"}
    one = trained_in(store, tiny_spec(), {**single, "torch": "2.0.1", "compiled": False}, {**single, "compiled": False})
    old = trained_in(store, tiny_spec(seed=1), {**single, "torch": "2.0.1"})
    answered(store, by(one.snapshot(), PGD), single)
    caption, _ = made(tmp_path, [by(one.snapshot(), PGD)], specs=[one.spec])
    assert caption == f"{versions(HERE)} (some networks trained with torch 2.0.1); trained on cpu, 1 thread."
    answered(store, by(old.snapshot(), PGD), {**single, "rkdkit": "0.0.1"})
    caption, _ = made(tmp_path, [by(old.snapshot(), PGD)], specs=[old.spec])
    assert caption == (
        f"{versions(HERE)} (answers measured with rkdkit 0.0.1; networks trained with torch 2.0.1); "
        "trained on cpu, 1 thread."
    )


def test_saving_reads_each_answer_once(tmp_path, store, snapshot, monkeypatch):
    tasks = [by(snapshot, attacks.PGD(0.25, 0.0625, steps)) for steps in range(1, 8)]
    for task in tasks:
        answered(store, task, HERE)
    read, opened = [], io.open

    def noting(path, *arguments, **options):
        read.append(str(path))
        return opened(path, *arguments, **options)

    for name in ("io.open", "builtins.open"):
        monkeypatch.setattr(name, noting)
    made(tmp_path, tasks)
    assert sorted(Path(path).name for path in read if "answers" in path) == sorted(
        path.name for path in (store.root / "answers").iterdir()
    )
