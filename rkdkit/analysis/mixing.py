"""RKD's students over two choices: when their teacher is stopped, and how much of its output they are given."""

import itertools
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from typing import Any

import pandas as pd

from rkdkit import attacks, autoattack, checks, comparisons
from rkdkit.analysis import selection
from rkdkit.analysis.white_box import WhiteBox, attack_named, white_box
from rkdkit.claims import Claim, Quantity
from rkdkit.comparisons import Entry, Guide
from rkdkit.references import Snapshot
from rkdkit.setup import Setup

METHODS = ("AKD+", "RSLAD+", "ARD+")
"""The methods of RKD's Figures 1 and 2."""

ACCURATE, ROBUST = "Natural", "PGD-AT"
"""The methods that train the accurate and the robust teacher."""

TEACHERS = {ACCURATE: "accurate", ROBUST: "robust"}
"""What RKD calls its two teachers, by the method that trains them."""

STOPS: dict[str, tuple[float, ...]] = {
    "smoke": (1.0,),
    "quick": (0.2, 0.4, 1.0),
    "small": (0.2, 0.4, 1.0),
    "paper": (0.2, 0.4, 0.6, 0.8, 1.0),
}
"""The shares of a teacher's epochs after which it is stopped, by profile.

RKD does not print the grid of its Figure 1. Of its teachers' 100 epochs, Table 2 names 20, 40, 80 and 100.
"""

ALPHAS: dict[str, tuple[float, ...]] = {
    "smoke": (0.3, 1.0),
    "quick": (0.3, 0.7, 1.0),
    "small": (0.3, 0.7, 1.0),
    "paper": (0.2, 0.3, 0.5, 0.7, 0.8, 1.0),
}
"""The weights of the teacher's outputs, RKD's alpha, by profile: below "paper" fewer of those that RKD names.

Section 3.1 names 0.3, 0.7 and 1, Table 2 also 0.2, 0.5 and 0.8.
"""

ROBUST_BY = {"paper": "autoattack"}
"""What measures robust accuracy, by profile; others use PGD, which is feasible on all images."""

EARLY = 0.4
"""The share of its epochs after which RKD stops its best robust teacher (Table 2: epoch 40 of 100)."""

CLEAN = "clean"


@dataclass(frozen=True)
class Student:
    """One student of a grid.

    Attributes
    ----------
    method : one of `METHODS`.
    guide : its fixed teacher, stopped after a share of its epochs.
    epoch : the epoch at which the teacher is stopped, counted from 1.
    alpha : RKD's alpha, the weight of the teacher's outputs, in (0, 1]; the labels have the rest.
    network : the student's network.
    """

    method: str
    guide: Guide
    epoch: int
    alpha: float
    network: str

    def __str__(self) -> str:
        return f"{self.method} {self.network}, alpha {self.alpha:g}, of {taught_by(self.guide, self.epoch)}"

    @property
    def entry(self) -> Entry:
        """How it is trained, by `comparisons.mixed`."""
        method, settings = comparisons.mixed(self.method, self.alpha)
        return Entry(method, (self.guide,), {"student": self.network, "settings": settings})


def taught_by(guide: Guide, epoch: int) -> str:
    """Return the name of a stopped teacher: "PGD-AT resnet18/4 at epoch 8"; PGD-AT+ is RKD's AT+, trained otherwise."""
    return f"{_called(guide)} {guide.network} at epoch {epoch}"


def finished(measured: WhiteBox, guide: Guide) -> str:
    """Return the name of a teacher's training at its last epoch, which :func:`train` adds to those that are taught by.

    Parameters
    ----------
    measured : the measurements of all teachers.
    guide : the teacher, stopped or not.
    """
    name = taught_by(guide, 0).removesuffix("0")
    return name + max((other.removeprefix(name) for other in measured.evaluations if other.startswith(name)), key=int)


