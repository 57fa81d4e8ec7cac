"""Intervals end where their quantity ends, and what belongs to different numbers of seeds is refused.

Two seeds whose answers are far apart have an interval that would reach beyond both ends of any quantity here, as
Student's t with one degree of freedom is 12.7: clipped, it is the quantity's whole range.
"""

import math

import numpy as np
import pytest
import torch
from agreed import agreed

from rkdkit import attacks, losses, statistics
from rkdkit.analysis.curves import Curve
from rkdkit.analysis.embedding import EXAMPLES, Scores
from rkdkit.analysis.features import COSINES, mean_similarity
from rkdkit.analysis.gradients import MEASURES
from rkdkit.analysis.trajectories import Answers, Trajectories
from rkdkit.analysis.white_box import WhiteBox, highest
from rkdkit.evaluation import Evaluation
from rkdkit.exhibits import fig4_loss_landscape as fig4
from rkdkit.exhibits import fig12_trajectories as fig12
from rkdkit.exhibits import fig13_sample_difficulty as fig13
from rkdkit.exhibits import tab2_peer_robustness as tab2
from rkdkit.exhibits.fig5_tsne import Embedding
from rkdkit.exhibits.fig6_semantic_gradients import SemanticGradients
from rkdkit.exhibits.fig11_entropy import EntropyCurves
from rkdkit.statistics import Estimate, Measure

N = 30
ALL, NONE = torch.ones(N, dtype=torch.bool), torch.zeros(N, dtype=torch.bool)
HIGH, LOW = [ALL, NONE], [NONE, ALL]
"""The answers of two seeds, and their opposite."""
ONE_SEED = pytest.raises(ValueError, match="zip")


def ends(estimate):
    return estimate.low, estimate.high


def near(value):
    """Thirty values about a number, for two seeds: for the second, they are about 1 minus it."""
    about = torch.linspace(-0.01, 0.01, N, dtype=torch.float64)
    return [value + about, 1 - value - about]


def test_numbers_of_images_and_of_seeds():
    some = torch.arange(N) < 20
    assert (statistics.proportion(some).n, statistics.proportion(some).seeds) == (N, 1)
    difference = statistics.paired_difference(some, ~some)
    assert (difference.n, difference.seeds) == (N, 1)
    assert (statistics.paired_test(some, ~some).difference.n, type(difference)) == (N, Estimate)
    mean = statistics.mean(torch.rand(N).double(), "nats")
    assert (mean.n, mean.seeds, mean.unit) == (N, 1, "nats")
    assert statistics.mean(torch.rand(N).double()).unit == ""
    over = statistics.over_seeds([Estimate(0.5, 0.4, 0.6, N, 2), Estimate(0.5, 0.4, 0.6, N, 3)])
    assert (over.n, over.seeds) == (N, 5)
    assert statistics.over_seeds([mean]) == mean


def test_every_function_is_of_95_per_cent_unless_told_otherwise():
    some, others = torch.arange(N) < 20, torch.arange(N) % 3 == 0
    values = some.double()
    estimates = [Estimate(v, v - 0.01, v + 0.01, N) for v in (0.4, 0.41)]
    for function, given in (
        (statistics.proportion, (some,)),
        (statistics.paired_difference, (some, others)),
        (statistics.mean, (values, "")),
        (statistics.over_seeds, (estimates, None)),
    ):
        assert function(*given) == function(*given, 0.95)
        narrow, wide = function(*given, 0.9), function(*given, 0.99)
        assert wide.low < function(*given).low < narrow.low, function
        assert wide.high > function(*given).high > narrow.high, function


def test_an_estimate_stays_between_its_bounds_and_a_measure_has_none():
    apart = [Estimate(v, v, v, N) for v in (0.1, 0.9)]
    assert ends(statistics.over_seeds(apart)) == (0, 1)
    assert ends(statistics.over_seeds(apart, (-0.5, 2.5))) == (-0.5, 2.5)
    reach = 12.706204736 * 0.4
    measures = [Measure(v, v, v, N) for v in (0.1, 0.9)]
    assert ends(statistics.over_seeds(measures)) == pytest.approx((0.5 - reach, 0.5 + reach))
    assert ends(statistics.over_seeds(measures, (-0.5, 2.5))) == (-0.5, 2.5)


def test_a_paired_difference_reaches_from_minus_one_to_one():
    assert (statistics.paired_difference(ALL, NONE).value, statistics.paired_difference(ALL, NONE).high) == (1, 1)
    assert (statistics.paired_difference(NONE, ALL).value, statistics.paired_difference(NONE, ALL).low) == (-1, -1)


