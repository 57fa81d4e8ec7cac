"""PeerAiD, Table 1: the clean accuracy of nine methods and their accuracy under FGSM, PGD-20 and AutoAttack."""

from rkdkit import claims
from rkdkit.analysis.white_box import DISTILLATION, WhiteBox, highest
from rkdkit.claims import Claim, Quantity, Question
from rkdkit.setup import Exhibit

METHODS = ("Natural", "PGD-AT", "TRADES", *DISTILLATION)
"""The methods of the paper's Table 1, in the same order."""

EXHIBIT = Exhibit(paper="PeerAiD, Table 1", differs={"": {"teacher_method": "TRADES"}}, compares=METHODS, fewest=2)

SOURCE = "PeerAiD, Table 1 and section 4.2"


def check_claims(measured: WhiteBox) -> list[Claim]:
    """Check what the paper says of its Table 1 (section 4.2).

    PeerAiD is compared with each of the paper's other methods, as `white_box.highest` does: under AutoAttack with all
    of them, by clean accuracy with the other distillation methods only, as in the paper.

    Parameters
    ----------
    measured : the methods that are compared; a claim about one that is not among them is left out.
    """
    robust, clean = "AutoAttack accuracy", "clean accuracy"

    def first(names: tuple[str, ...], metric: str, words: str, text: str) -> Question:
        others = [name for name in names if name != "PeerAiD"]
        return Question(text, names, lambda text: highest(measured, "PeerAiD", others, metric, words, text, SOURCE))

    def natural(text: str) -> Claim:
        quantity = Quantity(f"Natural, {robust}", measured.accuracy("Natural", "autoattack"))
        return Claim(text, "PeerAiD, Table 1", *claims.below_guessing(quantity, measured.num_classes))

    of_distillation = f"PeerAiD has the highest {clean} of the adversarial distillation methods."
    not_robust = "Natural training gives no robustness: its AutoAttack accuracy is below guessing."
    questions = [
        first(METHODS, "autoattack", robust, f"PeerAiD has the highest {robust}."),
        first(DISTILLATION, "clean", clean, of_distillation),
        Question(not_robust, ("Natural",), natural),
    ]
    return claims.judged(questions, measured.evaluations)
