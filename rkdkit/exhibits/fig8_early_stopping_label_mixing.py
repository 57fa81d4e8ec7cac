"""RKD, Figures 1 and 4: what stopping the teacher early and mixing labels in do to the student."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import pandas as pd

from rkdkit.analysis import mixing
from rkdkit.analysis.mixing import ACCURATE, CLEAN, ROBUST, Networks, Student
from rkdkit.analysis.state_of_the_art import FILES, FRACTION, RECIPE, set_otherwise
from rkdkit.analysis.white_box import WhiteBox
from rkdkit.claims import Claim, Quantity, below_guessing
from rkdkit.comparisons import Guide
from rkdkit.profiles import PROFILES, rkd
from rkdkit.setup import Exhibit, Setup

EXHIBIT = Exhibit(
    paper="RKD, Figures 1 and 4",
    differs={profile: rkd(profile) for profile in PROFILES},
    unused=("select_on", "teacher_method", "peer"),
    trains=("Natural", "PGD-AT", "AKD", *mixing.METHODS),
    own=dict.fromkeys(("paper_figure", "stops", "alphas", "compressed", "extra", "robust")),
)

COMPRESSED: dict[str, tuple[str, str]] = {
    "smoke": ("resnet18/16", "resnet18/16"),
    **dict.fromkeys(("quick", "small"), ("resnet18/8", "resnet18/4")),
    "paper": ("resnet18", "wrn-28-10-silu"),
}
"""The networks of Figure 4's students and of their teacher, by profile; it is larger, but at "smoke" to save time."""

STATE_OF_THE_ART = {
    **{name: value for name, value in RECIPE.items() if name not in ("attack_steps", "snapshot_every")},
    "augmentation": "crop-flip-cutout",
}
"""How Figure 4's teacher is trained at "paper": fields of `RunSpec` that differ from RKD's other teachers.

It is the recipe of `state_of_the_art`, but under RKD's PGD-7, and with the snapshots that early stopping needs.
"""

CURVE_STOPS: dict[str, tuple[float, ...]] = {
    "smoke": (0.4, 1.0),
    **dict.fromkeys(("quick", "small"), (0.2, 0.4, 0.6, 0.8, 1.0)),
    "paper": (0.05, 0.125, 0.25, 0.5, 0.75, 1.0),
}
"""Figure 4a: the shares of the teacher's epochs after which it is stopped, by profile."""

CURVE_ALPHAS = {"smoke": (0.3, 1.0)}
"""Figure 4b: the weights of the teacher's outputs, by profile; others: `ALL_ALPHAS`."""

ALL_ALPHAS = (0.2, 0.4, 0.6, 0.8, 1.0)

CURVE_STOP = {"paper": 0.25}
"""Figure 4b: the share of the teacher's epochs after which it is stopped, by profile: epoch 100; others: its last."""

FEW, MANY, HIGH = 0.3, 0.7, 0.8
"""RKD's best alphas with a naturally and with an adversarially trained teacher (section 3.1), and with many of its best
students (Table 2), whose value stands for the "high" alpha of section B.1."""


@dataclass(frozen=True)
class Students:
    """The students of both figures, or of one: the others are none.

    Attributes
    ----------
    grid : Figure 1.
    over_epoch : Figure 4a: AKD from a larger teacher that is stopped at several epochs.
    over_alpha : Figure 4b: AKD+ from that teacher at one epoch, with several alphas.
    """

    grid: Sequence[Student]
    over_epoch: Sequence[Student]
    over_alpha: Sequence[Student]

    @property
    def all(self) -> list[Student]:
        """All students, each once."""
        return list(dict.fromkeys((*self.grid, *self.over_epoch, *self.over_alpha)))


