"""Methods of one's own: a Python file adds them, and they are compared with the papers'."""

import json
import os
import re
import shlex
import shutil
import subprocess
import sys
import typing
from dataclasses import replace
from types import SimpleNamespace

import matplotlib.image
import pandas as pd
import pytest
import torch
from conftest import ROOT, tiny_spec
from given import Given
from matplotlib.colors import to_rgb
from test_comparisons import made_up
from typer.testing import CliRunner

from rkdkit import claims, cli, cli_methods, comparisons, drawing, executors, exhibits, figures, methods, plan, saved
from rkdkit.analysis.white_box import compared
from rkdkit.checks import UnknownNameError
from rkdkit.exhibits import fig4_loss_landscape as fig4
from rkdkit.exhibits import fig5_tsne as fig5
from rkdkit.exhibits import fig11_entropy as fig11
from rkdkit.exhibits import tab1_white_box as tab1
from rkdkit.exhibits import tab3_weight_averaging as tab3
from rkdkit.exhibits import tab4_teacher_architecture as tab4
from rkdkit.exhibits import tab5_transfer_attacks as tab5
from rkdkit.exhibits import tab6_gradient_obfuscation as tab6
from rkdkit.exhibits import tab10_attack_suite as tab10
from rkdkit.methods import METHODS, own, recipes
from rkdkit.methods.table import BUILT_IN
from rkdkit.papers.reported import beside, reported
from rkdkit.plan.ask import Planner, ask
from rkdkit.references import Snapshot
from rkdkit.spec import RunSpec
from rkdkit.store import Store
from rkdkit.tasks import with_teachers

PAGE = (ROOT / "docs" / "methods.md").read_text(encoding="utf-8").partition("\n## Your own method\n")[2]
FILE, SCRIPT = re.findall(r"```python\n(.*?)```", PAGE, re.DOTALL)
COMMANDS = re.findall(r"```console\n(.*?)```", PAGE, re.DOTALL)[0].splitlines()
IMPORTS = "from dataclasses import replace\nfrom rkdkit.methods import METHODS, Maximised, Method, Term\n"
COMPARING = [name for name in exhibits.NAMES if exhibits.get(name).compares]
TINY = {"n_train": 64, "n_val": 32, "n_test": 32, "epochs": 2, "swa_start": 1, "attack_steps": 1}


@pytest.fixture(autouse=True)
def the_table_as_it_was(monkeypatch):
    """Whatever a test adds to the table or names in the environment is gone after it."""
    monkeypatch.setenv(own.VARIABLE, "")
    monkeypatch.setenv(own.UNCHANGED, "")
    before, loaded = dict(METHODS), dict(own._LOADED)
    yield
    for table, content in ((METHODS, before), (own._LOADED, loaded)):
        table.clear()
        table.update(content)


@pytest.fixture
def file(tmp_path):
    """The file that docs/methods.md shows."""
    path = tmp_path / "my_methods.py"
    path.write_text(FILE)
    return path


@pytest.fixture
def mine(file, monkeypatch):
    """The same, named to whoever sets up an exhibit."""
    monkeypatch.setenv(own.VARIABLE, str(file))
    return file


def rkdkit(*arguments):
    return CliRunner().invoke(cli.app, [str(argument) for argument in arguments])


def test_a_file_adds_methods_once(tmp_path):
    path = tmp_path / "mine.py"
    count = "from pathlib import Path\nwith Path(__file__).with_name('n').open('a') as n: n.write('x')\n"
    path.write_text(f'{IMPORTS}{count}{FILE}METHODS["second"] = replace(METHODS["KD"], title="2")')
    before = dict(METHODS)
    assert own.load(path) == own.load(str(path)) == ("mine", "second")
    assert (tmp_path / "n").read_text() == "x"
    assert list(METHODS) == [*before, "mine", "second"]
    assert all(METHODS[name] is row for name, row in before.items())
    assert (METHODS["mine"].guides, methods.get("second").minimises) == (("T",), METHODS["KD"].minimises)
    source = own.source_of("second")
    assert (source.file, source.names) == (path, ("mine", "second"))
    assert own.source_of("RSLAD") is None


def test_a_file_that_changed_is_executed_again_and_if_it_is_refused_then_the_table_stays_as_it_was(file):
    own.load(file)
    first = METHODS["mine"]
    file.write_text(FILE.replace('"l": 0.7', '"l": 0.6').replace('"mine"', '"other"'))
    assert own.load(file) == ("other",)
    assert "mine" not in METHODS
    assert (first.settings["l"], METHODS["other"].settings["l"]) == (0.7, 0.6)
    before = dict(METHODS)
    file.write_text(FILE + "1 / 0")
    with pytest.raises(ValueError, match="ZeroDivisionError"):
        own.load(file)
    assert list(METHODS.items()) == list(before.items())


