"""A mirror: what others trained and measured is fetched, checked and used; what is not what it must be is refused."""

import asyncio
import functools
import json
import os
import random
import shutil
import subprocess
import sys
import threading
import time
from contextlib import contextmanager
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from types import SimpleNamespace

import fsspec
import pytest
import safetensors.torch
import yarl
from conftest import ROOT, tiny_spec
from fsspec.implementations.memory import MemoryFileSystem
from test_making import CHOSEN, MEASURED, STUDENT, notebook
from typer.testing import CliRunner

from rkdkit import cli, drawing, executors, exhibits, fetching, making, mirror, origin, pushing, runs, web
from rkdkit.cluster import Workers
from rkdkit.measurements import CorrectPredictions, PerImage
from rkdkit.mirror import Mirror, MirrorError
from rkdkit.plan import Planner
from rkdkit.plan.ask import ask
from rkdkit.references import Images, Snapshot
from rkdkit.saved import write_exhibit
from rkdkit.store import DamagedFileError, Store, StoreError, json_bytes
from rkdkit.tasks import Context
from rkdkit.trainings import Train
from rkdkit.workforce import Workforce

FIGURE = "fig1_peer_vs_teacher"
TEACHER = tiny_spec("TRADES", epochs=1)
STUDENT_OF = tiny_spec("RSLAD")
IMAGES = Images("digits", n=16)
TASKS = (
    Train(STUDENT_OF),
    CorrectPredictions(images=IMAGES, judges=(Snapshot(STUDENT_OF, epoch=1), Snapshot(STUDENT_OF))),
    PerImage(images=IMAGES, quantity="entropy", snapshot=Snapshot(STUDENT_OF)),
)


@contextmanager
def served(folder, status=0):
    """Serve a folder by HTTP, or answer everything with an error; yield the address and the paths asked for."""
    asked = []

    class Handler(SimpleHTTPRequestHandler):
        def do_GET(self):
            asked.append(self.path)
            if status:
                self.send_error(status)
            else:
                super().do_GET()

        def log_message(self, *_):
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), functools.partial(Handler, directory=str(folder)))
    thread = threading.Thread(target=server.serve_forever, args=(0.02,))
    thread.start()
    try:
        yield f"http://127.0.0.1:{server.server_port}", asked
    finally:
        server.shutdown()
        thread.join()
        server.server_close()


@pytest.fixture(autouse=True)
def at_home(monkeypatch):
    """Let no proxy stand between the tests and their own servers, and no mirror remember another test's."""
    for name in ("NO_PROXY", "no_proxy"):
        monkeypatch.setenv(name, "127.0.0.1")
    mirror._opened.cache_clear()


@pytest.fixture(scope="module")
def source(tmp_path_factory):
    """A store with a student, its teacher, and answers about the student."""
    store = Store(tmp_path_factory.mktemp("source"))
    executors.Here(store, "cpu").gather(TASKS)
    return store


def contents(store, everything=True):
    """What the tasks rest on, as `rkdkit push` would have it."""
    context = Context(store=store)
    networks = {}
    for spec in (TEACHER, STUDENT_OF):
        record = context.record(spec)["snapshots"]
        named = {(role, epoch): digest for role, each in record.items() for epoch, digest in each.items()}
        networks[spec] = named if everything else {}
    answers = [file for task in TASKS[1:] for file in pushing._files_of(task, context)]
    return pushing.Contents(networks, dict.fromkeys(answers))


@pytest.fixture
def there(source, tmp_path):
    """A mirror of that store, in a folder of the test's own."""
    folder = tmp_path / "mirror"
    pushing.push(contents(source), Mirror(folder.as_uri()), Context(store=source))
    return folder


@pytest.fixture
def here(there, store, monkeypatch):
    """An empty store, which is the default one, and the mirror to look in."""
    monkeypatch.setenv(mirror.VARIABLE, there.as_uri())
    return store


def record_of(folder, spec):
    return folder / "runs" / Store(folder).run_folder(spec).path.name / "run.json"


def files_in(folder):
    return {str(path.relative_to(folder)): path.read_bytes() for path in sorted(folder.rglob("*")) if path.is_file()}


def kept(store):
    """The files of a store that come from a mirror."""
    passed = ("fetched.json", ".lock", "lock")
    return {name: content for name, content in files_in(store.root).items() if not name.endswith(passed)}


def nothing_is_trained(monkeypatch):
    def refuse(*_):
        raise AssertionError("something is trained or measured")

    monkeypatch.setattr(Train, "do", refuse)
    for kind in (CorrectPredictions, PerImage):
        monkeypatch.setattr(kind, "do", refuse)


# Figure 1, by the real commands


@pytest.fixture(scope="module")
def project(tmp_path_factory):
    """A checkout of the figure's notebook."""
    root = tmp_path_factory.mktemp("checkout")
    shutil.copy(ROOT / "pyproject.toml", root)
    (root / "notebooks").mkdir()
    shutil.copy(ROOT / "notebooks" / f"{FIGURE}.ipynb", root / "notebooks")
    return root


