"""Several exhibits at once: what they need is done once and by workers, then they are drawn side by side."""

import json
import tempfile
from pathlib import Path

import nbformat
import pytest
from conftest import ROOT

from rkdkit import drawing, making
from rkdkit.cluster import Workers
from rkdkit.measurements import CorrectPredictions
from rkdkit.plan.ask import parts_of
from rkdkit.workforce import Workforce

SPEC = """
from conftest import tiny_spec
from rkdkit import runs
from rkdkit.references import Images
from rkdkit.trainings import Train
"""


def notebook(folder, name, code):
    """Write a notebook of one parameters cell and one cell of code, which sees the tests' helpers."""
    cells = [nbformat.v4.new_code_cell("profile = 'smoke'", metadata={"tags": ["parameters"]})]
    cells.append(nbformat.v4.new_code_cell(SPEC + code))
    path = folder / f"{name}.ipynb"
    metadata = {"kernelspec": {"name": "python3", "display_name": "Python 3", "language": "python"}}
    nbformat.write(nbformat.v4.new_notebook(cells=cells, metadata=metadata), path)
    return drawing.Notebook(path, {"profile": "smoke"})


TEACHER = "teacher = runs.ensure(tiny_spec('TRADES', epochs=2))\n"
CHOSEN = TEACHER + "chosen = runs.select(teacher, 'val', None)\n"
MEASURED = "runs.per_image('entropy', student.snapshot(), Images('digits', n=8))\n"
STUDENT = CHOSEN + "student = runs.ensure(tiny_spec('RSLAD', teachers=(chosen.as_teacher(),)))\n"


def test_what_a_choice_leaves_open_becomes_certain_when_it_is_made(tmp_path, store):
    student = notebook(tmp_path, "student", STUDENT + MEASURED)
    other = notebook(tmp_path, "other", TEACHER)
    needs = making.needs_of([student, other])
    assert [str(task).partition(" on ")[0] for task in needs.certain] == [
        "training of TRADES resnet18/16",
        *["accuracy of the student of TRADES resnet18/16"] * 2,
    ]
    assert len(needs.all) == 5, "the student and its measurement are placeholders"
    assert set(needs.of) == {"student", "other"}
    done = making.do_all([student, other], Workers(Workforce(1)))
    assert (done.missing, done.failure, done.unfinished) == (5, None, ())
    assert making.needs_of([student, other]).all == []
    assert len(list(store.root.glob("runs/*"))) == 2


def test_two_workers_do_what_two_exhibits_need(tmp_path, store):
    notebooks = [notebook(tmp_path, "student", STUDENT), notebook(tmp_path, "chosen", CHOSEN)]
    workers = Workers(Workforce(2))
    try:
        done = making.do_all(notebooks, workers, alone=False)
    finally:
        workers.close()
    assert done.failure is None
    assert done.unfinished == ()
    assert len(list(store.root.glob("runs/*/run.json"))) == 2
    for record in store.root.glob("runs/*/run.json"):
        environments = json.loads(record.read_text())["content"]["environments"]
        assert [each["device"] for each in environments] == ["cpu, 1 threads"]


@pytest.mark.usefixtures("store")
def test_what_needs_a_module_is_left_to_the_notebook(tmp_path):
    code = (
        "import torch\nmodule = torch.nn.Sequential(torch.nn.Flatten(), torch.nn.Linear(64, 10))\n"
        "mine = runs.foreign_teacher(module, 'mine')\n"
        "student = runs.ensure(tiny_spec('RSLAD', teachers=(mine,)))\n"
    )
    done = making.do_all(
        [notebook(tmp_path, "mine", code + MEASURED), notebook(tmp_path, "other", TEACHER)], Workers(Workforce(1))
    )
    assert done.unfinished == ("mine",)
    assert done.failure is None


def test_a_failure_stops_nothing_that_does_not_rest_on_it(tmp_path, store):
    """Without workers, too; with them, see the tests of callers."""
    diverging = "bad = runs.ensure(tiny_spec('Natural', lr=1e18, n_train=256))\n"
    taught = diverging + "runs.ensure(tiny_spec('ARD', teachers=(bad.snapshot().as_teacher(),)))\n"
    notebooks = [notebook(tmp_path, "taught", taught), notebook(tmp_path, "bad", diverging)]
    notebooks += [notebook(tmp_path, "other", TEACHER)]
    done = making.do_all(notebooks, Workers(Workforce(1)))
    assert (done.impossible, done.unfinished) == (("taught", "bad"), ())
    (failed,) = done.failure.failed
    assert failed.spec.method == "Natural"
    (prevented,) = done.failure.prevented
    assert prevented.spec.method == "ARD"
    assert "DivergedError" in str(done.failure)
    finished = [json.loads(file.read_text())["content"] for file in store.root.glob("runs/*/run.json")]
    assert [record["spec"]["method"] for record in finished if record["finished"]] == ["TRADES"]


