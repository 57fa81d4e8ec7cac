"""PeerAiD's sections on peer tutoring: its Table 2 and Figure 3."""

from collections.abc import Sequence

import pandas as pd

from rkdkit.analysis.features import COSINES, Guidance, mean_similarity
from rkdkit.analysis.peer_tutoring import CURVES, PeerTutoring
from rkdkit.analysis.tutoring import Curve
from rkdkit.claims import Claim, Quantity
from rkdkit.papers.peeraid import below_guessing
from rkdkit.papers.reported import reported

TABLE_2 = {"peer": "peer", "teacher": "fixed robust teacher", "natural": "natural teacher"}
"""The guides of the paper's Table 2, in its order, and what they are."""

_GUIDES = {"PeerAiD": "peer", "PGD-AT": "teacher", "Natural": "natural"}
_AT_X_AND_STUDENTS, _AT_STUDENTS_AND_OWN, _AT_X_AND_OWN = COSINES
_QUANTITIES = {
    "": "f(x)",
    "examples=own": "f(x*_f)",
    "examples=student": "f(x*_S)",
    "examples=natural and student; layer=penultimate": _AT_X_AND_STUDENTS,
    "examples=student and own; layer=penultimate": _AT_STUDENTS_AND_OWN,
    "examples=natural and own; layer=penultimate": _AT_X_AND_OWN,
}


DIFFERS = {"paper": {"dataset": "cifar100"}}
"""Fields in which Table 2 and Figure 3 differ from a profile, by its name."""

_FIRST_DROP = 214 / 300
"""The share of the epochs after which the paper lowers its learning rate for the first time."""

_EARLY = 0.1
"""The share of the epochs by which the peer's accuracy has jumped up "early"; the paper gives no number."""


def beside_table_2(ours: pd.DataFrame) -> pd.DataFrame:
    """Put the numbers of the paper's Table 2 (CIFAR-100, ResNet-18, PGD-20) beside ours.

    Parameters
    ----------
    ours : as `Guidance.table`, with the guides of `TABLE_2`.

    Returns
    -------
    With the column paper: accuracies as fractions, cosines as they are.
    """
    theirs = reported("peeraid", "Table 2")
    of_student = theirs.setting.str.startswith("role=student")
    taught_by = theirs.guide.str.partition(" ")[0].where(of_student, theirs.method)
    quantity = theirs.setting.str.partition("; ")[2].map(_QUANTITIES).mask(of_student, "S(x*_S)")
    value = theirs.value.where(theirs.unit != "%", theirs.value / 100)
    values = pd.Series(value.to_numpy(), [taught_by.map(_GUIDES), quantity], name="paper")
    return ours.join(values, on=["guide", "quantity"])


def table_2_claims(measured: Guidance) -> list[Claim]:
    """Check what the paper says of its Table 2 (sections 4.3 and 4.4).

    "Not robust at all" means below guessing here. A cosine "comparable" to the robust teacher's means above the midway
    between that and the natural teacher's.
    """
    return [
        _claim(
            measured,
            "The peer is more accurate on its student's adversarial examples than the fixed robust teacher.",
            ("peer", "f(x*_S)"),
            ("teacher", "f(x*_S)"),
        ),
        _claim(
            measured,
            "On adversarial examples made against itself, the peer is less robust than the fixed robust teacher.",
            ("teacher", "f(x*_f)"),
            ("peer", "f(x*_f)"),
        ),
        Claim(
            "The peer itself is not robust at all: below guessing on its own adversarial examples.",
            "PeerAiD, Table 2 and section 4.4",
            *below_guessing(_quantity(measured, ("peer", "f(x*_f)")), measured.num_classes),
        ),
        _claim(
            measured,
            "A student taught by the peer is more robust than one taught by the fixed robust teacher.",
            ("peer", "S(x*_S)"),
            ("teacher", "S(x*_S)"),
        ),
        _claim(
            measured,
            "The peer's features at x and x*_S are closer than the natural teacher's.",
            ("peer", _AT_X_AND_STUDENTS),
            ("natural", _AT_X_AND_STUDENTS),
        ),
        _claim(
            measured,
            "The peer has a higher accuracy on natural images than the fixed robust teacher.",
            ("peer", "f(x)"),
            ("teacher", "f(x)"),
        ),
        _claim(
            measured,
            "The peer's accuracy on natural images is even above the natural teacher's.",
            ("peer", "f(x)"),
            ("natural", "f(x)"),
        ),
        _comparable_to_the_robust_teacher(measured),
        _claim(
            measured,
            "The peer's features at x are closer to those at its student's adversarial examples than at its own.",
            ("peer", _AT_X_AND_STUDENTS),
            ("peer", _AT_X_AND_OWN),
        ),
    ]


