"""How the answers to each image develop while a teacher and its student learn (RKD sections C.2, D and E)."""

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace

import pandas as pd
import torch
import torch.nn.functional as F
from torch import Tensor

from rkdkit import attacks, data, statistics
from rkdkit.progress import track
from rkdkit.runs import Run, per_image
from rkdkit.statistics import Measure, mean, over_seeds
from rkdkit.store import Store

BY_IMAGE = Sequence[Tensor]
"""One (N,) a seed, on the same N images: float32; or bool, of which the mean is a share."""


def difficulty(cross_entropies: Tensor) -> Tensor:
    """S(x), how hard images are to learn: their mean cross entropy over the epochs (RKD eq. 8).

    Parameters
    ----------
    cross_entropies : (K, N) floating point, at K epochs, in nats.

    Returns
    -------
    (N,), in nats.
    """
    return cross_entropies.mean(0)


def similarity(first: Tensor, second: Tensor) -> Tensor:
    """Cosine similarity of two networks' probabilities of the correct class over the epochs (RKD Figure 6).

    Parameters
    ----------
    first, second : (K, N) floating point, cross entropies at K epochs, in nats: -ln of those probabilities.

    Returns
    -------
    (N,) in [0, 1].
    """
    # the cosine knows no scale: with the largest probability as 1, however small they all are, it stays exact
    return F.cosine_similarity((first.amin(0) - first).exp(), (second.amin(0) - second).exp(), dim=0)


def trajectory(
    run: Run, split: data.Split, attack: attacks.Attack | None = None, *, store: Store | None = None
) -> Tensor:
    """Return a student's cross entropy with each label at each of its snapshots, (K, N) float32 in nats.

    Parameters
    ----------
    run : a finished run.
    split : the images and labels.
    attack : on the snapshot itself; None: natural images.
    store : as `runs.ensure`.
    """
    return torch.stack(
        [per_image("cross entropy", run.snapshot(epoch=epoch), split, attack, store=store) for epoch in run.epochs]
    )


def gap(first: Measure, second: Measure) -> Measure:
    """Difference of the means of different images: the arms of their intervals are added in quadrature."""
    value = first.value - second.value
    down = math.hypot(first.value - first.low, second.high - second.value)
    up = math.hypot(first.high - first.value, second.value - second.low)
    return replace(first, value=value, low=value - down, high=value + up, n=first.n + second.n)


@dataclass(frozen=True)
class Family:
    """A fixed teacher and RKD's students of it, one run a seed each.

    Attributes
    ----------
    teacher : its own training.
    plain : students by AKD from its last epoch.
    early : the same from an early epoch.
    mixed : students by AKD+ from its last epoch, by the share of its answers, RKD's alpha.
    """

    teacher: Sequence[Run]
    plain: Sequence[Run]
    early: Sequence[Run]
    mixed: Mapping[float, Sequence[Run]]

    @property
    def early_epoch(self) -> int:
        """The teacher's epoch that `early` learned from."""
        return self.early[0].spec.teachers[0].epoch or self.teacher[0].spec.epochs

    @property
    def runs(self) -> list[Run]:
        """Every training, the teacher's first."""
        return [*self.teacher, *self.plain, *self.early, *(run for of_seeds in self.mixed.values() for run in of_seeds)]


