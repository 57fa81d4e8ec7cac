"""`rkdkit runs`: what lies in the store is said, verified and freed; nothing that an exhibit rests on goes."""

import errno
import fcntl
import hashlib
import json
import os
import shutil
import time

import pytest
import torch
from committed import git
from conftest import ROOT, interrupted_after, run_python, tiny_spec
from filelock import FileLock
from safetensors.torch import save
from typer.testing import CliRunner

from rkdkit import cli, cli_runs, executors, paths, runs
from rkdkit.inventory import made, prune, stored, verify
from rkdkit.measurements import CorrectPredictions
from rkdkit.references import Images, Snapshot
from rkdkit.spec import RunSpec, Teacher
from rkdkit.store import DamagedFileError, Store, StoreError, write_json
from rkdkit.training import Training

TEACHER = tiny_spec("TRADES", epochs=3, n_train=64)
STUDENT = tiny_spec("KD", teachers=(Teacher(run=TEACHER, epoch=1),), n_train=64)
OTHER = tiny_spec("PGD-AT", seed=7, n_train=64, epochs=1)
IMAGES = Images("digits", n=40)
TRAINED = (TEACHER, STUDENT, OTHER)


def measured(spec, role="student"):
    """Ask each snapshot of a network, as a choice of an epoch does."""
    return runs.gather([CorrectPredictions(images=IMAGES, judges=(s,)) for s in runs.ensure(spec).snapshots(role)])


@pytest.fixture(scope="module")
def original(tmp_path_factory):
    """A store of a student, its teacher, a run of its own, and answers about all their epochs."""
    store = Store(tmp_path_factory.mktemp("original"))
    with executors.using(executors.Here(store, "cpu")):
        for spec in TRAINED:
            measured(spec)
    return store.root


@pytest.fixture
def root(original, tmp_path, monkeypatch):
    """A copy of that store, in a project that has no exhibits yet."""
    (tmp_path / "pyproject.toml").write_text('name = "rkdkit"\n')
    shutil.copytree(original, tmp_path / "store")
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("RKDKIT_STORE", str(tmp_path / "store"))
    return tmp_path / "store"


def rkdkit(*arguments):
    """`rkdkit runs`; unless a test says otherwise, `prune` frees runs of today, too."""
    if arguments[0] == "prune" and "--older-than" not in arguments:
        arguments = (*arguments, "--older-than", 0)
    return CliRunner().invoke(cli.app, ["runs", *map(str, arguments)])


def folder_of(spec):
    return Store().run_folder(spec).path


def record_of(spec):
    return Store().run_folder(spec).read_record()


def exhibit(name, specs, shown=(), folder="figures/quick", **changes):
    """Write an exhibit's JSON: the runs that it rests on, and the (specification, role, epoch) that it shows."""
    networks = {}
    for spec, role, epoch in shown:
        of_epoch = networks.setdefault((spec, role), {"run": spec.id, "role": role, "sha256_by_epoch": {}})
        of_epoch["sha256_by_epoch"][str(epoch)] = record_of(spec)["snapshots"][role][str(epoch)]
    content = {
        "exhibit": name,
        "profile": "quick",
        **{"overrides": {}, "seeds": [0], "measured": [], "teachers": [], "networks": list(networks.values())},
        "provenance": {"runs": [{"id": spec.id, "run": str(spec), "spec": spec.to_json()} for spec in specs]},
        **changes,
    }
    path = paths.project_root() / folder / f"{name}.json"
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(content))
    return path


def contents(root):
    files = (path for path in root.rglob("*") if path.is_file() and path.suffix != ".lock" and path.name != "lock")
    return {path: path.read_bytes() for path in files}


def flip(path, at=0.5):
    content = bytearray(path.read_bytes())
    content[int(at * len(content))] ^= 1
    path.write_bytes(bytes(content))


FOREIGN = Teacher(module="mine", digest="0123456789abcdef", weight=0.75)
SPECS = [
    *TRAINED,
    tiny_spec("KD", teachers=(Teacher(run=TEACHER, epoch=2, weight=0.25), FOREIGN)),
    tiny_spec("PeerAiD", dataset="digits:0,1"),
]


@pytest.mark.parametrize("spec", SPECS, ids=str)
def test_a_run_is_called_what_its_specification_says(spec, store):
    assert stored.title(spec.to_json()) == str(spec)
    assert stored.folder_name(spec.to_json(), spec.id) == store.run_folder(spec).path.name


def test_runs_are_listed_with_their_epochs_sizes_times_and_devices(root):
    said = rkdkit("list")
    assert said.exit_code == 0, said.output
    for spec in TRAINED:
        (line,) = (line for line in said.output.splitlines() if line.startswith(spec.id))
        device = record_of(spec)["environments"][0]["device"]
        record = folder_of(spec) / "run.json"
        size = stored.as_size(sum(path.stat().st_size for path in folder_of(spec).iterdir()))
        when = time.strftime("%Y-%m-%d %H:%M", time.localtime(record.stat().st_mtime))
        assert line.split("  ", 1)[1].split()[0] == str(spec.epochs)
        assert all(text in line for text in (size, when, device, str(spec)))
    assert f"3 runs in {root}, 0 of them not finished" in said.output