WRONG = [
    ("METHODS['mine'] = (", r"line 3: SyntaxError: '\(' was never closed"),
    ("METHODS['mine'] = 1 / 0", "line 3: ZeroDivisionError: division by zero"),
    ("import nothing_of_this_name", "line 3: ModuleNotFoundError: No module named 'nothing_of_this_name'"),
    ("def row():\n    return Methd()\nMETHODS['mine'] = row()", r"line 4: NameError: name 'Methd'.*from rkdkit"),
    ("import sys; sys.exit(3)", "line 3: SystemExit: 3"),
    ("raise RuntimeError('a\\nb')", "line 3: RuntimeError: a b"),
    ("x = 1", r"adds no method: METHODS\[\"mine\"\] = Method\(...\) in it does"),
    ("METHODS['KD'] = METHODS['KD']", "adds no method"),
    ("METHODS['KD'] = replace(METHODS['KD'])", "adds no method"),
    ("METHODS['RSLAD'] = replace(METHODS['RSLAD'], title='x')", "the name 'RSLAD' is that of a method of the kit"),
    ("del METHODS['RSLAD']", "removes the method 'RSLAD'"),
    ("METHODS['mine'] = 3", r"METHODS\[\"mine\"\] must be a Method, not 3"),
    ("METHODS['mine'] = METHODS['RSLAD']", r"the title 'RSLAD' of 'mine' is that of the method 'RSLAD'.*title='mine'"),
    (
        "METHODS['mine'] = Method('Mine', 'a test', (Term('CE', 'y', 'S(x)', weight='l'),))",
        r'line 3: The row Mine has no default for its setting l: name one, as in settings={"l": 1.0}\.',
    ),
    *((f"METHODS[{name!r}] = replace(METHODS['KD'], title='x')", "a method cannot be called")
      for name in ("ARD with the code's loss", "RSLAD (code)", "mine + SWA", "peer", "",
                   " mine", "a\nb", "a, b", "x" * 61, 3)),
    *((f"METHODS['mine'] = replace(METHODS['KD'], title={title!r})", "the title of 'mine' must be a text of one line")
      for title in ("", "a\nb", "$x", "x" * 61, 3, "_mine", " Mine", "Mine ", "a\x07b", "T\u200b")),
    ("METHODS['mine'] = replace(METHODS['KD'], title='rslad')", "the title 'rslad' of 'mine' is that of"),
    ("METHODS['mine'] = replace(METHODS['KD'], title='x', recipe={'epoch': 100})",
     "line 3: .*Unknown field in the recipe of the row x 'epoch'. Did you mean 'epochs'"),
    ("METHODS['mine'] = replace(METHODS['KD'], title='x', recipe_on={'cifar10': {'seed': 1}})",
     "Unknown field in the recipe of the row x on cifar10 'seed'"),
    ("METHODS['mine'] = replace(METHODS['KD'], title='x', recipe={'milestones': 50})",
     "In the recipe of the row x, milestones must be a list"),
    ("METHODS['mine'] = replace(METHODS['KD'], title='x', recipe=['epochs'])",
     "recipe of the row x must be values by name"),
    ("METHODS['mine'] = replace(METHODS['KD'], title='x', recipe_on={'cifar10': 100})",
     "recipe of the row x on cifar10 must be values by name"),
    ("METHODS['a'] = replace(METHODS['KD'], title='x')\nMETHODS['b'] = METHODS['a']", "the title 'x' of 'a'"),
]  # fmt: skip


@pytest.mark.parametrize(("code", "message"), WRONG, ids=[str(i) for i in range(len(WRONG))])
def test_a_file_is_refused_in_one_line_and_the_table_stays_as_it_was(tmp_path, code, message):
    path, before, modules = tmp_path / "wrong.py", dict(METHODS), set(sys.modules)
    path.write_text(f"{IMPORTS}{code}\n")
    with pytest.raises(ValueError, match=message) as refused:
        own.load(path)
    assert str(path) in str(refused.value)
    assert "\n" not in str(refused.value)
    assert refused.value.__cause__ is None
    assert refused.value.__suppress_context__ or refused.value.__context__ is None, "no traceback of the file's"
    assert list(METHODS.items()) == list(before.items())
    assert not [name for name in set(sys.modules) - modules if name.startswith(own.__name__)]


