"""What a user of JupyterLab sees: progress in real kernels, interruptions, refusals, and where files go."""

import ast
import hashlib
import io
import itertools
import json
import os
import queue
import re
import sys
import time
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

import nbformat
import pytest
from conftest import ROOT, run_python, tiny_spec
from jupyter_client.manager import KernelManager
from typer.testing import CliRunner

from rkdkit import checks, cli, cli_push, endings, exhibits, kernel, methods, models, outcome, paths, progress, setup
from rkdkit.drawing import Notebook, kernel_place
from rkdkit.executors import Here
from rkdkit.inventory import made
from rkdkit.saved import command_of, write_exhibit
from rkdkit.store import Store
from rkdkit.trainings import Train

FIG1 = "fig1_peer_vs_teacher"
NOTEBOOKS = sorted(paths.exhibit_notebooks())
LINE = re.compile(r"^(.{32}) \|#* *\| +\d+% \d\d:\d\d < (\?|\d\d:\d\d)")
"""A row as text: label, bar, share, the time that passed and the time that is left."""


@dataclass
class Cell:
    """What running a cell brought.

    Attributes
    ----------
    status : "ok" or "error".
    error : the error's name and its lines as they are shown; None: there was none.
    said : the text of each stream.
    rows : what was shown of progress, one text and its HTML after the other.
    """

    status: str = ""
    error: tuple[str, list[str]] | None = None
    said: dict[str, str] = field(default_factory=dict)
    rows: list[tuple[str, str]] = field(default_factory=list)


class Lab:
    """A kernel as JupyterLab starts it, in a notebook's folder, with a store of its own.

    It listens in a place of its own: of five free ports, another test may take one before the kernel does.
    """

    def __init__(self, folder, place, **environment):
        folder.mkdir(exist_ok=True)
        self.folder, self.store = folder, folder / "store"
        variables = {
            **{name: value for name, value in os.environ.items() if name not in ("TQDM_DISABLE", progress.TEXT_ONLY)},
            **{"RKDKIT_STORE": str(self.store), "OMP_NUM_THREADS": "1"},
            "PYTHONPATH": f"{ROOT}{os.pathsep}{ROOT / 'tests'}",
            **environment,
        }
        self.manager = KernelManager(kernel_name="python3", config=place)
        self.manager.start_kernel(env=variables, cwd=str(folder))
        self.client = self.manager.client()
        self.client.start_channels()

    def close(self):
        self.client.stop_channels()
        self.manager.shutdown_kernel(now=True)

    def run(self, code, meanwhile=lambda: None, timeout=240):
        """Run a cell; `meanwhile` is called while it runs, until it returns something."""
        asked, cell, until, done = self.client.execute(code), Cell(), time.monotonic() + timeout, None
        while True:
            assert time.monotonic() < until, f"the cell still runs: {cell}"
            done = done or meanwhile()
            try:
                message = self.client.get_iopub_msg(timeout=0.05)
            except queue.Empty:
                continue
            if message["parent_header"].get("msg_id") != asked:
                continue
            kind, content = message["msg_type"], message["content"]
            if kind == "stream":
                cell.said[content["name"]] = cell.said.get(content["name"], "") + content["text"]
            elif kind == "error":
                cell.error = content["ename"], content["traceback"]
            elif kind in ("display_data", "update_display_data"):
                cell.rows.append((content["data"]["text/plain"], content["data"].get("text/html", "")))
            elif kind == "status" and content["execution_state"] == "idle":
                reply = self.client.get_shell_msg(timeout=20)
                while reply["parent_header"].get("msg_id") != asked:
                    reply = self.client.get_shell_msg(timeout=20)
                cell.status = reply["content"]["status"]
                return cell

    def interrupt_when(self, condition):
        """Return what interrupts the kernel, as the stop button does, once a condition is met."""

        def meanwhile():
            if condition():
                self.manager.interrupt_kernel()
                return True
            return None

        return meanwhile

    def record(self, spec, store=None):
        """Return the record of a run in the kernel's store; None: it has none."""
        return Store(store or self.store).run_folder(spec).read_record()

    def epochs(self, spec):
        record = self.record(spec)
        return record["finished"] if record else 0


@contextmanager
def lab_in(folder, **environment):
    with kernel_place() as place:
        lab = Lab(folder, place, **environment)
        try:
            lab.client.wait_for_ready(timeout=300)
            yield lab
        finally:
            lab.close()


