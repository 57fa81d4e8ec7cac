"""Intervals over seeds and images, by hand, by their properties, and by simulation; families of claims."""

import importlib.util
import json
import math
import sys
from dataclasses import replace

import pytest
import torch
from conftest import ROOT
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats

from rkdkit import claims, statistics
from rkdkit.claims import Claim, Quantity, as_family
from rkdkit.statistics import Estimate, Measure, accuracy_over_seeds, difference_over_seeds, mean_over_seeds, p_value


@pytest.fixture(scope="module")
def intervals():
    """The module of `python benchmarks/intervals.py`."""
    spec = importlib.util.spec_from_file_location("benchmark_of_intervals", ROOT / "benchmarks" / "intervals.py")
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module  # its dataclasses look themselves up
    spec.loader.exec_module(module)
    return module


# by hand


def test_the_variance_of_a_mean_has_a_part_of_the_images_and_one_of_the_seeds():
    """Seeds' means 2 and 3, images' 1.5, 3 and 3; what is left of each value is 0 or a half."""
    found = mean_over_seeds([torch.tensor([1.0, 2, 3]), torch.tensor([2.0, 4, 3])], "nats")
    by_images, between, rest = 0.75 / 3, 0.5, 1 / 2
    variance = by_images + (between - rest / 3) / 2
    degrees = variance**2 / ((max(between, rest / 3) / 2) ** 2 / 1 + by_images**2 / 2)
    half = stats.t.ppf(0.975, degrees) * math.sqrt(variance)
    assert (found.value, found.n, found.seeds, found.unit) == (2.5, 3, 2, "nats")
    assert found.degrees == pytest.approx(degrees)
    assert (found.low, found.high) == pytest.approx((2.5 - half, 2.5 + half))
    clipped = mean_over_seeds([torch.tensor([1.0, 2, 3]), torch.tensor([2.0, 4, 3])], bounds=(1, 4))
    assert (clipped.low, clipped.high) == (1, 4)


def test_seeds_that_are_alike_by_chance_leave_the_variance_of_independent_answers():
    """Both seeds' means are 0.5, images' 0.5, 0.5, 0 and 1: without the least variance, there would be none."""
    found = mean_over_seeds([torch.tensor([0.0, 1, 0, 1]), torch.tensor([1.0, 0, 0, 1])])
    rest = 4 * 0.5**2 / (1 * 3)
    assert found.high - 0.5 == pytest.approx(stats.t.ppf(0.975, found.degrees) * math.sqrt(rest / (2 * 4)))


def test_where_networks_agree_a_second_one_says_nothing_new():
    first, second = torch.arange(100) < 80, torch.arange(100) % 10 < 7
    for one, several in (
        (statistics.proportion(first), accuracy_over_seeds([first] * 3)),
        (statistics.paired_difference(first, second), difference_over_seeds([(first, second)] * 3)),
    ):
        stretch = stats.t.ppf(0.975, 99) / stats.norm.ppf(0.975)
        assert several.degrees == pytest.approx(99)
        assert several.value == pytest.approx(one.value)
        assert several.value - several.low == pytest.approx(stretch * (one.value - one.low))
        assert several.high - several.value == pytest.approx(stretch * (one.high - one.value))
        assert (several.n, several.seeds) == (100, 3)


def test_where_networks_are_wrong_on_different_images_each_is_a_sample_of_its_own():
    random = torch.Generator().manual_seed(0)
    right = [torch.rand(1000, generator=random) < 0.5 for _ in range(10)]
    width, alone = accuracy_over_seeds(right), statistics.proportion(right[0])
    assert (width.high - width.low) / (alone.high - alone.low) == pytest.approx(10**-0.5, rel=0.3)


def test_without_a_mistake_the_interval_is_that_of_the_images():
    for right in (torch.ones(50, dtype=torch.bool), torch.zeros(50, dtype=torch.bool)):
        one, found = statistics.proportion(right), accuracy_over_seeds([right, right])
        assert ends(found) == pytest.approx(ends(one))
        assert found.degrees is None
        assert found.high - found.low > 0.05
        same = difference_over_seeds([(right, right)] * 3)
        assert same.value == 0
        assert same.high - same.low > 0.05, "that two networks agree on 50 images does not show that they always do"