def unfinished(spec):
    """Let a run's record be as it was after one epoch."""
    record = record_of(spec)
    record |= {"finished": 1, "history": record["history"][:1]}
    record["snapshots"] = {role: {"1": kept["1"]} for role, kept in record["snapshots"].items()}
    name = "state-0001.safetensors"
    state = save({"weight": torch.zeros(3)})
    (folder_of(spec) / name).write_bytes(state)
    digest = hashlib.sha256(state).hexdigest()
    record |= {"states": {"1": {"name": name, "digest": digest}}}
    record.pop("state", None)
    write_json(folder_of(spec) / "run.json", record)
    for path in folder_of(spec).glob("student-000[23].safetensors"):
        path.unlink()


def lock_of(root, spec):
    (root / "locks").mkdir(exist_ok=True)
    return FileLock(root / "locks" / f"{spec.id}.lock")


def test_a_run_that_is_not_finished_is_listed_as_such_and_whether_it_is_at_work(root):
    unfinished(TEACHER)
    assert "1 of 3 epochs " in rkdkit("list").output
    assert "1 of them not finished" in rkdkit("list").output
    with lock_of(root, TEACHER):
        assert "1 of 3 epochs, at work" in rkdkit("list").output
        assert "being trained now" in rkdkit("show", TEACHER.id).output
    assert "at work" not in rkdkit("list").output


def test_the_runs_of_an_exhibit_are_listed_and_those_that_are_not_there(root):
    absent = tiny_spec("Natural", seed=3)
    exhibit("fig1_peer_vs_teacher", [TEACHER, STUDENT, absent])
    exhibit("fig1_peer_vs_teacher", [OTHER], folder="figures/quick/elsewhere")
    said = rkdkit("list", "fig1")
    assert said.exit_code == 0, said.output
    assert [line.split()[0] for line in said.output.splitlines()[1:4]] == [TEACHER.id, STUDENT.id, absent.id]
    assert OTHER.id not in said.output
    assert f"{absent.id}  not in the store" in said.output
    assert "2 runs in" in said.output
    assert str(root) in said.output


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["list", "fig1_peer"], "fig1_peer_vs_teacher.json is not there, or cannot be read: make it with"),
        (["list", "nonsense"], "Unknown exhibit 'nonsense'"),
        (["list", "fig1", "--profile", "huge"], "Unknown profile 'huge'"),
        (["show", "nonsense"], "No run in"),
        (["show", ""], "No run in"),
        (["show", "x" * 5000], "begins with 'xxxx"),
        (["verify", "nonsense"], "No run in"),
        (["prune", "--keep-epochs", "2"], "--keep-epochs goes with --snapshots"),
        (["prune", "--snapshots", "--keep-epochs", "one"], "--keep-epochs takes epochs"),
        (["prune", "--snapshots", "--keep-epochs", "0"], "--keep-epochs takes epochs"),
        (["prune", "--also", "nowhere"], "nowhere is not a folder"),
        (["prune"], "there is no exhibit in"),
    ],
)
def test_wrong_input_is_one_line(root, arguments, message):
    (root.parent / "notebooks").symlink_to(ROOT / "notebooks")
    before = contents(root)
    said = rkdkit(*arguments)
    assert said.exit_code == 1
    assert message in said.output
    assert len(said.output) < 2000
    assert said.output.count("\n") == 1
    assert isinstance(said.exception, SystemExit)
    assert contents(root) == before


WRONG = {
    "truncated": lambda path: path.write_bytes(path.read_bytes()[:100]),
    "empty": lambda path: path.write_bytes(b""),
    "a list": lambda path: path.write_text("[]"),
    "deep": lambda path: path.write_text("[" * 100_000),
    "not a record": lambda path: write_json(path, {"spec": {"method": 3}}),
    "a null": lambda path: write_json(path, None),
    "a specification without teachers": lambda path: write_json(
        path, {**record_of(TEACHER), "spec": {**TEACHER.to_json(), "teachers": 5}}
    ),
    "a teacher that is none": lambda path: write_json(
        path, {**record_of(TEACHER), "spec": {**TEACHER.to_json(), "teachers": [{"run": {}}]}}
    ),
    "a link": lambda path: (path.rename(path.with_name("elsewhere")), path.symlink_to("elsewhere")),
    "a pipe": lambda path: (path.unlink(), os.mkfifo(path)),
    "a folder": lambda path: (path.unlink(), path.mkdir()),
    "gone": lambda path: path.unlink(),
}


@pytest.mark.parametrize("how", WRONG)
@pytest.mark.usefixtures("root")
def test_a_record_that_cannot_be_used_is_said_everywhere(how):
    exhibit("mine", [TEACHER, STUDENT])
    WRONG[how](folder_of(TEACHER) / "run.json")
    listed = rkdkit("list")
    assert listed.exit_code == 0, listed.output
    (line,) = (line for line in listed.output.splitlines() if line.startswith(TEACHER.id))
    assert ("no record" in line) == (how in ("a link", "a pipe", "a folder", "gone"))
    assert ("damaged" in line) == ("no record" not in line)
    shown = rkdkit("show", TEACHER.id)
    assert shown.exit_code == 0
    assert "cannot be used" in shown.output
    verified = rkdkit("verify")
    assert verified.exit_code == 1
    assert str(folder_of(TEACHER)) in verified.output
    assert "`rkdkit figures mine --profile quick` trains it again" in verified.output
    assert rkdkit("du").exit_code == 0
    assert rkdkit("prune", "--snapshots").exit_code == 0
    assert rkdkit("prune", "--snapshots", "--yes").exit_code == 0
    assert folder_of(TEACHER).is_dir(), "an exhibit names it, whatever its record is"