@pytest.fixture(scope="module")
def lab(tmp_path_factory):
    with lab_in(tmp_path_factory.mktemp("lab") / "notebooks") as started:
        yield started


SPEC = (
    "import os\nimport conftest\nos.environ.pop('TQDM_DISABLE', None)\n"  # conftest sets it
    "from rkdkit import executors, runs\nfrom rkdkit.store import Store\n"
)


def test_an_interrupted_training_says_its_epoch_in_one_line_and_goes_on_to_the_same_weights(lab):
    spec = tiny_spec(n_train=512, epochs=12)
    cell = f"{SPEC}spec = conftest.tiny_spec(n_train=512, epochs=12)\nrun = runs.ensure(spec)"
    stopped = lab.run(cell, lab.interrupt_when(lambda: lab.epochs(spec) >= 2))
    finished = lab.epochs(spec)
    assert 2 <= finished < 12, "it was interrupted in the middle"
    line = f"Stopped: {spec}, after epoch {finished} of 12. Running this again goes on from there."
    assert (stopped.status, stopped.error) == ("error", ("Stopped", [line]))
    assert stopped.said == {}
    assert stopped.rows[-1] == ("", ""), "no bar is left behind"
    begun = (lab.store / "runs").glob("*/student-0001.safetensors")
    first = {path: path.stat().st_mtime_ns for path in begun}
    again = lab.run(cell)
    assert (again.status, again.error, again.said) == ("ok", None, {})
    assert {path: path.stat().st_mtime_ns for path in first} == first != {}
    elsewhere = lab.folder / "uninterrupted"
    other = f"with executors.using(executors.Here(Store({str(elsewhere)!r}))):\n    runs.ensure(spec)"
    assert lab.run(f"from pathlib import Path\n{other}").status == "ok"
    assert lab.record(spec)["snapshots"] == lab.record(spec, elsewhere)["snapshots"]


def test_an_interruption_before_the_first_epoch_is_finished_says_so(lab):
    spec = tiny_spec(n_train=1200, epochs=3, attack_steps=200, seed=1)
    cell = f"{SPEC}runs.ensure(conftest.tiny_spec(n_train=1200, epochs=3, attack_steps=200, seed=1))"
    stopped = lab.run(cell, lab.interrupt_when(lambda: lab.record(spec) is not None))
    line = f"Stopped: {spec}, in its first epoch. Running this again goes on from there."
    assert stopped.error == ("Stopped", [line])


def test_an_interruption_of_something_else_within_a_gather_is_one_line_too(lab):
    code = (
        "import time\nfrom rkdkit import executors\n"
        "class Slow(executors.Here):\n    def answer_all(self, tasks, what):\n"
        "        open('begun', 'w').close()\n        time.sleep(60)\n"
        "Slow().gather([1])"
    )
    begun = lab.folder / "begun"
    stopped = lab.run(code, lab.interrupt_when(begun.exists))
    assert stopped.error == ("Stopped", ["Stopped. What is finished is kept. Running this again goes on from there."])


def test_several_tasks_have_one_bar_with_the_time_left_and_the_present_one_below_it(lab):
    cell = lab.run(
        f"{SPEC}specs = [conftest.tiny_spec('PeerAiD', n_train=512, epochs=6, seed=seed) for seed in (10, 11)]\n"
        "ensured = runs.ensure_all(specs)"
    )
    assert (cell.status, cell.error) == ("ok", None)
    assert list(cell.said) == ["stdout"], "nothing is said as an error"
    assert "to train: 2" in cell.said["stdout"]
    shown = [text.splitlines() for text, _ in cell.rows]
    assert shown[-1] == []
    labels = {LINE.match(line)[1].strip() for lines in shown for line in lines if LINE.match(line)}
    assert labels == {"Training and measuring", "PeerAiD, seed 10, resnet18/16", "PeerAiD, seed 11, resnet18/16"}
    both = [lines for lines in shown if len(lines) == 2 and LINE.match(lines[1])]
    assert {LINE.match(lines[0])[1].strip() for lines in both} == {"Training and measuring"}
    assert any(LINE.match(lines[0])[2] != "?" for lines in both), "the time left is said"
    of_all = [int(re.search(r"(\d+)%", lines[0])[1]) for lines in both]
    assert of_all == sorted(of_all), "it only grows"
    assert min(of_all) < 40 < 60 < max(of_all)
    assert all(
        page.count("<progress") == sum(map(bool, map(LINE.match, text.splitlines()))) for text, page in cell.rows
    )
    assert max(len(lines) for lines in shown) == 2