def test_one_image_is_enough():
    right, wrong = torch.tensor([True]), torch.tensor([False])
    assert accuracy_over_seeds([right, right]).low < 0.3
    found = difference_over_seeds([(right, wrong), (wrong, right)])
    assert (found.low, found.high) == (-1, 1)


def test_one_training_keeps_its_interval():
    first, second = torch.arange(60) < 40, torch.arange(60) % 2 == 0
    values = torch.linspace(0, 1, 60)
    assert accuracy_over_seeds([first]) == statistics.proportion(first)
    assert difference_over_seeds([(first, second)]) == statistics.paired_difference(first, second)
    assert mean_over_seeds([values], "s") == statistics.mean(values, "s")


def test_results_on_different_images_are_refused():
    long, short = torch.ones(4, dtype=torch.bool), torch.ones(3, dtype=torch.bool)
    for call, message in (
        (lambda: accuracy_over_seeds([]), "There is no training"),
        (lambda: difference_over_seeds([]), "There is no training"),
        (lambda: mean_over_seeds([]), "There is no training"),
        (lambda: accuracy_over_seeds([long, short]), "same images"),
        (lambda: difference_over_seeds([(long, short), (long, short)]), "one length"),
        (lambda: difference_over_seeds([(long, long), (short, short)]), "same images"),
        (lambda: mean_over_seeds([torch.tensor([1.0])] * 2), "two images"),
        (lambda: mean_over_seeds([torch.tensor([1.0, math.nan])] * 2), "two images"),
    ):
        with pytest.raises(ValueError, match=message):
            call()


# properties

SAMPLES = st.tuples(st.integers(2, 5), st.integers(2, 30), st.integers(0, 2**32))
"""The numbers of seeds and images, and what draws the answers."""

MANY_IMAGES = st.tuples(st.integers(2, 5), st.integers(20, 40), st.integers(0, 2**32))


def drawn(sample):
    """Both methods' answers, (S, N) bool; images have a difficulty, networks an accuracy."""
    seeds, n, seed = sample
    random = torch.Generator().manual_seed(seed)
    logits = torch.randn(seeds, 1, generator=random) + 2 * torch.randn(n, generator=random)
    return [torch.rand(seeds, n, generator=random) < logits.sigmoid() for _ in range(2)], random


def all_intervals(first, second):
    """The three estimates, of which each has its own function."""
    return (
        accuracy_over_seeds(list(first)),
        difference_over_seeds(list(zip(first, second, strict=True))),
        mean_over_seeds(list(first.double() - 0.3 * second.double())),
    )


def far_apart(sample, by=1):
    """Answers whose means differ between seeds by more than chance, (S, N) float64."""
    (first, _), _ = drawn(sample)
    values = first.double()
    shifts = torch.linspace(-1, 1, len(values), dtype=torch.float64)[:, None]
    return values - values.mean(1, keepdim=True) + by * shifts


def ends(estimate):
    return estimate.value, estimate.low, estimate.high


@settings(max_examples=40, deadline=None)
@given(SAMPLES)
def test_the_order_of_seeds_and_images_does_not_matter(sample):
    (first, second), random = drawn(sample)
    seeds, images = (torch.randperm(size, generator=random) for size in first.shape)
    before = all_intervals(first, second)
    after = all_intervals(first[seeds][:, images], second[seeds][:, images])
    for one, other in zip(before, after, strict=True):
        assert ends(one) == pytest.approx(ends(other), abs=1e-9)
        assert one.degrees == pytest.approx(other.degrees)


