"""RKD, Figure 2: what the teacher's robustness does to the student, whatever alpha and the teacher's epoch are."""

from collections.abc import Mapping, Sequence

import pandas as pd

from rkdkit.analysis import mixing
from rkdkit.analysis.mixing import ACCURATE, CLEAN, METHODS, ROBUST, Student
from rkdkit.analysis.selection import check_held_out
from rkdkit.analysis.white_box import WhiteBox, attack_named, highest, noted
from rkdkit.claims import Claim, Quantity
from rkdkit.profiles import PROFILES, rkd
from rkdkit.setup import Exhibit, Setup

EXHIBIT = Exhibit(
    paper="RKD, Figure 2",
    differs={profile: rkd(profile) for profile in PROFILES},
    unused=("select_on", "teacher_method", "peer"),
    trains=("Natural", "PGD-AT", "AKD", *METHODS),
    says=lambda setup: f"Held-out images: {setup.profile.n_val:,}; others might choose other students.",
    own=dict.fromkeys(("stops", "alphas", "robust")),
)

SOURCE = "RKD, Figure 2 and section 3.4"

_WORDS = {ACCURATE: "an accurate", ROBUST: "a robust"}

FIRST = {"AKD+": (ACCURATE, ROBUST), "RSLAD+": (ROBUST, ROBUST), "ARD+": (ACCURATE, ACCURATE)}
"""The teachers of the most accurate and of the most robust student, by method, as section 3.4 says."""


def students(
    setup: Setup, stops: Sequence[float] | None = None, alphas: Sequence[float] | None = None
) -> list[Student]:
    """Return the students of the figure, which are those of Figure 1.

    Parameters
    ----------
    setup, stops, alphas : as `mixing.grid`.

    Raises
    ------
    ValueError
        As `mixing.grid`, and if no images are held out to choose the best students on.
    """
    check_held_out(setup)
    return mixing.grid(setup, stops, alphas)


ANY = "any"
"""In place of a teacher: the best student of a method, whoever taught it."""


def chosen(validated: pd.DataFrame) -> pd.DataFrame:
    """Choose each method's best students on the held-out images.

    Parameters
    ----------
    validated : as `mixing.validated` returns it.

    Returns
    -------
    A line per method and teacher, or `ANY` teacher, in that index: the names of the students with the highest clean
    accuracy (column clean), robust accuracy (robust) and mean of both (balanced). Of several equal ones, the first.
    """
    scores = validated.assign(balanced=(validated.clean + validated.robust) / 2).set_index("student")
    either = pd.concat([scores, scores.assign(teacher=ANY)])
    return pd.DataFrame(
        [
            {
                "method": method,
                "teacher": teacher,
                **{aim: part[aim].idxmax() for aim in ("clean", "robust", "balanced")},
            }
            for (method, teacher), part in either.groupby(["method", "teacher"], sort=False)
        ]
    ).set_index(["method", "teacher"])


def check_claims(measured: WhiteBox, students: Sequence[Student], best: pd.DataFrame) -> list[Claim]:
    """Check what the paper says of its Figure 2 (section 3.4).

    What teachers "tend" to do is judged by the mean over all students of a method and a teacher. The best students were
    chosen on held-out images: the best of several on the test images would be there partly by chance.

    Parameters
    ----------
    measured : all students, under their names.
    students : the students.
    best : as :func:`chosen` returns it.
    """
    robust = mixing.robust_metric(measured)
    metrics = {"clean": CLEAN, "robust": robust}
    of = {teacher: [str(s) for s in students if (s.method, s.guide.method) == ("AKD+", teacher)] for teacher in _WORDS}
    tend = "By AKD+, students of {} teachers have a higher {} accuracy on average than those of {} ones."
    claims = [
        _on_average(measured, CLEAN, tend.format("accurate", "clean", "robust"), of, (ACCURATE, ROBUST)),
        _on_average(measured, robust, tend.format("robust", "robust", "accurate"), of, (ROBUST, ACCURATE)),
    ]
    for method, firsts in FIRST.items():
        for (aim, metric), first in zip(metrics.items(), firsts, strict=True):
            other = ACCURATE if first == ROBUST else ROBUST
            text = f"Of the students by {method}, the one with the highest {aim} accuracy has {_WORDS[first]} teacher."
            names = (str(best.loc[(method, teacher), aim]) for teacher in (first, other))
            claims.append(mixing.more(measured, metric, text, SOURCE, *names))
    for aim, metric in metrics.items():
        name, *others = (str(best.loc[(method, ANY), aim]) for method in METHODS)
        words = f"{attack_named(metric)} accuracy"
        text = f"AKD+ is the best method to maximise the {aim} accuracy alone."
        claims.append(highest(measured, name, others, metric, words, text, SOURCE))
    rslad, akd = (str(best.loc[(method, ANY), "balanced"]) for method in ("RSLAD+", "AKD+"))
    return noted([*claims, _balanced(measured, rslad, akd)], measured)


def _on_average(
    measured: WhiteBox, metric: str, text: str, of: Mapping[str, Sequence[str]], teachers: tuple[str, str]
) -> Claim:
    """Compare the means over the students of two teachers, image by image; the first is said to be higher."""
    words = attack_named(metric)
    sides = [
        (
            f"students of {mixing.TEACHERS[teacher]} teachers ({len(of[teacher])}): mean {words} accuracy",
            {(name, metric): 1 / len(of[teacher]) for name in of[teacher]},
        )
        for teacher in teachers
    ]
    return _compared(measured, text, *sides)


def _balanced(measured: WhiteBox, rslad: str, akd: str) -> Claim:
    metrics = (CLEAN, mixing.robust_metric(measured))
    text = "RSLAD+ is the better method for a balanced performance: for the mean of clean and robust accuracy."
    sides = [
        (f"{name}: mean of clean and robust accuracy", {(name, metric): 1 / 2 for metric in metrics})
        for name in (rslad, akd)
    ]
    return _compared(measured, text, *sides)


_Mean = tuple[str, dict[tuple[str, str], float]]
"""The name of a mean of accuracies, and the weights of the accuracies in it."""


def _compared(measured: WhiteBox, text: str, higher: _Mean, lower: _Mean) -> Claim:
    first, second = (Quantity(name, measured.combination(weights)) for name, weights in (higher, lower))
    apart = higher[1] | {key: -weight for key, weight in lower[1].items()}
    return Claim(text, SOURCE, first, second, measured.combination(apart))