def test_measurements_have_one_bar_too(lab):
    cell = lab.run(
        f"{SPEC}from rkdkit import evaluation\nfrom rkdkit.references import Images\n"
        "run = runs.ensure(conftest.tiny_spec(seed=30))\n"
        "found = runs.evaluate(run.snapshot(), Images('digits'), evaluation.standard_attacks(0.25), n=16)"
    )
    assert cell.status == "ok"
    assert cell.said == {}
    texts = [text for text, _ in cell.rows]
    assert any(text.startswith("Accuracy: clean, fgsm, pgd-20,..") for text in texts)
    assert any("of 4: PGD-AT, seed 30, resnet18/16" in text for text in texts), "which measurement it is at"
    assert any("\nAutoAttack on PGD-AT" in text for text in texts)
    assert texts[-1] == ""


def test_workers_have_one_bar_and_an_interruption_names_what_they_were_at(tmp_path):
    specs = [tiny_spec(n_train=512, epochs=20, seed=seed) for seed in (1, 2)]
    cell = f"{SPEC}r = runs.ensure_all([conftest.tiny_spec(n_train=512, epochs=20, seed=seed) for seed in (1, 2)])"
    with lab_in(tmp_path / "notebooks", RKDKIT_WORKERS="2") as lab:
        at_work = lab.interrupt_when(lambda: all(lab.epochs(spec) >= 2 for spec in specs))
        stopped = lab.run(cell, at_work)
        assert list(stopped.said) == ["stdout"], stopped.said.get("stderr")
        assert stopped.error is not None
        name, (line,) = stopped.error
        assert name == "Stopped"
        at = [f"{spec}, after epoch {lab.epochs(spec)} of 20" for spec in specs]
        ending = "Running this again goes on from there."
        assert line in [f"Stopped: {one}; {other}. {ending}" for one, other in itertools.permutations(at)]
        texts = [text for text, _ in stopped.rows]
        assert any(re.search(r"\n  PGD-AT resnet18/16 \d+% \| PGD-AT resnet18/16 \d+%$", text) for text in texts)
        assert texts[-1] == ""
        done = lab.run("r = runs.ensure_all([conftest.tiny_spec(n_train=512, epochs=3, seed=seed) for seed in (1, 2)])")
        assert (done.status, done.error, list(done.said)) == ("ok", None, ["stdout"])
        assert sum("<progress" in page for _, page in done.rows) > 2
        assert done.rows[-1] == ("", "")


def test_a_refusal_is_one_line_and_a_mistake_in_the_code_keeps_its_traceback(lab):
    refused = lab.run(f"from rkdkit import exhibits\nexhibits.setup({FIG1!r}, 'smoke', epsilon=0.1)")
    name, (line,) = refused.error
    assert (refused.status, name) == ("error", "UnknownNameError")
    assert line.startswith("UnknownNameError: Unknown parameter 'epsilon'. Did you mean 'eps'? Known: eps, ")
    wrong = lab.run(f"exhibits.setup({FIG1!r}, 'smoke', n_test=10**6)")
    assert (wrong.error[0], len(wrong.error[1])) == ("ValueError", 1)
    mistakes = {"int('x')": "ValueError", "[][1]": "IndexError", "(lambda a, b: a)(*[1])": "TypeError"}
    for mistake, name in mistakes.items():
        cell = f"from rkdkit import setup\nkept = setup._check\nsetup._check = lambda *_: {mistake}\n"
        cell += f"try:\n    exhibits.setup({FIG1!r}, 'smoke')\nfinally:\n    setup._check = kept"
        shown = lab.run(cell)
        assert shown.error[0] == name
        assert len(shown.error[1]) > 3, "programming errors are not hidden"


def test_only_a_raise_in_the_kit_is_a_refusal():
    def caught(action):
        try:
            action()
        except Exception as error:
            return kernel._raised_by_the_kit(error.__traceback__)

    assert caught(lambda: checks.one_of("profile", "x", ["y"]))
    assert caught(lambda: exhibits.setup(FIG1, "smoke", n_test=10**6))
    assert not caught(lambda: int("x"))
    assert not caught(lambda: kernel.interval("x")), "raised within the kit's code, but not by it"
    assert not caught(lambda: (_ for _ in ()).throw(ValueError("x")))
    assert not kernel._raised_by_the_kit(None)