def test_accuracies_and_their_differences():
    evaluations = {
        name: [Evaluation({"clean": a, "fgsm": b}) for a, b in zip(of_seeds, others, strict=True)]
        for name, of_seeds, others in (("ours", HIGH, LOW), ("theirs", LOW, HIGH))
    }
    measured = WhiteBox(evaluations, dict.fromkeys(("clean", "fgsm"), attacks.FGSM(0.1)), 10)
    assert ends(measured.accuracy("ours", "clean")) == (0, 1)
    assert ends(measured.minus("ours", "theirs", "clean")) == (-1, 1)
    assert ends(measured.between("ours", "clean", "fgsm")) == (-1, 1)
    claim = highest(measured, "ours", ["theirs"], "clean", "words", "text", "source")
    assert (ends(claim.difference), claim.difference.n, claim.difference.seeds) == ((-1, 1), N, 2)
    evaluations["theirs"].pop()
    with ONE_SEED:
        measured.minus("ours", "theirs", "clean")


def test_curves():
    high, low = (Curve("peer", "own", {seed: {1: a[seed], 2: ~a[seed]} for seed in (0, 1)}) for a in (HIGH, LOW))
    assert ends(high.at(1)) == (0, 1)
    assert ends(high.minus(low, [1])) == (-1, 1)
    assert ends(high.minus(high, [1], [2])) == (-1, 1)
    assert high.minus(low, [1], [2]).value == 0, "they are alike"


def test_guides():
    measured = {
        guide: {
            **dict.fromkeys(tab2.ACCURACIES, of_seeds),
            **{cosine: [2 * values.float() - 1 for values in near(level)] for cosine in COSINES},
        }
        for guide, of_seeds, level in (("peer", HIGH, 0.95), ("teacher", LOW, 0.05), ("natural", LOW, 0.05))
    }
    found = tab2.Guidance(measured, 10)
    cosine = COSINES[0]
    assert ends(found["peer", "f(x)"]) == (0, 1)
    assert ends(found["peer", cosine]) == (-1, 1)
    assert ends(found.minus(("peer", "f(x)"), ("teacher", "f(x)"))) == (-1, 1)
    assert ends(found.minus(("peer", cosine), ("teacher", cosine))) == (-2, 2)
    (comparable,) = (claim for claim in tab2.check_claims(found) if "midway" in claim.text)
    assert ends(comparable.lower.estimate) == (-1, 1)
    assert ends(comparable.difference) == (-2, 2)
    assert ends(mean_similarity(measured["peer"][cosine], (-3, 4))) == (-3, 4)
    for quantity in ("f(x)", cosine):
        fewer = {**measured, "teacher": {quantity: measured["teacher"][quantity][:1]}}
        with ONE_SEED:
            tab2.Guidance(fewer, 10).minus(("peer", quantity), ("teacher", quantity))


def test_silhouettes():
    def scores(*values):
        return {examples: [Scores(v, np.full(50, v), N) for v in values] for examples in EXAMPLES}

    found = Embedding(None, {"peer": scores(0.9, -0.9), "teacher": scores(-0.9, 0.9), "fewer": scores(0.1)})
    assert ends(found.silhouette("peer", "natural")) == (-1, 1)
    assert ends(found.minus("peer", "teacher", "natural")) == (-2, 2)
    assert (found.minus("peer", "teacher", "natural").n, found.silhouette("peer", "student").seeds) == (N, 2)
    with ONE_SEED:
        found.minus("peer", "fewer", "natural")


def test_measures_of_gradients():
    values = {
        name: dict.fromkeys(MEASURES, of_seeds)
        for name, of_seeds in (("peer", near(0.9)), ("student", near(0.1)), ("fewer", near(0.1)[:1]))
    }
    found = SemanticGradients(values, torch.tensor([0]), torch.zeros(1, 1, 2, 2), ("0",), {})
    assert ends(found.mean("peer", "gini")) == (0, 1)
    assert ends(found.minus("peer", "student", "gini")) == (-1, 1)
    with ONE_SEED:
        found.minus("peer", "fewer", "gini")
    longer = SemanticGradients(values, torch.tensor([0, 1]), torch.zeros(2, 1, 2, 2), ("0",), {})
    with ONE_SEED:
        longer.table()


def test_entropies_are_between_0_and_that_of_a_uniform_answer():
    found = EntropyCurves({"a": {1: near(0.9)}, "b": {1: near(0.1)}, "fewer": {1: near(0.1)[:1]}}, 10)
    assert (found.at("a").low, found.at("a").high) == (0, pytest.approx(math.log(10)))
    assert (found.at("a").unit, found.minus("a", "b").unit) == ("nats", "nats")
    assert found.minus("a", "b").low == pytest.approx(-math.log(10))
    assert found.minus("a", "b").high == pytest.approx(math.log(10))
    uniform = torch.full((N,), math.log(10) + 1e-6)
    assert EntropyCurves({"a": {1: [uniform, uniform]}}, 10).at("a").value <= math.log(10), "rounded to float32"
    with ONE_SEED:
        found.minus("a", "fewer")