def test_a_path_that_is_no_file_and_a_name_of_another_file_are_refused(file, tmp_path):
    with pytest.raises(ValueError, match=r"There is no file .*nowhere.py. --methods and RKDKIT_METHODS name"):
        own.load(tmp_path / "nowhere.py")
    with pytest.raises(ValueError, match="cannot be read: Is a directory"):
        own.load(tmp_path)
    other = tmp_path / "other.py"
    other.write_text(FILE.replace('"l": 0.7', '"l": 0.5'))
    own.load(file)
    with pytest.raises(ValueError, match="the name 'mine' is taken"):
        own.load(other)
    other.write_text(FILE)
    assert own.load(other) == ("mine",), "the same row, as a worker knows it that was sent a task"


def test_a_kits_method_that_a_file_names_again_stays_when_the_file_changes(file):
    file.write_text(IMPORTS + FILE + 'METHODS["RSLAD"] = replace(METHODS["RSLAD"])\n')
    assert own.load(file) == ("mine",)
    assert own.source_of("RSLAD") is None
    file.write_text(FILE)
    assert own.load(file) == ("mine",)
    assert "RSLAD" in METHODS


def test_a_notebook_refuses_a_file_that_changed_after_the_command_had_read_it(file):
    assert rkdkit("methods", "--methods", file).exit_code == 0
    file.write_text(FILE.replace('"l": 0.7', '"l": 0.6'))
    told = subprocess.run(
        [sys.executable, "-c", "from rkdkit.methods import own; own.load_named()"],
        check=False, capture_output=True, text=True,
    ).stderr  # fmt: skip
    assert told.endswith(f"ValueError: {file} was changed after the command had read it: run the command again.\n")
    other = file.with_name("other.py")
    other.write_text(FILE)
    assert own.load(other) == ("mine",)


def test_a_home_that_is_nobodys_is_no_file():
    done = rkdkit("methods", "--methods", "~nobody_of_this_name/x.py")
    assert (done.exit_code, "There is no file" in done.output) == (1, True), done.output


def test_the_kits_own_names_and_titles_would_do():
    assert tuple(METHODS) == BUILT_IN
    for name in BUILT_IN:
        own._check(name, METHODS)


def test_a_command_reads_the_file_once_and_a_notebook_whenever_it_sets_up_an_exhibit(mine, monkeypatch):
    assert own.load_named() == ("mine",)
    mine.write_text(FILE.replace('"l": 0.7', '"l": 0.6'))
    assert own.load_named() == ("mine",)
    assert METHODS["mine"].settings["l"] == 0.7
    monkeypatch.setitem(sys.modules, "ipykernel.kernelapp", sys)
    assert own.load_named() == ("mine",)
    assert METHODS["mine"].settings["l"] == 0.6
    monkeypatch.setenv(own.VARIABLE, "")
    assert own.load_named() == ()


def test_a_label_has_the_title_in_the_place_of_the_name(file):
    own.load(file)
    METHODS["mine too"] = replace(METHODS["mine"], title="2nd")
    labels = {"mine": "Mine", "mine + SWA": "Mine + SWA", "mine, resnet18/8 by x": "Mine, resnet18/8 by x"}
    others = {"mine too": "2nd", "mine too, y": "2nd, y"} | {
        "mines": "mines",
        "no mine": "no mine",
        "RSLAD": "RSLAD",
        "": "",
    }
    assert {label: methods.titled(label) for label in labels | others} == labels | others


@pytest.mark.usefixtures("mine")
def test_exhibits_compare_the_papers_methods_or_those_that_a_notebook_names():
    plain = exhibits.setup("tab1_white_box", "smoke")
    assert (plain.methods, plain.overrides) == (tab1.METHODS, {})
    assert exhibits.setup("tab1_white_box", "smoke", methods=tab1.METHODS).overrides == {}
    names = ["PGD-AT", "RSLAD", "mine"]
    asked = exhibits.setup("tab1_white_box", "smoke", methods=names)
    assert (asked.methods, asked.overrides) == (tuple(names), {"methods": names})
    assert str(asked).startswith("smoke profile (methods changed): ")
    assert asked.changed(eps=0.1).methods == tuple(names)
    assert exhibits.setup("fig1_peer_vs_teacher", "smoke").methods == ()
    given = exhibits.setup("tab1_white_box", "smoke", methods=names, settings={"mine": {"l": 0.5}})
    assert given.overrides["settings"] == {"mine": {"l": 0.5}}