@pytest.fixture
def at_project(project, monkeypatch):
    """The same, as the working directory, with the store in which its figure was made."""
    monkeypatch.chdir(project)
    monkeypatch.setenv("RKDKIT_STORE", str(project / "first"))
    monkeypatch.setenv("RKDKIT_TEXT_PROGRESS", "1")  # the commands set it: put back afterwards
    return project


def command(project, *words, **variables):
    # the checkout has no package of its own
    environment = {**os.environ, "PYTHONPATH": str(ROOT), "NO_PROXY": "127.0.0.1", **variables}
    environment |= {"RKDKIT_WORKERS": "1", "OMP_NUM_THREADS": "1"}
    return subprocess.run(
        [sys.executable, "-c", "from rkdkit.cli import app; app()", *words, "--profile", "smoke"],
        cwd=project, env=environment, capture_output=True, text=True, timeout=300, stdin=subprocess.DEVNULL,
    )  # fmt: skip


@pytest.fixture(scope="module")
def pushed(project):
    """The figure, made and pushed; returns the mirror's folder."""
    made = command(project, "figures", FIGURE, RKDKIT_STORE=str(project / "first"))
    assert made.returncode == 0, made.stderr[-3000:]
    assert "trained now: 2" in made.stderr
    folder = project / "mirror"
    done = command(project, "push", FIGURE, "--to", folder.as_uri(), RKDKIT_STORE=str(project / "first"))
    assert done.returncode == 0, done.stderr[-3000:]
    number, size = len(files_in(folder)), sum(map(len, files_in(folder).values())) / 2**20
    assert f"{number} files ({size:.1f} MiB) sent; 0 (0.0 MiB) were there already" in done.stderr
    assert "Exhibits: 1; runs: 2." in done.stderr
    return folder


def test_a_figure_is_made_from_a_server_without_training_byte_for_byte(project, pushed):
    with served(pushed) as (url, asked):
        done = command(
            project, "figures", FIGURE, "-p", "output_dir=again", RKDKIT_STORE=str(project / "again_store"),
            RKDKIT_MIRROR=url,
        )  # fmt: skip
    assert done.returncode == 0, done.stderr[-3000:]
    assert "trained now: 0" in done.stderr
    assert "to train: 0" in done.stdout + done.stderr
    first, again = files_in(project / "figures" / "smoke"), files_in(project / "again")
    for suffix in ("csv", "png"):
        assert first[f"{FIGURE}.{suffix}"] == again[f"{FIGURE}.{suffix}"]
    summaries = [json.loads(made[f"{FIGURE}.json"]) for made in (first, again)]
    for part in ("networks", "teachers", "claims", "measured"):
        assert summaries[0][part] == summaries[1][part]
    mine, theirs = kept(Store(project / "again_store")), files_in(pushed)
    assert mine.items() <= theirs.items()
    assert {name for name in theirs if name.endswith(".json")} == set(mine), "no network had to be fetched to draw it"
    assert {path.lstrip("/").replace("%2B", "+") for path in asked} == set(mine), "each was asked for once"
    assert theirs.items() <= files_in(project / "first").items()


def test_with_one_byte_of_any_file_flipped_the_figure_is_refused(at_project, pushed, tmp_path, monkeypatch):
    planner = Planner()
    asked = planner.listen()
    path = at_project / "notebooks" / f"{FIGURE}.ipynb"
    ask(planner, path, cli.parameters_for(path, {"profile": "smoke"}))
    tasks = list(asked.tasks)
    named = {
        snapshot: f"runs/{Store().run_folder(snapshot.spec).path.name}/{snapshot.file}"
        for task in set(tasks[2:]) - asked.deciding
        for snapshot in task.snapshots
    }
    names, chance = sorted(files_in(pushed)), random.Random(0)
    assert {name for name in names if name.endswith(".safetensors")} == set(named.values())
    assert len(names) > 15
    with served(pushed) as (url, _):
        monkeypatch.setenv(mirror.VARIABLE, url)
        for number, name in enumerate([*names, ""]):  # at last, none is flipped
            mirror._opened.cache_clear()
            store = Store(tmp_path / str(number))
            monkeypatch.setenv("RKDKIT_STORE", str(store.root))

            def fetch():
                executors.Here(device="cpu").gather(tasks)
                for snapshot in named:
                    snapshot.read(Context())

            if not name:
                fetch()
                assert kept(store) == files_in(pushed)
                break
            content = bytearray(whole := (pushed / name).read_bytes())
            content[chance.randrange(len(content))] ^= chance.randrange(1, 256)
            (pushed / name).write_bytes(content)
            with pytest.raises(MirrorError) as refused:
                fetch()
            (pushed / name).write_bytes(whole)
            assert f"{url}/{name} is refused" in str(refused.value)
            assert not (store.root / name).exists()
            assert kept(store).items() <= files_in(pushed).items()


