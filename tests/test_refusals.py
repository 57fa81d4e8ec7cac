"""What is wrong with a command line, a parameter, a name or a file is said in one line, before any work."""

import json
import logging
import os
import re
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import nbformat
import numpy as np
import pytest
import torch
from conftest import ROOT, tiny_spec
from typer.testing import CliRunner

from rkdkit import (
    checks,
    claims,
    cli,
    data,
    drawing,
    endings,
    executors,
    exhibits,
    making,
    paths,
    plan,
    runs,
    statistics,
)
from rkdkit.papers.places import places
from rkdkit.references import Images
from rkdkit.spec import RunSpec, Teacher
from rkdkit.training import Training

LONG = "x" * 5000
SMOKE = ("--profile", "smoke")
FIG1 = ("fig1", *SMOKE)


@pytest.fixture(scope="module")
def checkout(tmp_path_factory):
    """A folder with the kit's notebooks, where nothing may be written: nothing is done by what is refused."""
    root = tmp_path_factory.mktemp("checkout")
    (root / "pyproject.toml").write_bytes((ROOT / "pyproject.toml").read_bytes())
    (root / "notebooks").symlink_to(ROOT / "notebooks")
    (root / "file").write_text("no folder")
    (root / "gone").symlink_to(root / "nowhere")
    return root


def given(*pairs):
    return [word for pair in pairs for word in ("-p", pair)]


def one_line(said):
    """Return what a command said, if it is one message without a traceback."""
    assert "Traceback" not in said, said
    lines = [line for line in said.splitlines() if line.strip()]
    if re.fullmatch(r"\w+ \(smoke\)", lines[0]):  # what a plan is at
        del lines[0]
    assert len(lines) == 1, said
    assert len(said) < 3000, "nobody reads that"
    return said


WRONG_VALUES = [
    ("n_seeds=1e9", "n_seeds must be between 1 and 1000, not 1000000000.0"),
    ("n_seeds=0", "n_seeds must be between 1 and 1000, not 0"),
    ("seed=1e30", "seed must be between 0 and 1e+09, not 1e+30"),
    ("seed=-1", "seed must be between 0 and 1e+09, not -1"),
    ("batch_size=1", "batch_size must be at least 2, not 1"),
    ("n_train=1", "n_train must be at least 2, not 1"),
    ("lr=1e308", "lr must be between 0 and 3.4e+38, not 1e+308"),
    ("weight_decay=1e308", "weight_decay must be between 0 and 3.4e+38"),
    (f"lr=1{'0' * 400}", "lr must be a number, not 1000000"),
    ("settings=5", 'settings must be values by name, as in {"KD": {"tau": 5}}, not 5'),
    ("settings={'KD': 5}", "settings of KD must be values by name"),
    ("settings={'PeerAiD': {'tau': 1e200}}", "Setting tau of PeerAiD must be between 1e-06 and 1e+18"),
    ("settings={[]: 5}", "settings must be values by name"),
    ("milestones=5", "milestones must be a list, as in [1, 2], not 5"),
    ("milestones=abc", "milestones must be a list, as in [1, 2], not 'abc'"),
    ("output_dir=5", "output_dir must be a text, the path of a folder, not 5"),
    ("output_dir=file", "which is a file: name a folder"),
    ("output_dir=file/within", "which is a file: name a folder"),
    ("output_dir=gone/within", "a link to nothing"),
    (f"output_dir={LONG}", "output_dir must be a folder with names of 255 bytes at most, not 'xxx"),
    (f"output_dir={'x/' * 4000}", "output_dir cannot be '/"),
    ("recipes=x", "recipes must be True or False, not 'x'"),
    ("epochs=1e30", "epochs must be between 1 and 100000, not 1000000"),
    ("epochs=nan", "epochs must be a whole number, not 'nan'"),
    ("attack_steps=1e30", "attack_steps must be between 0 and 10000"),
    ("test_steps=1e30", "test_steps must be between 0 and 10000"),
    ("dataset=", "Unknown dataset ''"),
    (f"dataset={LONG}", "Unknown dataset 'xxx"),
    (f"dataset=folder:{LONG}", "must name one folder in the data folder"),
    ("dataset=folder:../other", "must name one folder in the data folder"),
    (f"teacher_method={LONG}", "Unknown method 'xxx"),
    (f"student={LONG}", "Unknown model 'xxx"),
    ("epss=0.1", "Unknown parameter 'epss'. Did you mean 'eps'?"),
    (f"{LONG}=1", "Unknown parameter 'xxx"),
    ("eps", "takes NAME=VALUE, not 'eps'"),
    (f"{'(' * 300}=1", "takes NAME=VALUE, not '((("),
]