def figure_3_claims(curves: PeerTutoring, drops: Sequence[int] = ()) -> list[Claim]:
    """Check what the paper says of its Figure 3 (section 4.3), from the first epoch measured to the last.

    The paper's learning rate drops after 214 of 300 epochs. Where the rate has no drops, the first epoch measured after
    that share of the epochs stands for it, and the claim that the peer jumps at the drop has nothing to judge.

    Parameters
    ----------
    curves : as measured; a claim that compares an epoch with itself, for want of others, is left out.
    drops : the epochs after which the learning rate drops: a run's `milestones`.
    """
    test, train = ([curves.panels[images][part] for part in CURVES] for images in ("test", "train"))
    by_peer, peer, by_teacher, teacher = test
    first, last = peer.epochs[0], peer.epochs[-1]
    drop = drops[0] if drops else _FIRST_DROP * last
    dropped = next(epoch for epoch in peer.epochs if epoch > drop)
    when = "After the first drop of the learning rate" if drops else "After 71 % of the epochs (the paper's first drop)"
    early = min(peer.epochs[1:] or peer.epochs, key=lambda epoch: abs(epoch - _EARLY * last))
    before = max((epoch for epoch in peer.epochs if epoch <= drop), default=first)
    at_the_drop = "Right after the first drop of the learning rate, the peer's test accuracy on its student's jumps up."
    judged = [
        _course("The peer's test accuracy on its student's adversarial examples rises.", "peer", peer, first, last),
        _course("It jumps up early: within the first tenth of the epochs.", "peer", peer, first, early),
        *([_course(at_the_drop, "peer", peer, before, dropped)] if drops else []),
        _course("The fixed teacher's test accuracy on its student's falls.", "teacher", teacher, last, first),
        _apart("At the end, the peer is more accurate on its student's than the fixed teacher.", peer, teacher, last),
        _apart(
            "At the end, the student taught by the peer is more robust than the one taught by the fixed teacher.",
            by_peer,
            by_teacher,
            last,
        ),
        _course("The peer's accuracy on its student's rises on training images, too.", "peer", train[1], first, last),
        _course(
            f"{when}, the robust accuracy on training images of the student taught by the peer keeps rising.",
            "student of the peer",
            train[0],
            dropped,
            last,
        ),
        _course("The fixed teacher's falls on training images, too.", "teacher", train[3], last, first),
    ]
    return [claim for claim in judged if claim is not None]


def _course(text: str, name: str, curve: Curve, lower: int, higher: int) -> Claim | None:
    """Return the claim that a curve is higher at one epoch than at another; None: there are too few epochs to judge."""
    if lower == higher:
        return None
    return Claim(
        text,
        "PeerAiD, Figure 3 and section 4.3",
        Quantity(f"{name} on x*_S, epoch {higher}", curve.at(higher)),
        Quantity(f"{name} on x*_S, epoch {lower}", curve.at(lower)),
        curve.minus(curve, higher, lower),
    )


def _apart(text: str, higher: Curve, lower: Curve, epoch: int) -> Claim:
    """Return the claim that a curve is above another at an epoch."""
    return Claim(
        text,
        "PeerAiD, Figure 3 and section 4.3",
        Quantity(f"{higher.network}, on x*_S of the {higher.examples}, epoch {epoch}", higher.at(epoch)),
        Quantity(f"{lower.network}, on x*_S of the {lower.examples}, epoch {epoch}", lower.at(epoch)),
        higher.minus(lower, epoch),
    )


def _claim(measured: Guidance, text: str, higher: tuple[str, str], lower: tuple[str, str]) -> Claim:
    return Claim(
        text,
        "PeerAiD, Table 2 and section 4.4",
        _quantity(measured, higher),
        _quantity(measured, lower),
        measured.minus(higher, lower),
    )


def _quantity(measured: Guidance, asked: tuple[str, str]) -> Quantity:
    return Quantity(f"{asked[1]}, f being the {TABLE_2[asked[0]]}", measured[asked])


def _comparable_to_the_robust_teacher(measured: Guidance) -> Claim:
    peer, teacher, natural = (measured.measured[guide][_AT_X_AND_STUDENTS] for guide in TABLE_2)
    midway = [(t + n) / 2 for t, n in zip(teacher, natural, strict=True)]
    return Claim(
        "The peer's cosine similarity between x and x*_S is comparable to the robust teacher's: above the midway "
        "between that and the natural teacher's.",
        "PeerAiD, Table 2 and section 4.4",
        _quantity(measured, ("peer", _AT_X_AND_STUDENTS)),
        Quantity("midway between the two teachers", mean_similarity(midway)),
        mean_similarity([p - m for p, m in zip(peer, midway, strict=True)], bounds=(-2.0, 2.0)),
    )
