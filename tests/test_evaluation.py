"""Accuracy and its intervals, against published formulas and by simulation; claims and their verdicts."""

import copy
import math

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import nn

from rkdkit import attacks, autoattack, claims, data, evaluation, models, statistics
from rkdkit.analysis.curves import Curve
from rkdkit.determinism import exact_arithmetic
from rkdkit.exhibits import fig1_peer_vs_teacher as fig1
from rkdkit.statistics import Estimate


@given(st.integers(1, 500).flatmap(lambda n: st.tuples(st.just(n), st.integers(0, n))))
def test_wilson_interval_agrees_with_its_formula(case):
    n, hits = case
    z, p = 1.959963984540054, hits / n
    centre = (p + z * z / (2 * n)) / (1 + z * z / n)
    half = z / (1 + z * z / n) * math.sqrt(p * (1 - p) / n + z * z / (4 * n * n))
    estimate = statistics.proportion(torch.arange(n) < hits)
    assert (estimate.value, estimate.n) == (p, n)
    assert estimate.low == pytest.approx(max(centre - half, 0), abs=1e-9)
    assert estimate.high == pytest.approx(min(centre + half, 1), abs=1e-9)


def paired(both, only_first, only_second, neither):
    first = [True] * (both + only_first) + [False] * (only_second + neither)
    second = [True] * both + [False] * only_first + [True] * only_second + [False] * neither
    return torch.tensor(first), torch.tensor(second)


def test_paired_interval_agrees_with_newcombes_published_example():
    # Newcombe 1998, Statistics in Medicine 17:2635, Table II: 36, 12, 2, 0 by method 10
    estimate = statistics.paired_difference(*paired(36, 12, 2, 0))
    assert estimate.value == pytest.approx(0.2)
    assert (round(estimate.low, 4), round(estimate.high, 4)) == (0.0569, 0.3404)


def test_paired_interval_covers_the_truth_95_times_of_100():
    random = np.random.RandomState(0)
    chances, covered, trials = [0.55, 0.2, 0.05, 0.2], 0, 2000
    for counts in random.multinomial(200, chances, trials):
        estimate = statistics.paired_difference(*paired(*counts))
        covered += estimate.low <= 0.15 <= estimate.high
    assert 0.93 < covered / trials < 0.97


def test_pairing_narrows_the_interval():
    a, b = paired(150, 20, 5, 25)
    with_pairs = statistics.paired_difference(a, b)
    shuffled = statistics.paired_difference(a, b[torch.randperm(200, generator=torch.Generator().manual_seed(0))])
    assert with_pairs.high - with_pairs.low < shuffled.high - shuffled.low


def test_paired_results_of_different_length_are_refused():
    with pytest.raises(ValueError, match="one length"):
        statistics.paired_difference(torch.ones(3, dtype=torch.bool), torch.ones(4, dtype=torch.bool))


def test_one_seed_keeps_its_interval_and_several_widen_it_by_their_spread():
    one = Estimate(0.5, 0.4, 0.6, 100)
    alone = statistics.over_seeds([one])
    assert (alone.low, alone.high, alone.seeds) == (pytest.approx(0.4), pytest.approx(0.6), 1)
    alike = statistics.over_seeds([one, one, one])
    assert (alike.low, alike.high, alike.seeds) == (pytest.approx(0.4), pytest.approx(0.6), 3)
    apart = statistics.over_seeds([Estimate(v, v - 0.1, v + 0.1, 100) for v in (0.4, 0.5, 0.6)])
    t = 4.302652729911275  # Student's t, two degrees of freedom
    half = math.hypot(0.1, t * 0.1 / math.sqrt(3))
    assert (apart.value, apart.low, apart.high) == pytest.approx((0.5, 0.5 - half, 0.5 + half))


class Threshold(nn.Module):
    """Class 1 where the mean pixel is above a half."""

    def __init__(self):
        super().__init__()
        self.scale = nn.Parameter(torch.tensor(10.0))

    def forward(self, x):
        score = self.scale * (x.mean((1, 2, 3)) - 0.5)
        return torch.stack([-score, score], 1)