def students(
    setup: Setup,
    stops: Sequence[float] | None = None,
    alphas: Sequence[float] | None = None,
    compressed: Sequence[str] | None = None,
    extra: str | None = None,
    paper_figure: int | None = None,
) -> Students:
    """Return the students of both figures, or of one.

    Parameters
    ----------
    setup : the notebook's parameters.
    stops, alphas : as `mixing.grid`; None: the profile's, which are finer in Figure 4.
    compressed : the networks of Figure 4's students and of their teacher; None: `COMPRESSED` of the profile.
    extra : generated images for Figure 4's teacher, as `data.load_extra` takes them; "": none; None: at "paper" the
        file of DDPM's images for the dataset, if there is one, at other profiles none.
    paper_figure : 1 or 4, RKD's figure; None: both.

    Raises
    ------
    UnknownNameError, ValueError
        If a network is not known, a list or a figure does not fit, or one figure alone has a parameter of the other.
    """
    if paper_figure not in (None, 1, 4):
        raise ValueError(f"paper_figure must be 1 or 4, or None for both, not {paper_figure!r}.")
    if paper_figure == 1 and (compressed is not None or extra is not None):
        raise ValueError("compressed and extra are of Figure 4: leave them out, or set paper_figure to 4 or None.")
    if paper_figure == 4 and "student" in setup.profile.fixed:
        raise ValueError("student is of Figure 1: leave it out, and name Figure 4's networks by compressed.")
    grid = [] if paper_figure == 4 else mixing.grid(setup, stops, alphas)
    if len({student.alpha for student in grid}) > 10:
        raise ValueError("alphas must list at most 10 shares: each has a marker of its own in the picture.")
    if paper_figure == 1:
        return Students(grid, [], [])
    name = setup.profile.name
    pair = COMPRESSED[name] if compressed is None else compressed
    if not isinstance(pair, list | tuple) or len(pair) != 2:
        raise ValueError(f"compressed must name two networks, the student's and the teacher's, not {pair!r}.")
    student, teacher = pair
    guide = Guide(ROBUST, network=teacher, changes=_larger_teacher(setup, extra))
    stopped = mixing.stopped_guides(setup, guide, mixing.shares("stops", stops, CURVE_STOPS[name]))
    curve_alphas = mixing.shares("alphas", alphas, CURVE_ALPHAS.get(name, ALL_ALPHAS))
    ((epoch, at),) = mixing.stopped_guides(setup, guide, [CURVE_STOP.get(name, 1.0)]).items()
    over_epoch = [Student("AKD+", each, stop, 1.0, student) for stop, each in stopped.items()]
    over_alpha = [Student("AKD+", stopped.get(epoch, at), epoch, alpha, student) for alpha in curve_alphas]
    return Students(grid, over_epoch, over_alpha)


def _larger_teacher(setup: Setup, extra: str | None) -> dict[str, Any]:
    """Return how Figure 4's teacher is trained; what the notebook's user set is kept.

    It is not `Further.changes`: below "paper" this teacher is trained as all others, and its network is given.
    """
    changes: dict[str, Any] = {}
    if setup.profile.recipes:
        fixed = set_otherwise(setup.profile.fixed)
        changes = {field: value for field, value in STATE_OF_THE_ART.items() if field not in fixed}
        extra = FILES.get((setup.profile.dataset, "DDPM")) if extra is None else extra
    return changes | ({"extra": extra, "extra_fraction": FRACTION} if extra else {})


def table(measured: WhiteBox, networks: Networks, shown: Students) -> pd.DataFrame:
    """Return the numbers of what is shown, as `mixing.table`, with the column figure: "1a" to "1f", "4a" or "4b"."""
    figures = {"1": shown.grid, "4a": shown.over_epoch, "4b": shown.over_alpha}
    parts = {figure: mixing.table(measured, networks, of) for figure, of in figures.items() if of}
    panels = {figure: mixing.panels_of_figure_1(part) if figure == "1" else figure for figure, part in parts.items()}
    return pd.concat([part.assign(figure=panels[figure]) for figure, part in parts.items()], ignore_index=True)


_Compared = tuple[str, str, str, str, str]
"""A claim's sentence, its place in the paper, the metric, and the networks that are said to be better and worse."""


def check_claims(measured: WhiteBox, shown: Students) -> list[Claim]:
    """Check what the paper says of its Figures 1 and 4 (sections 3.1, 3.2 and B.1).

    Where the paper names a value, the nearest one that was tried is taken: alpha 0.3 and 0.7 (section 3.1), 0.8 (Table
    2), and a teacher stopped after 0.4 of its epochs (Table 2). Each choice is looked at alone: the other is the same
    on both sides. A claim whose two sides would be one network is left out.

    Parameters
    ----------
    measured : all students and teachers, under their names.
    shown : the students.
    """
    robust, grid = mixing.robust_metric(measured), shown.grid
    rows = [*_label_mixing(measured, grid, robust), *_early_stopping(measured, grid, robust)] if grid else []
    rows += _of_larger_teacher(measured, shown, robust) if shown.over_epoch else []
    claims = [
        mixing.more(measured, metric, f"{text}.", f"RKD, {place}", higher, lower)
        for text, place, metric, higher, lower in rows
        if higher != lower
    ]
    if max((student.alpha for student in grid), default=0) < 1:
        return claims
    name = _name(grid, "AKD+", ACCURATE, mixing.early_and_last(grid)[1], 1.0)
    text = "Without labels (alpha 1), AKD+ makes the student of an accurate teacher no more robust than guessing."
    sides = below_guessing(Quantity(f"{name}: robust accuracy", measured.accuracy(name, robust)), measured.num_classes)
    return [Claim(text, "RKD, Figure 1a and section 3.1", *sides), *claims]


