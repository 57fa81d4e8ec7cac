"""Robust accuracy over the epochs of a training (PeerAiD Figures 1 and 3).

What the papers say of the end of a training is judged by the mean over the snapshots of its last quarter
(:attr:`Curve.end`), in all exhibits alike. The claims were restated so before the committed runs with several seeds
were made and looked at. Known by then were the curves of one seed, and how wide the intervals of the earlier claims
become with three. The earlier "at the end" meant the last epoch, and "stays near zero" was judged at the highest point
of a curve, by an interval that holds for all epochs. With three seeds and twenty epochs, such an interval reaches
twenty standard errors of the mean over the seeds to each side, often the whole range from 0 to 100 %, so that the
claim could hardly be decided.
"""

import itertools
import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace

import pandas as pd
from torch import Tensor

from rkdkit import statistics
from rkdkit.trainings import Run

BY_PEER, BY_TEACHER = "student of the peer", "student of the teacher"
"""Names of the two students whose adversarial examples are used, taught by a peer and by a fixed teacher."""

END = 0.25
"""The share of the epochs that counts as the end of a training. The papers give no number."""

AT_THE_END = "In the last quarter of the training"
"""How a claim about the end of a training begins."""


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
        """The epochs measured, counted from 1, in ascending order."""
        return tuple(next(iter(self.correct.values())))

    @property
    def end(self) -> tuple[int, ...]:
        """The epochs measured in the last quarter of the training: 16 to 20 of 20. The last epoch is among them."""
        return tuple(epoch for epoch in self.epochs if epoch > (1 - END) * self.epochs[-1])

    def at(self, *epochs: int) -> statistics.Estimate:
        """Return the robust accuracy at an epoch, or its mean over several epochs, over all seeds.

        The mean is that of each image's share of epochs at which it is classified correctly. Its interval is from the
        mean of the epochs' lower ends to that of their upper ends.
        """
        return _mean([statistics.accuracy_over_seeds([by[e] for by in self.correct.values()]) for e in epochs])

    def minus(
        self, other: "Curve", epochs: Sequence[int], other_epochs: Sequence[int] | None = None
    ) -> statistics.Estimate:
        """Return the difference of the means over epochs of two curves, paired by image and by seed.

        Parameters
        ----------
        other : the curve that is subtracted, which may be this one.
        epochs : the epochs of this curve, at least one.
        other_epochs : those of the other curve; None: the same, so that epochs are paired, too.
        """
        pairs = [(e, e) for e in epochs] if other_epochs is None else list(itertools.product(epochs, other_epochs))
        return _mean(
            [
                statistics.difference_over_seeds([(by[a], other.correct[seed][b]) for seed, by in self.correct.items()])
                for a, b in pairs
            ]
        )


def in_words(epochs: Sequence[int]) -> str:
    """Return epochs in words, for the name of a quantity: "epoch 20", "mean of epochs 16 to 20"."""
    return f"epoch {epochs[0]}" if len(epochs) == 1 else f"mean of epochs {epochs[0]} to {epochs[-1]}"


def _mean(estimates: Sequence[statistics.Estimate]) -> statistics.Estimate:
    """Return the mean of estimates at several epochs, all of them on the same images and seeds.

    The ends of the intervals are averaged, too. Which images and seeds happened to be drawn matters at all epochs
    alike, so this uncertainty is taken not to shrink with the number of epochs.
    """
    value, low, high = (
        math.fsum(getattr(estimate, name) for estimate in estimates) / len(estimates)
        for name in ("value", "low", "high")
    )
    degrees = [estimate.degrees for estimate in estimates if estimate.degrees is not None]
    all_ends = [estimate.ends for estimate in estimates if estimate.ends]  # each of them has its ends

    def ends(alpha: float) -> tuple[float, float]:
        lows, highs = zip(*(of_epoch(alpha) for of_epoch in all_ends), strict=True)
        return math.fsum(lows) / len(lows), math.fsum(highs) / len(highs)

    found = replace(estimates[0], value=value, low=low, high=high, degrees=min(degrees, default=None))
    return found.with_ends(ends)


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
