"""How the answers to each image develop while a teacher and its student learn (RKD sections C.2 and E)."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

import pandas as pd
import torch
import torch.nn.functional as F
from torch import Tensor

from rkdkit import attacks, checks, runs, statistics
from rkdkit.analysis.difficulty import BY_IMAGE, difficulty, gap, loss
from rkdkit.comparisons import NATURAL, akd_specs
from rkdkit.references import Images, Snapshot
from rkdkit.setup import Setup
from rkdkit.spec import RunSpec
from rkdkit.statistics import Measure, mean, over_seeds
from rkdkit.trainings import Run


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
    def specs(self) -> list[RunSpec]:
        """Every training, the teacher's first."""
        mixed = [run for of_seeds in self.mixed.values() for run in of_seeds]
        return [run.spec for run in (*self.teacher, *self.plain, *self.early, *mixed)]

    @property
    def snapshots(self) -> list[Snapshot]:
        """What is measured: every epoch of the teacher and of the students by AKD, and the others' last."""
        whole = [snapshot for run in (*self.teacher, *self.plain) for snapshot in run.snapshots()]
        last = [run.snapshot() for of_seeds in (self.early, *self.mixed.values()) for run in of_seeds]
        return whole + last


def train(
    setup: Setup, teacher_methods: Sequence[str], mixing: Sequence[float], early_stop: float
) -> tuple[dict[str, Family], list[Run]]:
    """Train fixed teachers, RKD's students of each, and the networks that rank images; or find them trained.

    RKD ranks by a naturally trained network and does not say that it is another than the natural teacher. Here it is
    another training, of seed + 1000, in no family: what one training happened to find hard is less hard for any other.
    If the teacher ranked, any student of its would seem to gain on hard images and to lose on easy ones.

    Parameters
    ----------
    setup : what a notebook was asked for.
    teacher_methods : how the teachers are trained.
    mixing : the shares of the teacher's answers to try, above 0 and below 1; at least one.
    early_stop : the share of its epochs after which a teacher that is stopped early teaches.

    Returns
    -------
    The families by their teacher's method, and the networks that rank images, one a seed.

    Raises
    ------
    UnknownNameError
        If a method is not known.
    ValueError
        If the data have not two classes, a share is out of its range or comes twice, none is given to try, or the
        snapshot nearest to `early_stop` is the teacher's last.
    """
    _check_asked(setup, mixing)
    ranking = [setup.profile.spec(NATURAL, seed + 1000, student=setup.profile.teacher_network) for seed in setup.seeds]
    groups = [
        [
            setup.teacher_specs(teacher),
            akd_specs(setup, teacher),
            akd_specs(setup, teacher, stopped=early_stop),
            *(akd_specs(setup, teacher, alpha) for alpha in mixing),
        ]
        for teacher in teacher_methods
    ]
    for (guide, *_), plain, early, *_ in groups:
        if early == plain:
            raise ValueError(
                f"early_stop={early_stop:g} of {guide.epochs} epochs comes nearest to the last snapshot: nothing would "
                "be stopped early. Set a lower early_stop, more epochs or a smaller snapshot_every."
            )
    ranked_by, *others = runs.ensure_all(ranking, *(specs for group in groups for specs in group))
    trained = iter(others)
    families = {
        teacher: Family(next(trained), next(trained), next(trained), {alpha: next(trained) for alpha in mixing})
        for teacher in teacher_methods
    }
    return families, ranked_by


def _check_asked(setup: Setup, mixing: Sequence[float]) -> None:
    if len(setup.dataset.classes) != 2:
        raise ValueError(
            f"RKD's trajectories are of two classes, and {setup.profile.dataset} has {len(setup.dataset.classes)}: "
            "name two of them, as in 'digits:4,9'."
        )
    if not isinstance(mixing, Sequence) or not mixing:
        raise ValueError(f"mixing must list one share of the teacher's answers at least, as in [0.3], not {mixing!r}.")
    for alpha in mixing:
        checks.number("A share in mixing", alpha, 0, 1)
    if not 0 < min(mixing) <= max(mixing) < 1 or len(set(mixing)) < len(mixing):
        raise ValueError(
            f"mixing must list different shares above 0 and below 1, not {mixing!r}: at 0 there is no teacher, and the "
            "student that learns from the teacher alone is always there."
        )


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


def measure(
    ranked_by: Sequence[Run], families: Mapping[str, Family], images: Images, attack: attacks.Attack
) -> Trajectories:
    """Measure teachers and students on natural images and on each network's own adversarial ones.

    Parameters
    ----------
    ranked_by : the networks whose training says how difficult each natural image is, one a seed and in no family: an
        image that a network happened to find hard is less hard for any other. :func:`train` trains some.
    families : by the teacher's method.
    images : usually test images.
    attack : makes the adversarial ones.

    Raises
    ------
    ValueError
        If there are fewer than six images, a network ranks the images that it is compared on, or a teacher and its
        student have snapshots at different epochs.
    """
    _check_trained(ranked_by, families, images)
    tasks = [loss(snapshot, images) for run in ranked_by for snapshot in run.snapshots()]
    followed = [snapshot for family in families.values() for snapshot in family.snapshots]
    tasks += [loss(snapshot, images, by) for by in (None, attack) for snapshot in followed]
    found = runs.answers({task: task for task in tasks}, f"Natural images and {attack}")

    def whole(run: Run, by: attacks.Attack | None = None) -> Tensor:
        return torch.stack([found[loss(snapshot, images, by)] for snapshot in run.snapshots()])

    def last(of_seeds: Sequence[Run], by: attacks.Attack | None) -> list[Tensor]:
        return [(-found[loss(run.snapshot(), images, by)]).exp() for run in of_seeds]

    def answers(family: Family, by: attacks.Attack | None) -> Answers:
        return Answers(
            last(family.teacher, by),
            last(family.plain, by),
            last(family.early, by),
            {alpha: last(of_seeds, by) for alpha, of_seeds in family.mixed.items()},
            [similarity(whole(s, by), whole(t, by)) for s, t in zip(family.plain, family.teacher, strict=True)],
            family.early_epoch,
        )

    return Trajectories(
        [difficulty(whole(run)) for run in ranked_by],
        {
            teacher: {"natural": answers(family, None), "adversarial": answers(family, attack)}
            for teacher, family in families.items()
        },
    )


def _check_trained(ranked_by: Sequence[Run], families: Mapping[str, Family], images: Images) -> None:
    if len(images) < 6:
        raise ValueError(f"A third of the images must be two at least, but there are {len(images)} in all.")
    compared = [spec for family in families.values() for spec in family.specs]
    for run in ranked_by:
        if run.spec in compared:
            raise ValueError(
                f"{run.spec} would rank the images that it is compared on, and what it happened to find hard is less "
                "hard for any other network: rank by a training that is in no family, as trajectories.train does."
            )
    for family in families.values():
        for teacher, student in zip(family.teacher, family.plain, strict=True):
            if teacher.epochs != student.epochs:
                raise ValueError(
                    f"{teacher.spec} has snapshots at epochs {', '.join(map(str, teacher.epochs))} and {student.spec} "
                    f"at {', '.join(map(str, student.epochs))}: train both for the same epochs to compare them."
                )


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
