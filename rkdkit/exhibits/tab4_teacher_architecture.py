"""PeerAiD, Tables 4 and 5: guides larger than their students, and MobileNetV2 for both."""

from collections.abc import Mapping, Sequence

import pandas as pd

from rkdkit.analysis.white_box import DISTILLATION, WhiteBox, highest
from rkdkit.claims import Claim, Quantity
from rkdkit.papers.reported import beside, reported
from rkdkit.references import Snapshot
from rkdkit.setup import Exhibit, Setup
from rkdkit.spec import RunSpec

_TWICE_AS_WIDE = {"student": "resnet18/8", "teacher": "resnet18/4", "peer": "resnet18/4"}

EXHIBIT = Exhibit(
    paper="PeerAiD, Tables 4 and 5",
    differs={  # Table 4; below the paper's scale its guides are twice as wide as their students
        "": {"teacher_method": "TRADES"},
        "smoke": {"student": "resnet18/16", "teacher": "resnet18/8", "peer": "resnet18/8"},
        "quick": _TWICE_AS_WIDE,
        "small": _TWICE_AS_WIDE,
        "paper": {"dataset": "cifar100", "student": "resnet18", "teacher": "wrn-34-10", "peer": "wrn-34-10"},
    },
    own={"all_mobile": False},
)

METHODS = DISTILLATION
"""The methods of the paper's Tables 4 and 5, in the same order."""

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


def mobile_methods(profile: str, all_mobile: bool = False) -> tuple[str, ...]:
    """Return the methods of Table 5: below the paper's scale, :data:`RUNNER_UP_AND_PEERAID` only.

    Parameters
    ----------
    profile : the profile's name.
    all_mobile : whether all six methods are trained at every scale.
    """
    return METHODS if all_mobile or profile == "paper" else RUNNER_UP_AND_PEERAID


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
    As `reported.beside` and `WhiteBox.against` (PeerAiD), with the columns table, student, guide and row ("PeerAiD,
    resnet18/8 by resnet18/4"; if the two tables use different datasets, row also names the dataset). Lines with the
    paper's number alone have no student and guide, and the method's name as row.
    """
    parts = []
    several = len({of_seeds[0].spec.dataset for of_seeds in (*of_larger.values(), *of_mobile.values())}) > 1
    for table, measured, chosen in (("Table 4", larger, of_larger), ("Table 5", mobile, of_mobile)):
        specs = {method: of_seeds[0].spec for method, of_seeds in chosen.items()}
        spec = next(iter(specs.values()))
        part = beside(measured.table(), reported("peeraid", table), spec.dataset, spec.student)
        part = measured.against({method: "PeerAiD" for method in specs if method != "PeerAiD"}, part)
        student = part.method.map(dict.fromkeys(specs, spec.student)).fillna("")
        guide = part.method.map({method: _guide(spec) for method, spec in specs.items()}).fillna("")
        row = part.method + ", " + student + " by " + guide + (f" on {spec.dataset}" if several else "")
        row = row.where(part.accuracy.notna(), part.method)
        parts.append(part.assign(table=table, student=student, guide=guide, row=row))
    return pd.concat(parts, ignore_index=True)


def check_claims(larger: WhiteBox, mobile: WhiteBox) -> list[Claim]:
    """Check what the paper says of its Tables 4 and 5 (section 4.6).

    Parameters
    ----------
    larger : the methods with guides larger than their students.
    mobile : some or all of the methods, with MobileNetV2 for guides and students.
    """
    guided, small = "PeerAiD, Table 4 and section 4.6", "PeerAiD, Table 5 and section 4.6"
    return [
        _first(larger, "autoattack", "AutoAttack", "With a larger guide", guided),
        _first(larger, "clean", "clean", "With a larger guide", guided),
        _first(mobile, "autoattack", "AutoAttack", "With MobileNetV2", small),
        Claim(
            "With MobileNetV2, PeerAiD's trade-off is better than the runner-up's (RSLAD): it is more accurate, too.",
            small,
            Quantity("PeerAiD, clean accuracy", mobile.accuracy("PeerAiD", "clean")),
            Quantity("RSLAD, clean accuracy", mobile.accuracy("RSLAD", "clean")),
            mobile.minus("PeerAiD", "RSLAD", "clean"),
        ),
    ]


def _first(measured: WhiteBox, metric: str, words: str, where: str, source: str) -> Claim:
    others = [method for method in measured.evaluations if method != "PeerAiD"]
    text = f"{where}, PeerAiD's student has the highest {words} accuracy, compared with {', '.join(others)}."
    return highest(measured, "PeerAiD", others, metric, f"{words} accuracy", text, source)


def _guide(spec: RunSpec) -> str:
    """Return the name of the network that guides a run's student."""
    runs = [teacher.run.student for teacher in spec.teachers if teacher.run is not None]
    return spec.peer or runs[0]
