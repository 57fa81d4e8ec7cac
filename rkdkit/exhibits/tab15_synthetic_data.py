"""RKD, Tables 1, 6, 7 and 8: students that are trained on generated images, too."""

import re
from collections.abc import Mapping, Sequence

import pandas as pd

from rkdkit.analysis import ensembles, mixing, state_of_the_art
from rkdkit.analysis.ensembles import IN_RKD, Networks, Taught, Trained
from rkdkit.analysis.selection import in_images
from rkdkit.analysis.state_of_the_art import FRACTION, Further
from rkdkit.analysis.white_box import WhiteBox, noted
from rkdkit.claims import Claim, Question, judged
from rkdkit.comparisons import Entry
from rkdkit.papers.reported import reported
from rkdkit.profiles import PROFILES, rkd
from rkdkit.setup import Exhibit, Setup

EXHIBIT = Exhibit(
    paper="RKD, Tables 1, 6, 7 and 8",
    differs={profile: rkd(profile) for profile in PROFILES},
    unused=("select_on", "teacher_method", "teacher", "peer"),
    trains=("PGD-AT", "Low-eps AT", "FFGSM-AT", "AKD", "AKD+", "RSLAD+", "ARD+"),
    own={"extra": None, "extra_fraction": 0.7, "n_teachers": None},
    says=in_images,
)

DATASETS = {"paper": ("cifar10", "cifar100")}
"""The datasets of the paper's tables, by the name of a profile."""

ALPHA = 0.8
"""The weight of the teacher's outputs where labels are mixed in (RKD section 4)."""

STOPPED = 0.25
"""The share of the teacher's epochs in Table 6's line "ES ep. 100": of 400, if RKD took the number of Rebuffi et al."""

AT, ACCURATE, ROBUST = "PGD-AT", "AKD+ from Low-eps AT", "AKD+ from AT"
"""Table 1's lines without generated images: no teacher, and students of two kinds of teachers.

The first is Table 2's "only teacher", which is trained for as many epochs as a teacher and its student together.
"""

SOTA, STOPPED_AKD = "AT+", "AKD, stopped teacher"
"""The line of the teacher with generated images, and of the student whose teacher is stopped early."""


_TABLE_7 = (SOTA, "AKD", "AKD+", "RSLAD", "RSLAD+")

FEWER: dict[tuple[str, str], tuple[str, ...]] = {
    ("cifar10", "EDM"): _TABLE_7,
    ("cifar100", "EDM"): _TABLE_7,
    ("cifar100", "DDPM"): (SOTA, "AKD+"),
}
"""The lines that the paper has by dataset and generator, where it has fewer than with DDPM's images for CIFAR-10."""


def several(method: str, number: int) -> str:
    """Return the name of the student of an ensemble of AT+ teachers: "AKD+ from 4 AT+"."""
    return f"{method} from {number} {SOTA}"


def teachers_of_at(dataset: str, number: int) -> int:
    """Return how many FFGSM-trained teachers Table 1's robust student has without generated images.

    Table 1 does not say it. Its numbers are Table 5's: of four teachers on CIFAR-10, of one on CIFAR-100.

    Parameters
    ----------
    dataset : the dataset.
    number : how many teachers an ensemble has.
    """
    return 1 if dataset == "cifar100" else number


def lines_with(further: Further, number: int, changes: Mapping[str, object]) -> dict[str, Entry]:
    """Return the lines that are trained with generated images, by name.

    Parameters
    ----------
    further : the images; with some of the paper's there are `FEWER` lines.
    number : how many teachers an ensemble has.
    changes : `Further.changes`; teachers and students are trained alike.
    """

    def line(method: str, alpha: float, n: int = 1, stopped: float = 1.0) -> Entry:
        return Taught(method, AT, n).entry(stopped, alpha, changes)

    lines = {
        SOTA: Entry(AT, (), changes),
        "AKD": line("AKD+", 1.0),
        STOPPED_AKD: line("AKD+", 1.0, stopped=STOPPED),
        "AKD+": line("AKD+", ALPHA),
        "RSLAD": line("RSLAD+", 1.0),
        "RSLAD+": line("RSLAD+", ALPHA),
        "ARD": line("ARD+", 1.0),
        "ARD+": line("ARD+", ALPHA),
        several("AKD", number): line("AKD+", 1.0, number),
        several("AKD+", number): line("AKD+", ALPHA, number),
    }
    kept = FEWER.get((further.dataset, further.generator), tuple(lines))
    return {name: lines[name] for name in kept}


