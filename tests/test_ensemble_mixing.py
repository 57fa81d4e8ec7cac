"""RKD's Figure 3: students of accurate and robust teachers together, and claims judged rightly."""

import warnings

import pytest
from artists import lines, xy
from given import Given
from matplotlib.colors import to_rgb
from test_comparisons import made_up
from test_exhibits import run_until_training
from test_label_mixing import FIG8, FIG10, asked_of, dots

from rkdkit import claims, executors, exhibits, figures
from rkdkit.analysis.white_box import WhiteBox
from rkdkit.exhibits import fig8_early_stopping_label_mixing as fig8
from rkdkit.exhibits import fig10_ensemble_mixing as fig10
from rkdkit.figures import trade_offs
from rkdkit.statistics import Estimate
from rkdkit.store import Store

pytestmark = pytest.mark.usefixtures("closed", "nothing")


@pytest.mark.parametrize("profile", ["smoke", "quick", "paper"])
def test_teachers_of_one_kind_share_its_weight_and_those_of_weight_0_are_left_out(nothing, profile):
    setup = exhibits.setup(FIG10, profile)
    trained = fig10.train(setup)
    students = [spec for spec in asked_of(nothing) if spec.teachers]
    assert {spec.method for spec in students} == {"AKD+"}
    betas = list(trained.students)
    assert (betas[0], betas[-1], len(betas)) == (0, 1, {"smoke": 3, "quick": 6, "paper": 11}[profile])
    for beta, spec in zip(betas, students, strict=True):
        weights = {(t.run.method, t.run.seed): t.weight for t in spec.teachers}
        expected = {("Natural", seed): (1 - beta) / 2 for seed in (0, 1000)} | {
            ("PGD-AT", seed): beta / 2 for seed in (0, 1000)
        }
        assert weights == pytest.approx({key: weight for key, weight in expected.items() if weight})
        assert dict(spec.settings)["mixing"] == 0.5
        assert {t.epoch for t in spec.teachers} == {spec.teachers[0].run.epochs}
    single = exhibits.setup(FIG8, profile)
    shared = {guide for s in fig8.students(single).grid for guide in s.guide.specs(single)}
    assert shared <= set(asked_of(nothing)), "the first teacher of each kind is that of the other exhibits"


def test_alpha_and_early_stopping_reach_the_students():
    setup = exhibits.setup(FIG10, "smoke")
    trained = fig10.train(setup, [0, 1], alpha=0.8, early_stop=0.4)
    assert {epoch for s in trained.students.values() for epoch in [s[0].spec.teachers[0].epoch]} == {1}
    assert {dict(s[0].spec.settings)["mixing"] for s in trained.students.values()} == {0.8}
    assert {name: snapshots[0].epoch for name, snapshots in trained.teachers.items()} == dict.fromkeys(
        ["Natural 1", "Natural 2", "PGD-AT 1", "PGD-AT 2"], 1
    )


def mixed(robust, clean):
    shares = zip(robust, clean, strict=True)
    betas = [i / (len(robust) - 1) for i in range(len(robust))]
    by = {fig10.named(beta): {"clean": c, "pgd-20": r} for beta, (r, c) in zip(betas, shares, strict=True)}
    return WhiteBox(made_up(by, 2000).evaluations, {"clean": None, "pgd-20": None}, 10), betas


def verdicts_10(robust, clean):
    return [claim.verdict for claim in fig10.check_claims(*mixed(robust, clean))]


EVEN, DOWN = (0.2, 0.3, 0.4, 0.5, 0.6), (0.9, 0.8, 0.7, 0.6, 0.5)
ALL = [claims.HOLDS] * 8


def test_figure_3s_claims_hold_on_an_even_path():
    assert verdicts_10(EVEN, DOWN) == ALL


@pytest.mark.parametrize(
    ("robust", "clean", "failing"),
    [
        (EVEN[::-1], DOWN, {0, 2, 3, 6}),
        (EVEN, DOWN[::-1], {1, 4, 5, 7}),
        ((0.2, 0.2, 0.1, 0.5, 0.6), DOWN, {2, 6}),
        ((0.2, 0.22, 0.23, 0.59, 0.6), DOWN, {6}),
        (EVEN, (0.9, 0.59, 0.57, 0.55, 0.5), {7}),
        ((0.2, 0.3, 0.7, 0.65, 0.6), DOWN, {3, 6}),
    ],
)
def test_each_claim_of_figure_3_fails_where_it_should(robust, clean, failing):
    assert {i for i, verdict in enumerate(verdicts_10(robust, clean)) if verdict == claims.FAILS} == failing