def _called(guide: Guide) -> str:
    return f"{guide.method}{'+' if guide.changes else ''}"


def stopped_guides(setup: Setup, guide: Guide, stops: Iterable[float]) -> dict[int, Guide]:
    """Return a teacher stopped at several epochs, by epoch; stops with the same nearest snapshot are one.

    Parameters
    ----------
    setup : the notebook's parameters.
    guide : the teacher; its `stopped` is not used.
    stops : shares of its epochs, in (0, 1].

    Raises
    ------
    UnknownNameError, ValueError
        As `Guide`.
    """
    network = guide.network or setup.profile.teacher_network
    guides = [
        Guide(guide.method, network=network, stopped=stop, another=guide.another, changes=guide.changes)
        for stop in sorted(stops)
    ]
    taken = comparisons.choose_guides(setup, dict(zip(guides, guides, strict=True)))
    by_epoch: dict[int, Guide] = {}
    for each in guides:
        by_epoch.setdefault(taken[each][0].epoch, each)
    return by_epoch


def grid(setup: Setup, stops: Sequence[float] | None = None, alphas: Sequence[float] | None = None) -> list[Student]:
    """Return the students of RKD's Figures 1 and 2: every method, teacher, epoch of the teacher and alpha.

    Parameters
    ----------
    setup : the notebook's parameters.
    stops : the shares of a teacher's epochs after which it is stopped; None: `STOPS` of the profile.
    alphas : the weights of the teacher's outputs; None: `ALPHAS` of the profile.

    Raises
    ------
    ValueError
        If a list is empty, or a value is not in (0, 1] or given twice.
    """
    stops = shares("stops", stops, STOPS[setup.profile.name])
    alphas = shares("alphas", alphas, ALPHAS[setup.profile.name])
    return [
        Student(method, guide, epoch, alpha, setup.profile.student)
        for method in METHODS
        for teacher in TEACHERS
        for epoch, guide in stopped_guides(setup, Guide(teacher), stops).items()
        for alpha in alphas
    ]


def shares(name: str, given: Sequence[float] | None, usual: Sequence[float], zero: bool = False) -> tuple[float, ...]:
    """Return a notebook's list of different shares in ascending order.

    Parameters
    ----------
    name : the parameter's name, for messages.
    given : the notebook's list; None: `usual`.
    usual : the profile's list.
    zero : whether a share may be 0.

    Raises
    ------
    ValueError
        If the list is empty, or a value is out of its range or given twice.
    """
    listed: object = usual if given is None else given
    if not isinstance(listed, list | tuple) or not listed:
        raise ValueError(f"{name} must list at least one share, as in [0.4, 1.0], not {listed!r}.")
    for share in listed:
        checks.number(f"A share in {name}", share, 0, 1)
    if len(set(listed)) < len(listed) or (0 in listed and not zero):
        raise ValueError(f"{name} must list different shares{'' if zero else ' above 0'}, not {listed!r}.")
    return tuple(sorted(float(share) for share in listed))


@dataclass(frozen=True)
class Networks:
    """Trained students and their teachers.

    Attributes
    ----------
    students : the snapshots of each student, one per seed, by its name.
    teachers : the snapshots of each stopped teacher, and of the same training at its last epoch, by `taught_by`.
    stopped : by the same names, the teacher and its epoch.
    """

    students: Mapping[str, Sequence[Snapshot]]
    teachers: Mapping[str, Sequence[Snapshot]]
    stopped: Mapping[str, tuple[Guide, int]]


