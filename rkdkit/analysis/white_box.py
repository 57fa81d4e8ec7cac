"""Several methods' accuracy by the same attacks on the same images (PeerAiD Table 1)."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import pandas as pd
from torch import Tensor

from rkdkit import attacks, data, evaluation, runs, statistics
from rkdkit.progress import track
from rkdkit.runs import Snapshot
from rkdkit.store import Store


@dataclass(frozen=True)
class WhiteBox:
    """What was measured.

    Attributes
    ----------
    evaluations : one a seed, by method.
    measured_by : the attacks by metric; None: natural images.
    num_classes : 1 / num_classes is what guessing gets.
    """

    evaluations: Mapping[str, Sequence[evaluation.Evaluation]]
    measured_by: Mapping[str, attacks.Attack | None]
    num_classes: int

    @property
    def metrics(self) -> tuple[str, ...]:
        """What was measured of every method."""
        return tuple(next(iter(self.evaluations.values()))[0].correct)

    def accuracy(self, method: str, metric: str) -> statistics.Estimate:
        """Return a method's accuracy by a metric, over all seeds."""
        return statistics.over_seeds([seed[metric] for seed in self.evaluations[method]])

    def minus(
        self, first: str, second: str, metric: str, confidence: float = statistics.CONFIDENCE
    ) -> statistics.Estimate:
        """Paired difference of two methods by a metric, over all seeds."""
        seeds = zip(self.evaluations[first], self.evaluations[second], strict=True)
        return _difference([(a.correct[metric], b.correct[metric]) for a, b in seeds], confidence)

    def between(self, method: str, first: str, second: str) -> statistics.Estimate:
        """Paired difference of a method's accuracies by two metrics of the same images, over all seeds."""
        return _difference([(seed.correct[first], seed.correct[second]) for seed in self.evaluations[method]])

    def table(self) -> pd.DataFrame:
        """Return the numbers: method, metric, accuracy and its interval as fractions, n, seeds, attack."""
        return pd.DataFrame(
            {
                "method": method,
                "metric": metric,
                **self.accuracy(method, metric).columns("accuracy"),
                "attack": _named(self.measured_by[metric]),
            }
            for method in self.evaluations
            for metric in self.metrics
        )


def white_box(
    chosen: Mapping[str, Sequence[Snapshot]],
    dataset: data.Dataset,
    by: Mapping[str, attacks.Attack | None],
    *,
    n: Mapping[str, int | None],
    store: Store | None = None,
) -> WhiteBox:
    """Measure every method's network naturally and under attacks on itself.

    Parameters
    ----------
    chosen : the snapshot that stands for a method, one a seed.
    dataset : whose test images to use.
    by : attacks by metric, None for natural images.
    n : by metric, only the first so many test images; None: all.
    store : as `runs.ensure`.
    """
    evaluations: dict[str, list[evaluation.Evaluation]] = {method: [] for method in chosen}
    pairs = [(method, snapshot) for method, of_seeds in chosen.items() for snapshot in of_seeds]
    for method, snapshot in track(pairs, desc=f"Accuracy: {', '.join(by)}", unit="network"):
        evaluations[method].append(runs.evaluate(snapshot, dataset.test, by, n=n, store=store))
    return WhiteBox(evaluations, by, len(dataset.classes))


def _difference(
    pairs: Sequence[tuple[Tensor, Tensor]], confidence: float = statistics.CONFIDENCE
) -> statistics.Estimate:
    differences = [statistics.paired_difference(first, second, confidence) for first, second in pairs]
    return statistics.over_seeds(differences, bounds=(-1.0, 1.0), confidence=confidence)


def _named(attack: attacks.Attack | None) -> str:
    """Return an attack's name, and whose it is: results of implementations differ."""
    return "none" if attack is None else f"{attack}, {attack.parameters().get('implementation', 'rkdkit')}"