@pytest.mark.usefixtures("root")
def test_a_run_is_shown_by_the_beginning_of_its_id():
    exhibit("mine", [TEACHER, STUDENT])
    exhibit("mine", [STUDENT], folder="results/large")
    exhibit("yours", [TEACHER])
    said = rkdkit("show", STUDENT.id[:6])
    assert said.exit_code == 0, said.output
    assert said.output.startswith(f"{STUDENT}\n")
    losses = [epoch["loss"] for epoch in record_of(STUDENT)["history"]]
    assert f"{losses[0]:.4g} {cli_runs.plot(losses)} {losses[1]:.4g} (epochs 1 to 2)" in said.output
    guided = record_of(STUDENT)["guided_by"][0]
    assert f"TRADES resnet18/16 at epoch 1 (student; {TEACHER.id}), weights {guided[:16]}" in said.output
    assert f"torch {torch.__version__.partition('+')[0]}" in said.output
    assert "student at epochs 1 to 2\n" in said.output
    assert "  batch_size        64\n" in said.output
    assert "figures/quick/mine.json\n" in said.output
    assert "results/large/mine.json\n" in said.output
    assert "yours" not in said.output


@pytest.mark.usefixtures("root")
def test_a_beginning_that_several_ids_have_is_refused_with_a_list():
    twin = folder_of(STUDENT).with_name(f"twin-{STUDENT.id[:8]}00000000")
    twin.mkdir()
    said = rkdkit("show", STUDENT.id[:8])
    assert said.exit_code == 1
    assert "2 runs have an id that begins with" in said.output
    assert twin.name in said.output
    assert folder_of(STUDENT).name in said.output
    assert rkdkit("show", STUDENT.id[:8] + "0").exit_code == 0
    assert rkdkit("show", folder_of(STUDENT).name).exit_code == 0


@pytest.mark.usefixtures("root")
def test_what_an_exhibit_shows_of_other_weights_is_said():
    exhibit("mine", [OTHER], [(OTHER, "student", 1)])
    assert "other weights" not in rkdkit("show", OTHER.id).output
    path = exhibit("mine", [OTHER], [(OTHER, "student", 1)])
    path.write_text(path.read_text().replace(record_of(OTHER)["snapshots"]["student"]["1"], "0" * 64))
    assert "mine.json (made with other weights than these)" in rkdkit("show", OTHER.id).output


def test_a_plot_goes_from_the_lowest_block_to_the_highest():
    assert cli_runs.plot([0, 1, 2, 3, 4, 5, 6, 7]) == cli_runs.BLOCKS
    assert cli_runs.plot([3.0]) == cli_runs.plot([3.0, 3.0])[0] == cli_runs.BLOCKS[0]
    assert cli_runs.plot([]) == ""
    assert cli_runs.plot(range(100), 4) == "▁▃▆█"
    assert len(cli_runs.plot(range(1000))) == cli_runs.PLOT_WIDTH


def test_a_whole_store_is_verified(root):
    said = rkdkit("verify")
    assert said.exit_code == 0, said.output
    files = [path for path in root.rglob("*") if path.suffix in (".json", ".safetensors")]
    assert f"{len(files)} files verified in {root}: 0 damaged" in said.output
    only = rkdkit("verify", OTHER.id, STUDENT.id[:7])
    assert "5 files verified" in only.output


@pytest.mark.usefixtures("root")
def test_the_progress_of_verifying_ends_at_its_total():
    inventory, read = stored.take(), []
    verify.verify(inventory, [], on_read=read.append)
    assert sum(read) == verify.bytes_to_read(inventory)
    some = [run for run in inventory.runs if run.id == OTHER.id]
    read.clear()
    verify.verify(inventory, [], some, read.append)
    assert sum(read) == verify.bytes_to_read(inventory, some)


DAMAGE = {
    "flipped": (lambda path: flip(path), "is damaged: it does not match its digest"),
    "truncated": (WRONG["truncated"], "is damaged: it does not match its digest"),
    "a link": (WRONG["a link"], "is no regular file"),
    "a pipe": (WRONG["a pipe"], "is no regular file"),
    "a folder": (WRONG["a folder"], "is no regular file"),
    "gone": (WRONG["gone"], "is missing"),
}