@pytest.mark.parametrize(
    ("name", "given", "message"),
    [
        ("tab1_white_box", ["RSLAD", "RSLD"], "Unknown method 'RSLD'. Did you mean 'RSLAD'.*of your own.*--methods"),
        ("tab1_white_box", "RSLAD", r"methods must be a list, as in \[\"PGD-AT\", \"RSLAD\"\], not 'RSLAD'"),
        ("tab1_white_box", ["RSLAD"], "methods must list at least 2 methods, and each once"),
        ("tab1_white_box", ["RSLAD", "RSLAD"], "each once"),
        ("tab1_white_box", ["RSLAD", 3], "Unknown method 3"),
        ("tab6_gradient_obfuscation", [], "methods must list at least 1 method, and"),
        ("fig5_tsne", ["PGD-AT", "ARD"], r"ARD needs a teacher \(T\), and none is trained here for it"),
        ("fig11_entropy", ["AKD2"], r"AKD2 needs a robust teacher \(T_rob\), and none is trained here"),
        ("fig1_peer_vs_teacher", ["PGD-AT"], "This exhibit takes no methods: what it compares is fixed"),
    ],
)
def test_a_list_of_methods_that_does_not_do_is_refused_when_the_exhibit_is_set_up(name, given, message):
    with pytest.raises((UnknownNameError, ValueError), match=message):
        exhibits.setup(name, "smoke", methods=given)


@pytest.mark.usefixtures("mine")
def test_a_method_that_is_not_known_although_a_file_is_named_has_no_hint_at_it():
    with pytest.raises(UnknownNameError, match="Unknown method 'mein'") as refused:
        exhibits.setup("tab1_white_box", "smoke", methods=["RSLAD", "mein"])
    assert "Did you mean 'mine'" in str(refused.value)
    assert "--methods" not in str(refused.value)


def test_a_method_that_cannot_be_trained_at_the_scale_is_refused_before_training(mine):
    mine.write_text(FILE.replace('source="an example"', 'source="an example", recipe={"schedule": "steps"}'))
    assert exhibits.setup("tab1_white_box", "smoke", methods=["RSLAD", "mine"])
    with executors.using(Planner()), pytest.raises(UnknownNameError, match="Unknown schedule 'steps'"):
        exhibits.setup("tab1_white_box", "paper", methods=["RSLAD", "mine"])
    with pytest.raises(ValueError, match="Mine needs a teacher"):
        exhibits.setup("tab1_white_box", "smoke", teacher_method="mine")


def test_a_recipe_may_set_each_field_of_a_training_and_none_that_says_what_is_trained():
    kinds = typing.get_type_hints(RunSpec)
    what = {"method", "dataset", "student", "peer", "teachers", "settings", "seed", "n_train", "n_val"}
    assert set(kinds) - set(recipes.FIELDS) == what | {"engine", "reading"}
    assert {name: kinds[name] for name in recipes.FIELDS} == typing.get_type_hints(recipes._Recipe)


def test_a_file_that_does_not_do_is_said_when_an_exhibit_is_set_up(tmp_path, monkeypatch):
    monkeypatch.setenv(own.VARIABLE, str(tmp_path / "nowhere.py"))
    with pytest.raises(ValueError, match="There is no file"):
        exhibits.setup("fig1_peer_vs_teacher", "smoke")


def test_those_exhibits_take_methods_whose_notebooks_do():
    taking = set()
    for path in (ROOT / "notebooks").glob("*.ipynb"):
        cells = json.loads(path.read_text(encoding="utf-8"))["cells"]
        (parameters,) = (cell for cell in cells if "parameters" in cell["metadata"].get("tags", ()))
        taking |= {path.stem} if re.search("^methods = None", "".join(parameters["source"]), re.MULTILINE) else set()
    assert taking == set(COMPARING)
    listed = "of `tab1`, `tab3` to `tab6`, `tab10` and `fig4`; of `fig5`"
    assert listed in PAGE
    assert {name.partition("_")[0] for name in COMPARING} == {
        *("tab1", "tab3", "tab4", "tab5", "tab6", "tab10", "fig4", "fig5", "fig11")
    }


ALONE = 'METHODS["alone"] = replace(METHODS["PGD-AT"], title="Alone", eps_factor=0.5)\n'


@pytest.mark.parametrize("name", COMPARING)
def test_each_notebook_trains_and_measures_the_methods_that_it_is_given(name, mine, tmp_path):
    mine.write_text(f"{IMPORTS}{FILE}{ALONE}")
    given = {"fig5_tsne": ["alone", "TRADES"], "fig11_entropy": ["mine", "AKD"]}.get(name, ["PGD-AT", "mine", "alone"])
    planner = Planner(Store(tmp_path))
    assert ask(planner, ROOT / "notebooks" / f"{name}.ipynb", {"profile": "smoke", "methods": given}) == []
    trained = {task.spec.method for task in planner.trainings}
    teachers = {"TRADES", "PeerAiD"} if name == "fig5_tsne" else {"TRADES"}
    teachers = {"Natural", "PGD-AT"} if name == "fig11_entropy" else teachers
    assert trained == {*given, *teachers}
    measured = {spec.method for task in planner.measurements for spec in task.specs}
    assert set(given) <= measured