@pytest.mark.usefixtures("store")
@pytest.mark.parametrize(("value", "words"), WRONG_VALUES, ids=[value[:30] for value, _ in WRONG_VALUES])
def test_a_wrong_value_is_refused_by_name_whatever_is_to_be_done(checkout, monkeypatch, value, words):
    monkeypatch.chdir(checkout)
    for command in ("plan", "train"):
        done = CliRunner().invoke(cli.app, [command, *FIG1, *given(value)])
        assert isinstance(done.exception, SystemExit), done.exception
        assert done.exit_code == 1
        assert words in one_line(done.output), done.output
    assert not (checkout / "figures").exists()
    assert not Path(os.environ["RKDKIT_STORE"]).exists()


WRONG_LINES = [
    (["fig0"], "Unknown exhibit 'fig0'"),
    ([""], "Unknown exhibit ''"),
    ([LONG], "Unknown exhibit 'xxx"),
    (["PeerAiD Figure 1 to 99999999999"], "Unknown figure of PeerAiD 'PeerAiD Figure 1 to 99999999999'"),
    (["fig1", "--profile", "quik"], "Unknown profile 'quik'. Did you mean 'quick'?"),
    (["fig1", "--profile", LONG], "Unknown profile 'xxx"),
    (["fig1", "-p", "profile=5"], "Unknown profile 5"),
]


@pytest.mark.usefixtures("store")
@pytest.mark.parametrize("command", ["plan", "train", "figures"])
@pytest.mark.parametrize(("arguments", "words"), WRONG_LINES, ids=[words[:40] for _, words in WRONG_LINES])
def test_a_wrong_name_is_refused(checkout, monkeypatch, command, arguments, words):
    monkeypatch.chdir(checkout)
    monkeypatch.setattr(drawing, "draw_all", lambda *_: pytest.fail("a notebook was run"))
    done = CliRunner().invoke(cli.app, [command, *arguments])
    assert isinstance(done.exception, SystemExit), done.exception
    assert done.exit_code == 1
    assert words in one_line(done.output), done.output


WRONG_WORKERS = [
    (["--workers", "0"], "workers must be a whole number of at least 1"),
    (["--workers", "-1"], "workers must be a whole number of at least 1"),
    (["--workers", "x"], "workers must be a whole number of at least 1"),
    (["--workers", LONG], "workers must be a whole number of at least 1"),
    (["--scheduler-file", "nowhere.json"], "There is no scheduler file nowhere.json"),
    (["--scheduler-file", LONG], "There is no scheduler file"),
    (["--workers", "2", "--scheduler", "tcp://127.0.0.1:9"], "not both"),
]


@pytest.mark.usefixtures("store")
@pytest.mark.parametrize("command", ["train", "figures"])
@pytest.mark.parametrize(("arguments", "words"), WRONG_WORKERS, ids=[" ".join(line)[:30] for line, _ in WRONG_WORKERS])
def test_wrong_workers_are_refused(checkout, monkeypatch, command, arguments, words):
    monkeypatch.chdir(checkout)
    monkeypatch.setattr(drawing, "draw_all", lambda *_: pytest.fail("a notebook was run"))
    done = CliRunner().invoke(cli.app, [command, *FIG1, *arguments])
    assert isinstance(done.exception, SystemExit), done.exception
    assert done.exit_code == 1
    assert words in done.output
    assert len(done.output.strip().splitlines()) == 1


