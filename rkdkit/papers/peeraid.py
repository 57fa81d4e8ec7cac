"""Jung, Jang, Song and Lee: PeerAiD, CVPR 2024."""

from collections.abc import Sequence

from rkdkit import claims, statistics
from rkdkit.analysis.tutoring import TutoringCurves
from rkdkit.analysis.white_box import WhiteBox
from rkdkit.claims import Claim, Quantity

TABLE_1 = ("Natural", "PGD-AT", "TRADES", "AKD2", "RSLAD", "IAD", "CAT", "AdaAD", "PeerAiD")
"""The methods of the paper's Table 1, in its order."""

DISTILLATION = ("AKD2", "RSLAD", "IAD", "CAT", "AdaAD", "PeerAiD")
"""Those of them that the paper calls adversarial distillation."""


def figure_1_claims(curves: TutoringCurves) -> list[Claim]:
    """Check what the paper says of its Figure 1 (sections 1 and 4.3).

    "Close to 0 %" has no number in the paper; here it means below what guessing gets, at every epoch measured.
    """
    peer, teacher = curves.peer_on_student, curves.teacher_on_student
    first, last = peer.epochs[0], peer.epochs[-1]
    highest, own = curves.peer_on_own.highest()
    return [
        Claim(
            "At the end, the peer is more accurate on the student's adversarial examples than the fixed teacher.",
            "PeerAiD, Figure 1 and section 1",
            Quantity(f"peer on x*_S, epoch {last}", peer.at(last)),
            Quantity(f"teacher on x*_S, epoch {last}", teacher.at(last)),
            peer.minus(teacher, last),
        ),
        Claim(
            "The fixed teacher's accuracy on the student's adversarial examples falls in the course of training.",
            "PeerAiD, Figure 1 and section 1",
            Quantity(f"teacher on x*_S, epoch {first}", teacher.at(first)),
            Quantity(f"teacher on x*_S, epoch {last}", teacher.at(last)),
            teacher.minus(teacher, first, last),
        ),
        Claim(
            "The peer's accuracy on its own adversarial examples stays near zero: below guessing whenever measured.",
            "PeerAiD, Figure 1 and section 4.4",
            *below_guessing(Quantity(f"peer on x*_P where it is highest, epoch {highest}", own), curves.num_classes),
            1 - (1 - statistics.CONFIDENCE) / len(curves.peer_on_own.epochs),
        ),
    ]


def table_1_claims(measured: WhiteBox) -> list[Claim]:
    """Check what the paper says of its Table 1 (section 4.2).

    PeerAiD is compared with each of the others as :func:`highest` does: by AutoAttack with all of them, by clean
    accuracy with the other distillation methods, as the paper says it.
    """
    all_others, distilled = ([m for m in methods if m != "PeerAiD"] for methods in (TABLE_1, DISTILLATION))
    source = "PeerAiD, Table 1 and section 4.2"
    robust, clean = "AutoAttack accuracy", "clean accuracy"
    return [
        highest(measured, "PeerAiD", all_others, "autoattack", robust, f"PeerAiD has the highest {robust}.", source),
        highest(
            measured,
            "PeerAiD",
            distilled,
            "clean",
            clean,
            f"PeerAiD has the highest {clean} of the adversarial distillation methods.",
            source,
        ),
        _natural_training_is_not_robust(measured),
    ]


def highest(
    measured: WhiteBox, method: str, others: Sequence[str], metric: str, words: str, text: str, source: str
) -> Claim:
    """Check that a method has the highest accuracy of several by a metric.

    It is compared with each of the others. It is first where every difference's 95 % interval is above 0; it is not
    where the interval of one, made to hold for all at once (Bonferroni), is below. The claim shows the difference that
    decides.

    Parameters
    ----------
    measured : has all of them.
    method, others : who is said to be first, and among whom.
    metric, words : what was measured, and what to call it.
    text, source : the claim, and where it stands.
    """
    confidence = statistics.CONFIDENCE
    differences = {other: measured.minus(method, other, metric) for other in others}
    if any(difference.low <= 0 for difference in differences.values()):
        confidence = 1 - (1 - confidence) / len(others)
        differences = {other: measured.minus(method, other, metric, confidence) for other in others}
    below = [other for other in others if differences[other].high < 0]
    rival = min(below or others, key=lambda other: differences[other].high if below else differences[other].low)
    return Claim(
        text,
        source,
        Quantity(f"{method}, {words}", measured.accuracy(method, metric)),
        Quantity(f"{rival}, {words}", measured.accuracy(rival, metric)),
        differences[rival],
        confidence,
    )


def _natural_training_is_not_robust(measured: WhiteBox) -> Claim:
    natural = measured.accuracy("Natural", "autoattack")
    return Claim(
        "Natural training gives no robustness: its AutoAttack accuracy is below guessing.",
        "PeerAiD, Table 1",
        *below_guessing(Quantity("Natural, AutoAttack accuracy", natural), measured.num_classes),
    )


def attack_named(metric: str) -> str:
    """Return what a claim calls the attack of a metric: "PGD-20 (any iterate) from resnet34"."""
    attack, space, rest = metric.partition(" ")
    return attack.upper() + space + rest


def below_guessing(quantity: Quantity, num_classes: int) -> tuple[Quantity, Quantity, statistics.Estimate]:
    """Return what a claim takes where a quantity is said to be below guessing: higher, lower and their difference."""
    return claims.below(1 / num_classes, "guessing", quantity)
