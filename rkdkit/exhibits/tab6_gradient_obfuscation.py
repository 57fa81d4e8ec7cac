"""PeerAiD, Table 7: whether its student is robust or its gradients are obfuscated (Athalye et al. 2018)."""

import math
from dataclasses import replace

import pandas as pd

from rkdkit import attacks, autoattack, claims
from rkdkit.analysis.white_box import WhiteBox, attack_named
from rkdkit.claims import Claim, Quantity
from rkdkit.papers.reported import reported
from rkdkit.setup import Exhibit

EXHIBIT = Exhibit(
    paper="PeerAiD, Table 7",
    # a thousand attack steps on every image take long
    differs={"smoke": {"n_test": 16}, "quick": {"n_test": 256}, "small": {"n_test": 800}},
    unused=("teacher", "teacher_method", "n_autoattack"),
)

METHODS = ("PeerAiD",)
"""The only method that the paper tests."""

FEW, MANY = 10, 1000
"""Two numbers of attack steps; a robust network's accuracy falls little from the first to the second."""

SIMILAR = 0.05
"""Accuracies that differ by less count as similar; the paper gives no threshold, and its differences are 0.48 to 1.6
points."""


def obfuscation_attacks(usual: attacks.PGD) -> dict[str, attacks.Attack | None]:
    """Return the attacks of Athalye et al.'s tests (2018, section 3.1), as PeerAiD's section 4.7 uses them.

    The unbounded attack may change every pixel to any value. It starts from the image, because a random point of so
    large a ball would be noise, and takes as many steps as the longest bounded attack.

    Parameters
    ----------
    usual : the attack that measures robust accuracy; the other attacks use its radius, step size and iterate.

    Returns
    -------
    By metric: one step ("fgsm"), ten steps, those of `usual`, a thousand, a black-box attack ("square") and the
    unbounded attack ("unbounded").
    """
    iterated = [replace(usual, steps=steps) for steps in sorted({FEW, usual.steps, MANY})]
    return {
        "fgsm": attacks.FGSM(usual.eps),
        **{str(attack).lower(): attack for attack in iterated},
        "square": autoattack.Square(usual.eps),
        "unbounded": replace(usual, eps=math.inf, steps=MANY, start="none"),
    }


def paper_numbers() -> pd.DataFrame:
    """Return the paper's Table 7, as `reported`, and PeerAiD's accuracies under FGSM and PGD-20 of its Table 1."""
    table_1 = reported("peeraid", "Table 1")
    further = table_1[(table_1.method == "PeerAiD") & table_1.metric.isin(["fgsm", "pgd-20"])]
    return pd.concat([reported("peeraid", "Table 7"), further])


def check_claims(measured: WhiteBox, usual: attacks.PGD) -> list[Claim]:
    """Check the four signs by which the paper's section 4.7 rules out obfuscated gradients.

    Parameters
    ----------
    measured : PeerAiD under the attacks of :func:`obfuscation_attacks`.
    usual : the attack that measures robust accuracy, as given to that function.
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
            *claims.below_guessing(under("unbounded", "the unbounded attack"), measured.num_classes),
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