def test_outside_of_a_kernel_errors_are_as_they_were():
    with pytest.raises(checks.UnknownNameError) as refused:
        exhibits.setup(FIG1, "smoke", epsilon=0.1)
    assert not hasattr(refused.value, "_render_traceback_")


def test_papermill_sees_an_interrupted_notebook_as_failed(tmp_path):
    import papermill
    from papermill.exceptions import PapermillExecutionError

    code = "from rkdkit import endings\nraise endings.Stopped([('PGD-AT', 2, 3)])"
    cells = [nbformat.v4.new_code_cell(code), nbformat.v4.new_code_cell("print('went on')")]
    metadata = {"kernelspec": {"name": "python3", "display_name": "Python 3", "language": "python"}}
    nbformat.write(nbformat.v4.new_notebook(cells=cells, metadata=metadata), tmp_path / "in.ipynb")
    with pytest.raises(PapermillExecutionError) as failed, kernel_place() as place:
        papermill.execute_notebook(tmp_path / "in.ipynb", tmp_path / "out.ipynb", progress_bar=False, config=place)
    line = "Stopped: PGD-AT, after epoch 2 of 3. Running this again goes on from there."
    assert (failed.value.ename, failed.value.evalue) == ("Stopped", line)
    assert endings.in_words("Stopped", line) == line
    assert "went on" not in (tmp_path / "out.ipynb").read_text().partition("print('went on')")[2]


def test_every_label_has_the_same_width_and_begins_with_method_and_seed():
    seen = 0
    for method, architecture, size in itertools.product(methods.METHODS, models.ARCHITECTURES, ("", "/16")):
        text = f"{method}, seed 10, {architecture}{size}"
        label = kernel.fitted(text)
        assert len(label) == kernel.LABEL
        assert label.startswith(f"{method}, seed 10")
        seen += 1
        row = str(kernel.Row(text, 100, 45, note="loss=0.123"))
        assert len(row) <= 110, "what a narrow window of JupyterLab shows in a line"
        assert re.fullmatch(r"(.{32}) \|#{9} {11}\|  45% 00:00 < \?  loss=0.123", row)
    assert seen > 100
    assert tiny_spec("RSLAD").short == "RSLAD, seed 0, resnet18/16"
    assert len(kernel.fitted("x" * 100)) == len(kernel.fitted("")) == kernel.LABEL
    assert kernel.fitted("x" * 32) == "x" * 32
    assert kernel.fitted("x" * 33) == f"{'x' * 30}.."


def test_a_row_says_the_time_that_is_left(monkeypatch):
    now = [100.0]
    monkeypatch.setattr(kernel.time, "monotonic", lambda: now[0])
    row = kernel.Row("a", 8, 2)
    assert (row.share, row.left) == (0.25, None)
    now[0], row.n = 130.0, 4
    assert row.left == pytest.approx(60)  # 2 in 30 seconds, 4 are left
    assert row.numbers == " 50% 00:30 < 01:00"
    now[0], row.n = 100.0 + 3600 * 2, 8
    assert row.numbers == "100% 2:00:00 < 00:00"
    assert kernel.Row("nothing", 0).share == 0


def test_rows_are_html_that_cannot_be_broken_by_a_label():
    row = kernel.Row("<b>a</b>", 4, 1, below='<script src="x">')
    assert "<b>" not in row.html()
    assert "<script" not in row.html()
    assert 'value="0.2500"' in row.html()


@pytest.fixture
def board(monkeypatch):
    """The board, and what it displayed: a text at a time."""
    shown = []

    class Handle:
        def update(self, data, raw):
            assert raw
            shown.append(data["text/plain"])

    def display(data, raw, display_id):
        assert raw
        assert display_id
        shown.append(f"new: {data['text/plain']}")
        return Handle()

    cell = ["first"]
    monkeypatch.setattr("IPython.display.display", display)
    monkeypatch.setattr(kernel, "_cell", lambda: cell[0])
    monkeypatch.setattr(kernel, "BOARD", kernel.Board())
    monkeypatch.setattr(kernel, "inside", lambda: True)
    for name in ("TQDM_DISABLE", progress.TEXT_ONLY):
        monkeypatch.delenv(name, raising=False)
    return kernel.BOARD, shown, cell