@pytest.mark.parametrize("command", ["plan", "train", "figures"])
@pytest.mark.parametrize("variable", ["RKDKIT_STORE", "RKDKIT_DATA", "RKDKIT_CACHE"])
@pytest.mark.parametrize(("path", "words"), [("file", "which is a file"), (LONG, "255 bytes at most")])
def test_folders_that_cannot_be_are_refused(checkout, monkeypatch, command, variable, path, words):
    monkeypatch.chdir(checkout)
    monkeypatch.setenv(variable, path)
    monkeypatch.setattr(drawing, "draw_all", lambda *_: pytest.fail("a notebook was run"))
    done = CliRunner().invoke(cli.app, [command, *FIG1])
    assert isinstance(done.exception, SystemExit), done.exception
    assert done.exit_code == 1
    said = one_line(done.output)
    assert variable in said
    assert words in said


REAL = {
    ("figures", *FIG1, *given("lr=1e308")): "lr must be between 0 and 3.4e+38, not 1e+308",
    ("figures", *FIG1, *given("output_dir=file")): "which is a file: name a folder",
    ("figures", "tab15", *SMOKE, *given("extra=../x.npz")): "extra must be a file in the data folder",
    ("figures", "fig0"): "Unknown exhibit 'fig0'",
    ("train", *FIG1, *given("epochs=1e30")): "epochs must be between 1 and 100000",
    ("plan", *FIG1, *given("milestones=5")): "milestones must be a list",
    ("plan", "tab12", *SMOKE, *given("widths=5")): "widths must be a list",
}


def test_real_commands_say_one_line_and_do_nothing(checkout, tmp_path):
    rkdkit = [sys.executable, "-c", "import sys; from rkdkit.cli import app; sys.exit(app())"]
    surroundings = {"PYTHONPATH": str(ROOT), "RKDKIT_STORE": str(tmp_path / "store"), "OMP_NUM_THREADS": "1"}

    def run(arguments):
        return subprocess.run(
            [*rkdkit, *arguments], cwd=checkout, env={**os.environ, **surroundings},
            capture_output=True, text=True, timeout=300, stdin=subprocess.DEVNULL,
        )  # fmt: skip

    with ThreadPoolExecutor(2) as pool:
        for (arguments, words), done in zip(REAL.items(), pool.map(run, REAL), strict=True):
            assert done.returncode == 1, (arguments, done.stderr)
            assert "Traceback" not in done.stdout, arguments
            assert words in one_line(done.stderr), done.stderr
    assert not (tmp_path / "store").exists()
    assert not (checkout / "figures").exists()


# names of files


@pytest.mark.parametrize(
    "name", ["../x.npz", "/x.npz", "a/../../x.npz", "..", "a//b.npz", "..\\x.npz", "C:\\x.npz", "C:x.npz", LONG, "x\0"]
)
def test_extra_images_are_in_the_data_folder(tmp_path, digits, name):
    (tmp_path / "data").mkdir()
    np.savez(tmp_path / "x.npz", image=np.zeros((3, 8, 8, 1), np.uint8), label=np.zeros(3, np.int64))
    with pytest.raises(ValueError, match=r"^extra must be a file in the data folder"):
        data.load_extra(name, digits, tmp_path / "data")
    with pytest.raises(ValueError, match=r"^extra must be a file in the data folder"):
        tiny_spec("Natural", extra=name, extra_fraction=0.5)


def test_extra_images_may_be_in_a_folder_of_the_data_folder(tmp_path, digits):
    (tmp_path / "edm").mkdir()
    np.savez(tmp_path / "edm" / "1m.npz", image=np.zeros((3, 8, 8, 1), np.uint8), label=np.zeros(3, np.int64))
    assert len(data.load_extra("edm/1m.npz", digits, tmp_path)) == 3
    assert tiny_spec("Natural", extra="edm/1m.npz", extra_fraction=0.5).extra == "edm/1m.npz"


def test_images_that_do_not_fit_in_memory_are_not_drawn():
    for number in ("10000001", "9" * 5000):
        with pytest.raises(ValueError, match="and 10,000,000 at most"):
            tiny_spec("Natural", extra=f"gaussian-mixture:{number}", extra_fraction=0.5)


def test_folders_are_refused_only_where_they_cannot_be(tmp_path):
    (tmp_path / "file").touch()
    checks.folder("here", tmp_path / "new" / "newer", writable=True)
    checks.folder("here", tmp_path, writable=True)
    checks.folder("here", Path("/proc"))
    for wrong in (tmp_path / "file", tmp_path / "file" / "below", tmp_path / LONG):
        with pytest.raises(ValueError, match=r"^here "):
            checks.folder("here", wrong)


