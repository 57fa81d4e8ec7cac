"""How well a guide answers on a student's adversarial examples while that student learns (PeerAiD Figure 1)."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import pandas as pd
from torch import Tensor

from rkdkit import attacks, data, statistics
from rkdkit.progress import track
from rkdkit.runs import Run, Snapshot, correct_predictions
from rkdkit.store import Store


@dataclass(frozen=True)
class Curve:
    """One network's robust accuracy against one kind of adversarial examples, over the epochs of the student.

    Attributes
    ----------
    network : "teacher", "peer" or "student".
    examples : whose adversarial examples: "student" (x*_S), the student's name where there are two, or "own"
        (x*_T, x*_P).
    correct : by seed, then epoch: (N,) bool, on the same N images throughout.
    """

    network: str
    examples: str
    correct: dict[int, dict[int, Tensor]]

    @property
    def epochs(self) -> tuple[int, ...]:
        """The epochs measured, counted from 1."""
        return tuple(next(iter(self.correct.values())))

    def at(self, epoch: int, confidence: float = statistics.CONFIDENCE) -> statistics.Estimate:
        """Robust accuracy at an epoch, over all seeds."""
        per_seed = [statistics.proportion(by[epoch], confidence) for by in self.correct.values()]
        return statistics.over_seeds(per_seed, confidence=confidence)

    def highest(self) -> tuple[int, statistics.Estimate]:
        """Return the epoch whose interval reaches highest, and the estimate there.

        The intervals compared hold for all epochs at once (Bonferroni), since the highest of many is picked.
        """
        confidence = 1 - (1 - statistics.CONFIDENCE) / len(self.epochs)
        epoch = max(self.epochs, key=lambda e: self.at(e, confidence).high)
        return epoch, self.at(epoch, confidence)

    def minus(self, other: "Curve", epoch: int, other_epoch: int | None = None) -> statistics.Estimate:
        """Paired difference to another curve, or to another epoch, over all seeds."""
        there = epoch if other_epoch is None else other_epoch
        differences = [
            statistics.paired_difference(by[epoch], other.correct[seed][there]) for seed, by in self.correct.items()
        ]
        return statistics.over_seeds(differences, bounds=(-1.0, 1.0))


@dataclass(frozen=True)
class TutoringCurves:
    """The four curves of PeerAiD's Figure 1, over the epochs of PeerAiD training.

    Attributes
    ----------
    teacher_on_student, teacher_on_own, peer_on_student, peer_on_own : the curves.
    num_classes : 1 / num_classes is what guessing gets.
    """

    teacher_on_student: Curve
    teacher_on_own: Curve
    peer_on_student: Curve
    peer_on_own: Curve
    num_classes: int

    @property
    def curves(self) -> tuple[Curve, ...]:
        """All four."""
        return self.teacher_on_student, self.teacher_on_own, self.peer_on_student, self.peer_on_own

    def table(self) -> pd.DataFrame:
        """Return the numbers to draw, as :func:`table_of`."""
        return table_of(self.curves)


def table_of(curves: Iterable[Curve]) -> pd.DataFrame:
    """Return curves as numbers: network, examples, epoch, accuracy and its interval as fractions, n, seeds."""
    return pd.DataFrame(
        {
            "network": curve.network,
            "examples": curve.examples,
            "epoch": epoch,
            **curve.at(epoch).columns("robust_accuracy"),
        }
        for curve in curves
        for epoch in curve.epochs
    )


def tutoring_curves(
    students: Sequence[Run],
    teachers: Sequence[Snapshot],
    dataset: data.Dataset,
    attack: attacks.Attack,
    *,
    n: int | None = None,
    store: Store | None = None,
) -> TutoringCurves:
    """Measure a fixed teacher and a peer on x*_S and on their own adversarial examples, at every snapshot.

    The student attacked is PeerAiD's own for both, so both guides answer on exactly the same images.

    Parameters
    ----------
    students : one PeerAiD run a seed.
    teachers : one fixed teacher a seed, in the same order.
    dataset : whose test images to use.
    attack : makes x*_S, x*_T and x*_P, by the cross entropy.
    n : only the first so many test images; None: all.
    store : as `runs.ensure`.

    Raises
    ------
    ValueError
        If there is not one teacher a student, or two students share a seed.
    """
    seeds = [run.spec.seed for run in students]
    if not students or len(students) != len(teachers) or len(set(seeds)) < len(seeds):
        raise ValueError(
            f"One teacher a student and one student a seed are needed, not {len(teachers)} teachers for "
            f"{len(students)} students of seeds {seeds}."
        )
    split = dataset.test.take(slice(0, n))

    def correct(judges: list[Snapshot], attacked: Snapshot) -> Tensor:
        return correct_predictions(judges, split, attack, attacked, store=store)

    results: dict[tuple[str, str], dict[int, dict[int, Tensor]]] = {
        part: {seed: {} for seed in seeds} for part in _PARTS
    }
    with track(
        total=sum(len(run.epochs) for run in students), desc=f"Robust accuracy by {attack}", unit="epoch"
    ) as bar:
        for run, teacher in zip(students, teachers, strict=True):
            (teacher_on_own,) = correct([teacher], teacher)
            for epoch in run.epochs:
                peer = run.snapshot("peer", epoch)
                teacher_on_student, peer_on_student = correct([teacher, peer], run.snapshot("student", epoch))
                (peer_on_own,) = correct([peer], peer)
                measured = (teacher_on_student, teacher_on_own, peer_on_student, peer_on_own)
                for part, answers in zip(_PARTS, measured, strict=True):
                    results[part][run.spec.seed][epoch] = answers
                bar.update()
    on_student, own, peer_on_student, peer_own = (Curve(*part, results[part]) for part in _PARTS)
    return TutoringCurves(on_student, own, peer_on_student, peer_own, len(dataset.classes))


_PARTS = (("teacher", "student"), ("teacher", "own"), ("peer", "student"), ("peer", "own"))