def test_a_board_draws_in_the_same_output_of_a_cell_and_forgets_what_another_cell_left(board):
    board, shown, cell = board
    one, other = kernel.Row("one", 2), kernel.Row("other", 2)
    board.add(one)
    board.add(other)
    board.remove(one)
    board.clear()
    assert [text.count("|") // 2 for text in shown] == [1, 2, 1, 0]
    assert [text.startswith("new: ") for text in shown] == [True, False, False, False]
    board.remove(one)
    board.clear()
    assert len(shown) == 4, "what is not there is not removed"
    board.add(one)
    cell[0] = "second"
    board.add(other)
    assert shown[-1].startswith("new: other")
    assert "one" not in shown[-1]


def test_an_error_in_a_loop_or_a_gather_leaves_no_row(board, tmp_path):
    board, shown, _ = board
    with pytest.raises(ZeroDivisionError), progress.track(total=3, desc="work"):
        raise ZeroDivisionError
    assert shown[-1] == ""
    looped = list(progress.track([1, 2, 3], desc="loop"))
    assert (looped, shown[-1]) == ([1, 2, 3], "")

    class Failing(Here):
        def answer_all(self, *_):
            kernel.BOARD.add(kernel.Row("left behind", 1))
            raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        Failing(Store(tmp_path)).gather([1])
    assert shown[-1] == ""


def test_the_bar_of_all_counts_tasks_by_their_work(board):
    _, shown, _ = board
    with progress.overall("all", 10) as whole:
        with whole.piece(8, "the first"):
            assert shown[-1].endswith("the first")
            with progress.track(total=4, desc="steps") as bar:
                bar.update(2)
                kernel.BOARD.moved(at_once=True)
                of_all, of_steps = shown[-1].splitlines()
                assert (" 40% " in of_all, " 50% " in of_steps) == (True, True)
        with whole.piece(2), progress.overall("inner", 5) as inner, inner.piece(5):
            kernel.BOARD.moved(at_once=True)
            assert len(shown[-1].splitlines()) == 1, "within another, none is added"
            assert " 80% " in shown[-1]
    assert shown[-1] == ""


def test_in_text_there_is_one_line_which_says_what_it_is_at(monkeypatch):
    import tqdm

    drawn = []

    class Noting(tqdm.tqdm):
        def __init__(self, *arguments, **settings):
            super().__init__(*arguments, **{**settings, "disable": False, "file": io.StringIO()})

        def refresh(self, *_, **__):
            drawn.append(str(self))

    monkeypatch.setattr(tqdm, "tqdm", Noting)
    monkeypatch.setattr(progress, "EVERY", 0.0)
    with progress.overall("all", 10) as whole, whole.piece(8), progress.track(total=4, desc="PGD-AT, seed 0") as bar:
        bar.update(2)
        bar.set_postfix(loss="0.5")
    line = re.compile(r"all {30} +40% \|.*\| 00:00 < \d\d:\d\d, PGD-AT, seed 0 50%, loss=0.5$")
    assert any(map(line.match, drawn)), drawn
    assert re.match(r"all {30} +80% ", drawn[-1]), "when a piece is done, nothing is said of it any more"
    drawn.clear()
    assert list(progress.track([1, 2], desc="alone")) == [1, 2]


def test_a_terminals_notebook_has_text_and_no_rows(monkeypatch):
    monkeypatch.setattr(kernel, "inside", lambda: True)
    monkeypatch.delenv("TQDM_DISABLE", raising=False)
    monkeypatch.delenv(progress.TEXT_ONLY, raising=False)
    assert progress._has_rows()
    monkeypatch.setenv(progress.TEXT_ONLY, "1")
    assert not progress._has_rows()
    monkeypatch.delenv(progress.TEXT_ONLY)
    monkeypatch.setenv("TQDM_DISABLE", "1")
    assert not progress._has_rows()


# where files go


def figure_1(**parameters):
    return exhibits.setup(FIG1, parameters.pop("profile", "smoke"), **parameters)


def named(**parameters):
    """Return the folder of Figure 1 with parameters, below figures/smoke."""
    return figure_1(**parameters).output_dir.relative_to(ROOT / "figures" / "smoke").as_posix()


def test_parameters_that_are_not_the_profiles_have_a_folder_of_their_own():
    assert named() == "."
    assert named(n_seeds=3) == ".", "with more seeds, the same is measured more exactly"
    assert named(epochs=3, dataset="digits", seed=0) == ".", "what is set as the profile has it is no change"
    assert named(eps=0.15) == "changed/eps=0.15"
    assert named(eps="0.15") == named(eps="15/100") == "changed/eps=0.15"
    assert named(seed=2, n_seeds=3) == "changed/seed=2"
    assert named(student="resnet18/8", epochs=2) == "changed/epochs=2,student=resnet18-8-" + digest_of(
        epochs=2, student="resnet18/8"
    )
    assert named(n_test="none", teacher_method="TRADES") == "changed/n_test=none,teacher_method=TRADES"
    assert re.fullmatch(r"changed/settings=[\w.,=+-]+-[0-9a-f]{8}", named(settings={"PeerAiD": {"tau": 2}}))
    assert figure_1(profile="quick", eps=0.1).output_dir == ROOT / "figures" / "quick" / "changed" / "eps=0.1"
    assert figure_1(eps=0.15).changes == {"eps": 0.15}


def digest_of(**values):
    return hashlib.sha256(json.dumps(values, sort_keys=True).encode()).hexdigest()[:8]


def test_different_changes_have_different_folders_whatever_their_values():
    values = [
        *("a/b", "a-b", "a b", "", "x" * 300, "x" * 301, "é", "è", "..", "/"),
        *([1, 2], [2, 1], ["1+2"], "1+2", {"a": 1}, {"a": 2}, None, True, 0.1, 1e-300),
    ]
    folders = [paths.output_folder("smoke", changed={"value": value}) for value in values]
    assert len(set(folders)) == len(values)
    for folder in folders:
        assert folder.parent == ROOT / "figures" / "smoke" / "changed"
        assert checks.is_file_name(folder.name)
        assert re.fullmatch(r"[\w.,=+-]+", folder.name, re.ASCII)
    same = [{"a": (1, 2), "b": 3}, {"b": 3, "a": [1, 2]}]
    assert len({paths.output_folder("smoke", changed=each) for each in same}) == 1
    assert paths.output_folder("smoke", changed={"a": object}).name.startswith("a=-class-object")


@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)
def test_an_exhibit_knows_its_notebooks_own_parameters(path):
    """Those that the notebook hands over are setup's matter; tab9's cell replaces `rounds` by the number of rounds."""
    cells = [each for each in json.loads(path.read_text())["cells"] if each["cell_type"] == "code"]
    source = "".join(next(each for each in cells if "parameters" in each["metadata"].get("tags", []))["source"])
    values: dict = {}
    exec(source, values)
    code = "\n".join("".join(each["source"]) for each in cells)
    calls = (each for each in ast.walk(ast.parse(code)) if isinstance(each, ast.Call))
    (call,) = (each for each in calls if ast.unparse(each.func) == "exhibits.setup")
    handed_over = {keyword.arg for keyword in call.keywords}
    own = {
        name: value
        for name, value in values.items()
        if name not in {"__builtins__", "profile", "more", "rounds", *handed_over}
    }
    declared = dict(exhibits.get(path.stem).own)
    assert {name: paths.plain_value(value) for name, value in declared.items()} == {
        name: paths.plain_value(value) for name, value in own.items()
    }