# What is fetched


def test_records_and_answers_are_fetched_and_networks_when_they_are_read(here, there, source, monkeypatch, capsys):
    nothing_is_trained(monkeypatch)
    run, both, _ = (answer.value for answer in executors.Here(device="cpu").gather(TASKS))
    assert run.record == Context(store=source).record(STUDENT_OF)
    assert both.shape == (2, 16)
    assert "Fetched from the mirror" in capsys.readouterr().err
    assert kept(here) == {name: content for name, content in files_in(there).items() if name.endswith(".json")}
    before = set(files_in(here.root))
    Snapshot(STUDENT_OF, epoch=1).load()
    (new,) = set(files_in(here.root)) - before
    assert files_in(here.root)[new] == files_in(there)[new]
    assert new.endswith("student-0001.safetensors")
    assert origin.origin_of(here.run_folder(STUDENT_OF).path) == there.as_uri()
    assert origin.origin_of(source.run_folder(STUDENT_OF).path) is None


@pytest.mark.usefixtures("here")
def test_what_will_be_trained_is_counted_after_looking_at_the_mirror(monkeypatch, capsys):
    nothing_is_trained(monkeypatch)
    runs.ensure_all([STUDENT_OF])
    assert "needed: 2, in the store: 2, to train: 0" in capsys.readouterr().err


def test_what_is_in_the_store_or_was_begun_is_not_asked_for(here, there, source, monkeypatch):
    begun = json.loads(record_of(source.root, STUDENT_OF).read_bytes())["content"]
    begun |= {"finished": 0, "history": [], "snapshots": {role: {} for role in begun["snapshots"]}}
    here.run_folder(STUDENT_OF).write_record(begun)
    with served(there) as (url, asked):
        monkeypatch.setenv(mirror.VARIABLE, url)
        assert executors.Here().look_elsewhere([Train(STUDENT_OF)]) == 1
        assert [path.split("/")[-2].split("-")[0] for path in asked] == ["TRADES"]
        assert executors.Here().look_elsewhere([Train(STUDENT_OF)]) == 0
        assert len(asked) == 1
    assert here.run_folder(STUDENT_OF).read_record() == begun


@pytest.mark.usefixtures("here")
def test_a_plan_asks_no_mirror(there, monkeypatch):
    with served(there) as (url, asked):
        monkeypatch.setenv(mirror.VARIABLE, url)
        planner = Planner()
        planner.gather(TASKS)
        assert planner.look_elsewhere(TASKS) == 0
    assert asked == []
    assert len(planner.missing) == 4


def test_several_exhibits_fetch_what_becomes_certain(tmp_path, store, monkeypatch):
    notebooks = [notebook(tmp_path, "student", STUDENT + MEASURED), notebook(tmp_path, "chosen", CHOSEN)]
    making.do_all(notebooks, Workers(Workforce(1)))
    shutil.move(store.root, tmp_path / "mirror")
    monkeypatch.setenv(mirror.VARIABLE, str(tmp_path / "mirror"))
    nothing_is_trained(monkeypatch)
    done = making.do_all(notebooks, Workers(Workforce(1)))
    assert (done.missing, done.failure, done.unfinished) == (0, None, ())
    assert len(list(store.root.glob("runs/*/run.json"))) == 2


def test_a_mirror_without_a_network_says_what_to_do(here, there, monkeypatch):
    executors.Here(device="cpu").gather(TASKS[:1])
    for file in there.rglob("student-0001.safetensors"):
        file.unlink()
    folder = here.run_folder(STUDENT_OF).path
    with pytest.raises(
        MirrorError, match=r"rkdkit push --all-snapshots`\. To train .* unset RKDKIT_MIRROR and delete the folder"
    ):
        Snapshot(STUDENT_OF, epoch=1).load()
    monkeypatch.setenv(mirror.VARIABLE, "")
    with pytest.raises(MirrorError, match=f"Set RKDKIT_MIRROR={there.as_uri()} to fetch it"):
        Snapshot(STUDENT_OF, epoch=2).load()
    (folder / origin.FILE).unlink()
    with pytest.raises(StoreError, match="is missing"):
        Snapshot(STUDENT_OF, epoch=2).load()


def test_a_lost_network_of_a_run_of_ones_own_is_fetched_too(source, there, tmp_path, monkeypatch):
    shutil.copytree(source.root, tmp_path / "own")
    own = Store(tmp_path / "own")
    file = own.run_folder(STUDENT_OF).path / "student-0002.safetensors"
    whole = file.read_bytes()
    file.unlink()
    monkeypatch.setenv(mirror.VARIABLE, there.as_uri())
    Snapshot(STUDENT_OF).read(Context(store=own))
    assert file.read_bytes() == whole