def test_losses_of_landscapes_have_no_bounds():
    two = [torch.stack([values, 0 * values, values]).expand(2, 3, N) for values in near(0.9)]
    found = fig4.Landscape((-0.5, 0.0, 0.5), {"a": two, "b": two[::-1], "fewer": two[:1]}, (0.0,), {}, 2)
    assert found.rise("a").low < -2
    assert found.rise_minus("a", "b").high > 4
    assert (found.rise("a").seeds, found.rise("a").n, found.rise("a").unit) == (2, N, "nats")
    with ONE_SEED:
        found.rise_minus("a", "fewer")
    for surface in (torch.zeros(2, 1), torch.zeros(1, 2)):
        with ONE_SEED:
            fig4.Landscape((-0.5, 0.0, 0.5), {}, (0.0,), {"a": surface}, 2).table()


def test_easy_minus_hard_images_have_no_bounds():
    split = fig13.data.Split(torch.zeros(N, 1, 2, 2, dtype=torch.uint8), torch.zeros(N, dtype=torch.int64))
    rising = torch.arange(N).double()
    easy, hard, difference = fig13.Ranking(split, ("a",), agreed(rising)).easy_minus_hard(0, 100 * rising)
    assert difference.low < -100
    assert hard.high > 100
    assert (easy.n, hard.n, difference.n, difference.seeds) == (10, 10, 20, 1)


def answers(level):
    """What two families of networks answer: the second seed's opposite the first's, a student's a teacher's."""
    own, others = near(level), near(1 - level)
    return Answers(others, own, others, {0.3: others, 0.7: own}, own, 5)


def test_trajectories():
    by_images = {"natural": answers(0.9), "adversarial": answers(0.1)}
    measured = Trajectories(agreed(torch.arange(N).double()), {"PGD-AT": by_images, "Natural": by_images})
    assert ends(measured.mean(near(0.9))) == (0, 1)
    assert ends(measured.mean(near(0.9), "all", (-1, 1))) == (-1, 1)
    assert ends(measured.minus(near(0.9), near(0.1))) == (-1, 1)
    assert ends(measured.minus(near(0.9), near(0.1), bounds=(-1, 1))) == (-2, 2)
    rising = torch.linspace(0, 1, N).double()
    assert ends(measured.between([rising, 1 - rising], "easiest third", "hardest third")) == (-1, 1)
    apart = measured.between([rising, 1 - rising], "easiest third", "hardest third", (-1, 1))
    assert ends(apart) == (-2, 2)


def test_figures_6_to_17s_quantities():
    by_images = {"natural": answers(0.9), "adversarial": answers(0.1)}
    measured = Trajectories(agreed(torch.arange(N).double()), {"PGD-AT": by_images, "Natural": by_images})
    share, gain = (0, 1), (-1, 1)
    compared, corrected = [], []
    for claim in fig12.check_claims(measured):
        if claim.text.startswith("The trainings agree"):
            assert ends(claim.higher.estimate) == pytest.approx((1, 1))
        elif claim.higher.name == "a slight correction":
            corrected.append(ends(claim.lower.estimate))
        elif claim.higher.name != "guessing":
            whole = gain if claim.higher.name.startswith(("p_S,K - p_T,K", "p_S,K gained")) else share
            assert ends(claim.higher.estimate) == ends(claim.lower.estimate) == whole, claim.text
            compared.append((claim.text, ends(claim.difference)))
    assert corrected == [gain]
    for text, expected in (
        ("Student and teacher develop less alike under attack", (-1, 1)),
        ("AKD's student is surer of the correct class than its teacher", (-1, 1)),
        ("AKD's student gains more under attack", (-2, 2)),
        ("Stopping the teacher early does less harm under attack", (-2, 2)),
    ):
        found = {difference for written, difference in compared if written.startswith(text)}
        assert found == {expected}, text


def test_trajectories_of_different_numbers_of_seeds_are_refused():
    measured, fewer = Trajectories(agreed(torch.arange(N).double()), {}), near(0.1)[:1]
    with ONE_SEED:
        measured.minus(near(0.9), fewer)
    with ONE_SEED:
        answers(0.9).gain(fewer)
    with ONE_SEED:
        fig12._minus(near(0.9), fewer)


def test_a_mixture_needs_a_weight_for_every_teacher():
    logits = [torch.rand(2, 3), torch.rand(2, 3)]
    for weights in ((1.0,), (0.3, 0.3, 0.4)):
        with ONE_SEED:
            losses.mixture(logits, weights)
    assert torch.equal(losses.mixture(logits[:1]), logits[0]), "of one teacher alone, at a temperature of 1"
    halves = losses.mixture(logits, (0.5, 0.5)).softmax(1)
    assert torch.allclose(halves, (logits[0].softmax(1) + logits[1].softmax(1)) / 2)
    assert math.isclose(float(halves.sum()), 2, rel_tol=1e-6)