@pytest.mark.usefixtures("store")
def test_of_judges_that_two_exhibits_share_each_is_asked_once(tmp_path):
    judges = (
        "trained = [runs.ensure(tiny_spec(seed=seed, epochs=1)) for seed in range(3)]\n"
        "a, b, c = (run.snapshot() for run in trained)\n"
    )
    asked = "runs.correct_predictions([{}], Images('digits', n=4), attacks.FGSM(0.1), attacked=a)\n"
    given = "from rkdkit import attacks\n" + judges
    notebooks = [notebook(tmp_path, "two", given + asked.format("a, b"))]
    notebooks += [notebook(tmp_path, "three", given + asked.format("a, b, c"))]
    needs = making.needs_of(notebooks)
    assert [len(task.judges) for task in needs.all if isinstance(task, CorrectPredictions)] == [2, 1]
    pending = [part for task in needs.certain[:4] for part in parts_of(task)]
    later = making.needs_of(notebooks, pending)
    assert [[judge.spec.seed for judge in task.judges] for task in later.certain] == [[2]]
    assert set(later.of) == {"two", "three"}


@pytest.mark.usefixtures("store")
def test_a_notebook_that_cannot_be_asked_is_named(tmp_path):
    with pytest.raises(making.NotebookError, match=r"^broken: ZeroDivisionError: division by zero"):
        making.needs_of([notebook(tmp_path, "broken", "1 / 0")])


@pytest.mark.usefixtures("store")
def test_notebooks_are_run_side_by_side_and_one_that_fails_stops_no_other(tmp_path, capfd, monkeypatch):
    monkeypatch.setenv("PYTHONPATH", str(ROOT / "tests"))
    monkeypatch.setattr(drawing.paths, "project_root", lambda: tmp_path)
    notebooks = [
        notebook(tmp_path, "first", "print('from the first')"),
        notebook(tmp_path, "broken", "print('begun'); 1 / 0"),
        notebook(tmp_path, "last", "print('from the last')"),
    ]
    drawn = {each.notebook.name: each.error for each in drawing.draw_all(notebooks, 3)}
    assert (drawn["first"], drawn["last"]) == ("", "")
    assert drawn["broken"].startswith("broken: ZeroDivisionError: division by zero (the notebook as far as it ran: ")
    shown = capfd.readouterr().err
    assert "first:\nfrom the first" in shown
    assert "last:\nfrom the last" in shown
    assert "broken:\nbegun" in shown
    assert (tmp_path / "executed" / "smoke" / "broken.ipynb").is_file()


def test_long_names_of_temporary_folders_do_not_keep_a_kernel_from_listening(tmp_path, monkeypatch):
    """The path of a socket has 107 bytes at most, that of a file 4,096."""
    parent = tmp_path / ("x" * 110)
    parent.mkdir()
    monkeypatch.setattr(tempfile, "tempdir", str(parent))
    with drawing.kernel_place() as place:
        assert len(place["KernelManager"]["ip"]) < 100, "a kernel with a longer one never answers"
    monkeypatch.setattr(drawing.paths, "project_root", lambda: tmp_path)
    bare = nbformat.read(notebook(tmp_path, "short", "").path, 4)
    bare.cells[1].source = CONNECTION
    nbformat.write(bare, tmp_path / "short.ipynb")
    (drawn,) = drawing.draw_all([drawing.Notebook(tmp_path / "short.ipynb", {"profile": "smoke"})])
    assert drawn.error == ""
    (output,) = nbformat.read(drawn.notebook.output, 4).cells[-1].outputs
    transport, folder = output["text"].split()
    assert transport == "ipc", "TCP is for systems that have nothing else"
    assert not Path(folder).exists(), "it is gone with its kernel"


CONNECTION = """
import os
from ipykernel.connect import get_connection_info
found = get_connection_info(unpack=True)
folder = os.path.dirname(found['ip'])
assert os.stat(folder).st_mode & 0o077 == 0, 'nobody else may reach the sockets'
print(found['transport'], folder)
"""


def test_where_no_folder_has_a_short_name_kernels_listen_on_tcp(tmp_path, monkeypatch):
    places = []

    class Nowhere(tempfile.TemporaryDirectory):
        def __init__(self, dir):
            places.append(dir)
            super().__init__(dir=tmp_path, prefix="x" * 110)

    monkeypatch.setattr(tempfile, "TemporaryDirectory", Nowhere)
    with drawing.kernel_place() as place:
        assert place == {}, "Jupyter's default: TCP on the loopback, each message signed"
    assert len(places) == 2
    assert list(tmp_path.iterdir()) == []
