"""How hard images are to learn, as far as several trainings agree on it (RKD sections C.2 and D)."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from rkdkit import attacks, checks
from rkdkit.claims import NO_CLAIM, Claim, Quantity, above
from rkdkit.comparisons import ANOTHER, NATURAL
from rkdkit.measurements import PerImage
from rkdkit.references import Images, Snapshot
from rkdkit.setup import Setup
from rkdkit.spec import RunSpec
from rkdkit.statistics import CONFIDENCE, Measure
from rkdkit.trainings import Run

BY_IMAGE = Sequence[Tensor]
"""One (N,) tensor per seed, on the same N images: float32; or bool, whose mean is a share."""

RELIABLE = 0.8
"""A ranking is used if its reliability is above this number, the usual limit for tests in psychology."""


def loss(snapshot: Snapshot, images: Images, attack: attacks.Attack | None = None) -> PerImage:
    """Return the task of measuring a network's cross entropy with each label, (N,) float32 in nats.

    Parameters
    ----------
    snapshot : the network.
    images : the images to measure on.
    attack : the attack on the snapshot itself; None: natural images.
    """
    return PerImage(images=images, quantity="cross entropy", snapshot=snapshot, attack=attack)


def difficulty(cross_entropies: Tensor) -> Tensor:
    """Return S(x), how hard images are to learn: their mean cross entropy over the epochs (RKD eq. 8).

    Parameters
    ----------
    cross_entropies : (K, N) floating point, at K epochs, in nats.

    Returns
    -------
    (N,), in nats.
    """
    return cross_entropies.mean(0)


@dataclass(frozen=True)
class Difficulty:
    """How hard images are to learn, by several trainings that differ in their seed.

    RKD ranks images by one training. On small data such a ranking is an accident of that training, so here an image's
    difficulty is its mean rank over several trainings, and how far they agree is measured.

    Attributes
    ----------
    scores : S(x) by each of at least two trainings, (R, N) floating point, in nats.
    groups : (N,) int64; images are ranked among those of their own group: their class, or the same number for all.
    """

    scores: Tensor
    groups: Tensor

    @cached_property
    def ranks(self) -> Tensor:
        """The rank of each image in each training, (R, N) float64: 0 is the easiest of its group, 1 the hardest."""
        from scipy.stats import rankdata

        ranks = torch.zeros(self.scores.shape, dtype=torch.float64)
        for group in set(self.groups.tolist()):
            own = self.groups == group
            ranks[:, own] = torch.from_numpy(rankdata(self.scores[:, own].numpy(), axis=1) - 1) / max(
                int(own.sum()) - 1, 1
            )
        return ranks

    @cached_property
    def of_images(self) -> Tensor:
        """The difficulty of each image: its mean rank over the trainings, (N,) float64 in [0, 1]."""
        return self.ranks.mean(0)

    @cached_property
    def correlations(self) -> npt.NDArray[np.float64]:
        """The correlation of the ranks of each two trainings, (R, R); with one group, it is Spearman's."""
        correlations: npt.NDArray[np.float64] = np.corrcoef(self.ranks.numpy())
        return correlations

    @cached_property
    def agreement(self) -> Measure:
        """The mean rank correlation of two trainings, with its interval by a bootstrap over the images."""
        from scipy.stats import bootstrap

        ranks = self.ranks.numpy()
        pairs = np.triu_indices(len(ranks), 1)

        def correlation(chosen: npt.NDArray[np.int64]) -> float:
            return float(np.corrcoef(ranks[:, chosen])[pairs].mean())

        images = np.arange(ranks.shape[1])
        interval = bootstrap(
            (images,), correlation, n_resamples=999, vectorized=False, method="percentile",
            confidence_level=CONFIDENCE, rng=np.random.default_rng(0),
        ).confidence_interval  # fmt: skip
        return Measure(correlation(images), float(interval.low), float(interval.high), len(images), len(ranks))

    @property
    def reliability(self) -> Measure:
        """How far the mean ranks would correlate with those of as many other trainings (Spearman-Brown), in [0, 1]."""
        own, trainings = self.agreement, len(self.scores)
        correlations = (max(r, 0.0) for r in (own.value, own.low, own.high))  # negative ones have no reliability
        value, low, high = (trainings * r / (1 + (trainings - 1) * r) for r in correlations)
        return replace(own, value=value, low=low, high=high)

    @property
    def claim(self) -> Claim:
        """That the trainings agree well enough on what is hard to rank images by it."""
        quantity = Quantity(f"reliability of the mean rank over {len(self.scores)} trainings", self.reliability)
        return Claim(
            "The trainings agree on which images are hard, so that they can be ranked.",
            f"{NO_CLAIM} RKD, which ranks by one training (eq. 8)",
            *above(RELIABLE, "enough to rank by", quantity),
        )

    @property
    def is_reliable(self) -> bool:
        """Whether the whole interval of the reliability is above `RELIABLE`."""
        return self.reliability.low > RELIABLE

    def __str__(self) -> str:
        return f"rank correlation of two of {len(self.scores)} trainings: {self.agreement}"


def ranking_specs(setup: Setup, n_rankers: int) -> list[RunSpec]:
    """Return the natural trainings that rank images: not those of any teacher, since their seeds are others.

    RKD does not say whether the network that ranks is the natural teacher. Images that are hard for one training by
    chance are less hard for any other: if the teacher ranked them, any student of it would seem to gain on hard images
    and to lose on easy ones. Below the scale of "paper", the learning rate is a tenth of the profile's, unless the
    user sets it: with the whole of it, the losses of the first epochs can reach hundreds of nats on the embedded data,
    and dominate the mean over the epochs by accident.

    Parameters
    ----------
    setup : the notebook's parameters.
    n_rankers : the number of trainings, at least 2.

    Raises
    ------
    ValueError
        If `n_rankers` is no whole number, or below 2.
    """
    n_rankers = checks.whole("n_rankers", n_rankers, 2, checks.MOST_TRAININGS)
    scale = setup.profile
    changes = {} if scale.recipes or "lr" in scale.fixed else {"lr": scale.lr / 10}
    return [
        scale.spec(NATURAL, setup.seeds[0] + ANOTHER * (i + 1), student=scale.teacher_network, **changes)
        for i in range(n_rankers)
    ]


def ranking_tasks(ranked_by: Sequence[Run], images: Images) -> list[PerImage]:
    """Return the measurements that :func:`ranked` needs: the loss of every image at every snapshot."""
    return [loss(snapshot, images) for run in ranked_by for snapshot in run.snapshots()]


def ranked(
    ranked_by: Sequence[Run], images: Images, answers: Mapping[PerImage, Tensor], within_class: bool
) -> Difficulty:
    """Return the difficulty of images.

    Parameters
    ----------
    ranked_by : the trainings that rank, at least two.
    images : the natural images to rank.
    answers : the answers to :func:`ranking_tasks`.
    within_class : whether images are ranked within their class, or all together (RKD). A training may find one class
        easier than another by accident, which would then be most of the ranking.
    """
    scores = [difficulty(torch.stack([answers[task] for task in ranking_tasks([run], images)])) for run in ranked_by]
    labels = images.split().labels
    return Difficulty(torch.stack(scores), labels if within_class else torch.zeros_like(labels))


def gap(first: Measure, second: Measure) -> Measure:
    """Return the difference of two means over different images; the intervals' half-widths are added in quadrature."""
    value = first.value - second.value
    down = math.hypot(first.value - first.low, second.high - second.value)
    up = math.hypot(first.high - first.value, second.value - second.low)
    return replace(first, value=value, low=value - down, high=value + up, n=first.n + second.n)