def some_answers(task):
    """Right on images by chance, but the same ones whenever the same is asked."""
    generator = torch.Generator().manual_seed(int(torch.tensor(list(task.name.encode())).sum()))
    return torch.rand(len(task.judges), len(task.images), generator=generator) < 0.6


def cells(name, executor, **parameters):
    """Run a notebook's cells but the last, which saves; return its variables."""
    from rkdkit.plan.ask import _sources

    namespace = {"display": lambda *_: None}
    with executors.using(executor):
        for source in list(_sources(ROOT / "notebooks" / f"{name}.ipynb", parameters))[:-1]:
            exec(source, namespace)
    return namespace


NOT_IN_PAPER = {("tab4", "PGD-AT"), ("tab6", "PGD-AT"), ("tab10", "PeerAiD")}


def texts(figure):
    """All texts of a figure."""
    return {text.get_text() for text in figure.findobj(lambda artist: hasattr(artist, "get_text"))}


@pytest.mark.usefixtures("mine", "closed")
@pytest.mark.parametrize(
    "name", ["tab1_white_box", "tab3_weight_averaging", "tab4_teacher_architecture", "tab5_transfer_attacks",
             "tab6_gradient_obfuscation", "tab10_attack_suite"],
)  # fmt: skip
@pytest.mark.parametrize("given", [["PGD-AT", "RSLAD", "mine"], ["PeerAiD", "mine"]])
def test_tables_are_drawn_with_a_title_and_the_papers_numbers_beside_the_papers_methods(name, given, tmp_path, capsys):
    drawn = cells(name, Given(Store(tmp_path), some_answers), profile="smoke", methods=given)
    said, numbers = capsys.readouterr(), drawn["numbers"]
    ours = numbers[numbers.accuracy.notna()]
    assert {method.removesuffix(" + SWA") for method in ours.method} == set(given)
    of_mine = ours[ours.method.str.startswith("mine")]
    assert of_mine.paper.isna().all()
    in_paper = ours[ours.method == given[0]].paper.notna().any()
    assert in_paper == ((name.partition("_")[0], given[0]) not in NOT_IN_PAPER)
    shown = texts(drawn["figure"])
    assert any("Mine" in text for text in shown)
    assert not any(re.search(r"\bmine\b", text) for text in shown)
    if "compared_with" in numbers and name != "tab3_weight_averaging":
        reference = {"tab10_attack_suite": given[-1]}.get(name, "PeerAiD" if "PeerAiD" in given else "mine")
        reference = "PGD-AT" if name == "tab10_attack_suite" and "PGD-AT" in given else reference
        assert set(numbers.compared_with) == {"", reference}
        assert numbers[numbers.compared_with != ""].difference.notna().all()
    left_out = "Left out, as they are about methods that are not compared here:"
    everything = name in ("tab6_gradient_obfuscation",) and "PeerAiD" in given
    assert (left_out in said.out + said.err) != everything
    assert ("Claims: holds:" in said.out) or "No claims are judged." in said.out
    assert not any("mine" in claim.text for claim in drawn["checked"])


def test_each_claim_needs_the_methods_that_it_is_about(capsys):
    by = {"clean": 0.5, "autoattack": 0.3}
    every = made_up(dict.fromkeys((*tab1.METHODS, "mine"), by) | {"mine": {"clean": 0.9, "autoattack": 0.9}})
    checked = tab1.check_claims(every)
    assert len(checked) == 3
    assert checked[0].confidence == pytest.approx(1 - 0.05 / 8), "mine is no rival of the paper's"
    assert capsys.readouterr() == ("", "")
    without = made_up(dict.fromkeys([name for name in tab1.METHODS if name != "Natural"], by))
    (only,) = tab1.check_claims(without)
    assert only.text == checked[1].text
    said = "".join(capsys.readouterr())
    assert said.splitlines()[1:] == [
        f"  {checked[0].text} (not compared here: Natural)",
        f"  {checked[2].text} (not compared here: Natural)",
    ]
    assert claims.report(tab1.check_claims(made_up({"PGD-AT": by, "mine": by}))) == "No claims are judged."