@pytest.mark.parametrize("how", DAMAGE)
@pytest.mark.usefixtures("root")
def test_a_damaged_snapshot_is_named_with_the_command_that_restores_it(how):
    exhibit("mine", [STUDENT], [(STUDENT, "student", 1)], overrides={"lr": 0.2, "student": "a b"}, seeds=[2, 3])
    path = folder_of(STUDENT) / "student-0001.safetensors"
    damage, problem = DAMAGE[how]
    damage(path)
    said = rkdkit("verify")
    assert said.exit_code == 1
    (line,) = (
        line for line in said.output.splitlines() if line.startswith(f"{path} ") and "not the store's" not in line
    )
    assert f"{path} {problem}. Delete the folder {path.parent}; then" in line
    command = "rkdkit figures mine --profile quick -p lr=0.2 -p 'student=a b' -p seed=2 -p n_seeds=2"
    command = f"{command} -p output_dir=figures/quick"
    assert f"`{command}` trains it again." in line
    assert "1 damaged" in said.output
    assert rkdkit("verify", TEACHER.id).exit_code == 0


def test_a_damaged_state_of_a_run_that_is_not_finished_is_named(root):
    unfinished(TEACHER)
    assert rkdkit("verify", TEACHER.id).exit_code == 0
    flip(folder_of(TEACHER) / "state-0001.safetensors")
    said = rkdkit("verify", TEACHER.id)
    assert said.exit_code == 1
    assert "state-0001.safetensors is damaged" in said.output
    with lock_of(root, TEACHER):
        assert rkdkit("verify", TEACHER.id).exit_code == 0, "whoever trains it replaces the file"


def an_answer(root):
    return sorted((root / "answers").iterdir())[0]


def content_of(path):
    return json.loads(path.read_bytes())["content"]


def other_answer(path):
    return sorted(path.parent.iterdir())[1]


@pytest.mark.parametrize(
    ("how", "problem"),
    [
        (lambda path: flip(path), "does not match its own digest"),
        (lambda path: path.write_bytes(other_answer(path).read_bytes()), "holds the answer to another question"),
        (lambda path: write_json(path, {"answer": "00"}), "holds no answer"),
        (lambda path: write_json(path, 3), "holds no answer"),
        (lambda path: write_json(path, {**content_of(path), "more": 1}), "holds no answer"),
        (
            lambda path: write_json(path, {**content_of(path), "measured_with": "2.0"}),
            "does not say with which versions",
        ),
        (lambda path: path.write_text("[" * 100_000), "does not match its own digest"),
    ],
    ids=["flipped", "swapped", "no question", "no object", "more", "no versions", "deep"],
)
def test_a_wrong_answer_is_named(root, how, problem):
    path = an_answer(root)
    how(path)
    said = rkdkit("verify")
    assert said.exit_code == 1
    assert f"{path} {problem}" in said.output
    assert f"Delete {path}" in said.output
    assert rkdkit("verify", OTHER.id).exit_code == 0


@pytest.mark.usefixtures("root")
def test_a_record_that_lacks_a_snapshot_is_named_as_the_store_refuses_it():
    record = record_of(STUDENT)
    del record["snapshots"]["student"]["1"]
    write_json(folder_of(STUDENT) / "run.json", record)
    said = rkdkit("verify")
    assert said.exit_code == 1
    assert f"{folder_of(STUDENT) / 'run.json'} names other snapshots than the run keeps. Delete" in said.output
    with pytest.raises(StoreError, match="names other snapshots than"):
        runs.ensure(STUDENT)


@pytest.mark.usefixtures("root")
def test_all_kinds_of_snapshots_are_known():
    for spec in (
        tiny_spec("PeerAiD", peer="resnet18/16", epochs=3, snapshot_every=2, swa_start=1, n_train=64),
        tiny_spec(epochs=3, ema_decay=0.9, n_train=64),
    ):
        interrupted_after(spec, 2)
        assert rkdkit("verify").exit_code == 0
        runs.ensure(spec)
        assert rkdkit("verify").exit_code == 0, rkdkit("verify").output


def test_what_a_kill_leaves_before_a_record_is_there_is_no_damage(root):
    folder = root / "runs" / f"PGD-AT-digits-resnet18_16-seed9-{'0' * 16}"
    folder.mkdir()
    write_json(folder / "fetched.json", {"url": "https://example.org/store", "record": "0" * 64})
    assert rkdkit("verify").exit_code == 0
    (folder / "student-0001.safetensors").write_bytes(b"")
    assert "run.json is missing. Delete" in rkdkit("verify").output


@pytest.mark.usefixtures("root")
def test_the_students_of_a_damaged_teacher_are_named():
    flip(folder_of(TEACHER) / "student-0002.safetensors")
    lines = [line for line in rkdkit("verify").output.splitlines() if "is damaged" in line]
    assert len(lines) == 1
    assert f"the students that it taught have to be trained again, too: {STUDENT.id}." in lines[0]


@pytest.mark.usefixtures("root")
def test_a_run_in_anothers_folder_is_named():
    folder_of(OTHER).rename(folder_of(OTHER).with_name(f"PGD-AT-digits-resnet18_16-seed7-{'0' * 16}"))
    said = rkdkit("verify")
    assert said.exit_code == 1
    assert f"holds another run than its name says: {OTHER}" in said.output
    assert f"Rename it to {folder_of(OTHER).name}" in said.output


