"""PeerAiD, Table 3 and section 4.5: the ablation of weight averaging (SWA)."""

import pandas as pd

from rkdkit.analysis.white_box import WhiteBox
from rkdkit.claims import Claim, Quantity
from rkdkit.papers.peeraid import attack_named, highest
from rkdkit.papers.reported import reported

TABLE_3 = ("Natural", "PGD-AT", "TRADES", "RSLAD", "IAD", "CAT", "AdaAD", "PeerAiD")
"""The methods of the paper's Table 3, in its order."""

DIFFERS = {"paper": {"dataset": "tiny_imagenet"}}
"""Fields in which the exhibit differs from a profile, by its name."""

BASELINES = ("PGD-AT", "TRADES", "RSLAD", "IAD", "CAT", "AdaAD")
"""Those of them that PeerAiD is compared with: the others that train on adversarial examples."""


def table_3() -> pd.DataFrame:
    """Return the paper's Table 3, as `reported`, with methods such as "TRADES" and "TRADES + SWA".

    The paper prints the baselines without averages in its Table 1, so they are taken from there.
    """
    table_3, table_1 = reported("peeraid", "Table 3"), reported("peeraid", "Table 1")
    of_the_same = table_1.dataset.isin(table_3.dataset) & table_1.network.isin(table_3.network)
    plain = table_1[of_the_same & table_1.method.isin(TABLE_3) & (table_1.setting == "")]
    suffix = table_3.setting.map({"swa=yes": " + SWA", "swa=no": ""})
    return pd.concat([table_3.assign(method=table_3.method + suffix), plain])


def table_3_claims(measured: WhiteBox, robust: str = "pgd-20") -> list[Claim]:
    """Check what the paper says of its Table 3 (section 4.5).

    Parameters
    ----------
    measured : every method with and without averages, as `comparisons.with_and_without_averages` names them.
    robust : the metric by which averages are said to help; the attack that can be tried on all images.
    """
    source = "PeerAiD, Table 3 and section 4.5"
    averaged = [f"{method} + SWA" for method in BASELINES]
    first = [
        highest(
            measured, "PeerAiD", averaged, metric, f"{words} accuracy", f"{text} than the baselines with SWA.", source
        )
        for metric, words, text in (
            ("clean", "clean", "PeerAiD without SWA has a higher clean accuracy"),
            ("autoattack", "AutoAttack", "PeerAiD without SWA is more robust (AutoAttack)"),
        )
    ]
    gains = [
        (f"{method} + SWA", method, f"SWA makes {method} more robust.") for method in TABLE_3[1:] if method != "CAT"
    ]
    gains.append(("CAT", "CAT + SWA", "SWA does not make CAT more robust, but less."))
    return first + [
        Claim(
            text,
            source,
            Quantity(f"{higher}, {attack_named(robust)} accuracy", measured.accuracy(higher, robust)),
            Quantity(f"{lower}, {attack_named(robust)} accuracy", measured.accuracy(lower, robust)),
            measured.minus(higher, lower, robust),
        )
        for higher, lower, text in gains
    ]
