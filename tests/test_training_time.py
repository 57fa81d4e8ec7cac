"""ARD's Tables 9 and 10: how long an update takes, what it takes by counting, the runs, and claims judged rightly."""

import dataclasses
import math

import matplotlib.pyplot as plt
import pandas as pd
import pytest
import scipy.stats
import torch
from conftest import OneBlock, tiny_spec
from given import Given
from test_comparisons import made_up
from test_exhibits import run_until_training
from torch import nn
from torch.nn.modules.module import register_module_forward_hook

from rkdkit import claims, comparisons, executors, exhibits, figures, plan, profiles, statistics
from rkdkit.analysis import distillation, training_time
from rkdkit.analysis.training_time import Counted, TrainingTimes, measure_training_times
from rkdkit.exhibits import tab7_clean_distillation as tab7
from rkdkit.exhibits import tab9_fast_ard as tab9
from rkdkit.papers.reported import reported
from rkdkit.plan import cost
from rkdkit.plan.ask import DrawingError
from rkdkit.store import Store

K = 3
METHODS = ("PGD-AT", "KD", "ARD", "Free-AT", "Fast-ARD")


@pytest.mark.parametrize("n", [6, 19, 20, 501])
def test_a_medians_interval_is_the_one_of_the_exact_test(n):
    values = torch.randn(n, dtype=torch.float64, generator=torch.Generator().manual_seed(n))
    ours = statistics.median(values, "s")
    theirs = scipy.stats.quantile_test(values.numpy(), p=0.5).confidence_interval(0.95)
    assert (ours.low, ours.high) == (theirs.low, theirs.high)
    assert (ours.value, ours.n, ours.unit) == (pytest.approx(values.quantile(0.5).item()), n, "s")


@pytest.mark.parametrize(("below", "n"), [(0, 20), (3, 20), (5, 20), (6, 21), (10, 21)])
def test_a_medians_p_value_is_that_of_the_sign_test(below, n):
    values = torch.arange(n, dtype=torch.float64) - below + 0.5
    expected = scipy.stats.binomtest(below, n).pvalue
    for found in (statistics.median(values), statistics.median(-values).linear(-2, 0.0)):
        assert statistics.p_value(found) == pytest.approx(expected)
        assert (found.low > 0) == (expected < 0.05)
    assert statistics.p_value(statistics.median(1 - values).linear(-1, 1.0)) == pytest.approx(expected)


def test_an_interval_of_a_median_needs_six_finite_values():
    with pytest.raises(ValueError, match="six finite values or more, not 5"):
        statistics.median(torch.rand(5))
    with pytest.raises(ValueError, match="finite"):
        statistics.median(torch.tensor([1.0] * 6 + [math.nan]))