def set_up(name, **values):
    """Call exhibits.setup as a notebook does whose parameters cell has these values."""
    namespace = dict(values)
    exec(f"from rkdkit import exhibits\nsetup = exhibits.setup({name!r}, 'smoke')", namespace)
    return namespace["setup"]


def test_a_notebooks_own_parameters_count_though_they_are_not_handed_over():
    fig12 = "fig12_trajectories"
    usual = {"mixing": (0.3, 0.7), "early_stop": 0.25, "n_rankers": 5, "within_class": True}
    assert set_up(fig12, **usual).own == {}
    assert set_up(fig12, **usual, other=5).output_dir == ROOT / "figures" / "smoke"
    assert set_up(fig12, **{**usual, "mixing": [0.3, 0.7]}).own == {}, "papermill has no tuples"
    changed = set_up(fig12, **{**usual, "n_rankers": 3})
    assert changed.own == changed.changes == {"n_rankers": 3}
    assert changed.output_dir.name == "n_rankers=3"
    assert "(n_rankers changed)" in str(changed)
    assert set_up(fig12).own == {}, "a script need not have them"


def test_a_relative_output_folder_begins_where_one_is(tmp_path, monkeypatch, lab):
    monkeypatch.chdir(tmp_path)
    assert figure_1(output_dir="mine").output_dir == tmp_path / "mine"
    assert figure_1(output_dir="../mine", eps=0.1).output_dir == tmp_path / "../mine"
    assert figure_1(output_dir=str(ROOT)).output_dir == ROOT
    assert figure_1(output_dir="").output_dir.parent.name == "figures"
    shown = lab.run(
        f"from rkdkit import exhibits\nprint(exhibits.setup({FIG1!r}, 'smoke', output_dir='mine').output_dir)"
    )
    assert shown.said["stdout"].strip() == str(lab.folder / "mine")


