"""RKD, Figure 3: students of accurate and robust teachers together, by the weight of the robust ones."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import pairwise

import pandas as pd

from rkdkit import checks, comparisons
from rkdkit.analysis import mixing
from rkdkit.analysis.mixing import ACCURATE, CLEAN, ROBUST, trade_off
from rkdkit.analysis.white_box import WhiteBox, attack_named
from rkdkit.claims import Claim, Quantity, deciding, difference_in_words
from rkdkit.comparisons import Entry, Guide
from rkdkit.profiles import PROFILES, rkd
from rkdkit.references import Snapshot
from rkdkit.setup import Exhibit, Setup
from rkdkit.statistics import Estimate

EXHIBIT = Exhibit(
    paper="RKD, Figure 3",
    differs={profile: rkd(profile) for profile in PROFILES},
    unused=("select_on", "teacher_method", "peer"),
    trains=("Natural", "PGD-AT", "AKD+"),
    own={"betas": None, "alpha": 0.5, "early_stop": 1.0, "robust": None},
)

BETAS: dict[str, tuple[float, ...]] = {
    "smoke": (0.0, 0.5, 1.0),
    "quick": (0.0, 0.2, 0.4, 0.6, 0.8, 1.0),
    "small": (0.0, 0.25, 0.5, 0.75, 1.0),
    "paper": tuple(i / 10 for i in range(11)),
}
"""The weights of the robust teachers, RKD's beta, by profile. RKD does not print those of its Figure 3."""

EACH = 2
"""The number of teachers of each kind."""

SOURCE = "RKD, Figure 3 and section 3.6"


@dataclass(frozen=True)
class Ensembles:
    """Students of an ensemble of accurate and robust teachers, and the teachers.

    Attributes
    ----------
    students : the snapshots of each student, one per seed, by beta in ascending order.
    teachers : the snapshots of each teacher, one per seed, by its name.
    kinds : the method that trains each teacher, by its name.
    alpha : RKD's alpha of all students.
    """

    students: Mapping[float, Sequence[Snapshot]]
    teachers: Mapping[str, Sequence[Snapshot]]
    kinds: Mapping[str, str]
    alpha: float


def named(beta: float) -> str:
    """Return a student's name: "AKD+, beta 0.5"."""
    return f"AKD+, beta {beta:g}"


def train(setup: Setup, betas: Sequence[float] | None = None, alpha: float = 0.5, early_stop: float = 1.0) -> Ensembles:
    """Train two accurate and two robust teachers and a student for each beta; runs in the store are used again.

    Parameters
    ----------
    setup : the notebook's parameters.
    betas : the weights of the robust teachers together, in [0, 1], with both 0 and 1; None: `BETAS` of the profile. Two
        teachers of one kind have the same weight; those of weight 0 are left out.
    alpha : the weight of all teachers together, RKD's alpha, in (0, 1]; the labels have the rest.
    early_stop : the share of its epochs after which each teacher is stopped.

    Raises
    ------
    ValueError
        If a share is out of its range, or `betas` does not have both ends.
    """
    tried = mixing.shares("betas", betas, BETAS[setup.profile.name], zero=True)
    if not {0.0, 1.0} <= set(tried):
        raise ValueError(f"betas must have 0 and 1, the two kinds of teachers alone, not only {list(tried)}.")
    checks.number("alpha, the weight of all teachers together,", alpha, 0, 1)
    if alpha == 0:
        raise ValueError("alpha must be above 0: with 0, the teachers teach nothing.")
    guides = {
        f"{kind} {i + 1}": Guide(kind, stopped=early_stop, another=i)
        for kind in (ACCURATE, ROBUST)
        for i in range(EACH)
    }
    entries = {named(beta): _entry(guides.values(), beta, alpha) for beta in tried}
    trained = comparisons.train_entries(setup, entries)
    teachers = comparisons.choose_guides(setup, guides)
    kinds = {name: guide.method for name, guide in guides.items()}
    return Ensembles({beta: trained.chosen[named(beta)] for beta in tried}, teachers, kinds, alpha)


def _entry(guides: Iterable[Guide], beta: float, alpha: float) -> Entry:
    of_kind = {ACCURATE: (1 - beta) / EACH, ROBUST: beta / EACH}
    weighted = (replace(guide, weight=of_kind[guide.method]) for guide in guides)
    return Entry("AKD+", tuple(guide for guide in weighted if guide.weight), {"settings": {"mixing": alpha}})


