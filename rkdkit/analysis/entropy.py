"""How sure networks are of their answers while they are trained (RKD Figure 5)."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import pandas as pd
from torch import Tensor

from rkdkit import data
from rkdkit.progress import track
from rkdkit.runs import Run, per_image
from rkdkit.statistics import Measure, mean, over_seeds
from rkdkit.store import Store


@dataclass(frozen=True)
class EntropyCurves:
    """The entropy of every answer.

    Attributes
    ----------
    nats : by network, then epoch: one (N,) float32 a seed, on the same N images throughout.
    num_classes : guessing has an entropy of ln(num_classes) nats.
    """

    nats: Mapping[str, Mapping[int, Sequence[Tensor]]]
    num_classes: int

    def at(self, network: str, epoch: int | None = None) -> Measure:
        """Mean over the images, over all seeds, at an epoch; None: the last."""
        return over_seeds([mean(of_seed, "nats") for of_seed in self._answers(network, epoch)])

    def minus(self, first: str, second: str) -> Measure:
        """Paired difference of two networks' means, each at its last epoch, over all seeds."""
        pairs = zip(self._answers(first), self._answers(second), strict=True)
        return over_seeds([mean(a - b, "nats") for a, b in pairs])

    def table(self) -> pd.DataFrame:
        """Return the numbers to draw: network, epoch, mean entropy and its interval in nats, n, seeds."""
        return pd.DataFrame(
            {"network": network, "epoch": epoch, **self.at(network, epoch).columns("entropy_nats")}
            for network, by_epoch in self.nats.items()
            for epoch in by_epoch
        )

    def _answers(self, network: str, epoch: int | None = None) -> Sequence[Tensor]:
        by_epoch = self.nats[network]
        return by_epoch[max(by_epoch) if epoch is None else epoch]


def entropy_curves(
    networks: Mapping[str, Sequence[Run]], split: data.Split, num_classes: int, *, store: Store | None = None
) -> EntropyCurves:
    """Measure H = E_x[-sum_i f(x)_i ln f(x)_i] on natural images at every snapshot (RKD section C.2).

    Parameters
    ----------
    networks : one run a seed, by what to call it; its student is measured.
    split : the images; RKD takes all that were trained on.
    num_classes : of the data.
    store : as `runs.ensure`.

    Raises
    ------
    ValueError
        If there are fewer than two images.
    """
    if len(split) < 2:
        raise ValueError(f"A mean entropy needs two images at least, not {len(split)}.")
    nats: dict[str, dict[int, list[Tensor]]] = {
        name: {epoch: [] for epoch in of_seeds[0].epochs} for name, of_seeds in networks.items()
    }
    todo = [(name, run, epoch) for name, of_seeds in networks.items() for run in of_seeds for epoch in run.epochs]
    for name, run, epoch in track(todo, desc="Entropy", unit="snapshot"):
        nats[name][epoch].append(per_image("entropy", run.snapshot(epoch=epoch), split, store=store))
    return EntropyCurves(nats, num_classes)