def suffix(further: Further, first: Further) -> str:
    """Return what a line's name ends with: its data, where they are not the first."""
    generator = "" if further.generator == first.generator else f" ({further.generator})"
    return ensembles.on(further.dataset, first.dataset) + generator


def train(
    setup: Setup,
    extra: str | None = None,
    extra_fraction: float = FRACTION,
    number: int | None = None,
    stops: Sequence[float] | None = None,
    alphas: Sequence[float] | None = None,
) -> Trained:
    """Train teachers and students; runs that are in the store are used again.

    Parameters
    ----------
    setup : the notebook's parameters.
    extra : generated images, as `data.load_extra` takes them; None: those of `state_of_the_art.further_images`.
    extra_fraction : their share of each batch, above 0 and at most 1.
    number : how many teachers an ensemble has, as `ensembles.number_of_teachers`.
    stops, alphas : the hyper-parameters to choose among for Table 1's students, as `ensembles.train`.

    Raises
    ------
    DataNotFoundError
        If a file of generated images is not there, before anything is trained with it.
    ValueError
        As `RunSpec`, `ensembles.train` and `ensembles.number_of_teachers`, before anything is trained.
    """
    number = ensembles.number_of_teachers(setup, number)
    setups = ensembles.setups_of(setup, DATASETS)
    further = state_of_the_art.further_images(setups, extra)
    parts, choices = [], []
    for dataset, own in setups.items():
        end = ensembles.on(dataset, setup.profile.dataset)
        wanted = [Taught("AKD+", "Low-eps AT"), Taught("AKD+", "FFGSM-AT", teachers_of_at(dataset, number))]
        others: dict[str, Entry] = {}
        for images in further:
            if images.dataset == dataset:
                entries = lines_with(images, number, images.changes(own, extra_fraction))
                others |= {name + suffix(images, further[0]): entry for name, entry in entries.items()}
        chosen, rest = ensembles.train(own, wanted, others, stops, alphas)
        without = dict(zip((ACCURATE + end, ROBUST + end), chosen.students.values(), strict=True))
        parts.append(Networks(own, {AT + end: chosen.alone, **without, **rest}))
        choices.append(chosen.table().assign(method=list(without)))
    return Trained(number, parts, pd.concat(choices, ignore_index=True), [images.generator for images in further])


def paper_numbers(dataset: str, number: int = IN_RKD) -> pd.DataFrame:
    """Return the paper's four tables with the names of lines here, as `ensembles.beside_all` takes them.

    They are of ensembles of `ensembles.IN_RKD`: where ensembles have another number here, they stand beside no line.

    Parameters
    ----------
    dataset : the first dataset here, as `ensembles.named_by_dataset`.
    number : how many teachers an ensemble has here. The line of `ROBUST` does not name it; if it differs, the paper's
        line ends with " (paper)".
    """
    theirs = pd.concat([reported("rkd", f"Table {table}") for table in (1, 6, 7, 8)], ignore_index=True)
    lines = [_line(row) for row in theirs.itertuples()]
    there = ensembles.named_by_dataset(theirs.assign(method=lines), dataset)
    there = there.assign(method=there.method + there.setting.str.contains("EDM").map({True: " (EDM)", False: ""}))
    another = there.dataset.map(lambda its: teachers_of_at(its, number) != teachers_of_at(its, IN_RKD))
    apart = another & (pd.Series(lines) == ROBUST) & (":" not in dataset)
    return there.assign(method=there.method + apart.map({True: " (paper)", False: ""}))


