"""The two readings of a method: what is trained for them, which single differences are, and what is said of them."""

import base64
import dataclasses
import json
import pickle

import pandas as pd
import pytest
import torch
from artists import Marks, marks, tick_labels
from conftest import ROOT, run_python, tiny_spec
from given import Given

from rkdkit import claims, comparisons, evaluation, executors, exhibits, figures, methods
from rkdkit.analysis import readings
from rkdkit.analysis.readings import Ablation, code_of
from rkdkit.analysis.white_box import DISTILLATION, WhiteBox
from rkdkit.exhibits import tab1_white_box as tab1
from rkdkit.exhibits import tab16_paper_or_code as tab16
from rkdkit.methods import part_name
from rkdkit.papers.reported import reported
from rkdkit.plan import Planner, ask
from rkdkit.saved import read_exhibit
from rkdkit.spec import RunSpec
from rkdkit.statistics import p_value
from rkdkit.store import Store
from rkdkit.trainings import Train

NAME = "tab16_paper_or_code"
NOTEBOOK = ROOT / "notebooks" / f"{NAME}.ipynb"
TINY = {"swa_start": 1, "n_train": 64, "n_val": 32, "n_test": 40, "attack_steps": 1}
WITHOUT_TEACHERS = ("TRADES", "CAT", "PeerAiD")


def all_right(task):
    return torch.ones(len(task.judges), len(task.images), dtype=torch.bool)


def given(tmp_path, answer=all_right):
    return Given(Store(tmp_path), answer)


def values_of(row):
    return {field.name: getattr(row, field.name) for field in dataclasses.fields(row)}


# what is trained


def test_both_readings_have_the_same_teachers_and_seeds_and_the_papers_share_table_1s_runs(tmp_path):
    with executors.using(given(tmp_path)):
        setup = exhibits.setup(NAME, "quick", n_seeds=2)
        names = tab16.compared(setup)
        trained = readings.train(setup, names)
        table_1 = comparisons.train(exhibits.setup("tab1_white_box", "quick", n_seeds=2), tab1.METHODS)
    assert names == tab16.METHODS
    assert list(trained.runs) == [line for name in names for line in (name, code_of(name))]
    for name in names:
        paper, code = ([run.spec for run in trained.runs[line]] for line in (name, code_of(name)))
        assert [spec.seed for spec in paper] == [spec.seed for spec in code] == [0, 1]
        for one, other in zip(paper, code, strict=True):
            assert (one.method, one.reading, other.method, other.reading) == (name, "paper", name, "code")
            assert one.id != other.id
            apart = {**other.to_json(), "reading": None, "settings": None}
            assert apart == {**one.to_json(), "reading": None, "settings": None}, "teachers and schedule are the same"
            assert dict(other.settings) == methods.get(name, "code").resolve({}, "digits")
        if name in tab1.METHODS:
            assert paper == [run.spec for run in table_1.runs[name]]
    (robust,) = trained.runs["ARD"][1].spec.teachers
    assert (robust.slot, robust.run.method, robust.run.seed, robust.run.reading) == ("T", "TRADES", 1, "paper")


@pytest.mark.parametrize("method", tab16.METHODS)
def test_each_single_difference_is_the_papers_row_but_for_its_own_fields(tmp_path, method):
    with executors.using(given(tmp_path)):
        setup = exhibits.setup(NAME, "quick")
        lines = readings.single_differences(setup, method)
    paper, code = (values_of(methods.get(method, reading)) for reading in ("paper", "code"))
    assert lines, "each of these codes differs in several ways"
    tried = set()
    for part, entry in lines.items():
        assert entry.method == part_name(method, part)
        row = values_of(methods.get(entry.method))
        changed = {name for name in paper if row[name] != paper[name]} - {"title", "code"}
        assert changed, "a row that does not differ would be trained in vain"
        assert changed <= set(methods.PARTS[part])
        assert {name: row[name] for name in changed} == {name: code[name] for name in changed}
        tried |= changed
    counting = {name for name in paper if code[name] != paper[name]}
    counting -= {"title", "source", "differences", "code", "recipe", "recipe_on", "settings_on"}
    assert counting == tried - {"settings_on"}, "nothing that counts on digits is left out"