def test_a_student_of_another_teacher_than_the_one_here_is_not_taken(here, there, capsys):
    folder = here.run_folder(TEACHER)
    shutil.copytree(there / "runs" / folder.path.name, folder.path)
    record, file = folder.read_record(), folder.path / "student-0001.safetensors"
    weights = safetensors.torch.load_file(file)
    weights["head.bias"] += 0.25
    record["snapshots"]["student"]["1"] = folder.write_tensors(file.name, weights)
    folder.write_record(record)
    executors.Here(device="cpu").gather(TASKS)
    assert capsys.readouterr().err.count("its teacher was another network than the one that is here") == 1
    trained = here.run_folder(STUDENT_OF).read_record()
    assert trained["guided_by"] == [record["snapshots"]["student"]["1"]]
    assert origin.origin_of(here.run_folder(STUDENT_OF).path) is None


def test_a_student_is_not_asked_for_where_its_teacher_is_not(there, store, monkeypatch):
    shutil.rmtree(record_of(there, TEACHER).parent)
    with served(there) as (url, asked):
        monkeypatch.setenv(mirror.VARIABLE, url)
        assert executors.Here().look_elsewhere(TASKS) == 0
    assert [path.split("/")[2].split("-")[0] for path in asked] == ["TRADES"]
    assert kept(store) == {}


# A mirror that lies


def change(record, path, value):
    *before, last = path
    for key in before:
        record = record[key]
    record[last] = value


@pytest.mark.parametrize(
    ("path", "value", "why"),
    [
        (["spec", "lr"], 0.06, "another run"),
        (["id"], "0123456789abcdef", "another run"),
        (["finished"], 1, "not finished"),
        (["data", "digest"], "0123456789abcdef", "trained on other data"),
        (["data", "extra"], "0123456789abcdef", "other further images"),
        (["data"], "digits", "which data"),
        (["guided_by"], ["0" * 64], "other teachers"),
        (["guided_by"], [], "teachers"),
        (["guided_by"], None, "teachers"),
        (["states"], {"7": {"name": "../../x", "digest": "0" * 64}}, "names states"),
        (["states"], [], "holds no record of a run"),
        (["snapshots", "../../x"], {"1": "0" * 64}, "does not name the networks"),
        (["snapshots", "student", "../x"], "0" * 64, "does not name the networks"),
        (["snapshots", "student", "1"], "../x", "SHA-256"),
        (["snapshots", "student", "1"], None, "SHA-256"),
        (["snapshots", "student"], {"1": "0" * 64}, "does not name the networks"),
        (["snapshots"], [], "does not name the networks"),
        (["history"], [], "history"),
        (["history", 1], {"epoch": 2}, "history"),
        (["history", 1, "seconds"], "long", "history"),
        (["history", 1, "seconds"], 10**400, "history"),
        (["environments"], [], "device"),
        (["environments", 0], None, "device"),
    ],
)  # fmt: skip
def test_a_record_of_something_else_is_refused_and_not_kept(here, there, path, value, why):
    file = record_of(there, STUDENT_OF)
    record = json.loads(file.read_bytes())["content"]
    change(record, path, value)
    file.write_bytes(json_bytes(record))
    with pytest.raises(MirrorError, match=rf"run\.json is refused: it .*{why}.*unset RKDKIT_MIRROR"):
        executors.Here(device="cpu").gather(TASKS)
    assert not here.run_folder(STUDENT_OF).path.exists()
    assert not (here.root / "answers").exists()


@pytest.mark.usefixtures("here")
@pytest.mark.parametrize("name", ["head.bias", "mean", "stem.0.weight"])
@pytest.mark.parametrize("change_it", [lambda weights: weights[:0].contiguous(), lambda _: None])
def test_weights_that_fit_their_record_but_no_network_are_refused(there, name, change_it):
    folder = Store(there).run_folder(STUDENT_OF)
    weights = safetensors.torch.load_file(folder.path / "student-0002.safetensors")
    assert name in weights
    weights[name] = change_it(weights[name])
    kept_ones = {name: tensor for name, tensor in weights.items() if tensor is not None}
    record = folder.read_record()
    record["snapshots"]["student"]["2"] = folder.write_tensors("student-0002.safetensors", kept_ones)
    folder.write_record(record)
    executors.Here(device="cpu").gather(TASKS[:1])
    with pytest.raises(DamagedFileError, match="does not hold the weights of resnet18/16"):
        Snapshot(STUDENT_OF).load()


@pytest.mark.parametrize("content", [b"", b"[]", b"<html>Not found</html>", b"\xff", b"[" * 10**6, b'{"content": 1}'])
def test_what_is_no_record_at_all_is_refused(here, there, content):
    record_of(there, TEACHER).write_bytes(content)
    with pytest.raises(MirrorError, match=r"run\.json is refused: it is damaged"):
        executors.Here(device="cpu").gather(TASKS)
    assert kept(here) == {}