@settings(max_examples=40, deadline=None)
@given(SAMPLES)
def test_intervals_turn_with_what_they_measure(sample):
    (first, second), _ = drawn(sample)
    for (value, low, high), (opposite, least, most), total in (
        (*map(ends, (accuracy_over_seeds(list(right)) for right in (first, ~first))), 1),
        (*map(ends, (all_intervals(*pair)[1] for pair in ((first, second), (second, first)))), 0),
    ):
        assert (value + opposite, low + most, high + least) == pytest.approx((total, total, total), abs=1e-9)
        assert low <= value <= high


@settings(max_examples=40, deadline=None)
@given(MANY_IMAGES)
def test_more_seeds_of_the_same_kind_narrow_the_interval(sample):
    apart = far_apart(sample)
    few, many = mean_over_seeds(list(apart)), mean_over_seeds(list(apart.repeat(3, 1)))
    assert many.value == pytest.approx(few.value)
    assert many.high - many.low < few.high - few.low


@settings(max_examples=40, deadline=None)
@given(SAMPLES)
def test_more_images_of_the_same_kind_narrow_the_interval_of_networks_that_agree(sample):
    (first, second), _ = drawn(sample)
    agreeing = [each[:1].repeat(3, 1) for each in (first, second)]
    few, many = all_intervals(*agreeing), all_intervals(*(each.repeat(1, 9) for each in agreeing))
    for less, more in zip(few, many, strict=True):
        assert more.value == pytest.approx(less.value)
        assert more.high - more.low <= less.high - less.low + 1e-9


@settings(max_examples=40, deadline=None)
@given(SAMPLES)
def test_more_confidence_takes_a_wider_interval(sample):
    (first, second), _ = drawn(sample)
    pairs = list(zip(first, second, strict=True))
    for function, given_ in ((accuracy_over_seeds, list(first)), (difference_over_seeds, pairs)):
        narrow, usual, wide = (function(given_, confidence) for confidence in (0.9, 0.95, 0.99))
        assert usual == function(given_)
        assert wide.low <= usual.low <= narrow.low
        assert narrow.high <= usual.high <= wide.high


@settings(max_examples=40, deadline=None)
@given(MANY_IMAGES)
def test_seeds_that_are_farther_apart_widen_the_interval(sample):
    near, far = (mean_over_seeds(list(far_apart(sample, by))) for by in (1, 2))
    assert far.high - far.low > near.high - near.low


# by simulation

TRIALS = 1500
"""Draws for each simulated world: the standard error of a coverage of 95 % is 0.6 %."""


def is_in(share, least=0.93, most=0.97):
    """Whether a coverage is in a range, but for two standard errors of the simulation."""
    return least - 0.01 <= share <= most + 0.01


@pytest.mark.parametrize("seeds", [3, 5, 10])
@pytest.mark.parametrize("accuracies", [(0.8,), (0.55, 0.5)], ids=["accuracy", "difference"])
def test_the_coverage_of_moderate_accuracies_and_their_differences(intervals, accuracies, seeds):
    """Differences of networks that vary little between seeds have up to 100 %; docs/statistics.md says why."""
    images_matter = intervals.World(accuracies, 0.01, 100, seeds, 0.8)
    seeds_matter = intervals.World(accuracies, 0.08, 500, seeds, 0.8)
    assert is_in(intervals.covered(images_matter, TRIALS), most=0.97 if len(accuracies) == 1 else 1)
    few = seeds == 3 and len(accuracies) == 1
    assert is_in(intervals.covered(seeds_matter, TRIALS), 0.915 if few else 0.93)


@pytest.mark.parametrize(
    ("accuracy", "sd", "least", "most"),
    [
        (0.05, 0.0, 0.93, 0.98),
        (0.97, 0.0, 0.92, 0.98),
        (0.97, 0.02, 0.90, 0.93),
        (0.05, 0.08, 0.82, 0.91),
        (0.97, 0.08, 0.67, 0.78),
    ],
)
@pytest.mark.parametrize("seeds", [3, 5, 10])
def test_the_coverage_of_accuracies_near_0_or_1(intervals, accuracy, sd, least, most, seeds):
    """docs/statistics.md has these ranges: far below 95 % if networks vary between seeds."""
    world = intervals.World((accuracy,), sd, 1000, seeds, 0.8)
    assert is_in(intervals.covered(world, TRIALS), least, most)