def test_recipes_are_a_difference_where_they_count_alone(tmp_path):
    with executors.using(given(tmp_path)):
        below, at_paper = (readings.single_differences(exhibits.setup(NAME, p), "ARD") for p in ("quick", "paper"))
        entry = at_paper["schedule"]
        spec = comparisons.specification(exhibits.setup(NAME, "paper"), entry)
    assert "schedule" not in below
    assert set(at_paper) == {*below, "schedule"}
    recipe = methods.get("ARD", "code").recipe
    assert {name: getattr(spec, name) for name in recipe} == dict(recipe)
    assert methods.get(spec.method).definition() == methods.get("ARD").definition()


def test_a_single_difference_that_is_the_whole_difference_is_not_trained_twice(tmp_path, monkeypatch):
    row = dataclasses.replace(methods.get("TRADES"), title="Mine", code={"normalises": False})
    monkeypatch.setitem(methods.METHODS, "Mine", row)
    with executors.using(given(tmp_path)):
        setup = exhibits.setup(NAME, "smoke")
        assert readings.single_differences(setup, "Mine") == {}
        two = dataclasses.replace(row, code={"normalises": False, "clamps_start": False, "source": "elsewhere"})
        monkeypatch.setitem(methods.METHODS, "Mine", two)
        assert list(readings.single_differences(setup, "Mine")) == ["random start", "normalisation"]


def test_a_notebooks_own_settings_are_those_of_single_differences_too(tmp_path):
    with executors.using(given(tmp_path)):
        setup = exhibits.setup(NAME, "smoke", settings={"ARD": {"tau": 7.0}})
        entries = {**readings.both(setup, ["ARD"]), **readings.single_differences(setup, "ARD")}
        specs = [comparisons.specification(setup, entry) for entry in entries.values()]
    assert {dict(spec.settings)["tau"] for spec in specs} == {7.0}


IN_ANOTHER_PROCESS = """
import base64, json, pickle
from rkdkit import methods
from rkdkit.spec import RunSpec
spec = RunSpec.from_json(json.loads({!r}))
print(spec.id, methods.get(spec.method).attack_mode)
task = pickle.loads(base64.b64decode({!r}))
print(task.spec.id, len(methods.METHODS))
"""


def test_another_process_knows_a_run_with_a_single_difference_by_its_name(store, tmp_path):
    before = dict(methods.METHODS)
    with executors.using(given(tmp_path)):
        setup = exhibits.setup(NAME, "smoke")
        entry = readings.single_differences(setup, "ARD")["attack mode"]
        spec = comparisons.specification(setup, entry)
    assert before == methods.METHODS, "nothing is put into the table"
    sent = base64.b64encode(pickle.dumps(Train(spec))).decode()
    process = run_python(IN_ANOTHER_PROCESS.format(json.dumps(spec.to_json()), sent), store.root)
    out, err = process.communicate(timeout=300)
    assert process.returncode == 0, err
    assert out.split() == [spec.id, "train", spec.id, str(len(before))]


def test_a_worker_gets_the_row_that_a_single_difference_is_made_of(monkeypatch):
    """A notebook's own method, which other processes do not know."""
    monkeypatch.setitem(methods.METHODS, "Mine", dataclasses.replace(methods.get("TRADES"), title="Mine"))
    sent = pickle.dumps(Train(tiny_spec(part_name("Mine", "normalisation"))))
    monkeypatch.delitem(methods.METHODS, "Mine")
    assert not methods.get(pickle.loads(sent).spec.method).normalises
    monkeypatch.setitem(methods.METHODS, "Mine", methods.get("TRADES"))
    with pytest.raises(ValueError, match="The method 'Mine' here differs"):
        pickle.loads(sent)


def test_the_ids_of_runs_with_a_single_difference_stay():
    """Those of runs that were trained before the rows were made from their names."""
    with executors.using(Planner()):
        setup = exhibits.setup(NAME, "quick")
        entry = readings.single_differences(setup, "RSLAD")["loss"]
        assert comparisons.specification(setup, entry).id == "b9bcf1762de7f72a"


# the ablation


def moving(by_line, base=20):
    """Answer for a line's first seed with `base` right images and so many more, for the others with `base`."""

    def answer(task):
        (judge,) = task.judges
        spec = judge.spec
        line = spec.method if spec.reading == "paper" else code_of(spec.method)
        more = by_line.get(line, 0) if task.images.part == "test" and task.attack is not None and not spec.seed else 0
        return (torch.arange(len(task.images)) < base + more)[None]

    return answer


