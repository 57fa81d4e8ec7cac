"""How the predictions for each image develop while a teacher and its student are trained (RKD sections C.2 and E)."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field

import pandas as pd
import torch
import torch.nn.functional as F
from torch import Tensor

from rkdkit import attacks, checks, runs, statistics
from rkdkit.analysis.difficulty import BY_IMAGE, Difficulty, gap, loss, ranked, ranking_specs, ranking_tasks
from rkdkit.comparisons import akd_specs
from rkdkit.references import Images, Snapshot
from rkdkit.setup import Setup
from rkdkit.spec import RunSpec
from rkdkit.statistics import Measure, mean, mean_over_seeds, over_seeds
from rkdkit.trainings import Run

PANELS = ("cosine", "p_T,K", "gain", "early", "mixing")
"""What RKD draws over difficulty: the cosine, the teacher, AKD's gain, and gains by early stopping and mixing."""

FIGURES: dict[tuple[str, str], dict[str, str]] = {
    (teacher, images): dict(zip(PANELS, of, strict=True))
    for teacher, images, *of in (
        ("PGD-AT", "natural", "6 left", "10a", "10b", "11a", "12a"),
        ("PGD-AT", "adversarial", "6 right", "7a", "7b", "11b", "12b"),
        ("Natural", "natural", "13a", "14a", "14b", "16a", "17a"),
        ("Natural", "adversarial", "13b", "15a", "15b", "16b", "17b"),
    )
}
"""Where RKD draws it: its figures with the letters of their panels, by the teacher's method and the images."""

COURSES = ("p_T,k", "p_S,k")
"""The probability of the correct class after epoch k: of a teacher, and of its AKD student."""

FOLLOWED, FOLLOWED_EPOCHS = 40, 20
"""How many images, from the easiest to the hardest, and how many epochs the table of `Trajectories` follows at most."""


def similarity(first: Tensor, second: Tensor) -> Tensor:
    """Return the cosine similarity of two networks' probabilities of the correct class over epochs (RKD Figure 6).

    Parameters
    ----------
    first, second : (K, N) floating point, the cross entropies at K epochs, in nats: -ln of the probabilities.

    Returns
    -------
    (N,) in [0, 1].
    """
    # the cosine does not depend on scale: with the largest probability scaled to 1, tiny probabilities stay exact
    return F.cosine_similarity((first.amin(0) - first).exp(), (second.amin(0) - second).exp(), dim=0)


@dataclass(frozen=True)
class Family:
    """A fixed teacher and RKD's students of it, each with one run per seed.

    Attributes
    ----------
    teacher : the teacher's runs.
    plain : AKD students of the teacher at its last epoch.
    early : AKD students of the teacher at an early epoch.
    mixed : AKD+ students of the teacher at its last epoch, by RKD's alpha, the weight of the teacher's outputs.
    """

    teacher: Sequence[Run]
    plain: Sequence[Run]
    early: Sequence[Run]
    mixed: Mapping[float, Sequence[Run]]

    @property
    def early_epoch(self) -> int:
        """The teacher's epoch that taught `early`."""
        return self.early[0].spec.teachers[0].epoch or self.teacher[0].spec.epochs

    @property
    def specs(self) -> list[RunSpec]:
        """The specifications of all runs, the teacher's first."""
        mixed = [run for of_seeds in self.mixed.values() for run in of_seeds]
        return [run.spec for run in (*self.teacher, *self.plain, *self.early, *mixed)]

    @property
    def snapshots(self) -> list[Snapshot]:
        """The snapshots measured: every epoch of the teacher and of `plain`, and the last epoch of the others."""
        whole = [snapshot for run in (*self.teacher, *self.plain) for snapshot in run.snapshots()]
        last = [run.snapshot() for of_seeds in (self.early, *self.mixed.values()) for run in of_seeds]
        return whole + last


def train(
    setup: Setup, teacher_methods: Sequence[str], mixing: Sequence[float], early_stop: float, n_rankers: int
) -> tuple[dict[str, Family], list[Run]]:
    """Train fixed teachers, RKD's students of each, and the networks that rank images (`difficulty.ranking_specs`).

    Parameters
    ----------
    setup : the notebook's parameters.
    teacher_methods : the methods that train the teachers.
    mixing : the values of RKD's alpha to try, the weights of the teacher's outputs, above 0 and below 1; at least one.
    early_stop : the share of its epochs after which an early-stopped teacher is taken.
    n_rankers : the number of networks that rank images.

    Returns
    -------
    The families by their teacher's method, and the networks that rank images, which are in no family.

    Raises
    ------
    UnknownNameError
        If a method is not known.
    ValueError
        If the dataset does not have two classes, `mixing` is empty, a weight in it is out of its range or given twice,
        `early_stop` is out of its range, the snapshot nearest to `early_stop` is the teacher's last, or there are
        fewer than two rankers.
    """
    _check_asked(setup, mixing)
    ranking = ranking_specs(setup, n_rankers)
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
        raise ValueError(f"mixing must list at least one weight of the teacher's outputs, as in [0.3], not {mixing!r}.")
    for alpha in mixing:
        checks.number("A weight in mixing", alpha, 0, 1)
    if not 0 < min(mixing) <= max(mixing) < 1 or len(set(mixing)) < len(mixing):
        raise ValueError(
            f"mixing must list different weights above 0 and below 1, not {mixing!r}: 0 means no teacher, and the "
            "student with weight 1 is always trained."
        )