@dataclass(frozen=True)
class Answers:
    """What a family answers to some images, natural or each network's own adversarial ones.

    Attributes
    ----------
    teacher : p_T,K, the probability of the correct class at the teacher's last epoch, in [0, 1].
    plain, early, mixed : p_S,K of the students, as in :class:`Family`.
    cosine : similarity of the trajectories of the teacher and of the student by AKD, in [0, 1].
    early_epoch : the epoch of `early`'s teacher.
    """

    teacher: BY_IMAGE
    plain: BY_IMAGE
    early: BY_IMAGE
    mixed: Mapping[float, BY_IMAGE]
    cosine: BY_IMAGE
    early_epoch: int

    def gain(self, student: BY_IMAGE) -> list[Tensor]:
        """p_S,K - p_T,K of a student, in [-1, 1]: whichever epoch taught it, the teacher's last is compared."""
        return [p_student - p_teacher for p_student, p_teacher in zip(student, self.teacher, strict=True)]

    def drawn(self) -> Iterator[tuple[str, str, BY_IMAGE]]:
        """Yield what RKD draws over difficulty: quantity, student ("" where it is the teacher's), values."""
        yield "p_T,K", "", self.teacher
        yield "cosine", "AKD", self.cosine
        yield "p_S,K - p_T,K", "AKD", self.gain(self.plain)
        yield "p_S,K - p_T,K", f"AKD, teacher of epoch {self.early_epoch}", self.gain(self.early)
        for alpha, student in self.mixed.items():
            yield "p_S,K - p_T,K", f"AKD+, alpha {alpha:g}", self.gain(student)


@dataclass(frozen=True)
class Trajectories:
    """What RKD's Figures 6, 7 and 10 to 17 are drawn from.

    Attributes
    ----------
    difficulty : of each image, in nats.
    answers : by the teacher's method, then by "natural" or "adversarial".
    """

    difficulty: BY_IMAGE
    answers: Mapping[str, Mapping[str, Answers]]

    def mean(self, values: BY_IMAGE, part: str = "all", bounds: tuple[float, float] = (0.0, 1.0)) -> Measure:
        """Mean over some of the images, over all seeds; of bool values the share of True.

        Parameters
        ----------
        values : one of the answers', or made from them.
        part : "all", "easiest third", "hardest third" or "all but the hardest third".
        bounds : where the values lie; the interval stays within.
        """
        return over_seeds([_mean(of_seed[self._part(seed, part)]) for seed, of_seed in enumerate(values)], bounds)

    def minus(
        self, first: BY_IMAGE, second: BY_IMAGE, part: str = "all", bounds: tuple[float, float] = (0.0, 1.0)
    ) -> Measure:
        """Mean difference of two values of the same images, over all seeds; parameters as :meth:`mean`."""
        chosen = [self._part(seed, part) for seed in range(len(first))]
        pairs = zip(first, second, chosen, strict=True)
        return over_seeds([_paired(a[which], b[which]) for a, b, which in pairs], _of_difference(bounds))

    def between(self, values: BY_IMAGE, first: str, second: str, bounds: tuple[float, float] = (0.0, 1.0)) -> Measure:
        """Difference of the means over two parts of the images, over all seeds; parameters as :meth:`mean`."""
        parts = [[_mean(v[self._part(seed, part)]) for part in (first, second)] for seed, v in enumerate(values)]
        return over_seeds([gap(*pair) for pair in parts], _of_difference(bounds))

    def _part(self, seed: int, part: str) -> Tensor:
        order = self.difficulty[seed].argsort(stable=True)
        third = len(order) // 3
        return {
            "all": order,
            "easiest third": order[:third],
            "hardest third": order[-third:],
            "all but the hardest third": order[:-third],
        }[part]

    def table(self, classes: Sequence[str], window: float = 0.1) -> pd.DataFrame:
        """Return the numbers to draw, from the easiest image to the hardest; with several seeds, their means.

        Parameters
        ----------
        classes : the name of each image's class, in the split's order.
        window : the share of the images that the running mean is taken over.

        Returns
        -------
        Columns teacher, images, quantity, student, image (its place in the split), class, difficulty_nats, value,
        smoothed.
        """
        hardness = _over_seeds(self.difficulty)
        order = hardness.argsort(stable=True)
        width = max(round(window * len(order)), 1)
        frames = []
        for teacher, by_images in self.answers.items():
            for images, answers in by_images.items():
                for quantity, student, values in answers.drawn():
                    names = {"teacher": teacher, "images": images, "quantity": quantity, "student": student}
                    ordered = pd.Series(_over_seeds(values)[order].numpy())
                    numbers = {
                        "image": order.numpy(),
                        "class": [classes[image] for image in order.tolist()],
                        "difficulty_nats": hardness[order].numpy(),
                        "value": ordered,
                        "smoothed": ordered.rolling(width, min_periods=1, center=True).mean(),
                    }
                    frames.append(pd.DataFrame({**names, **numbers}))
        return pd.concat(frames, ignore_index=True)


