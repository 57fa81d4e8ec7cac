"""PeerAiD, Table 3: how much weight averaging (SWA) improves each method."""

import pandas as pd

from rkdkit.analysis.white_box import WhiteBox, attack_named, highest
from rkdkit.claims import Claim, Quantity, Question, judged
from rkdkit.comparisons import Students, choose_by_name
from rkdkit.papers.reported import reported
from rkdkit.references import Snapshot
from rkdkit.setup import Exhibit, Setup
from rkdkit.spec import AVERAGED

METHODS = ("Natural", "PGD-AT", "TRADES", "RSLAD", "IAD", "CAT", "AdaAD", "PeerAiD")
"""The methods of the paper's Table 3, in the same order."""

EXHIBIT = Exhibit(
    paper="PeerAiD, Table 3",
    differs={"": {"teacher_method": "TRADES"}, "paper": {"dataset": "tiny_imagenet"}},
    compares=METHODS,
)

BASELINES = ("PGD-AT", "TRADES", "RSLAD", "IAD", "CAT", "AdaAD")
"""The methods that PeerAiD is compared with: the other methods that train on adversarial examples."""

SOURCE = "PeerAiD, Table 3 and section 4.5"


def with_and_without_averages(setup: Setup, trained: Students) -> dict[str, list[Snapshot]]:
    """Return each method's snapshots without and with averaged weights, one per seed: "TRADES" and "TRADES + SWA".

    Parameters
    ----------
    setup : as `comparisons.choose`.
    trained : runs that all average their weights.

    Raises
    ------
    UnknownNameError
        If a run has no averaged weights.
    """
    suffixes = {"": "student", " + SWA": AVERAGED}
    chosen = {suffix: choose_by_name(setup, trained.runs, role) for suffix, role in suffixes.items()}
    return {f"{name}{suffix}": chosen[suffix][name] for name in trained.runs for suffix in suffixes}


def compared(setup: Setup) -> dict[str, str]:
    """Return what each line is compared with in the picture: the method with averaged weights with itself without."""
    return {f"{method} + SWA": method for method in setup.methods}


def paper_numbers() -> pd.DataFrame:
    """Return the paper's Table 3, as `reported`, with methods such as "TRADES" and "TRADES + SWA".

    The paper prints the baselines without averaging in its Table 1, so their numbers are taken from there.
    """
    table_3, table_1 = reported("peeraid", "Table 3"), reported("peeraid", "Table 1")
    of_the_same = table_1.dataset.isin(table_3.dataset) & table_1.network.isin(table_3.network)
    plain = table_1[of_the_same & table_1.method.isin(METHODS) & (table_1.setting == "")]
    suffix = table_3.setting.map({"swa=yes": " + SWA", "swa=no": ""})
    return pd.concat([table_3.assign(method=table_3.method + suffix), plain])


def check_claims(measured: WhiteBox, robust: str = "pgd-20") -> list[Claim]:
    """Check what the paper says of its Table 3 (section 4.5).

    Parameters
    ----------
    measured : every method with and without averaging, under the names of :func:`with_and_without_averages`;
        a claim about a method that is not among them is left out.
    robust : the metric that decides whether averaging helps: an attack that is feasible on all images.
    """
    averaged = tuple(f"{method} + SWA" for method in BASELINES)

    def first(metric: str, words: str, text: str) -> Question:
        def judge(text: str) -> Claim:
            return highest(measured, "PeerAiD", averaged, metric, f"{words} accuracy", text, SOURCE)

        return Question(f"{text} than the baselines with SWA.", ("PeerAiD", *averaged), judge)

    def gain(higher: str, lower: str, text: str) -> Question:
        def judge(text: str) -> Claim:
            sides = [
                Quantity(f"{name}, {attack_named(robust)} accuracy", measured.accuracy(name, robust))
                for name in (higher, lower)
            ]
            return Claim(text, SOURCE, sides[0], sides[1], measured.minus(higher, lower, robust))

        return Question(text, (higher, lower), judge)

    questions = [
        first("clean", "clean", "PeerAiD without SWA has a higher clean accuracy"),
        first("autoattack", "AutoAttack", "PeerAiD without SWA is more robust (AutoAttack)"),
        *(
            gain(f"{method} + SWA", method, f"SWA makes {method} more robust.")
            for method in METHODS[1:]
            if method != "CAT"
        ),
        gain("CAT", "CAT + SWA", "SWA does not make CAT more robust, but less."),
    ]
    return judged(questions, measured.evaluations)
