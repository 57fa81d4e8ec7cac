"""Accuracy over the epochs with several seeds: what is claimed of the end of a training can be decided."""

import pytest
import torch

from rkdkit import claims, statistics
from rkdkit.analysis.curves import BY_PEER, BY_TEACHER, END, Curve, in_words
from rkdkit.exhibits import fig1_peer_vs_teacher as fig1
from rkdkit.exhibits import fig3_peer_tutoring as fig3

N, EPOCHS = 500, 20
EARLY = (0.3, 0.0, 0.12)
"""What three seeds have at one early epoch, where a training has hardly begun: they are far apart."""


def curve(late, early=EARLY, network="peer", examples="own", epochs=range(1, EPOCHS + 1)):
    """A curve of seeds with an early peak each, which then stay at one share; `late` is one number or one per seed."""
    shares = late if isinstance(late, tuple) else (late,) * len(early)

    def right(share):
        return torch.arange(N) < share * N

    correct = {
        seed: {epoch: right(peak if epoch == 4 else share) for epoch in epochs}
        for seed, (peak, share) in enumerate(zip(early, shares, strict=True))
    }
    return Curve(network, examples, correct)


def width(estimate):
    return estimate.high - estimate.low


@pytest.mark.parametrize(
    ("epochs", "end"),
    [
        (range(1, 21), (16, 17, 18, 19, 20)),
        (range(2, 17, 2), (14, 16)),
        (range(5, 301, 5), tuple(range(230, 301, 5))),
        ((3, 6, 9, 10), (9, 10)),
        ((1, 2, 3), (3,)),
        ((1,), (1,)),
    ],
)
def test_the_end_is_the_last_quarter_of_the_epochs(epochs, end):
    found = curve(0.5, epochs=epochs).end
    assert found == end
    assert all(epoch > (1 - END) * max(epochs) for epoch in found)


def test_a_mean_over_epochs_is_that_of_each_images_share():
    generator = torch.Generator().manual_seed(3)
    correct = {s: {e: torch.rand(N, generator=generator) < 0.2 + 0.1 * e for e in (1, 2, 3)} for s in range(3)}
    others = {s: {e: torch.rand(N, generator=generator) < 0.5 for e in (1, 2, 3)} for s in range(3)}
    one, other = Curve("peer", "own", correct), Curve("teacher", "own", others)

    def shares(by_seed, *epochs):
        return [torch.stack([by[e] for e in epochs]).double().mean(0) for by in by_seed.values()]

    for epochs in ((1,), (1, 3), (1, 2, 3)):
        mean = one.at(*epochs)
        assert mean.value == pytest.approx(float(torch.stack(shares(correct, *epochs)).mean()))
        assert (mean.n, mean.seeds) == (N, 3)
        for theirs in (None, (2,), (1, 2)):
            apart = torch.stack(shares(correct, *epochs)) - torch.stack(shares(others, *(theirs or epochs)))
            assert one.minus(other, epochs, theirs).value == pytest.approx(float(apart.mean())), (epochs, theirs)


def test_a_mean_over_epochs_has_the_mean_of_their_ends_at_every_confidence():
    by_epoch = {epoch: torch.arange(N) < hits for epoch, hits in ((1, 0), (2, 2))}
    curve = Curve("peer", "own", {0: by_epoch})
    both = [statistics.proportion(correct, 0.99) for correct in by_epoch.values()]
    found = curve.at(1, 2)
    assert found.ends(0.01) == pytest.approx(
        [sum(end) / 2 for end in zip(*((e.low, e.high) for e in both), strict=True)]
    )
    below = found.linear(-1, 0.2)
    p = statistics.p_value(below)
    assert found.ends(p)[1] == pytest.approx(0.2)


def test_of_one_epoch_it_is_the_usual_estimate():
    one, other = curve(0.4, network="peer"), curve(0.6, (0.1, 0.2, 0.3), "teacher")
    pairs = [(one.correct[seed][4], other.correct[seed][4]) for seed in range(3)]
    assert one.at(4) == statistics.accuracy_over_seeds([first for first, _ in pairs])
    assert one.minus(other, [4]) == statistics.difference_over_seeds(pairs)
    assert one.minus(other, [4], [4]) == one.minus(other, [4])


def test_more_epochs_on_the_same_images_do_not_make_an_interval_narrower():
    same = curve(0.4, (0.4,) * 3)
    assert width(same.at(*same.end)) == pytest.approx(width(same.at(20)))
    other = curve(0.5, (0.5,) * 3)
    for theirs in (None, (1, 2, 3)):
        assert width(same.minus(other, same.end, theirs)) == pytest.approx(width(same.minus(other, [20])))


def test_two_curves_are_compared_epoch_by_epoch():
    """They rise and fall together, so that their difference is the same at all epochs."""
    wave = {epoch: torch.arange(N) < (0.3 + 0.3 * (epoch % 2)) * N for epoch in range(1, EPOCHS + 1)}
    above = {epoch: right | (torch.arange(N) >= 0.9 * N) for epoch, right in wave.items()}
    low, high = (Curve("peer", "own", {0: by_epoch}) for by_epoch in (wave, above))
    together, crossed = high.minus(low, high.end), high.minus(low, high.end, low.end)
    assert together.value == pytest.approx(0.1)
    assert crossed.value == pytest.approx(0.1)
    assert width(together) < 0.9 * width(crossed)