def ablated(tmp_path, by_line, ablate=None, **parameters):
    executor = given(tmp_path, moving(by_line))
    with executors.using(executor):
        setup = exhibits.setup(NAME, "quick", n_test=60, **parameters)
        names = tab16.compared(setup)
        trained = readings.train(setup, names, ablate)
        measured = readings.measure(setup, trained)
        return setup, readings.ablate(setup, names, trained, measured, ablate), executor


@pytest.mark.parametrize(
    ("by_line", "expected"),
    [
        ({code_of("RSLAD"): -9, code_of("CAT"): 8, "PeerAiD": 3}, "RSLAD"),
        ({code_of("RSLAD"): -9, "CAT": 6, code_of("CAT"): -4}, "CAT"),
        ({code_of("IAD"): 5, code_of("ARD"): -5}, "ARD"),
        ({"IAD": 30, code_of("IAD"): 30, code_of("AdaAD"): 1}, "AdaAD"),
    ],
)
def test_the_method_that_moves_most_under_attack_is_ablated(tmp_path, by_line, expected):
    setup, ablation, executor = ablated(tmp_path, by_line, n_seeds=2)
    assert ablation.method == expected
    assert ablation.parts == tuple(readings.single_differences(setup, expected))
    assert ablation.comparisons == sum(len(readings.single_differences(setup, name)) for name in tab16.METHODS)
    lines = {part_name(expected, part) for part in ablation.parts}
    asked = [task.spec for gathered in executor.gathered for task in gathered if isinstance(task, Train)]
    assert {spec.method for spec in asked if " with the code's " in spec.method} == lines
    assert set(ablation.measured.evaluations) == {*tab16.METHODS, *map(code_of, tab16.METHODS), *lines}
    assert all(len(of_seeds) == 2 for of_seeds in ablation.measured.evaluations.values())
    paper = [run.seed for run in asked if run.method == next(iter(lines))]
    assert set(paper) == {0, 1}, "the seeds of the paper's reading, so that they are paired"


def test_a_notebook_may_name_the_method(tmp_path):
    _, ablation, _ = ablated(tmp_path, {code_of("CAT"): 8}, "AdaAD")
    assert ablation.method == "AdaAD"
    assert ablation.comparisons == len(ablation.parts), "it was not chosen from others"


def planned(parameters):
    planner = Planner()
    assert ask(planner, NOTEBOOK, {"profile": "smoke", **parameters}) == []
    single = [task for task in planner.trainings if " with the code's " in task.spec.method]
    return planner, single


@pytest.mark.usefixtures("store")
def test_in_a_plan_the_method_that_moves_most_is_a_placeholder():
    planner, single = planned({"select_on": "last"})
    assert {task.spec.method for task in single} >= {part_name("ARD", "attack mode")}
    assert not any(planner.certain(task) for task in single)
    assert all(planner.certain(task) for task in planner.trainings if task not in single), "teachers are the last, too"
    of_placeholders = [
        task for task in planner.measurements if any(" with the code's " in s.method for s in task.specs)
    ]
    assert of_placeholders
    assert not any(planner.certain(task) for task in of_placeholders)


@pytest.mark.usefixtures("store")
def test_a_plan_names_no_trainings_that_it_cannot_mark_as_not_certain():
    planner, single = planned({"compared": list(WITHOUT_TEACHERS)})
    assert single == []
    assert {task.spec.method for task in planner.trainings} == set(WITHOUT_TEACHERS)
    assert len(planner.trainings) == 6
    _, single = planned({"compared": list(WITHOUT_TEACHERS), "ablate": "PeerAiD"})
    assert single
    assert all(task.certain for task in single)


@pytest.mark.usefixtures("store")
@pytest.mark.parametrize(
    ("parameters", "message"),
    [
        ({"compared": []}, "at least one method, and each once, not \\[\\]"),
        ({"compared": ["ARD", "ARD"]}, "each once"),
        ({"compared": "ARD"}, "compared must be a list"),
        ({"compared": ["Natural"]}, "Unknown method 'Natural'"),
        ({"ablate": "RSLAD"}, "Unknown ablate 'RSLAD'.*Known: ARD, PeerAiD"),
        ({"more": {"n_autoattack": 3}}, "does not use n_autoattack"),
        ({"more": {"settings": {"ARD": {"tua": 3}}}}, "Unknown setting of ARD 'tua'"),
    ],
)
def test_wrong_parameters_are_refused_before_anything_is_trained(parameters, message):
    planner = Planner()
    with pytest.raises(ValueError, match=message):
        ask(planner, NOTEBOOK, {"profile": "smoke", **parameters})
    assert not planner.trainings