def train(setup: Setup, students: Iterable[Student]) -> Networks:
    """Train students and their teachers; runs that are in the store are used again.

    Parameters
    ----------
    setup : the notebook's parameters.
    students : those to train; all teachers are trained side by side, and so are all students.

    Raises
    ------
    UnknownNameError, ValueError
        As `comparisons.train_entries`.
    """
    listed = list(students)
    trained = comparisons.train_entries(setup, {str(student): student.entry for student in listed})
    stopped = {taught_by(student.guide, student.epoch): (student.guide, student.epoch) for student in listed}
    for guide, _ in list(stopped.values()):
        for epoch, last in stopped_guides(setup, guide, [1.0]).items():
            stopped.setdefault(taught_by(last, epoch), (last, epoch))
    teachers = comparisons.choose_guides(setup, {name: guide for name, (guide, _) in stopped.items()})
    return Networks(trained.chosen, teachers, stopped)


def both_accuracies(setup: Setup, robust: str | None = None) -> dict[str, attacks.Attack | None]:
    """Return the two measures of a trade-off: natural images, and the attack that measures robust accuracy.

    Parameters
    ----------
    setup : the notebook's parameters.
    robust : "pgd" or "autoattack"; None: `ROBUST_BY` of the profile.

    Raises
    ------
    UnknownNameError
        If `robust` is neither of these.
    ValueError
        If the data have too few classes for AutoAttack.
    """
    usual = ROBUST_BY.get(setup.profile.name, "pgd")
    which = checks.one_of("measure of robust accuracy", usual if robust is None else robust, ("pgd", "autoattack"))
    pgd = setup.profile.test_attack
    if which == "pgd":
        return {CLEAN: None, str(pgd).lower(): pgd}
    autoattack.check_classes(len(setup.dataset.classes))
    return {CLEAN: None, which: autoattack.AutoAttack(pgd.eps)}


def measure(setup: Setup, networks: Networks, by: Mapping[str, attacks.Attack | None]) -> WhiteBox:
    """Measure every student and teacher, under its name.

    Parameters
    ----------
    setup : gives the test images.
    networks : as :func:`train` returns them.
    by : as :func:`both_accuracies` returns it.
    """
    return white_box({**networks.students, **networks.teachers}, setup.images, by, n=setup.n_of(by))


def robust_metric(measured: WhiteBox) -> str:
    """Return the metric of `measured` that is not the clean accuracy."""
    (metric,) = (metric for metric in measured.metrics if metric != CLEAN)
    return metric


def trade_off(measured: WhiteBox, name: str) -> dict[str, Any]:
    """Return a network's two accuracies as columns of a table.

    Returns
    -------
    clean, clean_low, clean_high, robust, robust_low, robust_high (fractions), robust_by (the metric), n and n_robust
    (the numbers of images) and seeds.
    """
    metric = robust_metric(measured)
    clean, robust = (measured.accuracy(name, which) for which in (CLEAN, metric))
    return {
        **{"clean": clean.value, "clean_low": clean.low, "clean_high": clean.high},
        **{"robust": robust.value, "robust_low": robust.low, "robust_high": robust.high},
        **{"robust_by": metric, "n": clean.n, "n_robust": robust.n, "seeds": clean.seeds},
    }


def table(measured: WhiteBox, networks: Networks, students: Iterable[Student]) -> pd.DataFrame:
    """Return the accuracies of students and of their teachers.

    Parameters
    ----------
    measured, networks : as :func:`measure` and :func:`train` return them.
    students : those that are shown, with the teachers that teach them and the same trainings' last epochs.

    Returns
    -------
    A line per network: role ("student" or "teacher"), method, network, teacher, teacher_network, teacher_epoch and
    alpha; for a teacher, teacher is its own method and alpha is NaN. Then the columns of :func:`trade_off`.
    """
    listed = list(students)
    lines = [
        {
            **{"role": "student", "method": student.method, "network": student.network},
            **_teacher(student.guide, student.epoch),
            "alpha": student.alpha,
            **trade_off(measured, str(student)),
        }
        for student in listed
    ]
    shown = {taught_by(student.guide, student.epoch) for student in listed} | _last_of(networks, listed)
    for name, (guide, epoch) in networks.stopped.items():
        if name in shown:
            own = {"role": "teacher", "method": _called(guide), "network": guide.network}
            lines.append({**own, **_teacher(guide, epoch), "alpha": float("nan"), **trade_off(measured, name)})
    return pd.DataFrame(lines)