def test_smoothness_is_decided_by_one_step_and_needs_four_betas():
    abrupt = fig10.check_claims(*mixed((0.2, 0.22, 0.23, 0.59, 0.6), DOWN))[6]
    assert "from beta 0.5 to 0.75" in abrupt.lower.name
    assert (abrupt.higher.estimate.value, abrupt.lower.estimate.value) == (pytest.approx(0.2), pytest.approx(0.36))
    assert abrupt.difference.value == pytest.approx(-0.16)
    assert abrupt.confidence == pytest.approx(1 - 0.05 / 4)
    up, down, same = (fig10.check_claims(*mixed(path, DOWN))[6] for path in (EVEN, EVEN[::-1], (0.5,) * 5))
    assert up.note == abrupt.note == ""
    assert down.note.startswith("the whole change is -40.0 [-42.")
    assert same.note.startswith("the whole change is 0.0 [")
    assert len(verdicts_10((0.2, 0.4, 0.6), (0.9, 0.8, 0.7))) == 6
    assert len(verdicts_10((0.2, 0.6), (0.9, 0.7))) == 2


@pytest.mark.parametrize(
    ("margins", "verdict", "step"),
    [
        ([(0.02, 0.01, 0.03), (0.05, -0.01, 0.11), (0.2, 0.1, 0.3), (0.2, 0.1, 0.3)], claims.OPEN, "0.25 to 0.5"),
        ([(-0.2, -0.5, 0.1), (-0.05, -0.07, -0.03), (0.2, 0.1, 0.3), (0.2, 0.1, 0.3)], claims.FAILS, "0.25 to 0.5"),
        ([(0.02, 0.01, 0.03), (0.05, 0.005, 0.1), (0.2, 0.1, 0.3), (0.2, 0.1, 0.3)], claims.HOLDS, "0.25 to 0.5"),
    ],
)
def test_smoothness_is_as_uncertain_as_the_step_that_decides(monkeypatch, margins, verdict, step):
    """Steps differ in how sure they are: the largest one need not be the one of which least is known."""
    of_step = dict(zip([0.0, 0.25, 0.5, 0.75], margins, strict=True))
    monkeypatch.setattr(fig10, "_margin", lambda *given: Estimate(*of_step[min(given[3])], 2000))
    claim = fig10.check_claims(*mixed(EVEN, DOWN))[6]
    assert claim.verdict == verdict
    assert f"from beta {step}" in claim.lower.name


def test_figure_3_shows_students_by_beta_with_their_intervals_and_the_teachers(tmp_path):
    with executors.using(Given(Store(tmp_path), None)):
        trained = fig10.train(exhibits.setup(FIG10, "smoke"))
    names = list(fig10.networks(trained))
    by = {name: {"clean": 0.5 + 0.05 * i, "pgd-20": 0.1 * i} for i, name in enumerate(names)}
    numbers = fig10.table(WhiteBox(made_up(by).evaluations, {"clean": None, "pgd-20": None}, 10), trained)
    assert list(numbers.name) == names
    assert list(numbers.beta[:3]) == [0, 0.5, 1]
    with warnings.catch_warnings():
        warnings.simplefilter("error")  # pandas warns of "" in a column of numbers
        read = figures.both_in_per_cent(numbers, "name", "beta")
    assert list(read.columns) == ["name", "beta", "Clean (%)", "PGD-20 (%)"]
    assert list(read.iloc[0]) == ["AKD+, beta 0", 0, "50.0 [46.9, 53.1]", "0.0 [0.0, 0.4]"]
    assert list(read.iloc[3])[:2] == ["Natural 1", ""]
    scatter, curves = figures.ensembles_mixed(numbers, "title").axes
    assert len(dots(scatter, "*")) == 4
    betas = trade_offs.ordered_colours([0, 0.5, 1])
    expected = [
        (to_rgb(betas[b]), "o", 100 * by[n]["clean"], 100 * by[n]["pgd-20"]) for b, n in zip(betas, names, strict=False)
    ]
    assert dots(scatter, "o") == [
        tuple(pytest.approx(value) if isinstance(value, float) else value for value in each) for each in expected
    ]
    bars = [container for container in scatter.containers if container.has_xerr and container.has_yerr]
    assert len(bars) == 3
    assert xy(lines(curves)["student, clean"])[0] == [0, 0.5, 1]
    assert xy(lines(curves)["student, robust (PGD-20)"])[1] == pytest.approx([0, 10, 20])


@pytest.mark.usefixtures("store")
@pytest.mark.parametrize(
    ("parameters", "message"),
    [
        ({"betas": [0.5, 1]}, "betas must have 0 and 1"),
        ({"betas": [0, 1, 1.0]}, "different shares"),
        ({"alpha": 0}, "alpha must be above 0"),
        ({"alpha": "half"}, "must be a number, not 'half'"),
        ({"early_stop": 0}, "early_stop must be above 0"),
        ({"robust": "pgd-20"}, "Did you mean 'pgd'"),
    ],
)
def test_what_does_not_fit_is_refused_before_training(parameters, message):
    with pytest.raises(ValueError, match=message):
        run_until_training(FIG10, profile="smoke", **parameters)