@pytest.mark.skipif(not hasattr(os, "geteuid") or os.geteuid() == 0, reason="root may write everywhere")
def test_a_folder_without_permission_is_refused(tmp_path):
    tmp_path.chmod(0o555)
    checks.folder("here", tmp_path / "new")
    with pytest.raises(ValueError, match="cannot be written to"):
        checks.folder("here", tmp_path / "new", writable=True)


def test_permission_is_asked_of_the_system(tmp_path, monkeypatch):
    monkeypatch.setattr(os, "access", lambda path, mode: not (path == tmp_path and mode & os.W_OK))
    checks.folder("here", tmp_path / "new")
    with pytest.raises(ValueError, match=f"^here leads to {tmp_path}, which cannot be written to: name another"):
        checks.folder("here", tmp_path / "new", writable=True)


def test_only_who_draws_must_be_able_to_save(checkout, monkeypatch):
    monkeypatch.setattr(os, "access", lambda *_: False)
    with pytest.raises(ValueError, match=r"^output_dir leads to .* cannot be written to: name another folder"):
        exhibits.setup("fig1_peer_vs_teacher", "smoke")
    with executors.using(plan.Planner()):
        exhibits.setup("fig1_peer_vs_teacher", "smoke")
    monkeypatch.chdir(checkout)
    monkeypatch.setattr(drawing, "draw_all", lambda *_: pytest.fail("a notebook was run"))
    assert "cannot be written to" in one_line(CliRunner().invoke(cli.app, ["figures", *FIG1]).output)
    assert CliRunner().invoke(cli.app, ["plan", "fig2", *SMOKE, "--no-calibration"]).exit_code == 0


# what is read from JSON


def changed(value, **fields):
    return {**value, **fields}


TAUGHT = tiny_spec("ARD").to_json()


@pytest.mark.parametrize(
    ("written", "words"),
    [
        (5, "A run must be a JSON object, not 5"),
        (None, "A run must be a JSON object"),
        ([["method", "ARD"]], "A run must be a JSON object"),
        ({}, "The field 'method' of a run is missing"),
        (changed(TAUGHT, epoks=3), "Unknown field of a run 'epoks'. Did you mean 'eps'"),
        (changed(TAUGHT, method=5), "method must be a text, not 5"),
        (changed(TAUGHT, method=None), "method must be a text, not None"),
        (changed(TAUGHT, dataset=["digits"]), "dataset must be a text"),
        (changed(TAUGHT, student={}), "student must be a text"),
        (changed(TAUGHT, epochs="2"), "epochs must be a whole number, not '2'"),
        (changed(TAUGHT, epochs=None), "epochs must be a whole number, not None"),
        (changed(TAUGHT, eps="a"), "eps must be a number"),
        (changed(TAUGHT, milestones=5), "milestones must be a list"),
        (changed(TAUGHT, milestones=["a"]), "milestones must be a whole number"),
        (changed(TAUGHT, settings=5), "settings must be values by name"),
        (changed(TAUGHT, settings=[["tau", 1]]), "settings must be values by name"),
        (changed(TAUGHT, settings={"tau": []}), r"Setting tau of ARD must be a number, not \[\]"),
        (changed(TAUGHT, teachers=5), "teachers must be a list"),
        (changed(TAUGHT, teachers={"T": 1}), "teachers must be a list"),
        (changed(TAUGHT, teachers=[5]), "A teacher must be a JSON object, not 5"),
        (changed(TAUGHT, teachers=[changed(TAUGHT["teachers"][0], run=5)]), "A run must be a JSON object, not 5"),
        (changed(TAUGHT, teachers=[changed(TAUGHT["teachers"][0], weight="1")]), "weight must be a number"),
        (changed(TAUGHT, teachers=[changed(TAUGHT["teachers"][0], letter=5)]), "slot must be a text"),
    ],
)
def test_a_malformed_specification_is_refused_by_field(written, words):
    with pytest.raises(ValueError, match=words):
        RunSpec.from_json(written)