# the numbers, claims and picture


def measured_as(robust, clean=None, n=400, seeds=2):
    """Lines that are right on the first so many images; the same with every seed."""
    shares = {line: {"clean": (clean or {}).get(line, 0.75), "pgd-20": share} for line, share in robust.items()}
    return WhiteBox(
        {
            line: [evaluation.Evaluation({m: torch.arange(n) < round(share * n) for m, share in by.items()})] * seeds
            for line, by in shares.items()
        },
        {"clean": None, "pgd-20": None},
        10,
    )


def ablation_at(changes, parts=None, clean=None, comparisons=1, **size):
    """Both readings of methods, whose codes change the robust accuracy of 0.5 by so much; single ones of the first."""
    names = tuple(changes)
    robust = {line: 0.5 + more for name in names for line, more in ((name, 0), (code_of(name), changes[name]))}
    robust |= {part_name(names[0], part): 0.5 + more for part, more in (parts or {}).items()}
    clean = {code_of(name): 0.75 + more for name, more in (clean or {}).items()}
    return Ablation(names, names[0], tuple(parts or ()), comparisons, measured_as(robust, clean, **size))


PARTS = {"attack mode": 0.05, "forward passes": -0.02}


def test_numbers_are_differences_from_the_papers_reading_of_the_same_method():
    table = tab16.numbers_of(ablation_at({"ARD": 0.1, "CAT": -0.05}, PARTS, {"CAT": 0.02}))
    assert "paper_difference" not in table
    numbers = table.set_index(["base", "reading", "metric"])
    robust, clean = (numbers.xs(metric, level="metric").difference for metric in ("pgd-20", "clean"))
    assert robust.dropna().to_dict() == pytest.approx(
        {
            ("ARD", "code"): 0.1,
            ("CAT", "code"): -0.05,
            ("ARD", "attack mode"): 0.05,
            ("ARD", "forward passes"): -0.02,
        }
    )
    assert clean[("CAT", "code")] == pytest.approx(0.02)
    assert clean[("ARD", "attack mode")] == 0
    assert set(robust[robust.isna()].index) == {("ARD", "paper"), ("CAT", "paper")}
    line = numbers.loc[("ARD", "attack mode", "pgd-20")]
    assert (line.method, line.compared_with, line.seeds) == ("ARD with the code's attack mode", "ARD", 2)
    assert line.difference_low < 0.05 < line.difference_high


def test_numbers_to_read():
    shown = figures.readings_in_points(tab16.numbers_of(ablation_at({"ARD": 0.1, "CAT": -0.05}, PARTS)))
    assert list(shown.index) == [
        *(("ARD", "paper"), ("ARD", "code"), ("CAT", "paper"), ("CAT", "code")),
        *(("ARD", "attack mode"), ("ARD", "forward passes")),
    ]
    assert shown.loc[("ARD", "paper"), ("PGD-20", "minus the paper's")] == ""
    assert shown.loc[("ARD", "code"), ("PGD-20", "accuracy")].startswith("60.0 [")
    assert shown.loc[("CAT", "code"), ("PGD-20", "minus the paper's")].startswith("-5.0 [-")
    assert shown.loc[("ARD", "forward passes"), ("PGD-20", "minus the paper's")].startswith("-2.0 [")


def verdicts(ablation):
    return [claim.verdict for claim in tab16.check_claims(ablation)]


def test_claims_on_readings_with_a_known_answer():
    """With 4,000 images that both networks are right on but for a few, intervals are about a point wide."""
    known = ablation_at({"ARD": -0.1, "CAT": 0.0, "IAD": 0.028}, clean={"ARD": 0.0}, n=4000)
    assert verdicts(known) == [claims.OPEN, claims.HOLDS, claims.FAILS, claims.HOLDS, claims.OPEN]
    other = ablation_at({"ARD": 0.0, "CAT": 0.0, "IAD": 0.0}, clean={"IAD": -0.05}, n=4000)
    assert verdicts(other) == [claims.HOLDS, claims.OPEN, *[claims.HOLDS] * 3]
    few = ablation_at({"ARD": 0.0, "CAT": 0.05, "IAD": 0.0}, n=40)
    assert verdicts(few) == [claims.OPEN, claims.OPEN, *[claims.OPEN] * 3]