def test_the_record_of_another_run_is_refused(here, there):
    shutil.copy(record_of(there, TEACHER), record_of(there, STUDENT_OF))
    with pytest.raises(MirrorError, match="is the record of another run than RSLAD"):
        executors.Here(device="cpu").gather(TASKS)
    assert not here.run_folder(STUDENT_OF).path.exists()


def test_an_answer_to_another_question_or_of_another_form_is_refused(here, there):
    files = sorted((there / "answers").iterdir())
    assert len(files) == 3
    contents = [json.loads(file.read_bytes())["content"] for file in files]
    for number, file in enumerate(files):
        own, other = contents[number], contents[number - 1]
        for wrong, why in (
            (other, "another question"),
            (own | {"answer": other["answer"] + "zz"}, "cannot be read"),
            (own | {"answer": {"a": 1}}, "cannot be read"),
            (own | {"measured_with": 3}, "versions"),
            ({"answer": own["answer"]}, "holds no answer"),
        ):
            whole = file.read_bytes()
            file.write_bytes(json_bytes(wrong))
            with pytest.raises(MirrorError, match=f"{file.name} is refused: it .*{why}"):
                executors.Here(device="cpu").gather(TASKS)
            assert not (here.root / "answers" / file.name).exists()
            file.write_bytes(whole)
    entropy = next(i for i, content in enumerate(contents) if len(content["answer"]) == 16 * 8)
    files[entropy].write_bytes(json_bytes(contents[entropy] | {"answer": contents[entropy]["answer"][8:]}))
    with pytest.raises(MirrorError, match="another form"):
        executors.Here(device="cpu").gather(TASKS)


def test_an_exhibit_accepts_only_the_networks_that_its_json_names(here, there, tmp_path):
    record = json.loads(record_of(there, STUDENT_OF).read_bytes())["content"]
    network = {"run": STUDENT_OF.id, "role": "student", "sha256_by_epoch": dict(record["snapshots"]["student"])}
    file, source = tmp_path / "fig1.json", mirror.current()
    summary = {"networks": [network], "teachers": []}
    network["sha256_by_epoch"]["2"] = "0" * 64
    file.write_text(json.dumps(summary))
    source.hold_to(file)
    with pytest.raises(MirrorError, match=rf"refused: it has the student of epoch 2 with .*{file} was made with 0000"):
        executors.Here(device="cpu").gather(TASKS)
    assert not here.run_folder(STUDENT_OF).path.exists()
    file.write_text("{}")
    with pytest.raises(MirrorError, match=r"fig1\.json says which networks may be fetched .* cannot be read"):
        source.hold_to(file)
    network["sha256_by_epoch"]["2"] = record["snapshots"]["student"]["2"]
    file.write_text(json.dumps(summary))
    source.hold_to(file)
    executors.Here(device="cpu").gather(TASKS)
    assert here.run_folder(STUDENT_OF).read_record() == record


def test_setting_an_exhibit_up_holds_the_mirror_to_its_json(here, tmp_path):
    (tmp_path / f"{FIGURE}.json").write_text("{}")
    with pytest.raises(MirrorError, match=f"{FIGURE}.json says which networks"):
        exhibits.setup(FIGURE, "smoke", output_dir=str(tmp_path))
    assert kept(here) == {}


@pytest.mark.parametrize(
    "path",
    ["../x", "/etc/passwd", "answers/../../x.json", "runs/a/run.json", "runs/../run.json", "locks/x", "answers/"],
)
def test_no_path_outside_is_asked_for_or_written(there, path):
    for ask_for in (Mirror(str(there)).fetch, lambda path: Mirror(str(there)).put(path, b"")):
        with pytest.raises(MirrorError, match="is no file of a store"):
            ask_for(path)


def test_files_that_are_too_large_or_no_files_are_refused_without_waiting(there, monkeypatch):
    name = "answers/0123456789abcdef.json"
    monkeypatch.setattr(mirror, "_LARGEST", dict.fromkeys(mirror._LARGEST, 2**10))
    (there / name).write_bytes(bytes(2**20))
    with served(there) as (url, _):
        for place in (url, there.as_uri()):
            with pytest.raises(MirrorError, match=r"abcdef\.json is refused: it is larger than"):
                Mirror(place).fetch(name)
    (there / name).unlink()
    os.mkfifo(there / name)
    with pytest.raises(MirrorError, match="is no regular file"):
        Mirror(str(there)).fetch(name)


# A mirror that is not there


def test_a_mirror_that_cannot_be_reached_is_said_once_and_not_asked_again(store, monkeypatch, capsys):
    with served(store.root, status=500) as (url, asked):
        monkeypatch.setenv(mirror.VARIABLE, url)
        for task in (Train(TEACHER), CorrectPredictions(images=IMAGES, judges=(Snapshot(TEACHER),))):
            executors.Here(device="cpu").gather([task])
        assert mirror.current().fetch("answers/0123456789abcdef.json") is None
    assert len(asked) == 1
    said = capsys.readouterr().err
    assert said.count("cannot be reached") == 1
    assert f"The mirror {url} cannot be reached (ClientResponseError: 500" in said
    assert store.run_folder(TEACHER).read_record()["finished"] == 1