@pytest.mark.parametrize(
    ("names", "expected"),
    [
        (["PGD-AT", "PeerAiD", "mine"], {"PGD-AT": "PeerAiD", "mine": "PeerAiD"}),
        (["PGD-AT", "RSLAD", "mine"], {"PGD-AT": "mine", "RSLAD": "mine"}),
        (["mine"], {}),
    ],
)
def test_methods_are_compared_with_peeraid_or_the_last(names, expected):
    assert compared(names) == expected


@pytest.mark.parametrize(
    ("names", "expected"),
    [
        (tab10.METHODS, {"ARD": "PGD-AT", "Fast-ARD": "Free-AT"}),
        (["PGD-AT", "ARD", "mine"], {"ARD": "PGD-AT", "mine": "PGD-AT"}),
        (["ARD", "mine", "KD"], {"mine": "KD"}),
        (["PGD-AT", "Free-AT"], {}),
        (["PGD-AT"], {}),
    ],
)
def test_table_11s_other_methods_are_compared_with_one_that_has_no_teacher(names, expected):
    assert tab10.compared(names) == expected


@pytest.mark.usefixtures("closed")
def test_accuracies_that_are_compared_with_nothing_are_drawn_alone():
    measured = made_up({"PGD-AT": {"clean": 0.5}, "mine": {"clean": 0.6}})
    measured = replace(measured, measured_by={"clean": None})
    numbers = beside(measured.table(), reported("peeraid", "Table 1"), "digits", "resnet18/4")
    (panel,) = figures.differences(measured.against({}, numbers), "title").axes
    assert [label.get_text() for label in panel.get_yticklabels()] == ["PGD-AT", "mine"]
    assert not any("paper" in text for text in texts(panel.figure))
    both = figures.differences(measured.against({"PGD-AT": "mine"}, numbers), "title")
    assert len(both.axes) == 2
    assert not any("paper" in text for text in texts(both)), "none of its numbers is drawn"


def test_table_4_has_lines_without_a_guide_and_table_5_all_methods_that_are_named():
    assert tab4.mobile_methods("smoke", named=("PGD-AT", "mine")) == ("PGD-AT", "mine")
    scale = exhibits.setup("tab4_teacher_architecture", "smoke").profile
    chosen = {name: [Snapshot(scale.spec(name), "student", 1)] for name in ("PGD-AT", "PeerAiD")}
    measured = made_up({name: {"clean": 0.5} for name in chosen})
    rows = tab4.beside_the_paper(measured, measured, chosen, chosen)
    both = ("PGD-AT, resnet18/16", "PeerAiD, resnet18/16 by resnet18/8")
    named = {f"{row} ({which})" for row in both for which in ("Table 4", "Table 5")}
    assert set(rows[rows.accuracy.notna()].row) == named, "the same networks in both tables"
    assert len(figures.differences(rows.assign(method=rows.row), "title").axes) == 2


def test_lines_of_landscapes_have_colours_of_their_own_and_averaged_weights_a_line_without():
    names = ["PGD-AT", "mine", "PeerAiD", "AKD2", "PeerAiD, not averaged", "AKD2, not averaged"]
    lines = fig4.lines(names)
    assert lines["PGD-AT"] == ("teacher", "-")
    assert (lines["PeerAiD"], lines[fig4.NOT_AVERAGED]) == (("student", "-"), ("student", "--"))
    assert lines["AKD2"][0] == lines["AKD2, not averaged"][0] != lines["mine"][0]
    known = {to_rgb(colour) for colour in figures.COLOURS.values()}
    assert not known & {to_rgb(figures.look.PALETTE[int(lines[name][0][1:])]) for name in ("mine", "AKD2")}


def test_landscapes_are_of_averaged_weights_and_of_the_others(tmp_path):
    with executors.using(Given(Store(tmp_path), some_answers)):
        asked = exhibits.setup("fig4_loss_landscape", "smoke", methods=["AKD2", "PGD-AT", "PeerAiD"])
        found = fig4.networks(asked, comparisons.train(asked, asked.methods))
    roles = {name: of_seeds[0].role for name, of_seeds in found.items()}
    averaged = {"AKD2": "student_averaged", "PGD-AT": "student", "PeerAiD": "student_averaged"}
    assert roles == {**averaged, "PeerAiD, not averaged": "student", "AKD2, not averaged": "student"}