def trajectories(
    ranked_by: Sequence[Run],
    families: Mapping[str, Family],
    split: data.Split,
    attack: attacks.Attack,
    *,
    store: Store | None = None,
) -> Trajectories:
    """Measure teachers and students on natural images and on each network's own adversarial ones.

    Parameters
    ----------
    ranked_by : the networks whose training says how difficult each natural image is, one a seed and in no family: an
        image that a network happened to find hard is less hard for any other. `comparisons.rankers` trains some.
    families : by the teacher's method.
    split : the images, usually test images.
    attack : makes the adversarial ones.
    store : as `runs.ensure`.

    Raises
    ------
    ValueError
        If there are fewer than six images, a network ranks the images that it is compared on, or a teacher and its
        student have snapshots at different epochs.
    """
    if len(split) < 6:
        raise ValueError(f"A third of the images must be two at least, but there are {len(split)} in all.")
    every_run = [run for family in families.values() for run in family.runs]
    for run in ranked_by:
        if run.spec in [compared.spec for compared in every_run]:
            raise ValueError(
                f"{run.spec} would rank the images that it is compared on, and what it happened to find hard is less "
                "hard for any other network: rank by a training that is in no family, as comparisons.rankers does."
            )
    for family in families.values():
        for teacher, student in zip(family.teacher, family.plain, strict=True):
            if teacher.epochs != student.epochs:
                raise ValueError(
                    f"{teacher.spec} has snapshots at epochs {', '.join(map(str, teacher.epochs))} and {student.spec} "
                    f"at {', '.join(map(str, student.epochs))}: train both for the same epochs to compare them."
                )
    hardness = [difficulty(trajectory(run, split, store=store)) for run in track(ranked_by, desc="Difficulty")]
    with track(total=2 * len(every_run), desc=f"Natural images and {attack}", unit="training") as bar:

        def answers(family: Family, by: attacks.Attack | None) -> Answers:
            teacher = [whole(run, by) for run in family.teacher]
            plain = [whole(run, by) for run in family.plain]
            return Answers(
                [(-ce[-1]).exp() for ce in teacher],
                [(-ce[-1]).exp() for ce in plain],
                [final(run, by) for run in family.early],
                {alpha: [final(run, by) for run in of_seeds] for alpha, of_seeds in family.mixed.items()},
                [similarity(*pair) for pair in zip(plain, teacher, strict=True)],
                family.early_epoch,
            )

        def whole(run: Run, by: attacks.Attack | None) -> Tensor:
            found = trajectory(run, split, by, store=store)
            bar.update()
            return found

        def final(run: Run, by: attacks.Attack | None) -> Tensor:
            loss = per_image("cross entropy", run.snapshot(), split, by, store=store)
            bar.update()
            return (-loss).exp()

        measured = {
            teacher: {"natural": answers(family, None), "adversarial": answers(family, attack)}
            for teacher, family in families.items()
        }
    return Trajectories(hardness, measured)


def _mean(values: Tensor) -> Measure:
    return Measure(**vars(statistics.proportion(values))) if values.dtype == torch.bool else mean(values)


def _paired(first: Tensor, second: Tensor) -> Measure:
    if first.dtype == torch.bool:
        return Measure(**vars(statistics.paired_difference(first, second)))
    return mean(first - second)


def _of_difference(bounds: tuple[float, float]) -> tuple[float, float]:
    low, high = bounds
    return low - high, high - low


def _over_seeds(values: BY_IMAGE) -> Tensor:
    return torch.stack(list(values)).mean(0)