def panels_of_figure_1(table: pd.DataFrame) -> list[str]:
    """Return which panels of RKD's Figure 1 show each line of a table: "1b" a student, "1b, 1d, 1f" its teacher.

    Parameters
    ----------
    table : role, method and teacher, as :func:`table` returns them.
    """
    pairs = itertools.product(METHODS, TEACHERS)
    panels = {pair: f"1{letter}" for pair, letter in zip(pairs, "abcdef", strict=True)}
    return [
        ", ".join(panels[each, teacher] for each in ([method] if role == "student" else METHODS))
        for role, method, teacher in zip(table.role, table.method, table.teacher, strict=True)
    ]


def _last_of(networks: Networks, students: Iterable[Student]) -> set[str]:
    """Return the names of the students' teachers at their last epochs."""
    trainings = {replace(student.guide, stopped=1.0) for student in students}
    last: dict[Guide, tuple[int, str]] = {}
    for name, (guide, epoch) in networks.stopped.items():
        training = replace(guide, stopped=1.0)
        last[training] = max(last.get(training, (0, "")), (epoch, name))
    return {last[training][1] for training in trainings}


def _teacher(guide: Guide, epoch: int) -> dict[str, Any]:
    return {"teacher": _called(guide), "teacher_network": guide.network, "teacher_epoch": epoch}


def nearest(tried: Iterable[float], wanted: float) -> float:
    """Return the tried number that is nearest to the wanted one; of two, the smaller."""
    return min(sorted(tried), key=lambda value: abs(value - wanted))


def early_and_last(students: Sequence[Student]) -> tuple[int, int]:
    """Return the epoch nearest to `EARLY` of a teacher's epochs, and its last, among those that teach students."""
    epochs = {student.epoch: student.guide.stopped or 1.0 for student in students}
    early = nearest(epochs.values(), EARLY)
    return next(epoch for epoch, stop in epochs.items() if stop == early), max(epochs)


def in_words(measured: WhiteBox, students: Sequence[Student]) -> str:
    """Return what a claim calls the last of the epochs that teach: "epoch 20, the last" of the training, or tried."""
    last = max(students, key=lambda student: student.epoch)
    is_finished = taught_by(last.guide, last.epoch) == finished(measured, last.guide)
    return f"epoch {last.epoch}, the {'last' if is_finished else 'latest that was tried'}"


def more(measured: WhiteBox, metric: str, text: str, source: str, higher: str, lower: str) -> Claim:
    """Return the claim that one network has a higher accuracy than another.

    Parameters
    ----------
    measured : the measurements of both.
    metric : "clean", or the metric of the robust accuracy.
    text, source : the claim's sentence, and its place in the paper.
    higher, lower : the networks' names.
    """
    words = f"{attack_named(metric)} accuracy"
    first, second = (Quantity(f"{name}: {words}", measured.accuracy(name, metric)) for name in (higher, lower))
    return Claim(text, source, first, second, measured.minus(higher, lower, metric))


def validated(setup: Setup, networks: Networks, students: Sequence[Student]) -> pd.DataFrame:
    """Return students' accuracies on the held-out images, to choose among them.

    Parameters
    ----------
    setup : gives the held-out images and the attack, which are those that choose epochs; `n_val` is above 0.
    networks : as :func:`train` returns them.
    students : those to choose from.

    Returns
    -------
    A line per student, in their order: student (its name), method, teacher, clean, robust: means over the seeds, as
    fractions.
    """
    found = selection.held_out(setup, [networks.students[str(student)] for student in students])
    return pd.DataFrame(
        {
            **{"student": str(student), "method": student.method, "teacher": student.guide.method},
            **asdict(of_student.accuracies),
        }
        for student, of_student in zip(students, found, strict=True)
    )
