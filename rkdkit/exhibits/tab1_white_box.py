"""PeerAiD, Table 1: the clean accuracy of nine methods and their accuracy under FGSM, PGD-20 and AutoAttack."""

from rkdkit import claims
from rkdkit.analysis.white_box import DISTILLATION, WhiteBox, highest
from rkdkit.claims import Claim, Quantity
from rkdkit.setup import Exhibit

EXHIBIT = Exhibit(paper="PeerAiD, Table 1", differs={"": {"teacher_method": "TRADES"}})

METHODS = ("Natural", "PGD-AT", "TRADES", *DISTILLATION)
"""The methods of the paper's Table 1, in the same order."""

COMPARED = {method: "PeerAiD" for method in METHODS if method != "PeerAiD"}
"""What each method is compared with in the picture."""

SOURCE = "PeerAiD, Table 1 and section 4.2"


def check_claims(measured: WhiteBox) -> list[Claim]:
    """Check what the paper says of its Table 1 (section 4.2).

    PeerAiD is compared with each of the other methods, as `white_box.highest` does: under AutoAttack with all of them,
    by clean accuracy with the other distillation methods only, as in the paper.
    """
    all_others, distilled = ([m for m in methods if m != "PeerAiD"] for methods in (METHODS, DISTILLATION))
    robust, clean = "AutoAttack accuracy", "clean accuracy"
    of_distillation = f"PeerAiD has the highest {clean} of the adversarial distillation methods."
    natural = Quantity(f"Natural, {robust}", measured.accuracy("Natural", "autoattack"))
    return [
        highest(measured, "PeerAiD", all_others, "autoattack", robust, f"PeerAiD has the highest {robust}.", SOURCE),
        highest(measured, "PeerAiD", distilled, "clean", clean, of_distillation, SOURCE),
        Claim(
            "Natural training gives no robustness: its AutoAttack accuracy is below guessing.",
            "PeerAiD, Table 1",
            *claims.below_guessing(natural, measured.num_classes),
        ),
    ]
