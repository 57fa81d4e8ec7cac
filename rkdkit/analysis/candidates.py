"""RKD's students among which the best is chosen, and the teacher alone that they are compared with (RKD section 3)."""

import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import pandas as pd

from rkdkit import attacks, comparisons
from rkdkit.analysis import mixing
from rkdkit.analysis.mixing import Student
from rkdkit.analysis.selection import Contest, Winner, check_held_out, choose_all
from rkdkit.analysis.white_box import WhiteBox, attack_named
from rkdkit.claims import Claim, Quantity
from rkdkit.comparisons import Entry, Guide, Students
from rkdkit.references import Snapshot
from rkdkit.setup import Setup

ALONE = "PGD-AT"
"""The method of the teacher alone, with which RKD compares its students."""

ONLY_TEACHER = "only teacher"
"""What RKD calls the line of the teacher alone."""

STOPS: dict[str, tuple[float, ...]] = {
    "smoke": (1.0,),
    "quick": (0.4, 1.0),
    "small": (0.4, 1.0),
    "paper": mixing.STOPS["paper"],
}
"""The shares of a teacher's epochs after which it is stopped, by profile: values of RKD's Figure 1, to share its runs.

RKD does not print its grid. Of its teachers' 100 epochs, Table 2 names 20, 40, 80 and 100.
"""

ALPHAS: dict[str, tuple[float, ...]] = {
    "smoke": (0.3,),
    "quick": (0.3, 0.7),
    "small": (0.3, 0.7),
    "paper": (0.2, 0.3, 0.5, 0.7, 0.8, 1.0),
}
"""The weights of the teacher's outputs, RKD's alpha, by profile: those that section 3.1 and Table 2 name."""

UNLIMITED = {
    *((table, "AKD+", "PGD-AT") for table in ("Table 3", "Table 4", "Table 5")),
    *((table, "AKD+", "FFGSM-AT") for table in ("Table 3", "Table 5")),
    ("Table 3", "RSLAD+", "PGD-AT"),
    ("Table 10", "RSLAD+", "FFGSM-AT"),
}
"""Robust students that may lose any clean accuracy, by table, method and the teacher's method; others have the limit.

RKD says of Tables 2 and 9 alone that its limit of 2 points holds, but some of its other numbers show it. Of PGD-AT
teachers, RSLAD+ has two students: Table 3's loses 2.4 points, so it has no limit; that of Tables 4 and 10 is Table 2's,
which has it. Of FFGSM-AT teachers, Table 10's loses 3.6 points; Table 3's is less robust, so there the limit held.
AKD+'s students of one teacher lose less than 2 points in all tables, with or without a limit. They have none, because
section 3.5 says that robust accuracy is maximised, and names no limit.
"""

_SCHEDULES: dict[str, dict[str, Any]] = {
    "exponential": {"schedule": "exponential", "gamma": 0.9, "lr": 0.1},
    "multistep": {"schedule": "multistep", "gamma": 0.1, "lr": 0.1},
    "onecycle": {"schedule": "onecycle", "lr": 0.21},
}
"""At "paper": the three schedules that RKD considers (section 3.3), with the learning rates of its appendix A.

Where the steps are is not stated; here they are at a half and at three quarters of the epochs.
"""


def students(
    setup: Setup,
    methods: Iterable[str],
    teachers: Iterable[Guide],
    network: str,
    stops: Sequence[float] | None = None,
    alphas: Sequence[float] | None = None,
) -> list[Student]:
    """Return all candidates: every method, teacher, epoch of the teacher and alpha.

    Parameters
    ----------
    setup : the notebook's parameters.
    methods : those of the students.
    teachers : when they are stopped is taken from `stops`.
    network : the students' network.
    stops, alphas : lists of shares in (0, 1]; None: :data:`STOPS` and :data:`ALPHAS` of the profile.

    Raises
    ------
    ValueError
        If a list is empty, or a value is not in (0, 1] or given twice.
    """
    methods, teachers = list(methods), list(teachers)
    if not (methods and teachers):
        raise ValueError("Students need at least one method and one teacher.")
    stops = mixing.shares("stops", stops, STOPS[setup.profile.name])
    alphas = mixing.shares("alphas", alphas, ALPHAS[setup.profile.name])
    stopped = [mixing.stopped_guides(setup, teacher, stops) for teacher in teachers]
    return [
        Student(method, guide, epoch, alpha, network)
        for method in methods
        for by_epoch in stopped
        for epoch, guide in by_epoch.items()
        for alpha in alphas
    ]


