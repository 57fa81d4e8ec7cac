"""PeerAiD, Figure 3: a student taught by a peer, a student taught by a fixed teacher, and both guides' accuracy."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import pandas as pd

from rkdkit import attacks, runs
from rkdkit.analysis.curves import AT_THE_END, BY_PEER, BY_TEACHER, Curve, in_words, table_of
from rkdkit.claims import Claim, Quantity
from rkdkit.measurements import CorrectPredictions
from rkdkit.references import Images, Snapshot
from rkdkit.setup import Exhibit
from rkdkit.trainings import Run

EXHIBIT = Exhibit(paper="PeerAiD, Figure 3", differs={"paper": {"dataset": "cifar100"}})

LEGEND = {
    ("student", BY_PEER): "student taught by the peer",
    ("peer", BY_PEER): "peer",
    ("student", BY_TEACHER): "student taught by the fixed teacher",
    ("teacher", BY_TEACHER): "fixed teacher",
}
"""The four curves by (network, owner of the adversarial examples), and their names in the legend."""

FIGURES = {"test": "3a", "train": "3b"}
"""The paper's panels, by the images."""

SOURCE = "PeerAiD, Figure 3 and section 4.3"

_FIRST_DROP = 214 / 300
"""The share of the epochs after which the paper drops its learning rate for the first time."""

_EARLY = 0.1
"""The share of the epochs that counts as "early" for the jump of the peer's accuracy; the paper gives no number."""


@dataclass(frozen=True)
class PeerTutoring:
    """The two panels of PeerAiD's Figure 3.

    Attributes
    ----------
    panels : for "test" and "train" images, the four curves by the keys of `LEGEND`.
    """

    panels: Mapping[str, Mapping[tuple[str, str], Curve]]

    def table(self) -> pd.DataFrame:
        """Return the numbers to draw: the columns of `curves.table_of`, images ("test", "train") and figure ("3a")."""
        parts = [
            table_of(curves.values()).assign(images=images, figure=FIGURES[images])
            for images, curves in self.panels.items()
        ]
        return pd.concat(parts, ignore_index=True)


def measure(
    by_peer: Sequence[Run],
    by_teacher: Sequence[Run],
    teachers: Sequence[Snapshot],
    images: Mapping[str, Images],
    attack: attacks.Attack,
) -> PeerTutoring:
    """Measure two students and their guides on the adversarial examples made against each student, at every snapshot.

    Parameters
    ----------
    by_peer : one PeerAiD run per seed.
    by_teacher : one run per seed whose student a fixed teacher taught, in the same order.
    teachers : these fixed teachers, in the same order.
    images : the images of each panel, "test" and "train".
    attack : makes x*_S, with the cross entropy as its loss.

    Raises
    ------
    ValueError
        If one of the three is missing for a seed, two runs share a seed, or a student was taught by another teacher.
    """
    _check(by_peer, by_teacher, teachers)
    guided: dict[str, list[tuple[Run, Snapshot | None]]] = {
        BY_PEER: [(run, None) for run in by_peer],
        BY_TEACHER: list(zip(by_teacher, teachers, strict=True)),
    }
    tasks = {
        (panel, whose, run.spec.seed, epoch): CorrectPredictions(
            images=asked,
            judges=(run.snapshot("student", epoch), teacher or run.snapshot("peer", epoch)),
            attack=attack,
        )
        for panel, asked in images.items()
        for whose, students in guided.items()
        for run, teacher in students
        for epoch in run.epochs
    }
    correct = runs.answers(tasks, f"Robust accuracy by {attack}")

    def curve(panel: str, network: str, whose: str) -> Curve:
        judge = 0 if network == "student" else 1
        by_seed = {
            run.spec.seed: {epoch: correct[panel, whose, run.spec.seed, epoch][judge] for epoch in run.epochs}
            for run, _ in guided[whose]
        }
        return Curve(network, whose, by_seed)

    return PeerTutoring({panel: {part: curve(panel, *part) for part in LEGEND} for panel in images})


def _check(by_peer: Sequence[Run], by_teacher: Sequence[Run], teachers: Sequence[Snapshot]) -> None:
    seeds = [run.spec.seed for run in by_peer]
    if not seeds or seeds != [run.spec.seed for run in by_teacher] or len(set(seeds)) < len(seeds):
        raise ValueError(
            f"One student of a peer and one of a fixed teacher per seed are needed, not seeds {seeds} and "
            f"{[run.spec.seed for run in by_teacher]}."
        )
    guided_by = [
        [Snapshot(t.run, t.role, t.epoch or 0) for t in run.spec.teachers if t.run is not None] for run in by_teacher
    ]
    if guided_by != [[teacher] for teacher in teachers]:
        raise ValueError("Each student must come with the one fixed teacher that taught it, in the same order.")