def test_nobody_listens(capsys):
    with served(".") as (url, _):
        pass
    gone = Mirror(url)
    names = [f"answers/{number:016x}.json" for number in range(40)]
    assert [content for _, content in gone.fetch_all(names)] == [None] * 40
    assert gone.lost
    assert capsys.readouterr().err.count("cannot be reached") == 1


def test_a_server_that_stumbles_is_asked_again(there, monkeypatch):
    monkeypatch.setattr(mirror, "PAUSES", (0.01, 0.01))
    source = Mirror(there.as_uri())
    name = next(str(path.relative_to(there)) for path in there.glob("answers/*"))
    whole, failures = source.fetch(name), [OSError("busy"), OSError("busy")]
    read = source._read
    monkeypatch.setattr(
        source, "_read", lambda *given: (_ for _ in ()).throw(failures.pop()) if failures else read(*given)
    )
    assert source.fetch(name) == whole
    failures += [OSError("gone")] * 3
    assert source.fetch(name) is None
    assert source.lost


def test_a_plus_in_a_name_is_no_blank(tmp_path):
    name = "runs/ARD+-digits-resnet18_16-seed0-0123456789abcdef/run.json"
    Mirror(str(tmp_path)).put(name, b"{}")
    with served(tmp_path) as (url, asked):
        assert Mirror(url).fetch(name) == b"{}"
    assert asked == [f"/{name}".replace("+", "%2B")]


def test_a_mirror_that_has_nothing_of_what_is_needed_says_so_once(store, tmp_path, monkeypatch, capsys):
    monkeypatch.setenv(mirror.VARIABLE, str(tmp_path / "mistyped"))
    for task in TASKS[:1]:
        assert fetching.fetch([task], Context(store=store)) == 0
        assert fetching.fetch([task], Context(store=store)) == 0
    said = capsys.readouterr().err
    assert said.count("mistyped has none of the") == 1
    assert "check the address in RKDKIT_MIRROR" in said


@pytest.mark.parametrize(
    ("at", "location", "refused"),
    [
        ("https://host/a", "http://host/a", True),
        ("https://host/a", "https://other/a", False),
        ("https://host/a", "/b", False),
        ("http://host/a", "http://host/b", False),
    ],
)
def test_an_encrypted_mirror_does_not_lead_to_one_that_is_not(at, location, refused, monkeypatch):
    (trace,) = web.options()["client_kwargs"]["trace_configs"]
    (stay,) = trace.on_request_redirect
    redirected = SimpleNamespace(url=yarl.URL(at), response=SimpleNamespace(headers={"Location": location}))
    source = Mirror("https://host/a")

    def get_file(*_):
        asyncio.run(stay(None, None, redirected))

    monkeypatch.setattr(source._files, "get_file", get_file)
    if refused:
        with pytest.raises(MirrorError, match="cannot be fetched safely: https://host/a redirects to http://host/a"):
            source.fetch("answers/0123456789abcdef.json")
    else:
        assert source.fetch("answers/0123456789abcdef.json") == b""


def test_what_is_not_begun_is_not_fetched_after_an_end(tmp_path, monkeypatch):
    begun = []

    def fetch(_, path):
        begun.append(path)
        time.sleep(0.05)

    monkeypatch.setattr(Mirror, "_fetch", fetch)
    fetching_all = Mirror(str(tmp_path)).fetch_all([f"answers/{i:016x}.json" for i in range(1000)])
    next(fetching_all)
    fetching_all.close()
    assert len(begun) < 200


def test_what_is_not_given_out_is_not_there(tmp_path, capsys):
    with served(tmp_path, status=403) as (url, asked):
        source = Mirror(url)
        assert source.fetch("answers/0123456789abcdef.json") is None
        assert source.fetch("answers/0123456789abcdee.json") is None
    assert len(asked) == 2
    assert not source.lost
    assert capsys.readouterr().err.count("does not give out some files") == 1


@pytest.mark.parametrize(
    ("url", "why"),
    [
        ("ftp://host/x", "Unknown kind of mirror 'ftp'"),
        ("simplecache::https://host/x", "Unknown kind"),
        ("https://host/x::y", "must name a folder"),
        ("https://", "must name a folder"),
        ("mirror", "from the root on"),
        ("file://mirror", "from the root on"),
        ("https://host/x?token=1", "without \\? and #"),
    ],
)
def test_addresses_that_cannot_be_are_refused(url, why, monkeypatch):
    monkeypatch.setenv(mirror.VARIABLE, url)
    with pytest.raises(ValueError, match=f"RKDKIT_MIRROR: .*{why}"):
        mirror.current()