@pytest.mark.parametrize("field", sorted(TAUGHT))
def test_a_specification_lacks_no_field(field):
    with pytest.raises(ValueError, match=f"The field '{field}' of a run is missing"):
        RunSpec.from_json({name: value for name, value in TAUGHT.items() if name != field})


TEACHER = TAUGHT["teachers"][0]


@pytest.mark.parametrize("field", sorted(TEACHER))
def test_a_teacher_lacks_no_field(field):
    with pytest.raises(ValueError, match=f"The field '{field}' of a teacher is missing"):
        Teacher.from_json({name: value for name, value in TEACHER.items() if name != field})


def test_settings_and_teachers_in_code_are_refused_likewise():
    with pytest.raises(ValueError, match="settings must be pairs of name and value, not 5"):
        tiny_spec(settings=5)
    with pytest.raises(ValueError, match="teachers must be a list"):
        tiny_spec(teachers=5)
    with pytest.raises(ValueError, match="the training of a teacher, must be a RunSpec, not 5"):
        Teacher(run=5)


ESTIMATE = statistics.Estimate(0.5, 0.4, 0.6, 100)
CLAIM = claims.Claim(
    "It is so.", "Here", claims.Quantity("a", ESTIMATE), claims.Quantity("b", ESTIMATE), statistics.Measure(1, 0, 2, 9)
).to_json()
SIDE = CLAIM["higher"]


def test_a_claim_is_read_as_it_was_written():
    assert claims.Claim.from_json(json.loads(json.dumps(CLAIM))).to_json() == CLAIM


@pytest.mark.parametrize(
    ("written", "words"),
    [
        (5, "A claim must be a JSON object, not 5"),
        ({}, "The field 'text' of a claim is missing"),
        (changed(CLAIM, verdikt=""), "Unknown field of a claim 'verdikt'. Did you mean 'verdict'"),
        (changed(CLAIM, text=5), "text of a claim must be a text, not 5"),
        (changed(CLAIM, confidence="high"), "confidence of a claim must be a number"),
        (changed(CLAIM, higher=5), "A claim's higher quantity must be a JSON object"),
        (changed(CLAIM, higher={"name": "a"}), "The field 'estimate' of a claim's higher quantity is missing"),
        (changed(CLAIM, lower=changed(SIDE, name=5)), "name of the lower quantity must be a text"),
        (changed(CLAIM, lower=changed(SIDE, estimate=[])), r"A claim's estimate \(lower\) must be a JSON object"),
        (changed(CLAIM, difference={}), r"The field 'value' of a claim's estimate \(difference\) is missing"),
        (changed(CLAIM, difference=changed(CLAIM["difference"], low="0")), "low of a claim's estimate .* a number"),
        (changed(CLAIM, difference=changed(CLAIM["difference"], n=1.5)), "n of a claim's estimate .* a whole number"),
        (changed(CLAIM, difference=changed(CLAIM["difference"], unit=5)), "unit of a claim's estimate .* a text"),
    ],
)
def test_a_malformed_claim_is_refused_by_field(written, words):
    with pytest.raises(ValueError, match=words):
        claims.Claim.from_json(written)


# images


def test_numbers_of_images_that_cannot_be_are_refused(digits):
    with pytest.raises(ValueError, match="n, how many images, must be at least 0, not -5"):
        digits.images(n=-5)
    with pytest.raises(ValueError, match=r"n, how many images, must be a whole number, not 2\.5"):
        Images("digits", n=2.5)
    run = runs.Run(tiny_spec(), None)
    for on in runs.SELECTIONS:
        with pytest.raises(ValueError, match="n, how many test images, must be at least 1, not -5"):
            runs.select(run, on, None, n=-5)
    with pytest.raises(ValueError, match="n_train must be a whole number"):
        digits.split_validation(100.5, 0)


def test_of_no_images_no_batches_are_made(digits):
    none = digits.images("val", n_val=0)
    with pytest.raises(ValueError, match="The number of images to make batches of must be at least 1, not 0"):
        data.batches(none, 4, "none", torch.Generator())
    with pytest.raises(ValueError, match="batch_size must be at least 1, not 0"):
        data.batches(digits.train, 0, "none", torch.Generator())