@dataclass(frozen=True)
class Answers:
    """The predictions of a family on some images: natural images, or each network's own adversarial examples.

    Attributes
    ----------
    teacher : p_T,K, the probability of the correct class at the teacher's last epoch, in [0, 1].
    plain, early, mixed : p_S,K of the students, as in :class:`Family`.
    cosine : the similarity of the trajectories of the teacher and of its AKD student, in [0, 1].
    early_epoch : the epoch of `early`'s teacher.
    epochs : the epochs that `courses` follow.
    courses : by `COURSES`, the probabilities of the correct class after each of `epochs`: (len(epochs), N) per seed.
    """

    teacher: BY_IMAGE
    plain: BY_IMAGE
    early: BY_IMAGE
    mixed: Mapping[float, BY_IMAGE]
    cosine: BY_IMAGE
    early_epoch: int
    epochs: tuple[int, ...] = ()
    courses: Mapping[str, BY_IMAGE] = field(default_factory=dict)

    def gain(self, student: BY_IMAGE) -> list[Tensor]:
        """Return p_S,K - p_T,K of a student, in [-1, 1]; p_T,K is the teacher's at its last epoch for all students."""
        return [p_student - p_teacher for p_student, p_teacher in zip(student, self.teacher, strict=True)]

    def drawn(self) -> Iterator[tuple[str, str, tuple[str, ...], BY_IMAGE]]:
        """Yield what RKD draws over difficulty.

        Yields
        ------
        quantity, student ("" for a quantity of the teacher), which of `PANELS` show it, and the values.
        """
        yield "p_T,K", "", ("p_T,K",), self.teacher
        yield "cosine", "AKD", ("cosine",), self.cosine
        gain = "p_S,K - p_T,K"
        yield gain, "AKD", ("gain", "early", "mixing"), self.gain(self.plain)
        yield gain, f"AKD, teacher of epoch {self.early_epoch}", ("early",), self.gain(self.early)
        for alpha, student in self.mixed.items():
            yield gain, f"AKD+, alpha {alpha:g}", ("mixing",), self.gain(student)