def test_robust_accuracy_where_the_answer_is_known():
    images = torch.tensor([0.1, 0.45, 0.55, 0.9]).view(4, 1, 1, 1).expand(4, 1, 2, 2)
    labels = torch.tensor([0, 0, 1, 1])
    for attack, right in [(None, 4), (attacks.PGD(0.1, 0.05, 5), 2), (attacks.FGSM(0.1), 2), (attacks.FGSM(0.01), 4)]:
        assert evaluation.accuracy(Threshold(), images, labels, attack).value == right / 4
    flipped = evaluation.correct_predictions([Threshold()], images, 1 - labels)
    assert not flipped.any()


def test_transfer_judges_on_the_attacked_networks_examples(trained, digits):
    images, labels = digits.test.images[:100], digits.test.labels[:100]
    attack, other = attacks.PGD(0.1, 0.02, 5), Threshold()
    other.forward = lambda x: torch.eye(10)[labels[: len(x)]] + x.sum()
    both = evaluation.correct_predictions([trained, other], images, labels, attack, trained)
    alone = evaluation.correct_predictions([trained], images, labels, attack)
    assert torch.equal(both[0], alone[0])
    assert both[1].all(), "a judge that is always right is so on another's adversarial examples too"
    assert not alone.all()


class Noise(attacks.Attack):
    """Makes noise of every image: what a network answers to it depends on the seed alone."""

    def examples(self, _network, images, _labels, generator):
        return torch.rand(images.shape, generator=generator)


def test_without_a_seed_every_evaluation_has_seed_0():
    network, images, labels = Threshold(), torch.zeros(200, 1, 2, 2), torch.zeros(200, dtype=torch.int64)

    def answered(**seed):
        given, noise = (network, images, labels), Noise(0.1)
        judged = ([network], images, labels, noise)
        (examples,) = (x for x, _ in evaluation.perturbed(*given, noise, **seed))
        return {
            "perturbed": examples.tolist(),
            "logits": evaluation.logits(*judged, **seed).tolist(),
            "correct": evaluation.correct_predictions(*judged, **seed).tolist(),
            "evaluate": evaluation.evaluate(*given, {"noise": noise}, **seed).correct["noise"].tolist(),
            "per image": evaluation.per_image("entropy", *given, noise, **seed).tolist(),
            "accuracy": evaluation.accuracy(*given, noise, **seed),
        }

    assert answered() == answered(seed=0)
    another = answered(seed=1)
    assert [name for name, answer in answered().items() if answer == another[name]] == []


def test_without_a_seed_an_attack_has_seed_0(trained, digits):
    images, labels = data.to_float(digits.test.images[:3]), digits.test.labels[:3]
    attack = attacks.PGD(0.1, 0.0, 1)  # its random start alone
    assert torch.equal(attack(trained, images, labels), attack(trained, images, labels, seed=0))
    assert not torch.equal(attack(trained, images, labels), attack(trained, images, labels, seed=1))
    assert (autoattack.Square(0.1).seed, autoattack.AutoAttack(0.1).seed) == (0, 0)


def test_the_batch_size_changes_no_clean_verdict(trained, digits):
    images, labels = digits.test.images[:50], digits.test.labels[:50]
    whole = evaluation.correct_predictions([trained], images, labels)
    assert torch.equal(whole, evaluation.correct_predictions([trained], images, labels, batch_size=7))
    assert torch.equal(whole, evaluation.correct_predictions([trained], data.to_float(images), labels))


@pytest.mark.parametrize("attack", [None, attacks.PGD(0.1, 0.05, 2), autoattack.Square(0.1, queries=3)], ids=str)
def test_an_evaluation_within_autocast_is_in_float32(trained, digits, attack):
    images, labels = digits.test.images[:40], digits.test.labels[:40]
    expected = evaluation.logits([trained], images, labels, attack)
    verdicts = evaluation.correct_predictions([trained], images, labels, attack)
    with torch.autocast("cpu", torch.bfloat16):
        assert torch.equal(evaluation.logits([trained], images, labels, attack), expected)
        assert torch.equal(evaluation.correct_predictions([trained], images, labels, attack), verdicts)