def test_one_image_trains_nothing(digits):
    left = len(digits.train) - 1
    with pytest.raises(ValueError, match="training images that are not held out must be at least 2, not 1"):
        Training(tiny_spec("Natural", n_train=None, n_val=left), digits, torch.device("cpu"))
    with pytest.raises(ValueError, match="training images that are not held out, must be at least 2, not 1"):
        exhibits.setup("fig1_peer_vs_teacher", "smoke", n_train="none", n_val=left)
    two = tiny_spec("Natural", n_train=2, batch_size=2, epochs=1)
    Training(two, digits, torch.device("cpu")).run_epoch()


@pytest.mark.parametrize(
    ("name", "parameters", "words"),
    [
        ("tab10_attack_suite", {"long_steps": 1e30}, "long_steps must be between 1 and 10000"),
        ("tab11_model_cost", {"batches": 1e30}, "batches must be between 3 and 10000"),
        ("fig13_sample_difficulty", {"n_rankers": 1e9}, "n_rankers must be between 2 and 1000"),
        ("fig13_sample_difficulty", {"more": {"n_seeds": 3}}, "takes no n_seeds: its one ranking is made by n_rankers"),
        ("tab14_teacher_ensembles", {"n_teachers": 1e9}, "n_teachers.* must be between 2 and 1000"),
        ("tab9_fast_ard", {"rounds": 1e9}, "rounds must be between 6 and 10000"),
        ("tab12_capacity", {"teachers": 5}, "teachers must be a list"),
        ("fig8_early_stopping_label_mixing", {"compressed": 5}, "compressed must name two networks"),
        ("tab13_teacher_training", {"extra": "/x.npz"}, "extra must be a file in the data folder"),
    ],
)
@pytest.mark.usefixtures("store")
def test_what_is_an_exhibits_own_is_refused_when_it_is_asked(name, parameters, words):
    with pytest.raises(ValueError, match=words):
        plan.ask(plan.Planner(), ROOT / "notebooks" / f"{name}.ipynb", {"profile": "smoke", **parameters})


# messages


def test_a_message_shows_no_more_of_a_value_than_helps():
    assert checks.shown("abc") == "'abc'"
    assert checks.shown(LONG) == f"'{'x' * 59}... (5,002 characters)"
    assert checks.shown(10**5000) == "a number of thousands of digits"
    with pytest.raises(checks.UnknownNameError) as refused:
        checks.one_of("method", LONG, ["ARD"])
    assert len(str(refused.value)) < 200
    with pytest.raises(ValueError, match="lr must be between 0 and 1, not a number of thousands of digits"):
        checks.number("lr", 10**5000, 0, 1)
    with pytest.raises(ValueError, match="eps must be between 0 and 1"):
        checks.radius(10**400)


@pytest.mark.parametrize("number", ["1000", "20000", "99999999999", "9" * 5000])
def test_a_number_that_no_figure_has_takes_no_memory(number):
    assert places(f"RKD Figure {number}") == {("rkd", "Figure", 1000)}
    assert len(places(f"RKD Figures 1 to {number}")) == 1000
    assert len(places("RKD Figures 1 to 999")) == 999


@pytest.mark.parametrize(
    ("kind", "message", "words"),
    [
        ("ValueError", "lr must be a number.", "lr must be a number."),
        ("ZeroDivisionError", "division by zero", "ZeroDivisionError: division by zero"),
        ("MemoryError", "", "There was too little memory: "),
        ("_ArrayMemoryError", "Unable to allocate 9 GiB.", "There was too little memory (Unable to allocate 9 GiB): "),
        ("OutOfMemoryError", "CUDA out of memory.\nMore.", "There was too little memory (CUDA out of memory): "),
        ("RuntimeError", "DefaultCPUAllocator: not enough memory: 1", "There was too little memory (DefaultCPUAlloc"),
        ("RuntimeError", "it is so", "RuntimeError: it is so"),
    ],
)
def test_errors_are_said_in_words(kind, message, words):
    assert endings.in_words(kind, message).startswith(words)


# how a command ends