@pytest.mark.usefixtures("root")
def test_a_student_whose_teacher_has_other_weights_now_is_named():
    record = record_of(TEACHER)
    record["snapshots"]["student"]["1"] = record["snapshots"]["student"]["2"]
    shutil.copy(folder_of(TEACHER) / "student-0002.safetensors", folder_of(TEACHER) / "student-0001.safetensors")
    write_json(folder_of(TEACHER) / "run.json", record)
    assert rkdkit("verify", TEACHER.id).exit_code == 0
    said = rkdkit("verify")
    assert said.exit_code == 1
    assert f"{folder_of(STUDENT)} was taught by other weights of TRADES resnet18/16 at epoch 1" in said.output
    shutil.rmtree(folder_of(TEACHER))
    assert rkdkit("verify").exit_code == 0, "a teacher that is not there has no other weights"


def test_what_is_not_the_stores_is_named_and_left_alone(root):
    outside = root.parent / "outside"
    outside.mkdir()
    (outside / "precious").write_text("mine")
    mine = [root / "notes.txt", root / "answers" / "notes.txt", folder_of(OTHER) / "notes.txt", root / "runs" / "notes"]
    for path in mine[:3]:
        path.write_text("mine")
    mine[3].mkdir()
    (mine[3] / "inside").write_text("mine")
    shutil.rmtree(root / "locks", ignore_errors=True)
    links = [root / "runs" / f"linked-{'1' * 16}", root / "answers" / f"{'1' * 16}.json", root / "locks"]
    for path in links:
        path.symlink_to(outside)
    os.mkfifo(root / "runs" / "pipe")
    exhibit("mine", [TEACHER])
    said = rkdkit("verify")
    assert said.exit_code == 0, said.output
    for path in (*mine, *links, root / "runs" / "pipe"):
        assert f"{path} is not the store's" in said.output, path
    (root / "locks").unlink()
    assert rkdkit("prune", "--snapshots", "--yes").exit_code == 0
    assert all(path.exists() for path in mine), "even in the folder of a run that was deleted"
    assert not (folder_of(OTHER) / "run.json").exists()
    assert [path.name for path in outside.iterdir()] == ["precious"]


def test_all_committed_exhibits_are_read():
    exhibits, unreadable = made.made_exhibits([ROOT / "figures", ROOT / "results"])
    assert not unreadable
    tracked = git(ROOT, "ls-files", "--", "results/*.json").decode().split()
    came = {*(ROOT / "figures" / "quick").glob("*.json"), *(ROOT / name for name in tracked)}
    assert came <= {each.path for each in exhibits}
    with_networks = [each for each in exhibits if each.path in came and each.shown]
    assert len(with_networks) > 25
    for each in with_networks:
        assert {run_id for run_id, _ in each.shown} <= each.runs.keys()
        assert all(RunSpec.from_json(dict(spec)).id in each.runs for spec in each.specs[:3])
        assert each.lists_snapshots == (each.path.parent.parent.name == "figures")
    large = next(each for each in exhibits if each.place == "results/fig1_small/fig1_peer_vs_teacher.json")
    wanted = "rkdkit figures fig1_peer_vs_teacher --profile small -p epochs=30 -p output_dir=results/fig1_small"
    assert large.command == wanted


def test_nothing_goes_before_it_is_said_and_confirmed(root):
    exhibit("mine", [STUDENT])
    before = contents(root)
    said = rkdkit("prune")
    assert said.exit_code == 0, said.output
    assert "2 runs stay, because one of 1 exhibits rests on them" in said.output
    assert "1 runs that no exhibit rests on" in said.output
    assert f"{OTHER.id}  1 epoch, " in said.output
    assert "1 answers about their networks" in said.output
    assert "--yes" in said.output
    assert contents(root) == before
    size = sum(len(content) for path, content in before.items() if path.parent == folder_of(OTHER))
    done = rkdkit("prune", "--yes")
    assert done.exit_code == 0, done.output
    after = contents(root)
    assert {path.parent for path in before.keys() - after.keys()} >= {folder_of(OTHER), root / "answers"}
    assert not folder_of(OTHER).exists()
    freed = sum(len(before[path]) for path in before.keys() - after.keys())
    assert freed > size
    assert f"Freed {stored.as_size(freed)}." in done.output
    assert all(before[path] == content for path, content in after.items())
    assert folder_of(TEACHER).is_dir(), "it taught the run that the exhibit names"
    assert len(list((root / "answers").iterdir())) == TEACHER.epochs + STUDENT.epochs
    assert rkdkit("verify").exit_code == 0
    assert "Nothing was deleted yet" not in rkdkit("prune").output, "there is nothing left to free"


def test_a_run_of_the_last_days_stays_since_its_exhibit_may_not_be_made_yet(root):
    exhibit("mine", [STUDENT])
    before = contents(root)
    assert rkdkit("prune", "--yes", "--older-than", 7).exit_code == 0
    assert contents(root) == before
    old = time.time() - 8 * 86400
    os.utime(folder_of(OTHER) / "run.json", (old, old))
    assert rkdkit("prune", "--yes", "--older-than", 7).exit_code == 0
    assert not folder_of(OTHER).exists()
    assert folder_of(STUDENT).is_dir()


def test_answers_stay_if_a_run_that_was_to_go_changed_meanwhile(root):
    exhibit("mine", [STUDENT])
    inventory = stored.take()
    found = prune.prunable(inventory, made.made_exhibits(made.exhibit_folders())[0])
    assert found.answers
    answers = contents(root / "answers")
    (folder_of(OTHER) / "state-0001.safetensors").write_bytes(b"trained on")
    _, changed = prune.prune(inventory, found)
    assert [run.id for run in changed] == [OTHER.id]
    assert contents(root / "answers") == answers