def test_with_one_seed_nothing_is_judged():
    one, two = (ablation_at({"ARD": -0.4, "RSLAD": 0.0}, PARTS, n=4000, seeds=seeds) for seeds in (1, 2))
    assert tab16.check_claims(one) == []
    assert claims.HOLDS in verdicts(two)
    kl = "In both readings, the KL of ARD is the code's mean over classes."
    assert tab16.caption(one) == f"ARD, one difference at a time: it moves most.\n{kl} With one seed nothing is judged."
    assert tab16.caption(two, "ARD") == f"ARD, one difference at a time: it was named.\n{kl}"


def test_the_caption_names_the_methods_whose_kl_is_the_codes_in_the_papers_reading():
    every = tab16.caption(ablation_at(dict.fromkeys(tab16.METHODS, 0.0)))
    assert every == (
        "TRADES, one difference at a time: it moves most.\n"
        "In both readings, the KL of ARD and PeerAiD is the code's mean over classes."
    )
    assert "KL" not in tab16.caption(ablation_at({"RSLAD": 0.0, "AdaAD": 0.0}))


def test_claims_show_the_pair_and_the_interval_that_decide():
    ablation = ablation_at({"ARD": -0.1, "CAT": 0.0, "IAD": 0.06}, n=4000)
    clean, robust, ard, cat, iad = tab16.check_claims(ablation)
    assert (robust.higher.name, robust.lower.name) == ("ARD, PGD-20 accuracy", "ARD (code), PGD-20 accuracy")
    assert robust.difference == ablation.measured.minus("ARD", code_of("ARD"), "pgd-20", 1 - 0.05 / 3)
    assert [claim.confidence for claim in (clean, robust)] == pytest.approx([1 - 0.05 / 3] * 2), "picked out of three"
    assert [claim.confidence for claim in (ard, cat, iad)] == [0.95] * 3
    assert ard.text == "The reading changes the PGD-20 accuracy of ARD by less than 3 points."
    assert (ard.higher.name, ard.higher.estimate.value) == ("3 points", 0.03)
    apart = ablation.measured.minus(code_of("ARD"), "ARD", "pgd-20")
    size = ard.lower.estimate
    assert (size.value, size.low, size.high) == pytest.approx((-apart.value, -apart.high, -apart.low))
    assert ard.p_value == pytest.approx(p_value(apart.linear(1, 0.03)), rel=1e-6, abs=0)
    around_zero = cat.lower.estimate
    assert around_zero.low == 0
    assert around_zero.high > 0
    up, wide = iad.lower.estimate, ablation.measured.minus(code_of("IAD"), "IAD", "pgd-20")
    assert (up.value, up.low, up.high) == pytest.approx((wide.value, wide.low, wide.high))
    assert all(tab16.SOURCE in claim.source for claim in (clean, robust, ard))


def test_single_differences_are_judged_together_with_those_of_all_methods_that_might_have_been_chosen():
    changes, parts = {"ARD": 0.1, "CAT": 0.0}, {"attack mode": 0.0, "forward passes": -0.035}
    ablation = ablation_at(changes, parts, comparisons=2, n=1500)
    single = tab16.check_claims(ablation)[-1]
    assert single.text == "At least one of 2 single differences changes the PGD-20 accuracy of ARD."
    assert (single.higher.name, single.lower.name) == (
        "ARD, PGD-20 accuracy",
        "ARD with the code's forward passes, PGD-20 accuracy",
    )
    assert single.confidence == pytest.approx(0.975)
    more = tab16.check_claims(ablation_at(changes, parts, comparisons=40, n=1500))[-1]
    assert more.confidence == pytest.approx(1 - 0.05 / 40)
    assert more.difference.low < single.difference.low
    none = tab16.check_claims(ablation_at(changes))
    assert not any("single" in claim.text for claim in none)


def test_a_change_whose_interval_reaches_farther_down_than_up_is_as_large_as_that():
    ablation = ablation_at({"ARD": -0.004}, n=400)
    found = ablation.measured.minus(code_of("ARD"), "ARD", "pgd-20")
    assert -found.low > found.high > 0
    clean, robust, ard = tab16.check_claims(ablation)
    assert (clean.text, robust.confidence) == ("For ARD, the reading changes the clean accuracy.", pytest.approx(0.95))
    assert (ard.lower.estimate.low, ard.lower.estimate.high) == pytest.approx((0, -found.low))