@pytest.mark.usefixtures("store")
@pytest.mark.parametrize(("command", "kept"), [("plan", "Nothing was written."), ("train", endings.KEPT)])
@pytest.mark.parametrize(
    ("error", "code", "words"),
    [
        (KeyboardInterrupt(), 130, "Stopped."),
        (MemoryError(), 1, "There was too little memory: "),
        (RuntimeError("can't allocate memory: you tried"), 1, "There was too little memory (can't allocate"),
    ],
)
def test_who_or_what_ends_a_command_is_said_in_one_line(checkout, monkeypatch, command, kept, error, code, words):
    def ended(*_, **__):
        raise error

    monkeypatch.chdir(checkout)
    monkeypatch.setattr(plan, "count", ended)
    monkeypatch.setattr(making, "do_all", ended)
    done = CliRunner().invoke(cli.app, [command, *FIG1])
    assert done.exit_code == code
    said = one_line(done.output)
    assert words in said
    assert said.rstrip().endswith(kept)


def notebook(folder, name, code):
    """Write a notebook of one parameters cell and one cell of code, and make its folder a checkout."""
    cells = [nbformat.v4.new_code_cell("profile = 'smoke'\noutput_dir = None", metadata={"tags": ["parameters"]})]
    cells.append(nbformat.v4.new_code_cell(code))
    (folder / "notebooks").mkdir(exist_ok=True)
    (folder / "pyproject.toml").write_text('[project]\nname = "rkdkit"\n')
    metadata = {"kernelspec": {"name": "python3", "display_name": "Python 3", "language": "python"}}
    nbformat.write(nbformat.v4.new_notebook(cells=cells, metadata=metadata), folder / "notebooks" / f"{name}.ipynb")


def figures(*arguments):
    done = CliRunner().invoke(cli.app, ["figures", *arguments])
    assert done.exception is None or isinstance(done.exception, SystemExit), done.exception
    return done


@pytest.fixture
def own(tmp_path, monkeypatch, store):
    """A checkout for notebooks of one's own, and papermill's log as a new process has it."""
    (tmp_path / "own").mkdir()
    monkeypatch.chdir(tmp_path / "own")
    logging.getLogger("papermill").setLevel(logging.NOTSET)
    assert store.root != tmp_path / "own"
    return tmp_path / "own"


def test_a_kernel_that_does_not_start_is_told_of_in_one_line(own, monkeypatch, capfd, caplog):
    """Python sleeps before it becomes a kernel."""
    notebook(own, "late", "")
    (own / "slow").mkdir()
    (own / "slow" / "sitecustomize.py").write_text(
        "import sys, time\nif 'ipykernel_launcher' in sys.orig_argv: time.sleep(100)\n"
    )
    monkeypatch.setenv("PYTHONPATH", f"{own / 'slow'}{os.pathsep}{ROOT}")
    monkeypatch.setattr(drawing, "STARTS_WITHIN", 1)
    done = figures("late", *SMOKE)
    assert done.exit_code == 1
    assert done.output.strip() == (
        "late: its kernel did not start within 1 s, as where a machine is busy: repeat the command. " + endings.KEPT
    )
    assert (capfd.readouterr().err, [record.getMessage() for record in caplog.records]) == ("", [])


def test_a_kernel_that_is_killed_is_told_of_in_one_line(own, capfd, caplog):
    notebook(own, "killed", "import os, signal; os.kill(os.getpid(), signal.SIGKILL)")
    done = figures("killed", *SMOKE)
    assert done.exit_code == 1
    assert re.fullmatch(r"killed: its kernel died, .* too little memory: .*", done.output.strip())
    assert done.output.strip().endswith(endings.KEPT)
    assert (capfd.readouterr().err, [record.getMessage() for record in caplog.records]) == ("", [])


def test_a_kernel_without_memory_says_so_and_what_is_kept(own):
    notebook(own, "large", "raise MemoryError")
    done = figures("large", *SMOKE)
    assert done.exit_code == 1
    (line,) = done.output.strip().splitlines()
    assert line.startswith("large: There was too little memory: ")
    assert endings.KEPT in line
    assert str(own / "executed" / "smoke" / "large.ipynb") in line


