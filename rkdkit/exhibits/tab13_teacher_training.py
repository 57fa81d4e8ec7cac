"""RKD, Tables 3, 4 and 11: how the teacher is trained, and what its students make of it."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import pandas as pd

from rkdkit import attacks, methods
from rkdkit.analysis import candidates, mixing
from rkdkit.analysis.candidates import ONLY_TEACHER, Line, Row
from rkdkit.analysis.selection import in_images
from rkdkit.analysis.state_of_the_art import FRACTION, further_images
from rkdkit.analysis.white_box import WhiteBox, noted, white_box
from rkdkit.claims import Claim
from rkdkit.comparisons import Entry, Guide, Students
from rkdkit.papers.reported import reported
from rkdkit.profiles import PROFILES, rkd
from rkdkit.setup import Exhibit, Setup

LOSSES = ("AKD+", "RSLAD+")
"""The methods of the students in all three tables."""

TEACHERS: dict[str, dict[str, str]] = {
    "Table 3": {"Natural": "RKD-Acc.", "FFGSM-AT": "RKD-Rob.", "PGD-AT": "RKD-Rob."},
    "Table 4": {"Natural": "RKD-Acc.", "Low-eps AT": "RKD-Acc.", "PGD-AT": "RKD-Rob."},
}
"""The methods that train the teachers, and what their students are chosen for.

Section 3.5 says for Table 3: students of natural teachers for clean accuracy, all others for robust accuracy. It does
not say it for Table 4; section 3.6 says that a small eps of the teacher serves the student's clean accuracy.
"""

REFERENCE = {"Table 3": "PGD-AT", "Table 4": "Natural", "Table 11": "AT+"}
"""The teacher with whose students the others of its table are compared."""

PAPER = " (paper)"
"""What a name ends with where the paper's number belongs to none of ours."""

ADVANCED = {"AT+": "PGD-AT", "TRADES+": "TRADES"}
"""Table 11's teachers, and the methods that train them."""

STUDENTS = (("AKD+", 0.8), ("AKD", 1.0), ("RSLAD+", 1.0), ("RSLAD+", 0.8))
"""Table 11's students and their alphas; at "smoke", the first one only."""

EXHIBIT = Exhibit(
    paper="RKD, Tables 3, 4 and 11",
    differs={profile: rkd(profile) for profile in PROFILES},
    unused=("select_on", "teacher_method", "teacher", "peer"),
    trains=("Natural", "FFGSM-AT", "Low-eps AT", "PGD-AT", "TRADES", "AKD", *LOSSES),
    own={"stops": None, "alphas": None, "extra": None, "extra_fraction": 0.7},
    says=in_images,
)


@dataclass(frozen=True)
class Trained:
    """The trained networks.

    Attributes
    ----------
    setup : the notebook's parameters.
    lines : the teacher alone, and the chosen lines of Tables 3 and 4.
    advanced : the names of Table 11's lines.
    students : all networks by name.
    """

    setup: Setup
    lines: Sequence[Line]
    advanced: Sequence[str]
    students: Students


def named(table: str, loss: str, teacher: str) -> str:
    """Return the name of a line of Table 3 or 4: "Table 3: AKD+ from PGD-AT"."""
    return f"{table}: {loss} from {teacher}"


def advanced_name(teacher: str, loss: str = "", alpha: float = 1.0) -> str:
    """Return the name of a line of Table 11: "Table 11: AKD+ (0.8) from AT+", or of the teacher: "Table 11: AT+"."""
    return f"Table 11: {loss} ({alpha:g}) from {teacher}" if loss else f"Table 11: {teacher}"


