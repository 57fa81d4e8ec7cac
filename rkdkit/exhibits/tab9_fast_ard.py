"""ARD, Tables 9 and 10: students trained as fast as by ordinary distillation, how robust they are, and how fast."""

import math

import pandas as pd

from rkdkit.analysis.distillation import SMALLER_TEACHER
from rkdkit.analysis.training_time import TrainingTimes, check_rounds
from rkdkit.analysis.white_box import WhiteBox, attack_named, highest, noted
from rkdkit.claims import Claim, Quantity, below
from rkdkit.comparisons import Entry, Guide, Students
from rkdkit.papers.reported import beside, reported, with_replications
from rkdkit.profiles import PROFILES, Profile, ard
from rkdkit.setup import Exhibit
from rkdkit.spec import RunSpec

EXHIBIT = Exhibit(
    paper="ARD, Tables 9 and 10",
    differs={profile: ard(profile) for profile in PROFILES},
    unused=("teacher_method", "peer", "n_autoattack"),
    trains=("PGD-AT", "TRADES", "KD", "ARD", "Free-AT", "Fast-ARD"),
    times=True,
)

REPLAYS = (4, 8)
"""How often each batch is used in a row: the paper's m."""

ROUNDS = {"smoke": 6}
"""Rounds in which training is timed, by the name of a profile; 20 at all others."""

SIMILAR = 1.1
"""Times whose ratio is below this count as equal; the paper gives no threshold, and its ratios are 0.99 to 1.004."""

REFERENCE = "PGD-AT"
"""The method whose training time is 1."""

FREE, FAST = {m: f"Free-AT (m={m})" for m in REPLAYS}, {m: f"Fast-ARD (m={m})" for m in REPLAYS}
KD, KD_OF_PGD_AT = "KD from TRADES", "KD from PGD-AT"

COMPARED = {**{FAST[m]: FREE[m] for m in REPLAYS}, **dict.fromkeys(("ARD", KD, KD_OF_PGD_AT), FAST[4])}
"""What is drawn: the line whose accuracy is subtracted, by line."""

TIMED = (REFERENCE, KD, "ARD", *FREE.values(), *FAST.values())
"""The lines whose training is timed: those of the paper's Table 10, and Free-AT."""

SOURCE_9, SOURCE_10 = "ARD, Table 9 and section 5.4", "ARD, Table 10 and section 5.4"


def entries(scale: Profile) -> dict[str, Entry]:
    """Return the lines of the exhibit.

    The students of KD, ARD and Fast-ARD have a TRADES teacher. A second student of KD has a ResNet-18 trained by PGD-AT
    for its teacher: in the paper, it is the most robust student of KD (Table 3). Below "paper", the teacher is the
    network that stands for it in the exhibit of that table, smaller than the TRADES teacher as in the paper.

    Parameters
    ----------
    scale : the exhibit's profile.
    """
    teacher = (Guide("TRADES"),)
    return {
        REFERENCE: Entry("PGD-AT"),
        KD: Entry("KD", teacher),
        KD_OF_PGD_AT: Entry("KD", (Guide("PGD-AT", network=SMALLER_TEACHER[scale.name]),)),
        "ARD": Entry("ARD", teacher),
        **{FREE[m]: Entry("Free-AT", changes={"settings": {"m": m}}) for m in REPLAYS},
        **{FAST[m]: Entry("Fast-ARD", teacher, {"settings": {"m": m}}) for m in REPLAYS},
    }


def rounds_at(scale: Profile, rounds: int | None = None) -> int:
    """Return in how many rounds training is timed.

    Parameters
    ----------
    scale : the exhibit's profile.
    rounds : the notebook's parameter; None: :data:`ROUNDS`.

    Raises
    ------
    ValueError
        If it is not a whole number, or too small for an interval.
    """
    return check_rounds(ROUNDS.get(scale.name, 20) if rounds is None else rounds)


def timed(trained: Students) -> dict[str, RunSpec]:
    """Return the runs whose training is timed, by line: those of the first seed."""
    return {name: trained.runs[name][0].spec for name in TIMED}


