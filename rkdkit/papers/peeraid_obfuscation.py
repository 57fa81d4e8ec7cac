"""PeerAiD, Table 7 and section 4.7: signs of obfuscated gradients."""

from dataclasses import replace

import pandas as pd

from rkdkit import attacks, claims
from rkdkit.analysis.obfuscation import FEW, MANY
from rkdkit.analysis.white_box import WhiteBox
from rkdkit.claims import Claim, Quantity
from rkdkit.papers.peeraid import attack_named, below_guessing
from rkdkit.papers.reported import reported

DIFFERS = {"smoke": {"n_test": 16}, "quick": {"n_test": 256}, "small": {"n_test": 800}}
"""Fields in which the exhibit differs from a profile, by its name: a thousand steps on every image take long."""

SIMILAR = 0.05
"""Accuracies that differ by less are called similar here; the paper gives no number, and has 0.48 to 1.6 points."""


def table_7() -> pd.DataFrame:
    """Return the paper's Table 7, as `reported`, with what its Table 1 has of PeerAiD."""
    table_1 = reported("peeraid", "Table 1")
    return pd.concat([reported("peeraid", "Table 7"), table_1[table_1.method == "PeerAiD"]])


def table_7_claims(measured: WhiteBox, usual: attacks.PGD) -> list[Claim]:
    """Check the four signs by which the paper's section 4.7 rules out obfuscated gradients.

    Parameters
    ----------
    measured : PeerAiD by the attacks of `obfuscation.obfuscation_attacks`.
    usual : the attack that measures robust accuracy, as given there.
    """
    few, many = (str(replace(usual, steps=steps)).lower() for steps in (FEW, MANY))
    as_usual = str(usual).lower()

    def under(metric: str, words: str = "") -> Quantity:
        return Quantity(f"accuracy under {words or attack_named(metric)}", measured.accuracy("PeerAiD", metric))

    fall, pair = measured.between("PeerAiD", few, many), f"{attack_named(few)} minus {attack_named(many)}"
    return [
        Claim(
            f"A hundred times as many steps change little: {attack_named(many)} takes less than "
            f"{100 * SIMILAR:g} points more.",
            "PeerAiD, Table 7 and section 4.7",
            *claims.below(SIMILAR, "what counts as similar", Quantity(f"accuracy under {pair}", fall)),
        ),
        Claim(
            "The unbounded attack reaches 0 %: the accuracy is below guessing.",
            "PeerAiD, Table 7 and section 4.7",
            *below_guessing(under("unbounded", "the unbounded attack"), measured.num_classes),
        ),
        Claim(
            f"One step is a weaker attack than {attack_named(as_usual)}.",
            "PeerAiD, section 4.7",
            under("fgsm"),
            under(as_usual),
            measured.between("PeerAiD", "fgsm", as_usual),
        ),
        Claim(
            "An attack that sees no gradients (Square) is weaker than one that does.",
            "PeerAiD, section 4.7; Athalye et al. 2018, section 3.1",
            under("square", "Square"),
            under(many),
            measured.between("PeerAiD", "square", many),
        ),
    ]