def train(
    setup: Setup,
    stops: Sequence[float] | None = None,
    alphas: Sequence[float] | None = None,
    extra: str | None = None,
    extra_fraction: float = FRACTION,
) -> Trained:
    """Train all teachers and students, and choose the students of Tables 3 and 4 on held-out images.

    Parameters
    ----------
    setup : the notebook's parameters.
    stops, alphas : what is tried for Tables 3 and 4, as `candidates.students`; None: the profile's.
    extra, extra_fraction : Table 11's generated images, as `data.load_extra` takes them, and their share of each batch;
        None: those of `state_of_the_art.further_images`, EDM's if there are several.

    Raises
    ------
    UnknownNameError, ValueError, DataNotFoundError
        If a parameter does not fit, or a file of generated images is not there, before anything is trained.
    """
    network = setup.profile.teacher_network
    rows = [Row(ONLY_TEACHER, network, ONLY_TEACHER)]
    for table, teachers in TEACHERS.items():
        for loss in LOSSES:
            for teacher, aim in teachers.items():
                tried = candidates.students(setup, [loss], [Guide(teacher, network=network)], network, stops, alphas)
                limited = (table, loss, teacher) not in candidates.UNLIMITED
                rows.append(Row(named(table, loss, teacher), network, aim, tried, limited))
    advanced = _advanced(setup, extra, extra_fraction)
    students = candidates.train(setup, rows, advanced)
    return Trained(setup, candidates.choose(setup, rows, students), list(advanced), students)


def measure(trained: Trained, by: Mapping[str, attacks.Attack | None]) -> tuple[WhiteBox, WhiteBox]:
    """Measure Tables 3 and 4 under all attacks, and Table 11, as the paper does, under all but AutoAttack.

    Parameters
    ----------
    trained : as :func:`train` returns it.
    by : the attacks by metric; None: natural images.
    """
    setup, fewer = trained.setup, {metric: attack for metric, attack in by.items() if metric != "autoattack"}
    chosen = {line.row.name: line.winner.snapshots for line in trained.lines}
    of_table_11 = {name: trained.students.chosen[name] for name in trained.advanced}
    return (
        white_box(chosen, setup.images, by, n=setup.n_of(by)),
        white_box(of_table_11, setup.images, fewer, n=setup.n_of(fewer)),
    )


def paper_numbers() -> pd.DataFrame:
    """Return the paper's numbers, and those of the teacher alone from Table 2, whose caption Table 3 repeats.

    Returns
    -------
    method (the line's name), metric, paper (a fraction), paper_dataset and paper_network.
    """
    parts = []
    for table in TEACHERS:
        numbers = reported("rkd", table)
        teacher = numbers.guide.str.rsplit(" ", n=1).str[0]
        parts.append(numbers.assign(method=[named(table, *each) for each in zip(numbers.method, teacher, strict=True)]))
    advanced = reported("rkd", "Table 11")
    teacher = advanced.guide.str.split(" ").str[0]
    alpha = advanced.setting.str.extract(r"alpha=([\d.]+)")[0].astype(float)
    named_so = [
        advanced_name(guide, loss, share) if guide else advanced_name(loss)
        for loss, guide, share in zip(advanced.method, teacher, alpha, strict=True)
    ]
    alone = reported("rkd", "Table 2")
    alone = alone[(alone.network == "resnet18") & alone.setting.str.contains(ONLY_TEACHER)]
    numbers = pd.concat([alone.assign(method=ONLY_TEACHER), *parts, advanced.assign(method=named_so)])
    renamed = numbers.rename(columns={"dataset": "paper_dataset", "network": "paper_network"})
    return renamed.assign(paper=renamed.value / 100)[["method", "metric", "paper", "paper_dataset", "paper_network"]]


