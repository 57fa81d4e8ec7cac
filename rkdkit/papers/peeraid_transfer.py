"""PeerAiD, Table 6 and section 4.7: attacks transferred from other networks."""

import pandas as pd

from rkdkit.analysis.white_box import WhiteBox
from rkdkit.claims import Claim
from rkdkit.papers.peeraid import attack_named, highest
from rkdkit.papers.reported import reported

TABLE_6 = ("PGD-AT", "TRADES", "AKD2", "RSLAD", "IAD", "CAT", "AdaAD", "PeerAiD")
"""The methods of the paper's Table 6, in its order."""

DIFFERS = {"paper": {"dataset": "cifar100"}}
"""Fields in which the exhibit differs from a profile, by its name."""

SURROGATES = ("resnet34", "mobilenetv2")
"""The networks whose adversarial examples are transferred; both are trained by PGD-AT."""


def table_6() -> pd.DataFrame:
    """Return the paper's Table 6, as `reported`, with the metrics "fgsm from resnet34" and so on."""
    theirs = reported("peeraid", "Table 6")
    surrogate = theirs.setting.str.extract(r"surrogate=PGD-AT (\S+)", expand=False)
    return theirs.assign(metric=theirs.metric + " from " + surrogate)


def table_6_claims(measured: WhiteBox) -> list[Claim]:
    """Check what the paper says of its Table 6 (section 4.7): PeerAiD is more robust than all others.

    Parameters
    ----------
    measured : as `transfer.transfer` returns it; one claim a metric.
    """
    others = [method for method in measured.evaluations if method != "PeerAiD"]
    return [
        highest(
            measured,
            "PeerAiD",
            others,
            metric,
            f"accuracy under {attack_named(metric)}",
            f"PeerAiD has the highest accuracy of all methods under {attack_named(metric)}, a transferred attack.",
            "PeerAiD, Table 6 and section 4.7",
        )
        for metric in measured.metrics
    ]