def without_seeds(of_seeds):
    """Wilson's interval as if every answer of every network were an image of its own."""
    return statistics.proportion(torch.cat(of_seeds))


def without_images(of_seeds):
    """Student's interval of the networks' accuracies, as if the test images were all images."""
    return statistics.mean(torch.stack(of_seeds).double().mean(1))


def test_the_simulation_tells_estimators_that_forget_a_level(intervals):
    images_matter, seeds_matter = (intervals.World((0.8,), *which, 10, 0.8) for which in ((0.01, 100), (0.08, 500)))
    assert intervals.covered(images_matter, TRIALS, without_images) < 0.8
    assert intervals.covered(seeds_matter, TRIALS, without_seeds) < 0.6
    unpaired = intervals.World((0.8, 0.8), 0.01, 100, 3, 0.8)

    def without_pairs(pairs):
        one, other = (accuracy_over_seeds(list(of_method)) for of_method in zip(*pairs, strict=True))
        half = math.hypot(one.high - one.low, other.high - other.low) / 2
        return Estimate(0, one.value - other.value - half, one.value - other.value + half, one.n)

    assert intervals.covered(unpaired, TRIALS, without_pairs) > 0.985


def test_a_simulated_network_has_the_accuracy_that_is_asked_for(intervals):
    world = intervals.World((0.8, 0.6), 0.05, 20_000, 50, 0.5)
    ((first, second),) = world.draws(1)
    for answers, accuracy in ((first, 0.8), (second, 0.6)):
        of_networks = torch.stack(answers).double().mean(1)
        assert float(of_networks.mean()) == pytest.approx(accuracy, abs=0.025)
        assert float(of_networks.std()) == pytest.approx(0.05, abs=0.015)
    assert world.difference == pytest.approx(0.2)


def test_a_family_without_a_true_claim_seldom_has_a_verdict(intervals):
    for world in (intervals.World((0.8, 0.8), 0.0, 200, 1, 0.8), intervals.World((0.8, 0.8), 0.02, 200, 5, 0.8)):
        alone, corrected = intervals.wrong_families(world, 250)
        assert alone > (0.15 if world.seeds == 1 else 0.05)
        assert corrected < 0.08


# p values and families


@given(st.floats(-1, 1), st.floats(0.01, 1), st.floats(0.01, 1), st.sampled_from([None, 1.0, 2.5, 400.0]))
def test_a_p_value_is_below_one_twentieth_where_the_interval_excludes_0(value, down, up, degrees):
    estimate = Measure(value, value - down, value + up, 9, degrees=degrees)
    if min(abs(estimate.low), abs(estimate.high)) > 1e-6:
        assert (p_value(estimate) < 0.05) == (estimate.low > 0 or estimate.high < 0)


def test_the_p_value_of_a_mean_is_that_of_students_test():
    values = torch.tensor([0.1, 0.4, 0.2, 0.9, -0.3]).double()
    for confidence in (0.95, 0.99):
        ours = p_value(statistics.mean(values, confidence=confidence), confidence)
        assert ours == pytest.approx(stats.ttest_1samp(values.numpy(), 0).pvalue)
    assert p_value(statistics.mean(-values)) == pytest.approx(stats.ttest_1samp(values.numpy(), 0).pvalue)


@pytest.mark.parametrize(
    ("hits", "n", "limit"), [(0, 64, 0.1), (0, 497, 0.1), (3, 64, 0.1), (64, 64, 0.9), (20, 64, 0.1)]
)
def test_the_p_value_of_an_accuracy_and_a_number_is_the_score_tests(hits, n, limit):
    quantity = Quantity("ours", statistics.proportion(torch.arange(n) < hits))
    deviations = abs(hits / n - limit) / math.sqrt(limit * (1 - limit) / n)
    for compared in (claims.below, claims.above):
        found = p_value(compared(limit, "a number", quantity)[2])
        assert found == pytest.approx(2 * stats.norm.sf(deviations), rel=1e-6, abs=0)


