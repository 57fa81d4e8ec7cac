"""Jung, Jang, Song and Lee: PeerAiD, CVPR 2024."""

from dataclasses import replace

from rkdkit.analysis.tutoring import TutoringCurves
from rkdkit.claims import Claim, Quantity


def figure_1_claims(curves: TutoringCurves) -> list[Claim]:
    """Check what the paper says of its Figure 1 (sections 1 and 4.3).

    "Close to 0 %" has no number in the paper; here it means below what guessing gets, at every epoch measured.
    """
    peer, teacher = curves.peer_on_student, curves.teacher_on_student
    first, last = peer.epochs[0], peer.epochs[-1]
    highest, own = curves.peer_on_own.highest()
    guessing = 1 / curves.num_classes
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
            Quantity("guessing", replace(own, value=guessing, low=guessing, high=guessing)),
            Quantity(f"peer on x*_P where it is highest, epoch {highest}", own),
            replace(own, value=guessing - own.value, low=guessing - own.high, high=guessing - own.low),
        ),
    ]