@pytest.mark.usefixtures("root")
def test_a_fetched_run_without_its_networks_is_not_damaged():
    exhibit("mine", [STUDENT])
    folder = folder_of(STUDENT)
    record = (folder / "run.json").read_bytes()
    said = {"url": "https://example.org/store", "record": hashlib.sha256(record).hexdigest()}
    write_json(folder / "fetched.json", said)
    for path in folder.glob("student-*"):
        path.unlink()
    verified = rkdkit("verify")
    assert verified.exit_code == 0, verified.output
    assert "fetched from https://example.org/store" in verified.output
    assert "Delete" not in verified.output


def test_an_exhibit_in_results_or_in_a_folder_that_is_named_counts(root):
    exhibit("mine", [STUDENT], folder="results/large")
    exhibit("yours", [OTHER], folder="elsewhere")
    assert OTHER.id in rkdkit("prune").output
    said = rkdkit("prune", "--also", root.parent / "elsewhere", "--yes")
    assert said.exit_code == 0, said.output
    assert all(folder_of(spec).is_dir() for spec in TRAINED)


@pytest.mark.parametrize(
    "content",
    [
        "{",
        '{"exhibit": "mine"}',
        '{"exhibit": "mine", "provenance": {"runs": [{"id": "x", "spec": 3}]}}',
        "[" * 100_000,
    ],
)
def test_nothing_goes_while_an_exhibit_cannot_be_read(root, content):
    exhibit("mine", [STUDENT])
    broken = root.parent / "figures" / "quick" / "broken.json"
    broken.write_text(content)
    before = contents(root)
    said = rkdkit("prune", "--yes")
    assert said.exit_code == 1
    assert str(broken) in said.output
    assert contents(root) == before
    assert str(broken) in rkdkit("show", STUDENT.id).output
    broken.write_text('{"something": "else"}')
    assert rkdkit("prune").exit_code == 0


def test_a_run_that_is_being_trained_is_not_touched_nor_are_its_teachers(root):
    exhibit("mine", [OTHER])
    (folder_of(STUDENT) / "state-0001.safetensors").write_bytes(b"left")
    before = contents(root)
    with lock_of(root, STUDENT):
        said = rkdkit("prune", "--snapshots", "--yes")
        assert said.exit_code == 0, said.output
        assert "being trained now (1)" in said.output
        assert contents(root) == before
    rkdkit("prune", "--yes")
    assert not folder_of(STUDENT).exists()
    assert not folder_of(TEACHER).exists()
    assert folder_of(OTHER).is_dir()


@pytest.mark.parametrize("spec", [OTHER, STUDENT], ids=["run", "snapshots"])
def test_a_run_that_somebody_begins_to_train_or_changes_meanwhile_is_not_touched(root, spec):
    exhibit("mine", [STUDENT])
    state = folder_of(STUDENT) / "state-0001.safetensors"
    state.write_bytes(b"left")
    inventory = stored.take()
    found = prune.prunable(inventory, made.made_exhibits()[0])
    before = {path for path in contents(root) if path.parent == folder_of(spec)}
    with lock_of(root, spec):
        _, changed = prune.prune(inventory, found)
    assert [run.folder for run in changed] == [folder_of(spec)]
    assert before <= contents(root).keys()
    (folder_of(spec) / "student-0009.safetensors").write_bytes(b"new")
    _, changed = prune.prune(inventory, found)
    assert folder_of(spec) in [run.folder for run in changed]
    assert before <= contents(root).keys()


def names_in(spec):
    return sorted(path.name for path in folder_of(spec).glob("*.safetensors"))


def test_snapshots_that_no_exhibit_shows_go_and_the_rest_is_found_without_training(root, monkeypatch):
    exhibit("mine", [STUDENT], [(STUDENT, "student", 2)])
    exhibit("yours", [TEACHER], [(TEACHER, "student", 3)])
    before = [answer.tolist() for answer in measured(TEACHER)]
    assert "0 snapshots" in rkdkit("prune").output
    assert "2 snapshots of runs that stay" in rkdkit("prune", "--snapshots").output
    assert rkdkit("prune", "--snapshots", "--yes").exit_code == 0
    assert names_in(TEACHER) == ["student-0001.safetensors", "student-0003.safetensors"], "its first epoch taught"
    assert names_in(STUDENT) == ["student-0002.safetensors"]
    monkeypatch.setattr(Training, "__init__", lambda *_: pytest.fail("trained again"))
    monkeypatch.setattr(Snapshot, "read", lambda *_: pytest.fail("measured again"))
    assert [answer.tolist() for answer in measured(TEACHER)] == before
    monkeypatch.undo()
    monkeypatch.chdir(root.parent)
    monkeypatch.setenv("RKDKIT_STORE", str(root))
    assert runs.ensure(STUDENT).record["finished"] == 2
    with pytest.raises(DamagedFileError, match=r"student-0002.safetensors is missing"):
        Snapshot(TEACHER, "student", 2).load()
    verified = rkdkit("verify")
    assert verified.exit_code == 0, verified.output
    assert f"{folder_of(TEACHER)}: 1 snapshots that no exhibit shows are not here" in verified.output
    assert "student at epochs 1 to 3; not here: 2\n" in rkdkit("show", TEACHER.id).output