@pytest.mark.parametrize(("url", "library"), [("s3://bucket/x", "s3fs"), ("hf://datasets/a/b", "huggingface_hub")])
def test_a_library_that_is_missing_is_named(url, library, monkeypatch):
    def missing(*_, **__):
        raise ImportError("no such library")

    monkeypatch.setattr(fsspec, "filesystem", missing)
    with pytest.raises(ValueError, match=f"`pip install {library}`"):
        Mirror(url)


def test_a_password_in_the_address_is_not_said():
    assert Mirror("https://me:secret@host/x/").url == "https://host/x"
    assert "secret" not in str(Mirror("https://me:secret@host/x").refused("answers/x", "is wrong"))


# Pushing


def test_a_record_comes_after_its_networks_and_nothing_is_sent_twice(source, tmp_path, monkeypatch):
    to, order, put = Mirror(str(tmp_path / "to")), [], Mirror.put

    def noted(self, path, content):
        order.append(path)
        return put(self, path, content)

    monkeypatch.setattr(Mirror, "put", noted)
    sent = pushing.push(contents(source), to, Context(store=source))
    kinds = [path.split("/")[-1][:3] if path.startswith("runs/") else "answer" for path in order]
    assert kinds == ["stu"] * 3 + ["answer"] * 3 + ["run"] * 2
    assert order[-2].startswith("runs/TRADES"), "teachers come first"
    assert (sent.files, sent.files_there) == (8, 0)
    assert sent.bytes == sum(map(len, files_in(tmp_path / "to").values()))
    broken = next((tmp_path / "to").rglob("student-0002.safetensors"))
    broken.write_bytes(b"half")
    again = pushing.push(contents(source), to, Context(store=source))
    assert (again.files, again.files_there) == (1, 7)
    assert files_in(tmp_path / "to").items() <= files_in(source.root).items()


def test_only_the_named_networks_are_sent_or_all(source, tmp_path):
    to = Mirror(str(tmp_path / "to"))
    pushing.push(contents(source, everything=False), to, Context(store=source))
    assert not list(tmp_path.rglob("*.safetensors"))
    pushing.push(contents(source, everything=False), to, Context(store=source), everything=True)
    assert len(list(tmp_path.rglob("*.safetensors"))) == 3


def test_another_training_of_a_run_is_not_overwritten(source, there):
    file = record_of(there, STUDENT_OF)
    record = json.loads(file.read_bytes())["content"]
    record["snapshots"]["student"]["1"] = "0" * 64
    file.write_bytes(json_bytes(record))
    before = files_in(there)
    with pytest.raises(MirrorError, match=r"run\.json is of another training of RSLAD"):
        pushing.push(contents(source), Mirror(str(there)), Context(store=source))
    assert files_in(there) == before


def first_answer(folder):
    return sorted((folder / "answers").iterdir())[0]


def test_an_answer_that_somebody_else_pushed_is_left_and_another_one_refused(source, there):
    file = first_answer(there)
    content = json.loads(file.read_bytes())["content"]
    content["measured_with"]["torch"] = "2.0.1"
    file.write_bytes(json_bytes(content))
    before = files_in(there)
    sent = pushing.push(contents(source), Mirror(str(there)), Context(store=source))
    assert (sent.files, sent.files_there) == (0, 8)
    assert files_in(there) == before, "the same answer, measured with other versions, is left"
    file.write_bytes(json_bytes({**content, "answer": "another"}))
    before = files_in(there)
    with pytest.raises(MirrorError, match=rf"{file.name} is another answer to the same question.*delete that file"):
        pushing.push(contents(source), Mirror(str(there)), Context(store=source))
    assert files_in(there) == before
    file.write_bytes(b"damaged")
    assert pushing.push(contents(source), Mirror(str(there)), Context(store=source)).files == 1
    assert file.read_bytes() == first_answer(source.root).read_bytes()


def test_networks_that_were_pruned_are_said_to_be(source, tmp_path):
    shutil.copytree(source.root, tmp_path / "own")
    own = Store(tmp_path / "own")
    file = own.run_folder(STUDENT_OF).path / "student-0001.safetensors"
    file.unlink()
    with pytest.raises(
        StoreError, match=r"student-0001\.safetensors is not there any more.*If --all-snapshots was given, push"
    ):
        pushing.push(contents(own), Mirror(str(tmp_path / "to")), Context(store=own), everything=True)


def test_damaged_files_are_not_pushed(source, tmp_path):
    shutil.copytree(source.root, tmp_path / "own")
    own = Store(tmp_path / "own")
    file = own.run_folder(STUDENT_OF).path / "student-0002.safetensors"
    file.write_bytes(bytes([file.read_bytes()[0] ^ 1]) + file.read_bytes()[1:])
    with pytest.raises(StoreError, match=r"student-0002\.safetensors is damaged"):
        pushing.push(contents(own), Mirror(str(tmp_path / "to")), Context(store=own))
    assert not list((tmp_path / "to").rglob("run.json"))