def test_where_no_executed_notebook_can_be_written_it_is_said(own):
    notebook(own, "any", "")
    (own / "executed").write_text("a file")
    done = figures("any", *SMOKE)
    assert done.exit_code == 1
    (line,) = done.output.strip().splitlines()
    assert re.match(r"any: \w+: .*executed", line)


SAVING = """
import json
from pathlib import Path
from rkdkit.saved import write_exhibit
folder = Path(output_dir or "figures/smoke")
def save(name, **content):
    write_exhibit(folder / f"{name}.json", content, picture=b"", numbers=b"")
"""


def test_files_under_another_name_are_found(own):
    """As where a notebook of one's own calls exhibits.setup with the name of another."""
    notebook(own, "my_table", f"{SAVING}save('tab1_white_box', provenance={{'runs': [{{'id': 'a'}}]}}, claims=[])")
    done = figures("my_table", *SMOKE)
    assert done.exit_code == 0, done.output
    file = own / "figures" / "smoke" / "tab1_white_box.json"
    first, where, last = done.output.strip().splitlines()
    assert first.startswith("my_table: done in ")
    assert where.startswith(f"my_table: it saved {file}, and no my_table.json.")
    assert last.startswith("Exhibits: 1, in ")
    assert "asked for: 1; different ones: 1; trained now: 0." in last


def test_that_nothing_was_written_is_said_even_if_an_older_file_is_there(own):
    notebook(own, "my_table", "")
    (own / "elsewhere").mkdir()
    (own / "elsewhere" / "my_table.json").write_text('{"provenance": {"runs": []}, "claims": []}')
    done = figures("my_table", *SMOKE, *given("output_dir=elsewhere"))
    assert done.exit_code == 0, done.output
    _, line = done.output.strip().splitlines()
    assert line.startswith(f"my_table: it saved nothing in {own / 'elsewhere'}, and no my_table.json.")


def test_a_file_of_another_kind_is_not_counted(own):
    saves = "save('my_table', provenance={'runs': []}, claims=[])\n(folder / 'notes.json').write_text('[5]')"
    notebook(own, "my_table", f"{SAVING}{saves}")
    done = figures("my_table", *SMOKE)
    assert done.exit_code == 0, done.output
    first, last = done.output.strip().splitlines()
    assert first.startswith("my_table: done in ")
    assert last.startswith("Exhibits: 1, in ")


@pytest.mark.parametrize("variable", ["RKDKIT_STORE", "RKDKIT_DATA", "RKDKIT_CACHE"])
def test_a_folder_of_the_environment_is_the_same_for_the_notebooks_that_a_command_starts(
    checkout, monkeypatch, variable
):
    monkeypatch.chdir(checkout)
    monkeypatch.setenv(variable, "mine")
    cli._asked(["fig1"], "smoke", None)
    monkeypatch.chdir("/")
    assert {str(folder) for folder in paths.folders_of_environment().values()} >= {str(checkout / "mine")}


@pytest.mark.usefixtures("store")
@pytest.mark.parametrize(
    "command", [["train", "fig1"], ["train", "fig1", "fig3"], ["figures", "fig1", "fig3"]], ids=str
)
def test_data_that_are_not_there_are_said_in_one_message(checkout, monkeypatch, tmp_path, command):
    monkeypatch.chdir(checkout)
    monkeypatch.setenv("RKDKIT_DATA", str(tmp_path))
    monkeypatch.setattr(drawing, "draw_all", lambda *_: pytest.fail("a notebook was run"))
    done = CliRunner().invoke(cli.app, [*command, "--profile", "small", "--workers", "2"])
    assert isinstance(done.exception, SystemExit), done.exception
    assert done.exit_code == 1
    assert "cifar10" in done.output
    assert "Traceback" not in done.output


@pytest.mark.usefixtures("store")
@pytest.mark.parametrize("command", ["train", "figures", "plan"])
def test_without_notebooks_there_is_nothing_to_make(tmp_path, monkeypatch, command):
    (tmp_path / "pyproject.toml").write_bytes((ROOT / "pyproject.toml").read_bytes())
    monkeypatch.chdir(tmp_path)
    done = CliRunner().invoke(cli.app, [command])
    assert done.exit_code == 1
    assert "There are no exhibits in" in one_line(done.output)