def check_claims(curves: PeerTutoring, drops: Sequence[int] = ()) -> list[Claim]:
    """Check what the paper says of its Figure 3 (section 4.3).

    Where a claim is about the end of the training, or about a course up to it, the end is the mean over the snapshots
    of the last quarter (`Curve.end`), as in Figure 1. This was decided before seeds 1 to 4 were trained
    (seed 0 had been seen); see `analysis.curves`. Before that, the end was the last epoch.

    The paper's learning rate drops after 214 of 300 epochs. If the learning rate has no drops here, the first epoch
    measured after that share of the epochs is used instead, and the claim that the peer jumps at the drop is left out.

    Parameters
    ----------
    curves : as measured; with too few epochs, a claim that would compare an epoch with itself is left out.
    drops : the epochs after which the learning rate drops: a run's `milestones`.
    """
    test, train = ([curves.panels[images][part] for part in LEGEND] for images in ("test", "train"))
    by_peer, peer, by_teacher, teacher = test
    first, last, end = peer.epochs[:1], peer.epochs[-1], peer.end
    drop = drops[0] if drops else _FIRST_DROP * last
    dropped = next(epoch for epoch in peer.epochs if epoch > drop)
    when = "After the first drop of the learning rate" if drops else "After 71 % of the epochs (the paper's first drop)"
    early = min(peer.epochs[1:] or peer.epochs, key=lambda epoch: abs(epoch - _EARLY * last))
    before = max((epoch for epoch in peer.epochs if epoch <= drop), default=peer.epochs[0])
    at_the_drop = "Right after the first drop of the learning rate, the peer's test accuracy jumps up again."
    judged = [
        _course("The peer's test accuracy on its student's adversarial examples rises.", "peer", peer, first, end),
        _course(
            f"The peer's test accuracy on its student's examples jumps up early: by epoch {early} of {last}.",
            "peer",
            peer,
            first,
            (early,),
        ),
        *([_course(at_the_drop, "peer", peer, (before,), (dropped,))] if drops else []),
        _course(
            "The fixed teacher's test accuracy on its student's adversarial examples falls.",
            "teacher",
            teacher,
            end,
            first,
        ),
        _apart(
            f"{AT_THE_END}, the peer is more accurate on its student's adversarial examples than the fixed teacher is.",
            peer,
            teacher,
        ),
        _apart(
            f"{AT_THE_END}, the student taught by the peer is more robust than the one taught by the fixed teacher.",
            by_peer,
            by_teacher,
        ),
        _course(
            "On training images, too, the peer's accuracy on its student's adversarial examples rises.",
            "peer",
            train[1],
            first,
            end,
        ),
        _course(
            f"{when}, the robust accuracy on training images of the student taught by the peer keeps rising.",
            "student of the peer",
            train[0],
            (dropped,),
            tuple(epoch for epoch in end if epoch > dropped),
        ),
        _course(
            "On training images, too, the fixed teacher's accuracy on its student's adversarial examples falls.",
            "teacher",
            train[3],
            end,
            first,
        ),
    ]
    return [claim for claim in judged if claim is not None]


def _course(text: str, name: str, curve: Curve, lower: Sequence[int], higher: Sequence[int]) -> Claim | None:
    """Return the claim that a curve is higher at some epochs than at others; None: there are too few epochs to judge.

    Parameters
    ----------
    text : the claim's sentence.
    name : the network's name in the claim.
    curve : the curve.
    lower, higher : the epochs at which it is said to be lower and higher, in ascending order.
    """
    if not lower or not higher or set(lower) & set(higher):
        return None
    return Claim(
        text,
        SOURCE,
        Quantity(f"{name} on x*_S, {in_words(higher)}", curve.at(*higher)),
        Quantity(f"{name} on x*_S, {in_words(lower)}", curve.at(*lower)),
        curve.minus(curve, higher, lower),
    )


def _apart(text: str, higher: Curve, lower: Curve) -> Claim:
    """Return the claim that a curve is above another at the end of the training."""
    end = higher.end
    return Claim(
        text,
        SOURCE,
        Quantity(f"{higher.network}, on x*_S of the {higher.examples}, {in_words(end)}", higher.at(*end)),
        Quantity(f"{lower.network}, on x*_S of the {lower.examples}, {in_words(end)}", lower.at(*end)),
        higher.minus(lower, end),
    )