@pytest.mark.parametrize("groups", [1, 2, 8])
def test_the_work_of_a_convolution_with_groups_is_three_times_its_forward_pass(groups):
    convolution = nn.Conv2d(8, 8, 3, padding=1, groups=groups, bias=False)
    with cost.Work() as work:
        convolution(torch.rand(4, 8, 6, 6, requires_grad=True)).sum().backward()
    forward = 2 * 4 * 36 * 8 * (8 // groups) * 9
    assert work.get_total_flops() == 3 * forward


class Clock:
    """A clock that stands still but for passes: a second a batch forward, ten backward, a hundred of a teacher."""

    def __init__(self):
        self.now, self.asked = 0.0, []

    def __call__(self):
        return self.now

    def forward(self, module, inputs, logits):
        if not isinstance(module, OneBlock):
            return
        fixed = not any(parameter.requires_grad for parameter in module.parameters()) and not inputs[0].requires_grad
        self.asked.append("teacher" if fixed else "student")
        self.now += 100 if fixed else 1
        if logits.requires_grad:
            logits.register_hook(self.backward)

    def backward(self, gradient):
        del gradient
        self.now += 10


@pytest.fixture
def measured_by_passes(store, one_block):  # noqa: ARG001 - the networks are of one block
    """Times of five methods by a clock that knows passes alone, and the store, in which there should be nothing."""
    clock = Clock()
    hook = register_module_forward_hook(clock.forward)
    specs = {method: tiny_spec(method, attack_steps=K) for method in METHODS}
    try:
        yield measure_training_times(specs, 6, clock), store
    finally:
        hook.remove()


def test_the_time_of_an_update_is_that_of_its_passes(measured_by_passes):
    """Fast-ARD asks its teacher once for m = 4 updates, and every attack step is a pass in both directions."""
    times, store = measured_by_passes
    by_hand = {"PGD-AT": 11 * (K + 1), "KD": 11 + 100, "ARD": 11 * (K + 1) + 100, "Free-AT": 11, "Fast-ARD": 11 + 25}
    assert {method: set(taken.tolist()) for method, taken in times.seconds.items()} == {
        method: {seconds} for method, seconds in by_hand.items()
    }
    ratio = times.ratio("ARD", "PGD-AT")
    assert (ratio.value, ratio.low, ratio.high, ratio.n) == (*[pytest.approx(144 / 44)] * 3, 6)
    passes = {method: (of.student, of.teacher) for method, of in times.counted.items()}
    assert passes == {
        "PGD-AT": (2 * (K + 1), 0), "KD": (2, 1), "ARD": (2 * (K + 1), 1), "Free-AT": (2, 0), "Fast-ARD": (2, 0.25)
    }  # fmt: skip
    assert not store.root.exists(), "a time belongs to a machine and a moment"


def test_the_work_of_an_update_is_what_was_counted_by_hand(measured_by_passes):
    """OneBlock's convolution has 8 x 8 x 4 x 9 multiply-adds, its head 40; only Free-AT and Fast-ARD also ask for the
    gradient of the image in an update.
    """
    convolution, head = 8 * 8 * 4 * 9, 40
    forward, update = convolution + head, 2 * (convolution + head) + head
    attack, teacher = K * 2 * forward, forward
    by_hand = {
        "PGD-AT": attack + update,
        "KD": update + teacher,
        "ARD": attack + update + teacher,
        "Free-AT": update + convolution,
        "Fast-ARD": update + convolution + teacher / 4,
    }
    times, _ = measured_by_passes
    assert {method: of.work for method, of in times.counted.items()} == {
        method: pytest.approx(64 * 2 * work) for method, work in by_hand.items()
    }
    table = times.table("PGD-AT").set_index("method")
    assert table.loc["KD"].ratio_of_work == pytest.approx(by_hand["KD"] / by_hand["PGD-AT"])
    assert table.loc["Fast-ARD"].ratio_of_passes == pytest.approx(1 / (K + 1))
    assert set(table.metric) == {"training time"}
    assert {"low", "high", "seconds"}.isdisjoint(table), "beside other columns, these names would mislead"
    found = times.ratio("KD", "PGD-AT")
    limits = table.loc["KD"][["ratio", "ratio_low", "ratio_high"]]
    assert list(limits) == [found.value, found.low, found.high]
    assert table.loc["KD"].seconds_per_update == times.seconds["KD"].median()


@pytest.mark.usefixtures("store", "one_block")
def test_every_method_has_its_turn_in_a_round_and_another_one_begins_it(monkeypatch):
    turns = []
    seconds = training_time._Loop.seconds
    monkeypatch.setattr(training_time._Loop, "seconds", lambda loop: (turns.append(loop.kind.method), seconds(loop))[1])
    times = measure_training_times({method: tiny_spec(method) for method in METHODS[:3]}, 6)
    a, b, c = METHODS[:3]
    assert turns == [a, b, c, b, c, a, c, a, b] * 2
    assert {len(taken) for taken in times.seconds.values()} == {6}
    assert all((taken > 0).all() for taken in times.seconds.values())
    assert " thread" in times.measured_on
    assert "load" in times.measured_on


def test_nothing_is_timed_while_an_exhibit_is_only_planned(store):
    with executors.using(plan.Planner(store)), pytest.raises(DrawingError):
        measure_training_times({"PGD-AT": tiny_spec()}, 6)


@pytest.fixture
def nothing(tmp_path):
    """Answers measurements by zeros, and chooses the first epoch."""
    with executors.using(Given(Store(tmp_path), lambda task: task.placeholder())) as executor:
        yield executor


@pytest.mark.parametrize(
    ("profile", "epochs", "student", "teacher"),
    [
        ("smoke", (3, 1, 1), "mobilenetv2/16", "resnet18/16"),
        ("quick", (20, 5, 2), profiles.ard("quick")["student"], "resnet18/4"),
        ("paper", (200, 50, 25), "mobilenetv2", "wrn-34-10"),
    ],
)
@pytest.mark.usefixtures("nothing")
def test_the_runs_of_tables_9_and_10(profile, epochs, student, teacher):
    asked = exhibits.setup("tab9_fast_ard", profile, n_seeds=2)
    trained = comparisons.train_entries(asked, tab9.entries(asked.profile))
    specs = {name: of_seeds[1].spec for name, of_seeds in trained.runs.items()}
    assert {spec.seed for spec in specs.values()} == {1}
    assert {spec.student for spec in specs.values()} == {student}
    assert {name: spec.epochs for name, spec in specs.items()} == {
        **dict.fromkeys(("PGD-AT", "KD from TRADES", "KD from PGD-AT", "ARD"), epochs[0]),
        **{f"{method} (m={m})": epochs[1 + (m == 8)] for method in ("Free-AT", "Fast-ARD") for m in (4, 8)},
    }
    for name, spec in specs.items():
        guides = [(teacher.run.method, teacher.run.student, teacher.run.epochs) for teacher in spec.teachers]
        if name in ("PGD-AT", "Free-AT (m=4)", "Free-AT (m=8)"):
            assert guides == []
        elif name == "KD from PGD-AT":
            assert guides == [("PGD-AT", distillation.SMALLER_TEACHER[profile], epochs[0])]
        else:
            assert guides == [("TRADES", teacher, epochs[0])]
        if "m=" in name:
            assert dict(spec.settings)["m"] == int(name[-2])
    lines = tab7.tables(exhibits.setup("tab7_clean_distillation", profile, n_seeds=2))
    of_table_3 = lines.find("Table 3", "KD", "mobilenetv2", "PGD-AT resnet18").removeprefix("Table 3: ")
    if profile != "smoke":  # where Tables 1 to 5 have a shorter attack
        assert specs["KD from PGD-AT"].id == lines.train().runs[of_table_3][1].spec.id
    timed = tab9.timed(trained)
    assert {name: run.seed for name, run in timed.items()} == dict.fromkeys(tab9.TIMED, 0)
    if profile == "paper":
        assert [specs[f"Fast-ARD (m={m})"].milestones for m in (4, 8)] == [(25, 37), (12, 18)]


@pytest.mark.parametrize(
    ("epochs", "milestones", "m", "left"), [(2, (1,), 4, ()), (16, (4, 8), 4, (1, 2)), (16, (9, 10), 8, (1,))]
)
def test_a_replayed_training_drops_its_rate_where_there_are_epochs_left_to(epochs, milestones, m, left):
    paper = profiles.PROFILES["paper"]
    scale = dataclasses.replace(paper, epochs=epochs, milestones=milestones, fixed=("epochs", "milestones"))
    spec = scale.spec("Free-AT", settings={"m": m})
    assert (spec.epochs, spec.milestones) == (max(epochs // m, 1), left)
    assert spec.schedule == ("multistep" if left else "constant")


def made_up_times(**seconds):
    """Times of the exhibit's lines: one second, unless another is given, with the interval of a tenth around it."""
    spread = torch.linspace(0.95, 1.05, 21, dtype=torch.float64)
    of_lines = {name: seconds.get(name, 1.0) * spread for name in tab9.TIMED}
    of_lines[tab9.REFERENCE] = torch.ones(21, dtype=torch.float64)
    return TrainingTimes(of_lines, {name: Counted(2.0, 1.0, 10.0) for name in of_lines}, "a machine")


ROBUST = {"PGD-AT": 0.45, tab9.KD: 0.2, tab9.KD_OF_PGD_AT: 0.3, "ARD": 0.5} | {
    **dict.fromkeys(tab9.FREE.values(), 0.25),
    **dict.fromkeys(tab9.FAST.values(), 0.4),
}


def test_every_number_of_tables_9_and_10_is_beside_ours():
    measured = made_up({name: {"clean": 0.9, "pgd-20": share} for name, share in ROBUST.items()})
    measured.measured_by["pgd-20"] = None
    numbers = tab9.beside_the_paper(measured, made_up_times(), "digits", "mobilenetv2/4")
    shown = numbers[["metric", "paper", "paper_unit", "table"]].dropna()
    for table, metrics in (("Table 9", ("clean", "pgd-20")), ("Table 10", ("training time",))):
        printed = reported("ard", table)
        assert set(printed.metric) == set(metrics)
        for line in printed.itertuples():
            value = line.value / 100 if line.unit == "%" else line.value
            here = shown[(shown.metric == line.metric) & (shown.paper - value).abs().lt(1e-9)]
            assert table in set(here.table), line
            assert set(here.paper_unit) == {"fraction" if line.unit == "%" else line.unit}
    line = numbers.set_index(["method", "metric"])
    assert line.loc[(tab9.FAST[8], "pgd-20")].paper_difference == pytest.approx(0.3685 - 0.2796)
    assert line.loc[(tab9.FAST[8], "pgd-20")].compared_with == "Free-AT (m=8)"
    assert line.loc[("ARD", "clean")].paper == pytest.approx(0.8263)
    assert line.loc[(tab9.KD_OF_PGD_AT, "pgd-20")].paper == pytest.approx(0.3821)
    assert line.loc[(tab9.KD, "clean")].paper == pytest.approx(0.856)
    assert line.loc[("PGD-AT", "pgd-20")].paper == pytest.approx(0.469)
    assert line.loc[(tab9.FAST[4], "training time")].paper_ratio == pytest.approx(5.15 / 41.09)
    assert line.loc[(tab9.FREE[4], "training time")].isna().paper_ratio
    assert list(line.loc[[(tab9.FAST[4], "training time"), (tab9.FREE[4], "training time")]].table) == ["Table 10", ""]
    assert line.loc[("ARD", "clean")].table == "Table 6"


@pytest.mark.parametrize(
    ("accuracies", "seconds", "verdicts"),
    [
        ({}, {}, "hh hh h h hh oo"),
        ({tab9.FREE[8]: 0.5}, {}, "hf hh h h hh oo"),
        ({"ARD": 0.3}, {}, "hh ff h h hh oo"),
        ({tab9.KD: 0.6}, {}, "hh hh f h hh oo"),
        ({tab9.KD_OF_PGD_AT: 0.6}, {}, "hh hh f h hh oo"),
        ({}, {"ARD": 1.3}, "hh hh h f hh hh"),
        ({}, {tab9.FAST[4]: 1.3}, "hh hh h h fh fo"),
        ({}, {tab9.FAST[8]: 0.5}, "hh hh h h hh oh"),
    ],
)
def test_the_claims_of_tables_9_and_10_are_judged_by_accuracies_and_times(accuracies, seconds, verdicts):
    measured = made_up({name: {"pgd-20": share} for name, share in {**ROBUST, **accuracies}.items()})
    checked = tab9.check_claims(measured, made_up_times(**seconds))
    letters = {claims.HOLDS: "h", claims.FAILS: "f", claims.OPEN: "o"}
    assert "".join(letters[claim.verdict] for claim in checked) == verdicts.replace(" ", "")
    assert all("a machine" in claim.lower.name for claim in checked[5:])


def test_ratios_are_drawn_below_the_differences():
    measured = made_up({name: {"clean": 0.9, "pgd-20": share} for name, share in ROBUST.items()})
    measured.measured_by["pgd-20"] = None
    times = made_up_times(**{tab9.FAST[4]: 0.5})
    numbers = tab9.beside_the_paper(measured, times, "digits", "mobilenetv2/4")
    figure = figures.differences_and_times(numbers, "title", tab9.REFERENCE)
    *above, below = figure.axes
    assert [panel.get_title() for panel in above] == ["Clean", "PGD-20"] * 2
    assert [label.get_text() for label in above[0].get_yticklabels()] == list(ROBUST)
    names = [label.get_text() for label in below.get_yticklabels()]
    assert names == list(tab9.TIMED)
    drawn = {c.get_label(): dict(zip(names, c.lines[0].get_xdata(), strict=True)) for c in below.containers}
    assert drawn["measured, with 95 % interval"][tab9.FAST[4]] == pytest.approx(0.5)
    assert drawn["the student's passes"][tab9.FAST[4]] == pytest.approx(1.0)
    theirs = drawn["paper: hours on its GPU"]
    assert (theirs[tab9.FAST[4]], math.isnan(theirs[tab9.FREE[4]])) == (pytest.approx(5.15 / 41.09), True)
    assert below.get_xlabel() == "Ratio to PGD-AT"
    plt.close(figure)


@pytest.mark.usefixtures("store")
@pytest.mark.parametrize(
    ("parameters", "message"),
    [
        ({"rounds": 5}, "rounds must be between 6 and 10000, not 5"),
        ({"rounds": 6.5}, "rounds must be a whole number"),
        ({"rounds": "ten"}, "rounds must be a number"),
        ({"teacher_method": "PGD-AT"}, "does not use teacher_method"),
        ({"teacher": "resnet19"}, "Unknown model 'resnet19'"),
    ],
)
def test_what_does_not_fit_table_9_is_refused_before_it_trains(parameters, message):
    with pytest.raises(ValueError, match=message):
        run_until_training("tab9_fast_ard", profile="smoke", **parameters)


def test_the_rounds_of_a_profile():
    scales = profiles.PROFILES
    assert [tab9.rounds_at(scales[name]) for name in ("smoke", "quick", "paper")] == [6, 20, 20]
    assert tab9.rounds_at(scales["quick"], 9.0) == 9


def test_the_papers_lines_are_told_apart():
    theirs = tab9.paper_numbers()
    assert isinstance(theirs, pd.DataFrame)
    assert not theirs.duplicated(["dataset", "network", "method", "metric"]).any()
    assert set(theirs.method) == set(ROBUST)
    assert set(theirs.network) == {"mobilenetv2"}