def test_the_command_line_hands_on_where_it_was_called(tmp_path, monkeypatch):
    """The notebook is run in the project's folder."""
    monkeypatch.chdir(tmp_path)
    _, parameters = cli._asked([FIG1], "smoke", ["output_dir=mine"])
    assert parameters[FIG1]["output_dir"] == str(tmp_path / "mine")
    _, parameters = cli._asked([FIG1], "smoke", None)
    assert "output_dir" not in parameters[FIG1]


def note(folder, name=FIG1, **content):
    """Write an exhibit's three files."""
    folder.mkdir(parents=True, exist_ok=True)
    summary = {"exhibit": name, "provenance": {"runs": []}, "claims": [], **content}
    write_exhibit(folder / f"{name}.json", summary, picture=b"", numbers=b"")


@pytest.fixture
def project(tmp_path, monkeypatch):
    """A project's folder, with the kit's notebooks."""
    (tmp_path / "pyproject.toml").write_text('[project]\nname = "rkdkit"\n')
    (tmp_path / "notebooks").symlink_to(ROOT / "notebooks")
    monkeypatch.chdir(tmp_path)
    return tmp_path


def test_the_command_that_makes_an_exhibit_again_puts_it_where_it_was(project):
    file = project / "figures" / "smoke" / "changed" / "eps=0.1,seed=2" / f"{FIG1}.json"
    about = {"profile": "smoke", "overrides": {"eps": 0.1}, "seeds": [2, 3]}
    command = command_of(file, about)
    assert command == f"rkdkit figures {FIG1} --profile smoke -p eps=0.1 -p seed=2 -p n_seeds=2"
    elsewhere = command_of(project / "figures" / "smoke" / f"{FIG1}.json", about)
    assert elsewhere == f"{command} -p output_dir=figures/smoke"
    own = {"profile": "smoke", "overrides": {}, "own": {"n_rankers": 3}, "seeds": [0]}
    file = project / "figures" / "smoke" / "changed" / "n_rankers=3" / "fig12_trajectories.json"
    assert command_of(file, own) == "rkdkit figures fig12_trajectories --profile smoke -p n_rankers=3"


def test_a_command_names_a_folder_as_it_is_seen_from_where_one_is(project, monkeypatch):
    file = project / "results" / "mine" / f"{FIG1}.json"
    assert command_of(file, {"profile": "small"}).endswith("--profile small -p output_dir=results/mine")
    (project / "results").mkdir()
    monkeypatch.chdir(project / "results")
    assert command_of(file, {"profile": "small"}).endswith("-p output_dir=mine")
    (project / "docs").mkdir()
    monkeypatch.chdir(project / "docs")
    assert command_of(file, {"profile": "small"}).endswith(f"-p output_dir={file.parent}")


def test_what_was_saved_in_a_folder_of_its_own_is_told_of_and_counted(project):
    notebook = Notebook(project / "notebooks" / f"{FIG1}.ipynb", {"profile": "smoke", "eps": 0.1})
    note(project / "figures" / "smoke")
    note(project / "figures" / "smoke" / "changed" / "eps=0.2")
    before = outcome.saved([notebook])
    assert len(before) == 2
    note(project / "figures" / "smoke" / "changed" / "eps=0.1")
    (line,) = outcome.told([notebook], before, time.time())
    assert line.startswith("Exhibits: 1, in ")
    assert not outcome.is_broken(notebook, before)
    (project / "figures" / "smoke" / "changed" / "eps=0.1" / f"{FIG1}.csv").write_text("another")
    assert outcome.is_broken(notebook, before)


