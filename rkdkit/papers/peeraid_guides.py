"""PeerAiD, Tables 4 and 5 and section 4.6: guides and students of other architectures."""

from collections.abc import Mapping, Sequence

import pandas as pd

from rkdkit.analysis.white_box import WhiteBox
from rkdkit.claims import Claim, Quantity
from rkdkit.papers.peeraid import DISTILLATION, highest
from rkdkit.papers.reported import beside, reported
from rkdkit.runs import Snapshot
from rkdkit.spec import RunSpec

TABLE_4 = DISTILLATION
"""The methods of the paper's Tables 4 and 5, in their order."""

_HALF = {"student": "resnet18/8", "teacher": "resnet18/4", "peer": "resnet18/4"}
DIFFERS = {
    "smoke": {"student": "resnet18/16", "teacher": "resnet18/8", "peer": "resnet18/8"},
    "quick": _HALF,
    "small": _HALF,
    "paper": {"dataset": "cifar100", "student": "resnet18", "teacher": "wrn-34-10", "peer": "wrn-34-10"},
}
"""Fields in which the exhibit differs from a profile, by its name: below the paper's scale, guides twice as wide."""

TABLE_5_DIFFERS = {"paper": {"dataset": "cifar10"}}
"""Fields in which Table 5 differs from a profile; its networks are all MobileNetV2."""

_RUNNER_UP_AND_PEERAID = ("RSLAD", "PeerAiD")


def table_5_methods(profile: str) -> tuple[str, ...]:
    """Return the methods of Table 5: below the paper's scale, the two with its highest AutoAttack accuracy only."""
    return DISTILLATION if profile == "paper" else _RUNNER_UP_AND_PEERAID


def tables_4_and_5(
    larger: WhiteBox,
    mobile: WhiteBox,
    of_larger: Mapping[str, Sequence[Snapshot]],
    of_mobile: Mapping[str, Sequence[Snapshot]],
) -> pd.DataFrame:
    """Return both tables with the paper's numbers beside ours.

    Parameters
    ----------
    larger, mobile : as :func:`table_4_and_5_claims`.
    of_larger, of_mobile : the networks measured, by method.

    Returns
    -------
    As `reported.beside`, with the columns table, student, guide and row ("PeerAiD, resnet18/8 by resnet18/4").
    """
    parts = []
    for table, measured, chosen in (("Table 4", larger, of_larger), ("Table 5", mobile, of_mobile)):
        specs = {method: of_seeds[0].spec for method, of_seeds in chosen.items()}
        spec = next(iter(specs.values()))
        part = beside(measured.table(), reported("peeraid", table), spec.dataset, spec.student)
        guide = part.method.map({method: _guide(spec) for method, spec in specs.items()})
        row = part.method + f", {spec.student} by " + guide
        parts.append(part.assign(table=table, student=spec.student, guide=guide, row=row))
    return pd.concat(parts, ignore_index=True)


def table_4_and_5_claims(larger: WhiteBox, mobile: WhiteBox) -> list[Claim]:
    """Check what the paper says of its Tables 4 and 5 (section 4.6).

    Parameters
    ----------
    larger : the methods with guides larger than their students.
    mobile : the methods, or some of them, with MobileNetV2 for guides and students.
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
    """Return the network that guides a run's student."""
    runs = [teacher.run.student for teacher in spec.teachers if teacher.run is not None]
    return spec.peer or runs[0]