def beside_the_paper(measured: tuple[WhiteBox, WhiteBox], trained: Trained) -> pd.DataFrame:
    """Return our numbers with the paper's beside them, what was chosen, and the differences between teachers.

    Parameters
    ----------
    measured, trained : as :func:`measure` and :func:`train` return them.

    Returns
    -------
    As `WhiteBox.against`, with the columns of `candidates.hyper_parameters` and :func:`paper_numbers`; teacher_eps: the
    radius that the teacher was trained with; row: the line's name beside the one it is compared with.
    """
    subset = ":" in trained.setup.profile.dataset
    theirs = paper_numbers()
    about = candidates.hyper_parameters(trained.lines)
    rows, eps = [methods.METHODS.get(teacher) for teacher in about.teacher], trained.setup.profile.test_attack.eps
    about["teacher_eps"] = [eps * row.eps_factor * bool(row.attacks) if row else math.nan for row in rows]
    parts = []
    for each in measured:
        ours = each.table()
        of_these = theirs[theirs.method.str.startswith("Table 11") == (each is measured[1])]
        if subset:  # the paper has no numbers of a selection of classes
            of_these = of_these.assign(method=of_these.method + PAPER)
        both = ours.merge(of_these, on=["method", "metric"], how="outer").merge(about, on="method", how="left")
        both = both.assign(remark=candidates.remarks(both, each.guessing))
        parts.append(each.against({name: _reference(name) for name in both.method}, both))
    order = {name: i for i, name in enumerate([*about.method, *theirs.method, *measured[0].metrics])}
    numbers = pd.concat(parts).sort_values(
        ["method", "metric"], key=lambda names: names.str.removesuffix(PAPER).map(order), ignore_index=True
    )
    teacher = numbers.compared_with.str.removesuffix(PAPER).str.split(r": |from ", regex=True).str[-1]
    return numbers.assign(row=numbers.method + " \N{MINUS SIGN} " + teacher)


def check_claims(measured: tuple[WhiteBox, WhiteBox], robust: str = "pgd-20") -> list[Claim]:
    """Check what the paper says of its Tables 3, 4 and 11 (sections 3.5 and B.4).

    Parameters
    ----------
    measured : as :func:`measure` returns it.
    robust : the metric that decides about robustness: an attack that is feasible on all images.
    """
    at, trades, of_at, of_trades = (advanced_name(each, *by) for by in ((), ("AKD+", 0.8)) for each in ADVANCED)
    checked = [
        mixing.more(
            measured[0], metric, f"{loss}'s student of {better} is more {how} than that of {worse}.",
            f"RKD, {table} and section 3.5", named(table, loss, better), named(table, loss, worse),
        )
        for table, better, worse, metric, how in (
            ("Table 3", "PGD-AT", "FFGSM-AT", robust, "robust"),
            ("Table 3", "FFGSM-AT", "PGD-AT", "clean", "accurate"),
            ("Table 4", "Low-eps AT", "Natural", "clean", "accurate"),
            ("Table 4", "Low-eps AT", "Natural", robust, "robust"),
        )
        for loss in LOSSES
    ]  # fmt: skip
    of_advanced = [
        mixing.more(measured[1], metric, text, "RKD, Table 11 and section B.4", better, worse)
        for metric, better, worse, text in (
            (robust, trades, at, "The TRADES+ teacher is more robust than the AT+ teacher."),
            ("clean", at, trades, "The AT+ teacher is more accurate than the TRADES+ teacher."),
            ("clean", of_at, of_trades, "AKD+'s student of AT+ is more accurate than that of TRADES+."),
            (robust, of_at, of_trades, "AKD+'s student of AT+ is more robust than that of TRADES+."),
        )
    ]
    return noted(checked, measured[0]) + noted(of_advanced, measured[1])


def _advanced(setup: Setup, extra: str | None, fraction: float) -> dict[str, Entry]:
    """Return Table 11's lines; teachers and students are trained alike."""
    found = further_images({setup.profile.dataset: setup}, extra)
    images = next((each for each in found if each.generator == "EDM"), found[0])
    changes = images.changes(setup, fraction)
    entries: dict[str, Entry] = {}
    for teacher, method in ADVANCED.items():
        guides = (Guide(method, stopped=1.0, changes=changes),)
        entries[advanced_name(teacher)] = Entry(method, (), changes)
        for loss, alpha in STUDENTS[: 1 if setup.profile.name == "smoke" else None]:
            mixed = {} if loss == "AKD" else {"mixing": alpha}
            entries[advanced_name(teacher, loss, alpha)] = Entry(loss, guides, {**changes, "settings": mixed})
    return entries


def _reference(name: str) -> str:
    """Return the line that a line is compared with; "": none."""
    plain = name.removesuffix(PAPER)
    table, _, rest = plain.partition(": ")
    loss, words, teacher = rest.rpartition("from ")
    other = REFERENCE.get(table, teacher)
    return "" if teacher == other else f"{table}: {loss}{words}{other}{name[len(plain) :]}"