def alone(setup: Setup, network: str) -> dict[str, Entry]:
    """Return the teacher alone, trained for as many epochs as a teacher and its student together.

    Parameters
    ----------
    setup : the notebook's parameters.
    network : the teacher's network.

    Returns
    -------
    A line for `comparisons.train_entries` per schedule of the learning rate, by name. At "paper" there are three, of
    which one is chosen, unless the notebook sets a schedule; other profiles have theirs.
    """
    scale = setup.profile
    epochs = 2 * scale.spec(ALONE, student=network).epochs
    schedules = _SCHEDULES if scale.recipes and "schedule" not in scale.fixed else {scale.schedule: {}}
    entries = {}
    for name, fields in schedules.items():
        changes = {field: value for field, value in fields.items() if field not in scale.fixed}
        if name == "multistep":
            changes["milestones"] = tuple(sorted({max(epochs // 2, 1), max(3 * epochs // 4, 1)}))
        entries[f"{network} alone, {name}"] = Entry(ALONE, (), {"student": network, "epochs": epochs, **changes})
    return entries


def choose_alone(
    setup: Setup, networks: Iterable[str], trained: Mapping[str, Sequence[Snapshot]]
) -> dict[str, Winner[str]]:
    """Return the teacher alone of each network: on held-out images, the most robust of those of :func:`alone`.

    Parameters
    ----------
    setup, networks : as :func:`alone`.
    trained : the snapshots by the names of :func:`alone`, one per seed.
    """
    return choose_all(
        setup,
        {
            network: Contest({name: trained[name] for name in alone(setup, network)}, "RKD-Rob.")
            for network in dict.fromkeys(networks)
        },
    )


@dataclass(frozen=True)
class Row:
    """A line of a table before its hyper-parameters are chosen.

    Attributes
    ----------
    name : the line's name.
    network : the network of its teacher alone.
    aim : "RKD-Acc.", "RKD-Rob." or `ONLY_TEACHER`.
    students : the candidates; () for a teacher alone.
    limited : whether the choice is limited by the accuracies of the teacher alone.
    """

    name: str
    network: str
    aim: str
    students: Sequence[Student] = ()
    limited: bool = True


@dataclass(frozen=True)
class Line:
    """A line of a table, chosen.

    Attributes
    ----------
    row : what it was chosen for.
    winner : the outcome; its key is a `Student`, or the name of a teacher alone.
    """

    row: Row
    winner: Winner[Any]


def train(setup: Setup, rows: Iterable[Row], further: Mapping[str, Entry] | None = None) -> Students:
    """Train the candidates of all rows and the teachers alone; runs that are in the store are used again.

    Parameters
    ----------
    setup : the notebook's parameters.
    rows : their candidates are named by ``str(student)``.
    further : lines to train beside them, by name.

    Raises
    ------
    UnknownNameError, ValueError
        As `comparisons.train_entries`; also if no images are held out to choose on.
    """
    check_held_out(setup)
    entries: dict[str, Entry] = {}
    for row in rows:
        entries |= {str(student): student.entry for student in row.students} | alone(setup, row.network)
    return comparisons.train_entries(setup, entries | dict(further or {}))


def choose(setup: Setup, rows: Sequence[Row], trained: Students) -> list[Line]:
    """Choose each row's hyper-parameters on held-out images, by RKD's rule.

    Parameters
    ----------
    setup, rows : as :func:`train`.
    trained : as :func:`train` returns it.
    """
    chosen = trained.chosen
    teachers = choose_alone(setup, (row.network for row in rows), chosen)
    contests = {
        row.name: Contest(
            {student: chosen[str(student)] for student in row.students},
            row.aim,
            teachers[row.network].snapshots if row.limited else None,
        )
        for row in rows
        if row.aim != ONLY_TEACHER
    }
    best: dict[str, Winner[Any]] = {**choose_all(setup, contests)}
    return [Line(row, best.get(row.name, teachers[row.network])) for row in rows]


def hyper_parameters(lines: Sequence[Line]) -> pd.DataFrame:
    """Return what was chosen for each line.

    Returns
    -------
    method (the line's name), network, selection (the row's aim); loss, teacher, early_stop (an epoch) and alpha of the
    student (of a teacher alone: its method, and nothing); within: whether the limit of the rule is kept; held_out_clean
    and held_out_robust: the accuracies that decided, as fractions.
    """
    return pd.DataFrame(
        {
            **{"method": line.row.name, "network": line.row.network, "selection": line.row.aim},
            **_chosen(line.winner.key),
            "within": line.winner.within,
            "held_out_clean": line.winner.held_out.clean,
            "held_out_robust": line.winner.held_out.robust,
        }
        for line in lines
    )


NONE_KEPT, NONE_ROBUST = (
    "no candidate kept the limit of the choice",
    "no candidate within the limit was more robust than guessing",
)
"""What a picture says of a choice that could not be what it aims at."""


def remarks(numbers: pd.DataFrame, guessing: Callable[[str], float]) -> pd.Series:
    """Return for each line whether its choice could not be what it aims at: `NONE_KEPT`, `NONE_ROBUST` or "".

    Parameters
    ----------
    numbers : method, within, and perhaps selection and held_out_robust as :func:`hyper_parameters`; NaN: nothing was
        chosen.
    guessing : the accuracy of guessing, by method, as `WhiteBox.guessing`.
    """
    found = numbers.within.eq(False).map({True: NONE_KEPT, False: ""})
    if "held_out_robust" not in numbers:
        return found
    weak = (numbers.selection == "RKD-Rob.") & (numbers.held_out_robust <= numbers.method.map(guessing))
    weak &= numbers.within.eq(True)
    return found.mask(weak, NONE_ROBUST)


def test_attacks(setup: Setup) -> dict[str, attacks.Attack | None]:
    """Return natural images, PGD and AutoAttack, by metric: what RKD's tables measure.

    Raises
    ------
    ValueError
        If the data have too few classes for AutoAttack.
    """
    return {metric: attack for metric, attack in setup.test_attacks().items() if metric != "fgsm"}


def larger_gain(
    measured: WhiteBox, first: tuple[str, str], second: tuple[str, str], metric: str, text: str, source: str
) -> Claim:
    """Return the claim that one gain in accuracy is larger than another, all measured on the same images.

    Parameters
    ----------
    measured : the measurements of all four networks.
    first, second : for each gain, the names of the better network and of the one it is compared with.
    metric : the metric of all accuracies.
    text, source : the claim's sentence, and its place in the paper.
    """
    weights = dict.fromkeys([(name, metric) for name in (*first, *second)], 0.0)
    for name, weight in zip((*first, *second), (1, -1, -1, 1), strict=True):
        weights[name, metric] += weight  # a network may be in both gains
    higher, lower = (
        Quantity(f"{better} minus {other}, {attack_named(metric)} accuracy", measured.minus(better, other, metric))
        for better, other in (first, second)
    )
    return Claim(text, source, higher, lower, measured.combination(weights))


def _chosen(key: Student | str) -> dict[str, Any]:
    if isinstance(key, Student):
        return {"loss": key.method, "teacher": key.guide.method, "early_stop": key.epoch, "alpha": key.alpha}
    return {"loss": ALONE, "teacher": "", "early_stop": math.nan, "alpha": math.nan}