@pytest.mark.usefixtures("root")
def test_epochs_that_are_named_stay():
    exhibit("mine", [TEACHER], [(TEACHER, "student", 3)])
    rkdkit("prune", "--snapshots", "--keep-epochs", "2, 9", "--yes")
    assert names_in(TEACHER) == ["student-0002.safetensors", "student-0003.safetensors"], "the student is gone"


@pytest.mark.usefixtures("root")
def test_the_last_snapshot_stays_whatever_is_shown():
    exhibit("mine", [TEACHER], [(TEACHER, "student", 2)])
    rkdkit("prune", "--snapshots", "--yes")
    assert names_in(TEACHER) == ["student-0002.safetensors", "student-0003.safetensors"]


@pytest.mark.parametrize("why", ["other weights", "an earlier version", "one without teachers", "not finished"])
@pytest.mark.usefixtures("root")
def test_all_snapshots_stay_where_it_is_not_known_which_are_shown(why):
    path = exhibit("mine", [TEACHER], [(TEACHER, "student", 3)])
    content = json.loads(path.read_text())
    if why == "other weights":
        content["networks"][0]["sha256_by_epoch"]["3"] = "0" * 64
    elif why == "an earlier version":
        network = content["networks"][0]
        content["networks"] = []
        digest = network.pop("sha256_by_epoch")["3"]
        content["teachers"] = [{**network, "epoch": 3, "sha256": digest}]
    elif why == "one without teachers":
        content["networks"] = []
        del content["measured"]
    else:
        record = record_of(TEACHER)
        record["spec"] = {**record["spec"], "epochs": 4}
        write_json(folder_of(TEACHER) / "run.json", record)
    path.write_text(json.dumps(content))
    assert rkdkit("prune", "--snapshots", "--yes").exit_code == 0
    assert len(names_in(TEACHER)) == 3


def test_what_killed_processes_left_goes_when_it_is_old(root):
    exhibit("mine", TRAINED)
    run, hexadecimal = folder_of(TEACHER), "0123456789abcdef" * 2
    for folder in ("locks", "marks"):
        (root / folder).mkdir(exist_ok=True)
    old = [
        run / f".run.json.{hexadecimal}.tmp",
        root / "answers" / f".x.json.{hexadecimal}.tmp",
        root / "marks" / hexadecimal,
        run / "state-0002.safetensors",
        root / "locks" / f"{'e' * 16}.lock",
    ]
    young = [
        run / f".student-0001.safetensors.{hexadecimal}.tmp",
        root / "answers" / f".y.json.{hexadecimal}.tmp",
        root / "marks" / hexadecimal[::-1],
        root / "locks" / f"{TEACHER.id}.lock",
        root / "locks" / f"{'f' * 16}.lock",
    ]
    for path in (*old, *young):
        path.write_bytes(b"left")
    for path in old[:2]:
        os.utime(path, (time.time() - 3700,) * 2)
    os.utime(old[2], (time.time() - 31 * 24 * 3600,) * 2)
    os.utime(young[2], (time.time() - 24 * 3600,) * 2)
    with FileLock(young[-1]):
        found = prune.prunable(stored.take(), made.made_exhibits()[0]).all_leftovers
        assert {file.path for file in found} == set(old)
        assert rkdkit("prune", "--yes").exit_code == 0
    assert not [path.name for path in old if path.exists()]
    assert all(path.exists() for path in young)
    assert all(folder_of(spec).is_dir() for spec in TRAINED)


def test_the_progress_of_an_answer_that_is_there_is_left_over(root):
    exhibit("mine", TRAINED)
    store = Store()
    question = json.loads(an_answer(root).read_text())["content"]["question"]
    store.write_answer({**question, "unfinished": True}, [1], {})
    store.write_answer({**question, "n": 7, "unfinished": True}, [1], {})
    number = len(list((root / "answers").iterdir()))
    assert rkdkit("prune", "--yes").exit_code == 0
    assert len(list((root / "answers").iterdir())) == number - 1
    assert store.read_answer({**question, "unfinished": True}) is None
    assert store.read_answer({**question, "n": 7, "unfinished": True}) == [1]


def test_answers_about_networks_that_are_gone_go_unless_a_record_that_stays_cannot_be_read(root):
    exhibit("mine", TRAINED)
    shutil.rmtree(folder_of(OTHER))
    number = len(list((root / "answers").iterdir()))
    record = (folder_of(TEACHER) / "run.json").read_bytes()
    flip(folder_of(TEACHER) / "run.json")
    rkdkit("prune", "--yes")
    assert len(list((root / "answers").iterdir())) == number
    (folder_of(TEACHER) / "run.json").write_bytes(record)
    exhibit("mine", TRAINED[:2])
    Store().write_answer({"question": "of no network"}, 1, {})
    rkdkit("prune", "--yes")
    assert len(list((root / "answers").iterdir())) == number - 1 + 1