@pytest.mark.parametrize(
    ("words", "why"),
    [
        (["--to", "http://127.0.0.1:9/x"], "is a web server, which cannot be written to"),
        (["--to", "ftp://x/y"], "Unknown kind of mirror"),
        ([], "Say where to"),
        (["--to", "/nowhere", "--all-snapshots", "--no-networks"], "exclude each other"),
        ([FIGURE, "--to", "/nowhere", "-p", "output_dir=not_made"], "is not there: make it"),
        (
            [FIGURE, "--to", "/nowhere", "-p", "epochs=2", "-p", "output_dir=figures/smoke"],
            "are not in the store: make it",
        ),
        ([FIGURE, "--to", "/nowhere", "-p", "epochs=2"], "epochs=2/fig1_peer_vs_teacher.json is not there: make it"),
    ],
)
@pytest.mark.usefixtures("at_project", "pushed")
def test_what_cannot_be_pushed_is_said_in_a_line(words, why):
    done = CliRunner().invoke(cli.app, ["push", *words, "--profile", "smoke"])
    assert done.exit_code == 1
    assert why in done.output


@pytest.mark.usefixtures("at_project")
def test_a_second_push_sends_nothing_and_without_names_all_that_is_made_is_pushed(pushed):
    before = files_in(pushed)
    done = CliRunner().invoke(cli.app, ["push", "--to", pushed.as_uri(), "--profile", "smoke"])
    assert done.exit_code == 0, done.output
    assert f"0 files (0.0 MiB) sent; {len(before)} (" in done.output
    assert "Exhibits: 1; runs: 2." in done.output
    assert files_in(pushed) == before
    done = CliRunner().invoke(cli.app, ["push", "--to", pushed.as_uri(), "--profile", "quick"])
    assert done.exit_code == 1
    assert "No exhibit is made at quick" in done.output


@pytest.mark.usefixtures("pushed")
def test_records_and_answers_are_enough_to_draw_a_figure_again(at_project, tmp_path):
    there = tmp_path / "there"
    done = CliRunner().invoke(cli.app, ["push", "--to", there.as_uri(), "--profile", "smoke", "--no-networks"])
    assert done.exit_code == 0, done.output
    assert files_in(there).items() < files_in(at_project / "first").items()
    assert not list(there.rglob("*.safetensors"))
    done = command(
        at_project, "figures", FIGURE, "-p", f"output_dir={tmp_path / 'again'}", RKDKIT_STORE=str(tmp_path / "store"),
        RKDKIT_MIRROR=there.as_uri(),
    )  # fmt: skip
    assert done.returncode == 0, done.stderr[-3000:]
    assert "trained now: 0" in done.stderr
    first, again = at_project / "figures" / "smoke", tmp_path / "again"
    assert (first / f"{FIGURE}.csv").read_bytes() == (again / f"{FIGURE}.csv").read_bytes()


@pytest.mark.usefixtures("pushed")
def test_a_figure_of_other_networks_than_the_store_holds_is_not_pushed(at_project, tmp_path):
    summary = json.loads((at_project / "figures" / "smoke" / f"{FIGURE}.json").read_text())
    path = at_project / "notebooks" / f"{FIGURE}.ipynb"
    made = drawing.Notebook(path, {"profile": "smoke"})
    for change_it, why in (
        (lambda: summary["networks"][0]["sha256_by_epoch"].update(dict.fromkeys(["1", "2", "3"], "0" * 64)), "another"),
        (lambda: summary["provenance"]["runs"].pop(), "other runs than the notebook asks for"),
    ):
        change_it()
        write_exhibit(tmp_path / "x.json", summary, picture=b"", numbers=b"")
        with pytest.raises(pushing.NotMadeError, match=why):
            pushing.contents_of(made, tmp_path / "x.json", pushing.Contents())


class PathsAlone(MemoryFileSystem):
    """As s3fs: it gets a file to a path, and not to a file that is open."""

    @classmethod
    def _strip_protocol(cls, path):
        return super()._strip_protocol(path.removeprefix("s3://"))

    def get_file(self, rpath, lpath, **options):
        return super().get_file(rpath, os.fspath(lpath), **options)


def test_a_bucket_is_read_by_a_library_that_gets_files_to_paths_alone(monkeypatch):
    files = PathsAlone()
    path = f"answers/{'1' * 16}.json"
    files.pipe_file(f"bucket/x/{path}", b"content")
    files.pipe_file(f"bucket/x/runs/a-{'1' * 16}/run.json", bytes(2**24 + 1))
    monkeypatch.setattr(fsspec, "filesystem", lambda *_, **__: files)
    bucket = Mirror("s3://bucket/x")
    assert bucket._fetch(path) == b"content"
    assert bucket._fetch(path.replace("1", "2")) is None
    assert not bucket.lost
    with pytest.raises(MirrorError, match="is larger than 16 MiB"):
        bucket._fetch(f"runs/a-{'1' * 16}/run.json")