@pytest.mark.usefixtures("mine", "closed")
def test_figure_11_follows_each_methods_students():
    own.load_named()
    taught_by = fig11.taught_by(["AKD", "mine"])
    assert taught_by == {"AKD-Std": "Natural", "AKD-AT": "PGD-AT", "mine, Std": "Natural", "mine, AT": "PGD-AT"}
    rows = [(name, epoch, 1.0, 0.9, 1.1) for name in ("Natural", "PGD-AT", *taught_by) for epoch in (1, 2)]
    table = pd.DataFrame(rows, columns=["network", "epoch", "entropy_nats", "low", "high"])
    (axes,) = figures.entropy_curves(table, 10, taught_by).axes
    look = {line.get_label(): (line.get_color(), line.get_linestyle()) for line in axes.lines}
    pairs = {"AKD-Std": "Natural", "AKD-AT": "PGD-AT", "Mine, Std": "Natural", "Mine, AT": "PGD-AT"}
    shown = [look[f"{name}: student of {teacher}"] for name, teacher in pairs.items()]
    assert len(set(shown)) == 4
    assert [to_rgb(colour) for colour, _ in shown[:2]] == [to_rgb(figures.COLOURS["student"])] * 2


@pytest.mark.usefixtures("nothing", "mine")
def test_figure_11s_students_have_the_papers_teachers():
    asked = exhibits.setup("fig11_entropy", "smoke", methods=["mine"])
    trained = fig11.train(asked)
    assert list(trained) == ["Natural", "PGD-AT", "mine, Std", "mine, AT"]
    (run,), (teacher,) = trained["mine, AT"], trained["PGD-AT"]
    assert (run.spec.method, run.spec.teachers[0].run, run.spec.teachers[0].epoch) == ("mine", teacher.spec, 3)
    with pytest.raises(ValueError, match="PGD-AT needs no fixed teacher"):
        fig11.train(exhibits.setup("fig11_entropy", "smoke", methods=["PGD-AT"]))


def test_figure_5s_panels_are_called_by_titles(mine):
    own.load(mine)
    titles = {"mine": "fixed teacher (Mine)", "TRADES": "fixed teacher (TRADES)", "peer": "peer"}
    assert fig5.titles(["mine", "TRADES"]) == titles


def test_claims_are_left_out_by_every_exhibit_that_compares(capsys):
    usual = exhibits.setup("tab6_gradient_obfuscation", "smoke").profile.test_attack
    metrics = ["clean", "autoattack", "pgd-20", "fgsm from resnet34", *tab6.obfuscation_attacks(usual)]
    measured = made_up({"mine": dict.fromkeys(metrics, 0.5), "CAT": dict.fromkeys(metrics, 0.5)})
    measured = replace(measured, measured_by=dict.fromkeys(metrics))
    asked = [
        tab1.check_claims(measured),
        tab3.check_claims(measured),
        tab4.check_claims(measured, measured),
        tab5.check_claims(measured),
        tab6.check_claims(measured, usual),
        tab10.check_claims(measured),
        fig4.check_claims(fig4.Landscape((), {"mine": []}, (), {}, 2)),
        fig5.check_claims(fig5.Embedding(None, {"mine": {}, "peer": {}})),
        fig11.check_claims(fig11.EntropyCurves({"Natural": {}}, 10)),
    ]
    assert asked == [[]] * len(COMPARING)
    assert "".join(capsys.readouterr()).count("Left out, as they are about methods") == len(COMPARING) + 1


def test_the_command_line_refuses_a_file_before_it_runs_a_notebook(tmp_path, monkeypatch):
    def never(*_, **__):
        raise AssertionError("a notebook was run")

    monkeypatch.setattr(drawing, "draw_all", never)
    monkeypatch.setattr(plan, "ask", never)
    (tmp_path / "bad.py").write_text("x = 1 +\n")
    for command in ("figures", "plan", "train", "push"):
        for path, message in {"bad.py": "bad.py, line 1: SyntaxError", "none.py": "There is no file"}.items():
            done = rkdkit(command, "tab1", "--profile", "smoke", "--methods", tmp_path / path)
            assert (done.exit_code, message in done.output) == (1, True), done.output
            assert len(done.output.splitlines()) == 1
    monkeypatch.setenv(own.VARIABLE, str(tmp_path / "none.py"))
    assert "There is no file" in rkdkit("plan", "tab1", "--profile", "smoke").output


def test_a_plan_knows_the_methods_of_a_file_and_tells_its_processes_of_it(file, store, monkeypatch):
    monkeypatch.chdir(file.parent)

    def listed(planner, notes, calibrated, **_):
        del notes, calibrated
        trained = sorted({task.spec.method for task in planner.trainings})
        return SimpleNamespace(report=lambda _: ", ".join(trained))

    monkeypatch.setattr(plan, "count", listed)  # to count their work takes long
    given = ["--methods", file.name, "-p", 'methods=["PGD-AT", "mine"]']
    done = rkdkit("plan", "tab1", "--profile", "smoke", "--no-calibration", *given)
    assert done.exit_code == 0, done.output
    assert done.output.endswith("PGD-AT, TRADES, mine\n")
    assert os.environ[own.VARIABLE] == str(file)
    assert not store.root.exists()
    assert cli_methods.VARIABLE == own.VARIABLE


