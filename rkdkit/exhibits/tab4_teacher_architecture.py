"""PeerAiD, Tables 4 and 5: guides larger than their students, and MobileNetV2 for both."""

from collections.abc import Mapping, Sequence

import pandas as pd

from rkdkit.analysis.white_box import DISTILLATION, WhiteBox, compared, highest, noted
from rkdkit.claims import Claim, Quantity, Question, judged
from rkdkit.papers.reported import beside, reported
from rkdkit.references import Snapshot
from rkdkit.setup import Exhibit, Setup
from rkdkit.spec import RunSpec

_TWICE_AS_WIDE = {"student": "resnet18/8", "teacher": "resnet18/4", "peer": "resnet18/4"}

METHODS = DISTILLATION
"""The methods of the paper's Tables 4 and 5, in the same order."""

EXHIBIT = Exhibit(
    paper="PeerAiD, Tables 4 and 5",
    differs={  # Table 4; below the paper's scale its guides are twice as wide as their students
        "": {"teacher_method": "TRADES"},
        "smoke": {"student": "resnet18/16", "teacher": "resnet18/8", "peer": "resnet18/8"},
        "quick": _TWICE_AS_WIDE,
        "small": _TWICE_AS_WIDE,
        "paper": {"dataset": "cifar100", "student": "resnet18", "teacher": "wrn-34-10", "peer": "wrn-34-10"},
    },
    compares=METHODS,
    fewest=2,
    own={"all_mobile": False},
)

TABLE_5_DATA = {"paper": "cifar10"}
"""The dataset of Table 5, by the name of a profile; other profiles use the dataset of Table 4."""

RUNNER_UP_AND_PEERAID = ("RSLAD", "PeerAiD")
"""The two methods with the highest AutoAttack accuracy in the paper's Table 5."""


def mobile(setup: Setup) -> Setup:
    """Return the setup of Table 5: MobileNetV2 for students, teachers and peers, as narrow as Table 4's students.

    Parameters
    ----------
    setup : the setup of Table 4. If the user set a dataset, both tables use it.

    Raises
    ------
    DataNotFoundError
        If the data are not there.
    """
    scale = setup.profile
    dataset = scale.dataset if "dataset" in scale.fixed else TABLE_5_DATA.get(scale.name, scale.dataset)
    return setup.changed(dataset=dataset, student=scale.as_wide("mobilenetv2"), teacher=None, peer=None)


def mobile_methods(profile: str, all_mobile: bool = False, named: tuple[str, ...] = METHODS) -> tuple[str, ...]:
    """Return the methods of Table 5: below the paper's scale, :data:`RUNNER_UP_AND_PEERAID` only.

    Parameters
    ----------
    profile : the profile's name.
    all_mobile : whether all six methods are trained at every scale.
    named : the methods that are compared; if they are not the paper's, Table 5 has all of them, too.
    """
    everything = all_mobile or profile == "paper" or named != METHODS
    return named if everything else RUNNER_UP_AND_PEERAID


def beside_the_paper(
    larger: WhiteBox,
    mobile: WhiteBox,
    of_larger: Mapping[str, Sequence[Snapshot]],
    of_mobile: Mapping[str, Sequence[Snapshot]],
) -> pd.DataFrame:
    """Return both tables with the paper's numbers beside ours.

    Parameters
    ----------
    larger, mobile : as :func:`check_claims`.
    of_larger, of_mobile : the networks measured, by method.

    Returns
    -------
    As `reported.beside` and `WhiteBox.against` (`white_box.compared`), with the columns table, student, guide and row
    ("PeerAiD, resnet18/8 by resnet18/4"; if the two tables use different datasets, row also names the dataset). Lines
    with the paper's number alone have no student and guide, and the method's name as row.
    """
    parts = []
    several = len({of_seeds[0].spec.dataset for of_seeds in (*of_larger.values(), *of_mobile.values())}) > 1
    for table, measured, chosen in (("Table 4", larger, of_larger), ("Table 5", mobile, of_mobile)):
        specs = {method: of_seeds[0].spec for method, of_seeds in chosen.items()}
        spec = next(iter(specs.values()))
        part = beside(measured.table(), reported("peeraid", table), spec.dataset, spec.student)
        part = measured.against(compared(list(specs)), part)
        student = part.method.map(dict.fromkeys(specs, spec.student)).fillna("")
        guide = part.method.map({method: _guide(spec) for method, spec in specs.items()}).fillna("")
        by = guide.where(guide == "", " by " + guide)
        row = part.method + ", " + student + by + (f" on {spec.dataset}" if several else "")
        row = row.where(part.accuracy.notna(), part.method)
        parts.append(part.assign(table=table, student=student, guide=guide, row=row))
    both = pd.concat(parts, ignore_index=True)
    twice = both.accuracy.notna() & both.duplicated(["row", "metric"], keep=False)
    return both.assign(row=both.row.where(~twice, both.row + " (" + both.table + ")"))


def check_claims(larger: WhiteBox, mobile: WhiteBox) -> list[Claim]:
    """Check what the paper says of its Tables 4 and 5 (section 4.6).

    Parameters
    ----------
    larger : the methods with guides larger than their students.
    mobile : some or all of the methods, with MobileNetV2 for guides and students. A claim about methods that are not
        among those measured is left out.
    """
    guided, small = "PeerAiD, Table 4 and section 4.6", "PeerAiD, Table 5 and section 4.6"
    larger_guide, narrow = "With a larger guide", "With MobileNetV2"

    def better(text: str) -> Claim:
        sides = [Quantity(f"{name}, clean accuracy", mobile.accuracy(name, "clean")) for name in ("PeerAiD", "RSLAD")]
        return Claim(text, small, sides[0], sides[1], mobile.minus("PeerAiD", "RSLAD", "clean"))

    trade_off = "PeerAiD's trade-off is better than the runner-up's (RSLAD): it is more accurate, too."
    of_larger = [
        _first(larger, "autoattack", "AutoAttack", larger_guide, guided, METHODS),
        _first(larger, "clean", "clean", larger_guide, guided, METHODS),
    ]
    of_mobile = [
        _first(mobile, "autoattack", "AutoAttack", narrow, small, RUNNER_UP_AND_PEERAID),
        Question(f"{narrow}, {trade_off}", RUNNER_UP_AND_PEERAID, better),
    ]
    both = ((of_larger, larger), (of_mobile, mobile))
    return [claim for asked, part in both for claim in noted(judged(asked, part.evaluations), part)]


def _first(measured: WhiteBox, metric: str, words: str, where: str, source: str, needs: tuple[str, ...]) -> Question:
    """Return the question whether PeerAiD is ahead of all of the paper's methods that were measured."""
    others = [method for method in METHODS if method != "PeerAiD" and method in measured.evaluations]
    text = f"{where}, PeerAiD's student has the highest {words} accuracy, compared with {', '.join(others)}."

    def judge(text: str) -> Claim:
        return highest(measured, "PeerAiD", others, metric, f"{words} accuracy", text, source)

    return Question(text, needs, judge)


def _guide(spec: RunSpec) -> str:
    """Return the name of the network that guides a run's student; "": it has no guide."""
    runs = [teacher.run.student for teacher in spec.teachers if teacher.run is not None]
    return spec.peer or next(iter(runs), "")
