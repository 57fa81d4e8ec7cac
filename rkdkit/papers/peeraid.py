"""Jung, Jang, Song and Lee: PeerAiD, CVPR 2024."""

from dataclasses import replace

import pandas as pd

from rkdkit import evaluation
from rkdkit.analysis.tutoring import TutoringCurves
from rkdkit.analysis.white_box import WhiteBox
from rkdkit.claims import Claim, Quantity
from rkdkit.papers.reported import reported

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
            1 - (1 - evaluation.CONFIDENCE) / len(curves.peer_on_own.epochs),
        ),
    ]


def beside_table_1(ours: pd.DataFrame, dataset: str, network: str) -> pd.DataFrame:
    """Put the numbers of the paper's Table 1 beside ours.

    Parameters
    ----------
    ours : as `WhiteBox.table`.
    dataset, network : ours. Where the paper has no such data or network, its numbers are those of CIFAR-10 and
        ResNet-18; the columns paper_dataset and paper_network say which. Some classes of a dataset have none.

    Returns
    -------
    `ours` with the columns paper (a fraction; NaN: not in the paper), paper_dataset and paper_network.
    """
    theirs = reported("peeraid", "Table 1")
    network, subset = network.partition("/")[0], ":" in dataset
    dataset = dataset if dataset in set(theirs.dataset) else "cifar10"
    network = network if network in set(theirs.network) else "resnet18"
    part = theirs[(theirs.dataset == dataset) & (theirs.network == network) & (not subset)]
    values = (part.set_index(["method", "metric"]).value / 100).rename("paper")
    beside = ours.join(values, on=["method", "metric"])
    return beside.assign(paper_dataset=dataset, paper_network=network)


def table_1_claims(measured: WhiteBox) -> list[Claim]:
    """Check what the paper says of its Table 1 (section 4.2).

    PeerAiD is compared with each of the others. It is first where every difference's 95 % interval is above 0; it is
    not where the interval of one, made to hold for all at once (Bonferroni), is below. The claim shows the difference
    that decides.
    """
    return [
        _peeraid_is_first(measured, "autoattack", "AutoAttack accuracy", ""),
        _peeraid_is_first(measured, "clean", "clean accuracy", ", as with ResNet-18 in the paper"),
        _natural_training_is_not_robust(measured),
    ]


def _peeraid_is_first(measured: WhiteBox, metric: str, words: str, addition: str) -> Claim:
    others = [method for method in DISTILLATION if method != "PeerAiD"]
    confidence = evaluation.CONFIDENCE
    differences = {other: measured.minus("PeerAiD", other, metric) for other in others}
    if any(difference.low <= 0 for difference in differences.values()):
        confidence = 1 - (1 - confidence) / len(others)
        differences = {other: measured.minus("PeerAiD", other, metric, confidence) for other in others}
    below = [other for other in others if differences[other].high < 0]
    rival = min(below or others, key=lambda other: differences[other].high if below else differences[other].low)
    return Claim(
        f"PeerAiD has the highest {words} of the adversarial distillation methods{addition}.",
        "PeerAiD, Table 1 and section 4.2",
        Quantity(f"PeerAiD, {words}", measured.accuracy("PeerAiD", metric)),
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


def below_guessing(quantity: Quantity, num_classes: int) -> tuple[Quantity, Quantity, evaluation.Estimate]:
    """Return what a claim takes where a quantity is said to be below guessing: higher, lower and their difference."""
    own, guessing = quantity.estimate, 1 / num_classes
    return (
        Quantity("guessing", replace(own, value=guessing, low=guessing, high=guessing)),
        quantity,
        replace(own, value=guessing - own.value, low=guessing - own.high, high=guessing - own.low),
    )