def test_at_confidence_1_minus_p_an_interval_of_shares_ends_at_0():
    (first, second), _ = drawn((3, 60, 2))
    second = second & (torch.arange(60) % 3 > 0)
    pairs = list(zip(first, second, strict=True))
    for estimator, given_ in ((statistics.paired_difference, pairs[0]), (difference_over_seeds, [pairs])):
        p = p_value(estimator(*given_))
        assert 1e-6 < p < 0.9
        assert min(map(abs, ends(estimator(*given_, 1 - p))[1:])) < 1e-9
        assert p_value(estimator(*given_, 0.7), 0.7) == pytest.approx(p)
    limit = 0.5 * accuracy_over_seeds(list(first)).value
    p = p_value(accuracy_over_seeds(list(first)).linear(1, -limit))
    assert accuracy_over_seeds(list(first), 1 - p).low == pytest.approx(limit)
    assert p_value(accuracy_over_seeds(list(first)).linear(-2, 2 * limit)) == pytest.approx(p)
    assert p_value(Measure.of(difference_over_seeds(pairs))) == p_value(difference_over_seeds(pairs))


def test_newcombes_and_mcnemars_p_values_differ_by_a_factor_of_two_at_most_where_few_networks_differ():
    """Nine images of 64 decide, and one network is right on each of them; the rest they answer alike."""
    for both, factor in ((0, 0.92), (20, 1.82), (40, 1.55), (55, 0.92)):
        first, second = torch.arange(64) < both + 9, torch.arange(64) < both
        tested = statistics.paired_test(first, second)
        assert tested.p_value == pytest.approx(2 / 2**9)
        assert tested.p_value / p_value(tested.difference) == pytest.approx(factor, abs=0.01)


def test_tiny_p_values_are_known_too():
    right = torch.arange(5_000) < 3_000
    found = statistics.proportion(right).linear(1, -0.5)
    assert p_value(found) == pytest.approx(2 * stats.norm.sf(0.1 / math.sqrt(0.25 / 5_000)), rel=1e-4, abs=0)
    assert p_value(statistics.paired_difference(right | True, right & False)) == 0
    assert p_value(statistics.proportion(right).linear(1, -0.6)) == 1


def test_a_changed_estimate_does_not_keep_the_ends_of_another():
    found = statistics.proportion(torch.arange(9) < 4)
    assert found.ends(0.05) == pytest.approx((found.low, found.high))
    assert replace(found, value=0.3).ends is None
    assert statistics.over_seeds([found, found]).ends is None


def test_what_is_known_exactly_has_no_doubt():
    assert p_value(Estimate(0.1, 0.1, 0.1, 9)) == 0
    assert p_value(Estimate(0.0, 0.0, 0.0, 9)) == 1
    assert p_value(Measure(1.0, -math.inf, math.inf, 9)) == 1


def claim(p, *, sign=1, source="a paper", confidence=0.95):
    """A claim whose difference has a p value, by the normal distribution."""
    reach = stats.norm.ppf((1 + confidence) / 2) / stats.norm.isf(p / 2)
    side = Quantity("side", Estimate(0.5, 0.4, 0.6, 9))
    difference = Measure(sign, sign - reach, sign + reach, 9)
    return Claim(f"p is {p}", source, side, side, difference, confidence)


def test_holms_correction_by_hand():
    found = as_family([claim(0.04), claim(0.01), claim(0.03, sign=-1), claim(0.02)])
    assert [each.p_value for each in found] == pytest.approx([0.04, 0.01, 0.03, 0.02])
    assert [each.adjusted_p_value for each in found] == pytest.approx([0.06, 0.04, 0.06, 0.06])
    assert [each.alone for each in found] == [claims.HOLDS, claims.HOLDS, claims.FAILS, claims.HOLDS]
    assert [each.verdict for each in found] == [claims.OPEN, claims.HOLDS, claims.OPEN, claims.OPEN]
    both = as_family([claim(0.04, sign=-1), claim(0.01)])
    assert [each.verdict for each in both] == [claims.FAILS, claims.HOLDS], "the second is multiplied by one less"
    assert as_family(found) == found, "a family is not corrected twice"
    assert as_family([]) == []