def test_the_limit_is_how_far_apart_peeraids_table_1_has_its_methods():
    table = reported("peeraid", "Table 1")
    robust = table[(table.metric == "pgd-20") & table.method.isin(DISTILLATION)]
    apart = robust.groupby(["dataset", "network"]).value.agg(lambda values: values.max() - values.min())
    assert len(apart) == 6
    assert (apart.min(), apart.max()) == pytest.approx((1.01, 6.31))
    assert apart.mean() == pytest.approx(100 * tab16.LIMIT, abs=0.05)


@pytest.mark.usefixtures("closed")
def test_the_picture_shows_every_method_above_and_single_differences_below():
    table = tab16.numbers_of(ablation_at({"CAT": 0.1, "ARD": -0.05}, PARTS, {"ARD": 0.04}))
    figure = figures.readings_compared(table, "CAT", "All of it", 0.03)
    assert figure.get_suptitle() == "All of it"
    upper_clean, upper, lower_clean, lower = figure.axes
    assert list(tick_labels(upper_clean, "y").values()) == ["CAT", "ARD"]
    assert list(tick_labels(lower_clean, "y").values()) == ["all differences", "attack mode", "forward passes"]
    (drawn,) = marks(upper)
    assert isinstance(drawn, Marks)
    assert drawn.x == pytest.approx([10, -5])
    of_code = table[(table.reading == "code") & (table.metric == "pgd-20")]
    assert drawn.low == pytest.approx(list(100 * of_code.difference_low))
    assert drawn.high == pytest.approx(list(100 * of_code.difference_high))
    assert marks(upper_clean)[0].x == pytest.approx([0, 4])
    assert marks(lower)[0].x == pytest.approx([10, 5, -2])
    assert [panel.get_title() for panel in figure.axes] == ["Clean", "PGD-20"] * 2
    assert upper.get_xlabel() == "Difference (points)\n400 images, 2 seeds"
    limits = {panel.get_xlim() for panel in figure.axes}
    ((left, right),) = limits
    assert left == -right, "zero is in the middle, and all panels have one scale"
    assert right > 100 * table.difference_high.max()
    (below,) = figure.subfigs
    (legend,) = below.legends
    assert [text.get_text() for text in legend.get_texts()] == ["less than 3 points", "here, with 95 % interval"]
    bands = [[patch for patch in panel.patches if patch.get_label() == "less than 3 points"] for panel in figure.axes]
    assert [len(of_panel) for of_panel in bands] == [0, 1, 0, 1]
    band = bands[1][0].get_extents().transformed(upper.transData.inverted())
    assert (band.x0, band.x1) == pytest.approx((-3, 3))


@pytest.mark.usefixtures("closed")
def test_without_single_differences_the_whole_stands_alone():
    table = tab16.numbers_of(ablation_at({"CAT": 0.1}, seeds=1))
    *_, lower_clean, lower = figures.readings_compared(table, "CAT", "title", 0.5).axes
    assert list(tick_labels(lower_clean, "y").values()) == ["all differences"]
    assert lower.get_xlabel().endswith("400 images, 1 seed")
    assert lower.get_xlim()[1] > 50


# the notebook


@pytest.mark.usefixtures("one_block", "closed")
def test_the_notebook_trains_measures_and_saves(store, tmp_path):
    namespace = {"display": print}
    injected = {"profile": "smoke", "epochs": 2, "output_dir": str(tmp_path / "out"), "more": TINY}
    for cell in json.loads(NOTEBOOK.read_text(encoding="utf-8"))["cells"]:
        if cell["cell_type"] == "code":
            exec("".join(cell["source"]), namespace)
            if "parameters" in cell["metadata"].get("tags", ()):
                namespace |= injected
    summary = read_exhibit(tmp_path / "out" / f"{NAME}.json")
    specs = [RunSpec.from_json(run["spec"]) for run in summary["provenance"]["runs"]]
    assert [spec.id for spec in specs] == [run["id"] for run in summary["provenance"]["runs"]]
    ablation = namespace["ablation"]
    singles = {part_name(ablation.method, part) for part in ablation.parts}
    assert singles
    trained = {(spec.method, spec.reading) for spec in specs}
    pairs = {(name, reading) for name in ("ARD", "PeerAiD") for reading in ("paper", "code")}
    assert trained == {("TRADES", "paper"), *pairs, *((name, "paper") for name in singles)}
    table = pd.read_csv(tmp_path / "out" / f"{NAME}.csv")
    assert len(table) == 2 * (4 + len(singles))
    assert summary["claims"] == [], "of one seed"
    assert {each["attack"] and each["attack"]["name"] for each in summary["measured"]} == {None, "PGD-20"}
    assert store.root.exists()