def networks(trained: Ensembles) -> dict[str, Sequence[Snapshot]]:
    """Return all networks that are measured, under their names."""
    return {**{named(beta): of_seeds for beta, of_seeds in trained.students.items()}, **trained.teachers}


def table(measured: WhiteBox, trained: Ensembles) -> pd.DataFrame:
    """Return the accuracies of students and teachers.

    Returns
    -------
    A line per network: role ("student" or "teacher"), name, teacher (the method of a teacher; "" for a student), beta
    and alpha (NaN for a teacher), then the columns of `mixing.trade_off`.
    """
    students = [
        {"role": "student", "name": named(beta), "teacher": "", "beta": beta, "alpha": trained.alpha}
        for beta in trained.students
    ]
    teachers = [
        {"role": "teacher", "name": name, "teacher": kind, "beta": float("nan"), "alpha": float("nan")}
        for name, kind in trained.kinds.items()
    ]
    return pd.DataFrame({**line, **trade_off(measured, str(line["name"]))} for line in (*students, *teachers))


def check_claims(measured: WhiteBox, betas: Sequence[float]) -> list[Claim]:
    """Check what the paper says of its Figure 3 (section 3.6).

    Parameters
    ----------
    measured : all students, under the names of :func:`named`.
    betas : the weights of the robust teachers, in ascending order from 0 to 1.
    """
    robust = mixing.robust_metric(measured)
    half = mixing.nearest(betas, 0.5)
    whole = [
        ("Robust teachers make the student more robust than accurate ones", robust, 1.0, 0.0),
        ("Accurate teachers make the student more accurate than robust ones", CLEAN, 0.0, 1.0),
    ]
    between = [
        ("{} is more robust than accurate teachers alone", robust, half, 0.0),
        ("{} is less robust than robust teachers alone", robust, 1.0, half),
        ("{} is more accurate than robust teachers alone", CLEAN, half, 1.0),
        ("{} is less accurate than accurate teachers alone", CLEAN, 0.0, half),
    ]
    mixed = f"A mixture (beta {half:g})"
    claims = [
        mixing.more(measured, metric, f"{text.format(mixed)}.", SOURCE, named(higher), named(lower))
        for text, metric, higher, lower in (*whole, *(between if 0 < half < 1 else []))
    ]
    if len(betas) < 4:  # one of two steps always makes half of the change
        return claims
    return [*claims, _smooth(measured, robust, betas), _smooth(measured, CLEAN, betas[::-1])]


def _smooth(measured: WhiteBox, metric: str, path: Sequence[float]) -> Claim:
    """Check that no step along a path of betas, on which the accuracy is to rise, makes most of the change.

    The claim shows the step that decides (`claims.deciding`). It has a note where the accuracy may not change at all.
    """
    steps = list(pairwise(path))
    words = f"{attack_named(metric)} accuracy"
    place, margin, confidence = deciding(
        lambda confidence: [_margin(measured, metric, path, step, confidence) for step in steps]
    )
    first, second = steps[place]
    whole, step = (measured.minus(named(b), named(a), metric) for a, b in ((path[0], path[-1]), (first, second)))
    return Claim(
        f"The {words} changes smoothly with beta: no step of beta makes more than half of the whole change.",
        SOURCE,
        Quantity(f"half of the whole change of {words}", whole.linear(0.5)),
        Quantity(f"its change from beta {first:g} to {second:g}, the step that decides", step),
        margin,
        confidence,
        note="" if whole.low > 0 else f"the whole change is {difference_in_words(whole)}",
    )


def _margin(
    measured: WhiteBox, metric: str, path: Sequence[float], step: tuple[float, float], confidence: float
) -> Estimate:
    """Return half of the whole change minus that of one step, image by image."""
    weights = dict.fromkeys([(named(beta), metric) for beta in (path[0], path[-1], *step)], 0.0)
    for beta, weight in zip((path[0], path[-1], *step), (-0.5, 0.5, 1, -1), strict=True):
        weights[named(beta), metric] += weight  # a step begins or ends where the path does
    return measured.combination(weights, confidence)