def test_a_claim_alone_keeps_its_verdict():
    for one in (claim(0.049), claim(0.049, sign=-1), claim(0.051)):
        (found,) = as_family([one])
        assert found.verdict == one.alone
        assert found.adjusted_p_value == pytest.approx(one.p_value)


def test_what_was_picked_out_of_several_is_corrected_for_that_too():
    picked = claim(0.004, confidence=0.99)
    assert picked.p_value == pytest.approx(5 * 0.004)
    assert replace(picked, confidence=1).p_value == 1


def test_what_no_sample_decides_and_what_no_paper_claims_is_of_no_family():
    counted = replace(claim(0.5), difference=Measure(1.0, 1.0, 1.0, 1))
    own = claim(0.04, source=f"{claims.NO_CLAIM} anybody")
    found = as_family([counted, own, claim(0.04), claim(0.5)])
    assert [each.adjusted_p_value for each in found] == [None, None, pytest.approx(0.08), pytest.approx(0.5)]
    assert [each.verdict for each in found] == [claims.HOLDS, claims.HOLDS, claims.OPEN, claims.OPEN]
    assert claims.family(found, "tab0_none") == {
        "name": "claims of tab0_none", "size": 2, "correction": "Holm", "confidence": 0.95
    }  # fmt: skip
    named = claims.family_in_words(found, "tab0_none")
    assert named == "Verdicts: one family, the 2 claims of tab0_none, at 95 % together (Holm)."
    assert claims.family_in_words(found[:3]) == ""


def test_a_report_names_the_family_and_what_it_left_open():
    text = claims.report([claim(0.04), claim(0.001, sign=-1)])
    first, _, left_open, fails = text.splitlines()[:4]
    assert first.endswith("Verdicts: one family, the 2 claims of this exhibit, at 95 % together (Holm).")
    assert "holds: 1, does not hold: 1" in first
    assert left_open.startswith("holds")
    assert fails.startswith("does not hold")
    text = claims.report([claim(0.04, confidence=0.99), claim(0.03), claim(0.001, sign=-1)])
    assert "holds: 0, does not hold: 1, too close to tell here: 2" in text
    assert "p is 0.03 (alone: holds)" in text
    assert "p is 0.04 (99 % interval)" in text


def test_a_judged_claim_is_read_as_it_was_written_and_so_is_one_of_earlier_files():
    estimate = Estimate(0.5, 0.4, 0.6, 100, 3, 2.5)
    both = [Quantity(name, estimate) for name in ("higher", "lower")]
    (judged,) = as_family([Claim("text", "source", *both, Measure(1.0, 0.5, 1.5, 100, 3, 2.5, "nats"))])
    written = json.loads(json.dumps(judged.to_json()))
    assert written["difference"]["degrees"] == 2.5
    assert Claim.from_json(written) == judged
    earlier = claim(0.01).to_json()
    assert not {"adjusted_p_value", "degrees"} & {*earlier, *earlier["difference"]}
    assert Claim.from_json(json.loads(json.dumps(earlier))).to_json() == earlier
    for field, value in (("adjusted_p_value", 2), ("adjusted_p_value", "small")):
        with pytest.raises(ValueError, match="adjusted_p_value of a claim must be"):
            Claim.from_json({**written, field: value})
    again = as_family([Claim.from_json(written), Claim.from_json({**written, "text": "other"})])
    assert [each.adjusted_p_value for each in again] == [judged.adjusted_p_value] * 2, "stored p values stay"
    with pytest.raises(ValueError, match="degrees of a claim's estimate"):
        Claim.from_json({**written, "difference": {**written["difference"], "degrees": "many"}})
