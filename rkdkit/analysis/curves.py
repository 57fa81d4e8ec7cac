"""Robust accuracy over the epochs of a training (PeerAiD Figures 1 and 3)."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import pandas as pd
from torch import Tensor

from rkdkit import statistics
from rkdkit.trainings import Run

BY_PEER, BY_TEACHER = "student of the peer", "student of the teacher"
"""Names of the two students whose adversarial examples are used, taught by a peer and by a fixed teacher."""


@dataclass(frozen=True)
class Curve:
    """One network's robust accuracy against one kind of adversarial examples, over the epochs of the student.

    Attributes
    ----------
    network : "teacher", "peer" or "student".
    examples : the network that the adversarial examples are made against: "student" (x*_S), the student's name if there
        are two students, or "own" (x*_T, x*_P).
    correct : by seed, then epoch: (N,) bool, always on the same N images.
    """

    network: str
    examples: str
    correct: dict[int, dict[int, Tensor]]

    @property
    def epochs(self) -> tuple[int, ...]:
        """The epochs measured, counted from 1."""
        return tuple(next(iter(self.correct.values())))

    def at(self, epoch: int, confidence: float = statistics.CONFIDENCE) -> statistics.Estimate:
        """Return the robust accuracy at an epoch, over all seeds."""
        return statistics.accuracy_over_seeds([by[epoch] for by in self.correct.values()], confidence)

    def highest(self) -> tuple[int, statistics.Estimate]:
        """Return the epoch whose interval has the highest upper end, and the estimate at that epoch.

        The intervals hold for all epochs together (Bonferroni), because the highest of many is picked.
        """
        confidence = 1 - (1 - statistics.CONFIDENCE) / len(self.epochs)
        epoch = max(self.epochs, key=lambda e: self.at(e, confidence).high)
        return epoch, self.at(epoch, confidence)

    def minus(self, other: "Curve", epoch: int, other_epoch: int | None = None) -> statistics.Estimate:
        """Return the paired difference to another curve, or to another epoch of it, over all seeds."""
        there = epoch if other_epoch is None else other_epoch
        pairs = [(by[epoch], other.correct[seed][there]) for seed, by in self.correct.items()]
        return statistics.difference_over_seeds(pairs)


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


def check_seeds(students: Sequence[Run], others: int) -> list[int]:
    """Check that there is one student per seed and one guide per student, and return the students' seeds.

    Parameters
    ----------
    students : one run per seed.
    others : the number of guides, or of other students, that belong to them.

    Raises
    ------
    ValueError
        If two students share a seed, there is no student, or there is not exactly one guide per student.
    """
    seeds = [run.spec.seed for run in students]
    if not students or len(students) != others or len(set(seeds)) < len(seeds):
        raise ValueError(
            f"One guide per student and one student per seed are needed, not {others} guides for "
            f"{len(students)} students of seeds {seeds}."
        )
    return seeds