def paper_numbers() -> pd.DataFrame:
    """Return the paper's accuracies as `reported.with_replications`, by the exhibit's lines.

    They are those of Table 9 and, for KD, PGD-AT and ARD with the settings of Table 10, of Tables 3, 4 and 6.
    """
    table_9, table_3, table_4, table_6 = (with_replications(reported("ard", f"Table {i}")) for i in (9, 3, 4, 6))
    replayed = table_9.assign(method=table_9.method + " (" + table_9.setting.str.partition(";")[0] + ")")
    small = "mobilenetv2"
    others = [
        table_3[(table_3.network == small) & (table_3.method == "KD")].assign(method=KD_OF_PGD_AT),
        table_4[table_4.guide.str.startswith("TRADES")].assign(method=KD),
        table_6[(table_6.network == small) & (table_6.method == "PGD-AT")],
        table_6[(table_6.network == small) & table_6.setting.str.startswith("alpha=1;")],
    ]
    return pd.concat([replayed, *others], ignore_index=True)


def paper_hours() -> dict[str, float]:
    """Return the training times of the paper's Table 10 in hours, by the exhibit's lines."""
    table = reported("ard", "Table 10")
    lines = table.method.where(table.method != "KD", KD)
    lines = lines.where(table.method != "Fast-ARD", "Fast-ARD (" + table.setting.str.partition(";")[0] + ")")
    return dict(zip(lines, table.value, strict=True))


def beside_the_paper(measured: WhiteBox, times: TrainingTimes, dataset: str, network: str) -> pd.DataFrame:
    """Return accuracies and training times with the paper's beside them.

    Parameters
    ----------
    measured : all lines.
    times : those of :data:`TIMED`.
    dataset, network : as `reported.beside`.

    Returns
    -------
    As `WhiteBox.against`, and below the accuracies as `TrainingTimes.table`: there, `accuracy` is NaN, `paper` is the
    paper's hours, and `paper_ratio` is its hours divided by PGD-AT's. The column paper_unit names the unit of `paper`.
    """
    accuracies = beside(measured.table(), paper_numbers(), dataset, network)
    hours = paper_hours()
    of_training = times.table(REFERENCE).assign(paper_unit="h", compared_with="")
    of_training["paper"] = [hours.get(line, math.nan) for line in of_training.method]
    of_training["table"] = of_training.paper.notna().map({True: "Table 10", False: ""})
    of_training["paper_ratio"] = of_training.paper / hours[REFERENCE]
    both = [measured.against(COMPARED, accuracies).assign(paper_unit="fraction"), of_training]
    return pd.concat(both, ignore_index=True).fillna({"others": "", "source": ""})


def check_claims(measured: WhiteBox, times: TrainingTimes, robust: str = "pgd-20") -> list[Claim]:
    """Check what the paper's section 5.4 says of its Tables 9 and 10.

    The paper says that Fast-ARD's student is more robust than its most robust student of KD, 37.07 % against PGD-20,
    but its Table 3 has one of 38.21 %. Here Fast-ARD is compared with both of its kinds of KD.

    Parameters
    ----------
    measured, times : as :func:`beside_the_paper`.
    robust : the metric of robustness.
    """
    words = f"{attack_named(robust)} accuracy"

    def more_robust(first: str, second: str, text: str) -> Claim:
        higher, lower = (Quantity(f"{name}, {words}", measured.accuracy(name, robust)) for name in (first, second))
        return Claim(text, SOURCE_9, higher, lower, measured.minus(first, second, robust))

    def shorter(first: str, second: str, limit: float, limit_named: str, text: str) -> Claim:
        name = f"time of an update by {first} over {second}'s, on {times.measured_on}"
        return Claim(text, SOURCE_10, *below(limit, limit_named, Quantity(name, times.ratio(first, second))))

    equal = f"less than {SIMILAR:g} times as long"
    checked = [
        *(more_robust(FAST[m], FREE[m], f"With m={m}, Fast-ARD is more robust than Free-AT.") for m in REPLAYS),
        *(more_robust("ARD", FAST[m], f"Fast-ARD with m={m} is less robust than the full ARD.") for m in REPLAYS),
        highest(
            measured, FAST[4], [KD, KD_OF_PGD_AT], robust, words,
            "Fast-ARD with m=4 is more robust than both students of KD, of a TRADES and of a PGD-AT teacher.", SOURCE_9,
        ),
        shorter(
            "ARD", REFERENCE, SIMILAR, "what counts as equal",
            f"ARD takes about as long as adversarial training: {equal}.",
        ),
        *(
            shorter(
                FAST[m], KD, SIMILAR, "what counts as equal",
                f"With m={m}, Fast-ARD is about as fast as KD: it takes {equal}.",
            )
            for m in REPLAYS
        ),
        *(shorter(FAST[m], "ARD", 1.0, "as long as", f"With m={m}, Fast-ARD is faster than ARD.") for m in REPLAYS),
    ]  # fmt: skip
    return noted(checked, measured)