def test_exact_arithmetic_uses_no_tf32_and_leaves_settings_as_they_were():
    torch.set_float32_matmul_precision("high")
    try:
        with exact_arithmetic():
            assert torch.get_float32_matmul_precision() == "highest"
            assert not torch.backends.cuda.matmul.allow_tf32
            assert not torch.backends.cudnn.allow_tf32
        assert torch.get_float32_matmul_precision() == "high"
        assert torch.backends.cuda.matmul.allow_tf32
    finally:
        torch.set_float32_matmul_precision("highest")


@pytest.mark.parametrize(
    ("part", "precision"),
    [
        (torch.backends.cudnn.conv, "ieee"),
        (torch.backends.cuda.matmul, "tf32"),
        (torch.backends.mkldnn.conv, "bf16"),
        (torch.backends.mkldnn.matmul, "bf16"),
    ],
)
def test_precision_set_by_torchs_newer_settings_is_refused_in_words(part, precision):
    before = part.fp32_precision
    part.fp32_precision = precision
    try:
        with pytest.raises(RuntimeError, match="fp32_precision was set"), exact_arithmetic():
            pass
    finally:
        part.fp32_precision = before
    with exact_arithmetic():
        assert not torch.backends.cudnn.allow_tf32
    assert torch.backends.cudnn.allow_tf32


def test_bad_images_are_refused(trained):
    with pytest.raises(ValueError, match="contain NaN"):
        evaluation.accuracy(trained, torch.full((1, 1, 8, 8), float("nan")), torch.tensor([0]))
    with pytest.raises(ValueError, match=r"0\.\.9"):
        evaluation.accuracy(trained, torch.zeros(1, 1, 8, 8), torch.tensor([11]))


@pytest.mark.parametrize(
    ("low", "high", "verdict"),
    [(0.01, 0.2, claims.HOLDS), (-0.2, -0.01, claims.FAILS), (-0.1, 0.1, claims.OPEN), (0.0, 0.1, claims.OPEN)],
)
def test_a_verdict_is_where_the_whole_interval_lies(low, high, verdict):
    quantity = claims.Quantity("q", Estimate(0.5, 0.4, 0.6, 10))
    claim = claims.Claim("text", "source", quantity, quantity, Estimate((low + high) / 2, low, high, 10))
    assert claim.verdict == verdict
    assert claim.to_json()["verdict"] == verdict
    tally, line = claims.report([claim]).splitlines()[:3:2]
    assert f"{verdict}: 1" in tally
    assert line.startswith(verdict)
    assert line.endswith("text")


def curve(network, examples, by_epoch):
    n = 200
    return Curve(network, examples, {0: {e: torch.arange(n) < share * n for e, share in enumerate(by_epoch, 1)}})


def verdicts(teacher, teacher_own, peer, peer_own):
    curves = fig1.TutoringCurves(
        curve("teacher", "student", teacher),
        curve("teacher", "own", teacher_own),
        curve("peer", "student", peer),
        curve("peer", "own", peer_own),
        num_classes=10,
    )
    assert len(curves.table()) == 12
    return [claim.verdict for claim in fig1.check_claims(curves)]


def test_figure_1s_claims_on_curves_with_a_known_answer():
    as_in_the_paper = verdicts([0.7, 0.6, 0.5], [0.5] * 3, [0.3, 0.6, 0.8], [0.01, 0.0, 0.0])
    assert as_in_the_paper == [claims.HOLDS] * 3
    reversed_ = verdicts([0.5, 0.6, 0.7], [0.5] * 3, [0.8, 0.6, 0.3], [0.0, 0.2, 0.3])
    assert reversed_ == [claims.FAILS] * 3
    assert verdicts([0.5] * 3, [0.5] * 3, [0.5] * 3, [0.0, 0.0, 0.1]) == [claims.OPEN] * 3
    early_peak = verdicts([0.5] * 3, [0.5] * 3, [0.5] * 3, [0.3, 0.3, 0.0])
    assert early_peak == [claims.OPEN, claims.OPEN, claims.HOLDS], "what counts is the end"