def _label_mixing(measured: WhiteBox, grid: Sequence[Student], robust: str) -> list[_Compared]:
    alphas = [student.alpha for student in grid]
    few, many, full = mixing.nearest(alphas, FEW), mixing.nearest(alphas, MANY), max(alphas)
    last = mixing.early_and_last(grid)[1]
    alone = mixing.finished(measured, next(student.guide for student in grid if student.guide.method == ROBUST))

    def student(method: str, teacher: str, alpha: float) -> str:
        return _name(grid, method, teacher, last, alpha)

    best = student("AKD+", ACCURATE, few)
    text = f"With an accurate teacher and alpha {few:g}, AKD+ is more"
    place = "Figure 1a and section 3.1"
    return [
        (f"{text} robust than with alpha {full:g}", place, robust, best, student("AKD+", ACCURATE, full)),
        (f"{text} accurate than {ROBUST} without a teacher", place, CLEAN, best, alone),
        *(
            (
                f"With a robust teacher, {method} is more robust with alpha {many:g} than with {other:g}",
                f"Figure {figure} and section 3.1",
                *(robust, student(method, ROBUST, many), student(method, ROBUST, other)),
            )
            for method, figure, other in (("AKD+", "1b", full), ("RSLAD+", "1d", full), ("AKD+", "1b", few))
        ),
    ]


def _early_stopping(measured: WhiteBox, grid: Sequence[Student], robust: str) -> list[_Compared]:
    alpha = mixing.nearest([student.alpha for student in grid], MANY)
    early, last = mixing.early_and_last(grid)

    def student(method: str, epoch: int) -> str:
        return _name(grid, method, ROBUST, epoch, alpha)

    latest = mixing.in_words(measured, grid)
    text = f"is more robust with the robust teacher of epoch {early} than with that of {latest}"
    cost = f"AKD+ has a lower clean accuracy with the robust teacher of epoch {early} than with that of epoch {last}"
    place = "Figure 1b and section 3.2"
    return [
        (f"AKD+ {text}", place, robust, student("AKD+", early), student("AKD+", last)),
        (f"RSLAD+ {text}", "Figure 1d and section 3.2", robust, student("RSLAD+", early), student("RSLAD+", last)),
        (cost, place, CLEAN, student("AKD+", last), student("AKD+", early)),
    ]


def _of_larger_teacher(measured: WhiteBox, shown: Students, robust: str) -> list[_Compared]:
    by_epoch = {student.epoch: str(student) for student in shown.over_epoch}
    by_alpha = {student.alpha: str(student) for student in shown.over_alpha}
    early, last = mixing.early_and_last(shown.over_epoch)
    if (chosen := shown.over_alpha[0].epoch) != last and chosen in by_epoch:  # the paper's early epoch in Figure 4b
        early = chosen
    high, low = mixing.nearest(by_alpha, HIGH), min(by_alpha)
    one = shown.over_epoch[0]
    student = f"the {one.network} student of a robust {one.guide.network}"
    than = f"with the teacher of epoch {early} than with that of"
    text = f"By AKD, {student} is more robust {than} {mixing.in_words(measured, shown.over_epoch)}"
    cost = f"By AKD, {student} has a lower clean accuracy {than} {last}"
    mixed = f"By AKD+, {student} is more robust with a high alpha, {high:g}, than with {low:g}"
    return [
        (text, "Figure 4a and section B.1", robust, by_epoch[early], by_epoch[last]),
        (cost, "Figure 4a and section B.1", CLEAN, by_epoch[last], by_epoch[early]),
        (mixed, "Figure 4b and section B.1", robust, by_alpha[high], by_alpha[low]),
    ]


def _name(grid: Sequence[Student], method: str, teacher: str, epoch: int, alpha: float) -> str:
    return next(str(s) for s in grid if (s.method, s.guide.method, s.epoch, s.alpha) == (method, teacher, epoch, alpha))
