"""PeerAiD, Table 7: whether its student is robust or its gradients are obfuscated (Athalye et al. 2018)."""

import math
from dataclasses import replace

import pandas as pd

from rkdkit import attacks, autoattack, claims
from rkdkit.analysis.white_box import WhiteBox, attack_named
from rkdkit.claims import Claim, Quantity, Question
from rkdkit.papers.reported import reported
from rkdkit.setup import Exhibit

METHODS = ("PeerAiD",)
"""The only method that the paper tests."""

EXHIBIT = Exhibit(
    paper="PeerAiD, Table 7",
    # a thousand attack steps on every image take long
    differs={
        "": {"teacher_method": "TRADES"},  # of other methods; as in Table 1, so that runs are shared
        **{"smoke": {"n_test": 16}, "quick": {"n_test": 256}, "small": {"n_test": 800}},
    },
    unused=("n_autoattack",),
    compares=METHODS,
)

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
    measured : PeerAiD under the attacks of :func:`obfuscation_attacks`; without it, there are no claims.
    usual : the attack that measures robust accuracy, as given to that function.
    """
    few, many = (str(replace(usual, steps=steps)).lower() for steps in (FEW, MANY))
    as_usual = str(usual).lower()

    def under(metric: str, words: str = "") -> Quantity:
        return Quantity(f"accuracy under {words or attack_named(metric)}", measured.accuracy("PeerAiD", metric))

    pair, source = f"{attack_named(few)} minus {attack_named(many)}", "PeerAiD, Table 7 and section 4.7"

    def small_fall(text: str) -> Claim:
        fall = Quantity(f"accuracy under {pair}", measured.between("PeerAiD", few, many))
        return Claim(text, source, *claims.below(SIMILAR, "what counts as similar", fall))

    def below_guessing(text: str) -> Claim:
        quantity = under("unbounded", "the unbounded attack")
        return Claim(text, source, *claims.below_guessing(quantity, measured.num_classes))

    def weaker(text: str) -> Claim:
        difference = measured.between("PeerAiD", "fgsm", as_usual)
        return Claim(text, "PeerAiD, section 4.7", under("fgsm"), under(as_usual), difference)

    def blind(text: str) -> Claim:
        places = "PeerAiD, section 4.7; Athalye et al. 2018, section 3.1"
        difference = measured.between("PeerAiD", "square", many)
        return Claim(text, places, under("square", "Square"), under(many), difference)

    few_points = f"{attack_named(many)} takes less than {100 * SIMILAR:g} points more"
    questions = {
        f"A hundred times as many steps change little: {few_points}.": small_fall,
        "The unbounded attack reaches 0 %: the accuracy is below guessing.": below_guessing,
        f"One step is a weaker attack than {attack_named(as_usual)}.": weaker,
        "An attack that sees no gradients (Square) is weaker than one that does.": blind,
    }
    return claims.judged([Question(text, METHODS, judge) for text, judge in questions.items()], measured.evaluations)