def test_prune_knows_what_lies_in_folders_of_their_own(project):
    note(project / "figures" / "quick" / "changed" / "eps=0.1", profile="quick", overrides={"eps": 0.1}, seeds=[0])
    ((exhibit,), unreadable) = made.made_exhibits()
    assert (exhibit.place, unreadable) == (f"figures/quick/changed/eps=0.1/{FIG1}.json", [])
    assert exhibit.command == f"rkdkit figures {FIG1} --profile quick -p eps=0.1"


def test_push_looks_where_setup_saves(tmp_path):
    for given in (
        {},
        {"eps": "8/255", "n_seeds": 3},
        {"seed": 2.0, "more": {"lr": 0.05}},
        {"output_dir": str(tmp_path), "eps": 0.1},
        {"settings": {"KD": {"tau": 5}}, "milestones": (1, 2)},
    ):
        notebook = Notebook(Path("notebooks") / f"{FIG1}.ipynb", {"profile": "smoke", **given})
        flat = {name: value for name, value in given.items() if name != "more"} | given.get("more", {})
        assert cli_push._folder_of(notebook) == figure_1(**flat).output_dir
    own = Notebook(Path("notebooks") / "fig12_trajectories.ipynb", {"profile": "smoke", "n_rankers": 3})
    assert cli_push._folder_of(own).name == "n_rankers=3"
    theirs = Notebook(Path("notebooks") / "mine.ipynb", {"profile": "smoke"})
    assert cli_push._folder_of(theirs) == ROOT / "figures" / "smoke"


def test_git_ignores_what_is_played_with():
    ignored = (ROOT / ".gitignore").read_text().splitlines()
    assert ignored.index("!/figures/quick/") < ignored.index("/figures/quick/changed/")


# names


def test_what_others_call_a_parameter_leads_to_its_name_here():
    known = {"profile", "seed", "n_seeds", "output_dir", *setup.FIELDS}
    assert set(setup.SYNONYMS.values()) <= known
    assert known.isdisjoint(setup.SYNONYMS)
    for other, name in {**setup.SYNONYMS, "Learning-Rate": "lr", "batchSize": "batch_size"}.items():
        with pytest.raises(checks.UnknownNameError, match=f"Did you mean '{name}'\\? Known: {name}, "):
            figure_1(**{other: 1})
    with pytest.raises(checks.UnknownNameError, match="This exhibit does not use eps"):
        exhibits.setup("fig2_method_overview", "smoke", eps=0.1)
    with pytest.raises(checks.UnknownNameError) as refused:
        exhibits.setup("tab11_model_cost", "smoke", epsilon=0.1)
    assert "'eps'" not in str(refused.value), "what the exhibit does not use is not proposed"
    done = CliRunner().invoke(cli.app, ["figures", FIG1, "-p", "epsilon=0.1"])
    assert "Unknown parameter 'epsilon'. Did you mean 'eps'?" in done.output


def test_the_version_is_said_without_waiting_for_torch(tmp_path):
    code = (
        "import sys\nfrom typer.testing import CliRunner\nfrom rkdkit import cli\n"
        "done = CliRunner().invoke(cli.app, ['--version'])\nassert done.exit_code == 0, done.output\n"
        "print(done.output, 'torch' in sys.modules)"
    )
    said, errors = run_python(code, tmp_path / "store").communicate(timeout=300)
    python = ".".join(map(str, sys.version_info[:3]))
    commit = r"( \(commit [0-9a-f]{12}(, changed since)?\))?"
    assert re.match(rf"rkdkit \d+\.\d+\.\d+{commit}, torch \d[\w.+]*, Python {python}\n+ False", said), (said, errors)
    assert CliRunner().invoke(cli.app, ["--help"]).output.count("Robust knowledge distillation, reproduced.") == 1


def test_a_training_alone_says_what_it_is_by_its_short_name(store, monkeypatch):
    tracked = []
    tracker = progress.track
    monkeypatch.setattr(
        "rkdkit.trainings.track", lambda *a, **settings: tracked.append(settings["desc"]) or tracker(*a, **settings)
    )
    Here(store).gather([Train(tiny_spec(epochs=1, seed=3))])
    assert tracked == ["PGD-AT, seed 3, resnet18/16"]