def test_the_size_of_the_store_is_said_by_kind_and_run(root):
    (root / "notes.txt").write_bytes(b"x" * 1000)
    said = rkdkit("du")
    assert said.exit_code == 0, said.output
    lines = {line.split("  ")[0]: line.split("  ")[-1].strip() for line in said.output.splitlines() if "  " in line}
    sizes = {path: path.stat().st_size for path in root.rglob("*") if path.is_file()}
    assert lines["snapshots"] == stored.as_size(sum(n for path, n in sizes.items() if path.suffix == ".safetensors"))
    assert lines["answers"] == stored.as_size(sum(n for path, n in sizes.items() if path.parent.name == "answers"))
    assert lines["not the store's"] == "1 kB"
    assert lines["all"] == stored.as_size(sum(sizes.values()))
    largest = said.output.partition("The largest runs:")[2].splitlines()
    assert str(TEACHER) in largest[2]


@pytest.mark.parametrize(
    ("n", "text"), [(0, "0 B"), (999, "999 B"), (1000, "1 kB"), (999_600, "1 MB"), (3.44e9, "3.44 GB"), (2e12, "2 TB")]
)
def test_a_size_is_in_the_unit_that_suits_it(n, text):
    assert stored.as_size(n) == text


def test_an_empty_store_has_nothing(tmp_path, monkeypatch):
    (tmp_path / "pyproject.toml").write_text('name = "rkdkit"\n')
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("RKDKIT_STORE", str(tmp_path / "nowhere"))
    exhibit("mine", [OTHER])
    for command in ("list", "verify", "du", "prune"):
        assert rkdkit(command).exit_code == 0
    assert "0 runs" in rkdkit("list").output
    assert not (tmp_path / "nowhere").exists()


WITHOUT_TORCH = """
import sys
from typer.testing import CliRunner
from rkdkit import cli
for command in (["list"], ["list", "mine"], ["show", sys.argv[1]], ["du"], ["verify"], ["prune", "--snapshots"]):
    done = CliRunner().invoke(cli.app, ["runs", *command])
    assert done.exit_code == 0, done.output
print(*sorted(sys.modules))
"""


def test_no_command_waits_for_a_library_that_computes(root):
    exhibit("mine", [STUDENT])
    process = run_python(f"import sys; sys.argv[1:] = [{STUDENT.id!r}]\n{WITHOUT_TORCH}", root, cwd=root.parent)
    said, errors = process.communicate(timeout=300)
    assert process.returncode == 0, errors
    assert set(said.split()).isdisjoint({"torch", "numpy", "pandas", "safetensors", "dask", "distributed"})


def test_exhibits_behind_links_keep_their_runs(root):
    """A folder of figures may lie on another disk; a link that leads nowhere is not passed over."""
    elsewhere = root.parent / "big"
    path = exhibit("mine", [STUDENT], folder="results")
    elsewhere.mkdir()
    path.rename(elsewhere / path.name)
    (elsewhere / "again").symlink_to(elsewhere)
    linked = root.parent / "figures" / "paper"
    linked.parent.mkdir()
    linked.symlink_to(elsewhere)
    (root.parent / "results" / "too").symlink_to(elsewhere)
    assert [each.path.name for each in made.made_exhibits()[0]] == ["mine.json"], "each place once"
    assert rkdkit("prune", "--yes").exit_code == 0
    assert folder_of(STUDENT).exists()
    assert folder_of(TEACHER).exists(), "it taught"
    assert not (folder_of(OTHER) / "run.json").exists()
    for name in ("lost.json", "lost"):
        lost = root.parent / "figures" / name
        lost.symlink_to(root / "nowhere")
        said = rkdkit("prune")
        assert said.exit_code == 1
        assert f"{lost}. Mend them first" in said.output
        lost.unlink()


def test_answers_about_runs_behind_a_link_stay(root):
    exhibit("mine", [STUDENT])
    answers = sorted((root / "answers").iterdir())
    (root / "runs").rename(root.parent / "big")
    (root / "runs").symlink_to(root.parent / "big")
    assert rkdkit("prune", "--yes").exit_code == 0
    assert sorted((root / "answers").iterdir()) == answers


def test_an_answer_that_goes_while_the_store_is_verified_is_no_damage(root):
    inventory = stored.take()
    next((root / "answers").iterdir()).unlink()
    assert verify.verify(inventory, made.made_exhibits()[0]).damage == []


@pytest.mark.parametrize("number", [errno.ENOSYS, errno.EOPNOTSUPP, errno.ENOLCK])
def test_a_file_system_whose_locks_outlive_their_process_is_refused(root, monkeypatch, number):
    flock = fcntl.flock

    def without(file, operation):
        if not operation & fcntl.LOCK_UN:
            raise OSError(number, "Function not implemented")
        flock(file, operation)

    monkeypatch.setattr(fcntl, "flock", without)
    with pytest.raises(StoreError, match="no locks that end with their process"), folder_lock(TEACHER):
        pass
    assert not stored.is_held(root / "locks" / f"{TEACHER.id}.lock")
    exhibit("mine", [STUDENT])
    assert rkdkit("prune", "--yes").exit_code == 0
    assert (folder_of(OTHER) / "run.json").exists(), "it cannot be told whether somebody trains it"


def folder_lock(spec):
    return Store().run_folder(spec).lock(lambda: None)