def test_epochs_in_words():
    assert in_words((20,)) == "epoch 20"
    assert in_words((14, 16)) == "mean of epochs 14 to 16"


def figure_1(peer=0.8, teacher=0.5, own=0.0, first=0.95):
    falling = curve(teacher, (teacher,) * 3, "teacher", "student")
    starts = {seed: {**by, 1: torch.arange(N) < first * N} for seed, by in falling.correct.items()}
    return fig1.TutoringCurves(
        Curve("teacher", "student", starts),
        curve(0.6, network="teacher"),
        curve(peer, (0.1, 0.6, 0.9), examples="student"),
        curve(own),
        10,
    )


def test_figure_1s_claims_are_decided_with_three_seeds_that_differ_early_only():
    found = fig1.check_claims(figure_1())
    assert [claim.verdict for claim in found] == [claims.HOLDS] * 3
    for claim in found:
        assert claim.difference.seeds == 3
        assert claim.confidence == statistics.CONFIDENCE
        assert width(claim.difference) < 0.15, claim.text
    near_zero = found[2]
    assert near_zero.lower.name == "peer on x*_P, mean of epochs 16 to 20"
    assert near_zero.lower.estimate.value == 0
    assert 0 < near_zero.lower.estimate.high < 0.02, "of 500 images none is right: that is no certainty"


def test_at_its_highest_point_the_same_curve_tells_nothing():
    """Why the claim was restated: an interval for all epochs of an early epoch at which three seeds differ."""
    own, confidence = curve(0.0), 1 - (1 - statistics.CONFIDENCE) / EPOCHS
    early = [statistics.proportion(by[4], confidence) for by in own.correct.values()]
    assert width(statistics.over_seeds(early, confidence=confidence)) > 0.9
    assert width(own.at(*own.end)) < 0.02


def test_with_one_epoch_the_teacher_is_not_compared_with_itself():
    (right,) = {tuple(by[1].tolist()) for by in curve(0.5).correct.values()} and [torch.arange(N) < 0.5 * N]
    one = [Curve(network, "student", {seed: {1: right} for seed in range(3)}) for network in ("teacher", "peer")]
    found = fig1.check_claims(fig1.TutoringCurves(one[0], one[0], one[1], one[1], 10))
    assert len(found) == 2
    assert not any("falls" in claim.text for claim in found)


def test_figure_1s_claims_fail_where_the_end_is_otherwise():
    found = fig1.check_claims(figure_1(peer=0.3, teacher=0.95, own=0.3))
    assert [claim.verdict for claim in found] == [claims.FAILS, claims.OPEN, claims.FAILS]
    found = fig1.check_claims(figure_1(first=0.2))
    assert found[1].verdict == claims.FAILS
    spread = fig1.check_claims(figure_1(own=(0.0, 0.1, 0.3)))
    assert spread[2].verdict == claims.OPEN, "seeds that differ at the end leave it open"


def test_all_images_right_at_the_end_makes_a_narrow_interval():
    right = curve(1.0)
    estimate = right.at(*right.end)
    assert estimate.value == 1
    assert 0.98 < estimate.low < 1
    difference = right.minus(curve(0.0), right.end)
    assert difference.value == 1
    assert 0.98 < difference.low < 1


def test_figure_3s_claims_about_the_end_are_decided_with_three_seeds():
    def panel(peer, teacher, by_peer, by_teacher):
        return {
            ("student", BY_PEER): curve(by_peer, network="student", examples=BY_PEER),
            ("peer", BY_PEER): rising(peer),
            ("student", BY_TEACHER): curve(by_teacher, network="student", examples=BY_TEACHER),
            ("teacher", BY_TEACHER): curve(teacher, network="teacher", examples=BY_TEACHER),
        }

    def rising(peer):
        whole = curve(peer, network="peer", examples=BY_PEER).correct
        return Curve("peer", BY_PEER, {s: {**by, 1: torch.arange(N) < 0.1 * N} for s, by in whole.items()})

    def verdicts(*levels):
        found = fig3.check_claims(fig3.PeerTutoring({"test": panel(*levels), "train": panel(*levels)}))
        about_the_end = [claim for claim in found if "mean of epochs 16 to 20" in claim.higher.name + claim.lower.name]
        assert len(about_the_end) == 7
        assert all(width(claim.difference) < 0.15 for claim in about_the_end)
        return {claim.text.partition(",")[2][:25]: claim.verdict for claim in found if "last quarter" in claim.text}

    peer, student = " the peer is more accurate", " the student taught by the"
    assert verdicts(0.8, 0.5, 0.6, 0.4) == {peer[:25]: claims.HOLDS, student[:25]: claims.HOLDS}
    assert verdicts(0.5, 0.8, 0.4, 0.6) == {peer[:25]: claims.FAILS, student[:25]: claims.FAILS}