def _line(row: object) -> str:
    """Return the name here of a line of the paper, without the ends that name its data."""
    method, guide, setting = (str(getattr(row, name)) for name in ("method", "guide", "setting"))
    if not setting:
        return {"": AT, "Low-eps AT": ACCURATE, "PGD-AT": ROBUST}[guide.rpartition(" ")[0]]
    if "early stop=100" in setting:
        return STOPPED_AKD
    # Table 7 calls RSLAD with alpha 1, which is RSLAD, RSLAD+
    name = method.removesuffix("+") if "alpha=1.0" in setting else method
    return several(name, IN_RKD) if f"teachers={IN_RKD}" in setting else name


def numbers_of(setup: Setup, trained: Trained, measured: WhiteBox) -> pd.DataFrame:
    """Return all numbers, with the paper's beside ours and how much each line differs from its reference.

    Parameters
    ----------
    setup, trained, measured : the parameters, the networks, and :func:`ensembles.measure` of them.

    Returns
    -------
    As `WhiteBox.against` and `ensembles.beside_all`; what lines are compared with: :func:`references`.
    """
    both = ensembles.beside_all(measured, trained.choices, paper_numbers(setup.profile.dataset, trained.number))
    return measured.against(references(list(dict.fromkeys(both.method))), both)


def references(lines: Sequence[str]) -> dict[str, str]:
    """Return what each line is compared with: AT+ on the same data; AT+ and what has no generated images with PGD-AT.

    Parameters
    ----------
    lines : the names of all lines, here or in the paper.
    """
    found = {}
    for line in lines:
        parts = re.fullmatch(r"(.*?)( on [^ (]+)?( \(.+\))?", line)
        assert parts is not None, "every name has this form"
        name, dataset, generator = parts.groups("")
        found[line] = AT + dataset if name in (AT, ACCURATE, ROBUST, SOTA) else SOTA + dataset + generator
    return {line: other for line, other in found.items() if other != line and other in lines}


def check_claims(measured: WhiteBox, number: int, robust: str) -> list[Claim]:
    """Check what the paper says of its Tables 1, 6 and 8, on the first data.

    Parameters
    ----------
    measured : all lines; a claim about one that is not among them (`FEWER`) is left out.
    number : how many teachers an ensemble has.
    robust : the metric that decides robustness.
    """
    table_1, table_6, table_8 = "RKD, Table 1", "RKD, Table 6 and section 4", "RKD, Table 8 and section 4"
    compared = [
        (table_1, "clean", ACCURATE, AT, "A weakly robust teacher makes the student more accurate than no teacher."),
        (table_1, robust, ROBUST, AT, "Robust teachers make the student more robust than no teacher."),
        (table_1, robust, SOTA, AT, "More data and averaged weights make adversarial training more robust."),
        (table_6, robust, "AKD", SOTA, "AKD's student is more robust than its AT+ teacher, without label mixing, too."),
        (table_6, robust, "AKD+", SOTA, "AKD+'s student is more robust than its AT+ teacher."),
        (table_6, "clean", "AKD+", SOTA, "AKD+'s student is more accurate than its AT+ teacher."),
        (table_6, robust, "RSLAD+", SOTA, "RSLAD+'s student is more robust than its AT+ teacher."),
        (table_6, robust, "AKD+", "RSLAD+", "AKD+ makes the student more robust than RSLAD+ does."),
        (table_6, robust, "AKD", STOPPED_AKD, "A teacher that was stopped early makes the student less robust."),
        (table_6, robust, "AKD+", "AKD", "Label mixing makes AKD's student more robust."),
        (table_6, robust, "ARD", "ARD+", "Label mixing makes ARD's student less robust."),
        (table_8, robust, several("AKD+", number), "AKD+", f"{number} teachers make AKD+'s student more robust."),
    ]  # fmt: skip

    def question(source: str, metric: str, higher: str, lower: str, text: str) -> Question:
        return Question(text, (higher, lower), lambda text: mixing.more(measured, metric, text, source, higher, lower))

    return noted(judged([question(*each) for each in compared], measured.evaluations), measured)