def test_the_page_of_methods_can_be_printed_with_ones_own(file):
    printed = rkdkit("methods", "--methods", file).output
    assert "\n## mine\n\n```text\nmaximise  KL(T(x), S(x~)) (gaussian)\n" in printed
    assert "\n## mine\n" not in PAGE


def test_the_file_of_the_page_is_that_of_the_readme_and_short():
    assert len(FILE.splitlines()) <= 15
    readme = (ROOT / "README.md").read_text(encoding="utf-8")
    assert FILE in readme
    assert all(command in readme for command in COMMANDS[1:])


@pytest.mark.usefixtures("store")
def test_the_script_of_the_page_trains_the_method_of_the_file(file, monkeypatch):
    monkeypatch.chdir(file.parent)
    namespace = {}
    exec(SCRIPT, namespace)
    run = namespace["run"]
    assert (run.spec.method, run.record["finished"]) == ("mine", run.spec.epochs)
    assert methods.get("mine").guides == ("T",)


def drawn_in(root):
    """Run the page's second command in a checkout, at a hundredth of a scale, with two workers."""
    shutil.copy(ROOT / "pyproject.toml", root)
    shutil.copytree(ROOT / "notebooks", root / "notebooks", ignore=shutil.ignore_patterns(".*"))
    (root / "my_methods.py").write_text(FILE)
    scale = "".join(f" -p {name}={value}" for name, value in {**TINY, "n_autoattack": 1}.items())
    command = COMMANDS[1].replace("rkdkit ", f"{sys.executable} -c 'from rkdkit.cli import app; app()' ", 1)
    return subprocess.run(
        f"{command} --profile smoke --workers 2{scale}",
        shell=True,
        cwd=root,
        env={**os.environ, "RKDKIT_STORE": str(root / "store"), "TQDM_DISABLE": "1", "PYTHONPATH": str(ROOT)},
        capture_output=True,
        text=True,
        timeout=300,
        stdin=subprocess.DEVNULL,
    )


def test_ones_own_method_is_in_table_1_by_one_command_and_workers(tmp_path, monkeypatch):
    root, done = tmp_path, drawn_in(tmp_path)
    assert done.returncode == 0, done.stdout + done.stderr
    assert "2 workers" in done.stdout + done.stderr
    table = pd.read_csv(root / "figures" / "mine" / "tab1_white_box.csv")
    ours = table[table.accuracy.notna()]
    assert list(dict.fromkeys(ours.method)) == ["PGD-AT", "RSLAD", "mine"]
    assert ours[ours.method == "mine"].paper.isna().all()
    assert ours[ours.method == "RSLAD"].paper.notna().all()
    assert matplotlib.image.imread(root / "figures" / "mine" / "tab1_white_box.png").shape[1] > 1000
    assert "PeerAiD has the highest AutoAttack accuracy. (not compared here: " in done.stdout + done.stderr
    file = root / "figures" / "mine" / "tab1_white_box.json"
    summary = saved.read_exhibit(file)
    assert summary["overrides"]["methods"] == ["PGD-AT", "RSLAD", "mine"]
    (name, said), = summary["provenance"]["own_methods"].items()  # fmt: skip
    own.load(root / "my_methods.py")
    assert (name, said["title"], said["row"]) == ("mine", "Mine", METHODS["mine"].definition())
    assert (said["file"], said["sha256"]) == ("my_methods.py", own.source_of("mine").sha256)
    monkeypatch.chdir(root)
    command = saved.command_of(file, summary)
    assert "--methods my_methods.py" in command
    assert "methods=['PGD-AT', 'RSLAD', 'mine']" in shlex.split(command)
    quick = saved.read_exhibit(ROOT / "figures" / "quick" / "fig1_peer_vs_teacher.json")
    assert "own_methods" not in quick["provenance"]


def test_a_run_of_ones_own_method_has_an_id_of_its_row_and_not_of_its_title(file):
    own.load(file)
    spec = tiny_spec("mine")
    before = spec.id
    METHODS["mine"] = replace(METHODS["mine"], title="Another")
    assert tiny_spec("mine").id == before
    METHODS["mine"] = replace(METHODS["mine"], eps_factor=0.5)
    assert tiny_spec("mine").id != before
    assert {each.method for each in with_teachers([spec])} == {"mine", "TRADES"}