def test_intervals_over_seeds_stay_where_the_quantity_lies():
    rare = [statistics.proportion(torch.arange(100) < hits) for hits in (0, 0, 5)]
    assert statistics.over_seeds(rare).low == 0.0
    sure = [statistics.proportion(torch.arange(100) >= hits) for hits in (0, 0, 5)]
    assert statistics.over_seeds(sure).high == 1.0
    falls = [Estimate(v, v - 0.1, v + 0.1, 100) for v in (-0.9, -0.3)]
    assert statistics.over_seeds(falls, bounds=(-1.0, 1.0)).low == -1.0


def test_a_network_that_answers_nan_is_refused_not_counted(trained, digits):
    broken = copy.deepcopy(trained)
    broken.stem[1].running_var.fill_(float("nan"))
    with pytest.raises(ValueError, match="NaN or infinite logits"):
        evaluation.accuracy(broken, digits.test.images[:5], digits.test.labels[:5], attacks.FGSM(0.1))


def test_two_networks_are_compared_by_mcnemars_exact_test():
    # of 14 disagreements 12 one way: 2 * sum_{k<=2} C(14, k) / 2^14
    tested = statistics.paired_test(*paired(36, 12, 2, 0))
    assert tested.p_value == pytest.approx(2 * (1 + 14 + 91) / 2**14)
    assert tested.difference == statistics.paired_difference(*paired(36, 12, 2, 0))
    assert statistics.paired_test(*paired(5, 0, 0, 5)).p_value == 1.0


def test_one_call_measures_a_network_by_the_usual_attacks(trained, digits):
    some = digits.test.take(slice(0, 20))
    by = evaluation.standard_attacks(0.1)
    assert list(by) == ["clean", "fgsm", "pgd-20", "autoattack"]
    assert by["pgd-20"] == attacks.PGD(0.1, 0.025, 20)
    with pytest.raises(ValueError, match=r"eps must be between 0 and 1, .* write 8/255 for 8 of 255"):
        evaluation.standard_attacks(8)
    with pytest.raises(ValueError, match="eps must be a number, not '8/255'"):
        evaluation.standard_attacks("8/255")
    del by["autoattack"]  # which has tests of its own
    measured = evaluation.evaluate(trained, some.images, some.labels, by)
    for metric, attack in by.items():
        assert measured[metric] == evaluation.accuracy(trained, some.images, some.labels, attack)


def test_the_largest_surprises_are_the_claims_that_fail_most_clearly():
    def claim(name, low, high):
        side = claims.Quantity(f"side of {name}", statistics.Estimate(0.5, 0.4, 0.6, 9))
        return claims.Claim(name, "source", side, side, statistics.Estimate((low + high) / 2, low, high, 9))

    clear, clearer, hardly, least, open_ = (
        claim(name, *ends)
        for name, ends in {
            "clear": (-0.4, -0.2), "clearer": (-0.35, -0.3), "hardly": (-0.5, -0.1), "least": (-0.5, -0.05),
            "open": (-0.9, 0.1),
        }.items()
    )  # fmt: skip
    text = claims.report([least, hardly, open_, clear, clearer])
    assert "holds: 0, does not hold: 4, too close to tell here: 1. Verdicts: one family, the 5 claims" in text
    shown = [line.strip() for line in text.partition("surprises:")[2].splitlines() if "(source)" in line]
    assert shown == ["clearer (source)", "clear (source)", "hardly (source)"]
    assert claims.report([]) == "No claims are judged."


def test_the_packages_attacks_are_not_made_batch_by_batch():
    network, images = models.build("mlp-5/16", 10, [0.5], [0.25]), torch.rand(4, 1, 8, 8)
    with pytest.raises(ValueError, match="takes all images at once"):
        next(evaluation.perturbed(network, images, torch.zeros(4, dtype=torch.int64), autoattack.AutoAttack(0.1)))
