"""Jung, Jang, Song and Lee: PeerAiD, CVPR 2024."""

from dataclasses import replace

from rkdkit.analysis.tutoring import TutoringCurves
from rkdkit.claims import Claim, Quantity
from rkdkit.evaluation import Estimate


def figure_1_claims(curves: TutoringCurves) -> list[Claim]:
    """Check what the paper says of its Figure 1 (sections 1 and 4.3).

    "Close to 0 %" has no number in the paper; here it means below what guessing gets, once at every epoch (the third
    claim: the highest point of the curve is what counts) and once at the end (the fourth, as in the paper's Table 2).
    """
    peer, teacher, own = curves.peer_on_student, curves.teacher_on_student, curves.peer_on_own
    first, last = peer.epochs[0], peer.epochs[-1]
    highest = max(own.epochs, key=lambda epoch: own.at(epoch).value)
    worst = own.at(highest)
    guessing = 1 / curves.num_classes
    chance = replace(worst, value=guessing, low=guessing, high=guessing)
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
            "The peer's accuracy on its own adversarial examples stays near zero: at no epoch above guessing.",
            "PeerAiD, Figure 1 and section 4.4",
            Quantity("guessing", chance),
            Quantity(f"peer on x*_P at its highest, epoch {highest}", worst),
            _below(guessing, worst),
        ),
        Claim(
            "At the end, the peer has no defence against its own adversarial examples: below guessing.",
            "PeerAiD, Table 2 and section 4.4",
            Quantity("guessing", chance),
            Quantity(f"peer on x*_P, epoch {last}", own.at(last)),
            _below(guessing, own.at(last)),
        ),
    ]


def _below(constant: float, measured: Estimate) -> Estimate:
    """Return constant - measured; all uncertainty is the measured quantity's."""
    return replace(
        measured, value=constant - measured.value, low=constant - measured.high, high=constant - measured.low
    )