@dataclass(frozen=True)
class Trajectories:
    """The measurements that RKD's Figures 6, 7 and 10 to 17 draw.

    Attributes
    ----------
    difficulty : how hard each image is to learn.
    answers : by the teacher's method, then by "natural" or "adversarial" images.
    """

    difficulty: Difficulty
    answers: Mapping[str, Mapping[str, Answers]]

    def mean(self, values: BY_IMAGE, part: str = "all", bounds: tuple[float, float] = (0.0, 1.0)) -> Measure:
        """Return the mean over some of the images and all seeds; for bool values, the share of True.

        Parameters
        ----------
        values : a field of `Answers`, or values computed from such fields.
        part : "all", "easiest third", "hardest third" or "all but the hardest third".
        bounds : the range of the values; the interval is clipped to it.
        """
        which = self._part(part)
        chosen = [of_seed[which] for of_seed in values]
        if chosen[0].dtype == torch.bool:
            return Measure.of(statistics.accuracy_over_seeds(chosen))
        return mean_over_seeds(chosen, bounds=bounds)

    def minus(
        self, first: BY_IMAGE, second: BY_IMAGE, part: str = "all", bounds: tuple[float, float] = (0.0, 1.0)
    ) -> Measure:
        """Return the mean difference of two values on the same images, over all seeds; parameters as :meth:`mean`."""
        which = self._part(part)
        pairs = [(a[which], b[which]) for a, b in zip(first, second, strict=True)]
        if pairs[0][0].dtype == torch.bool:
            return Measure.of(statistics.difference_over_seeds(pairs))
        return mean_over_seeds([a - b for a, b in pairs], bounds=_of_difference(bounds))

    def between(self, values: BY_IMAGE, first: str, second: str, bounds: tuple[float, float] = (0.0, 1.0)) -> Measure:
        """Return the difference of the means over two parts of the images and all seeds; parameters as :meth:`mean`."""
        parts = [[_mean(of_seed[self._part(part)]) for part in (first, second)] for of_seed in values]
        return over_seeds([gap(*pair) for pair in parts], _of_difference(bounds))

    def _part(self, part: str) -> Tensor:
        order = self.difficulty.of_images.argsort(stable=True)
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
        A table with the columns teacher, images, quantity, student, figure (the panels of RKD's figures to which it
        belongs: "10b, 11a, 12a"), image (its index in the split), class, difficulty, value, smoothed, epoch. Only the
        rows of `COURSES` have an epoch; they are of no figure of RKD, are not smoothed, and follow some of the images.
        """
        hardness = self.difficulty.of_images
        order = hardness.argsort(stable=True)
        width = max(round(window * len(order)), 1)
        frames = []
        for teacher, by_images in self.answers.items():
            for images, answers in by_images.items():
                of_panels = FIGURES.get((teacher, images), {})
                for quantity, student, panels, values in answers.drawn():
                    names = {"teacher": teacher, "images": images, "quantity": quantity, "student": student}
                    names["figure"] = ", ".join(of_panels[panel] for panel in panels if of_panels)
                    ordered = pd.Series(_over_seeds(values)[order].numpy())
                    numbers = {
                        "image": order.numpy(),
                        "class": [classes[image] for image in order.tolist()],
                        "difficulty": hardness[order].numpy(),
                        "value": ordered,
                        "smoothed": ordered.rolling(width, min_periods=1, center=True).mean(),
                        "epoch": pd.Series(pd.NA, ordered.index, dtype="Int64"),
                    }
                    frames.append(pd.DataFrame({**names, **numbers}))
                names = {"teacher": teacher, "images": images}
                frames += [part.assign(**names) for part in _followed(answers, order, hardness, classes)]
        return pd.concat(frames, ignore_index=True)


def _followed(answers: Answers, order: Tensor, hardness: Tensor, classes: Sequence[str]) -> Iterator[pd.DataFrame]:
    """Yield the rows of `COURSES` for some of the images, in their order, and some of the epochs."""
    chosen = order[_evenly(len(order), FOLLOWED)]
    numbers = {"image": chosen.numpy(), "difficulty": hardness[chosen].numpy()}
    names = {"class": [classes[image] for image in chosen.tolist()], "figure": ""}
    for course, student in zip(COURSES, ("", "AKD"), strict=True):
        if course not in answers.courses:
            continue
        values = _over_seeds(answers.courses[course])[:, chosen].numpy().round(4)
        for place in _evenly(len(answers.epochs), FOLLOWED_EPOCHS).tolist():
            epoch = pd.Series(answers.epochs[place], range(len(chosen)), dtype="Int64")
            about = {"quantity": course, "student": student}
            yield pd.DataFrame({**about, **names, **numbers, "value": values[place], "epoch": epoch})


def _evenly(n: int, most: int) -> Tensor:
    """Return the places of at most so many of n, the first and the last among them, evenly far apart."""
    return torch.linspace(0, n - 1, min(n, most)).round().long()


def measure(
    ranked_by: Sequence[Run],
    families: Mapping[str, Family],
    images: Images,
    attack: attacks.Attack,
    *,
    within_class: bool,
) -> Trajectories:
    """Measure teachers and students on natural images and on each network's own adversarial examples.

    Parameters
    ----------
    ranked_by : the networks whose trainings give the difficulty of each natural image. They must be in no family,
        because images that are hard for one training by chance are less hard for any other. :func:`train` trains such
        networks.
    families : the families by the teacher's method.
    images : the images to measure on, usually test images.
    attack : makes the adversarial examples.
    within_class : as `difficulty.ranked`.

    Raises
    ------
    ValueError
        If there are fewer than six images, a network ranks the images that it is compared on, or a teacher and its
        student have snapshots at different epochs.
    """
    _check_trained(ranked_by, families, images)
    tasks = ranking_tasks(ranked_by, images)
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
            family.plain[0].epochs,
            {
                course: [(-whole(run, by)).exp() for run in of_seeds]
                for course, of_seeds in zip(COURSES, (family.teacher, family.plain), strict=True)
            },
        )

    return Trajectories(
        ranked(ranked_by, images, found, within_class),
        {
            teacher: {"natural": answers(family, None), "adversarial": answers(family, attack)}
            for teacher, family in families.items()
        },
    )


def _check_trained(ranked_by: Sequence[Run], families: Mapping[str, Family], images: Images) -> None:
    if len(images) < 6:
        raise ValueError(f"A third of the images must be at least two images, but there are {len(images)} in all.")
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
    return Measure.of(statistics.proportion(values)) if values.dtype == torch.bool else mean(values)


def _of_difference(bounds: tuple[float, float]) -> tuple[float, float]:
    low, high = bounds
    return low - high, high - low


def _over_seeds(values: BY_IMAGE) -> Tensor:
    return torch.stack(list(values)).mean(0)
