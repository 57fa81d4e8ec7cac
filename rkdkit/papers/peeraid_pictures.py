"""What PeerAiD says of its Figures 4 to 6: loss landscapes, features and input gradients."""

from rkdkit.analysis.embedding import EXAMPLES, Embedding
from rkdkit.analysis.gradients import MEASURES, SemanticGradients
from rkdkit.analysis.landscape import Landscape
from rkdkit.claims import Claim, Quantity

FIGURE_4_DIFFERS = {"paper": {"dataset": "cifar100", "student": "wrn-34-10"}}
FIGURE_6_DIFFERS = {"paper": {"dataset": "tiny_imagenet"}}
"""Fields in which an exhibit differs from a profile, by its name; Figure 5 is of the profile's own CIFAR-10."""

NOT_AVERAGED = "PeerAiD, not averaged"
"""PeerAiD's student itself, where "PeerAiD" is the average of its weights."""


def figure_4_claims(measured: Landscape) -> list[Claim]:
    """Check what the paper says of its Figure 4 (section 4.8), which prints no number.

    "Sharper" here means that the adversarial loss rises more on average between -0.75 and 0.75 filter norms.

    Parameters
    ----------
    measured : of the networks "PGD-AT", "TRADES", "PeerAiD" and `NOT_AVERAGED`.
    """
    return [
        Claim(
            f"The loss landscape of {other} is sharper than that of {own}.",
            "PeerAiD, Figure 4 and section 4.8",
            Quantity(f"{other}, mean rise of the adversarial loss", measured.rise(other)),
            Quantity(f"{own}, mean rise of the adversarial loss", measured.rise(own)),
            measured.rise_minus(other, own),
        )
        for own in ("PeerAiD", NOT_AVERAGED)
        for other in ("PGD-AT", "TRADES")
    ]


def figure_5_claims(measured: Embedding) -> list[Claim]:
    """Check what the paper says of its Figure 5 (section 4.9), which prints no number.

    "Separates" here means a higher mean silhouette in the penultimate features themselves, not in their t-SNE.

    Parameters
    ----------
    measured : of the network "peer" and fixed teachers by other names.
    """
    return [
        Claim(
            f"The peer separates the classes of {EXAMPLES[examples]} better than the fixed teacher ({teacher}).",
            "PeerAiD, Figure 5 and section 4.9",
            Quantity(f"peer, silhouette of {EXAMPLES[examples]}", measured.silhouette("peer", examples)),
            Quantity(f"{teacher}, silhouette of {EXAMPLES[examples]}", measured.silhouette(teacher, examples)),
            measured.minus("peer", teacher, examples),
        )
        for teacher in measured.scores
        if teacher != "peer"
        for examples in EXAMPLES
    ]


def figure_6_claims(measured: SemanticGradients) -> list[Claim]:
    """Check what the paper says of its Figure 6 (section 4.10), which prints no number.

    "Spread across broad regions" here means a low Gini index; "semantic", alignment with the image; "a similar pattern
    to the student", that the peer's map is more like the student's than the natural network's is.

    Parameters
    ----------
    measured : of the networks "student", "peer" and "natural".
    """
    return [
        _more(
            measured,
            "The natural network's gradient is spread over more of the image than the student's.",
            ("student", "natural"),
            "gini",
        ),
        _more(
            measured,
            "The student's gradient follows what is in the image, more than the natural network's.",
            ("student", "natural"),
            "alignment",
        ),
        _more(
            measured,
            "The peer's gradient has a pattern similar to the student's, though the peer is not robust itself.",
            ("peer", "natural"),
            "similarity",
        ),
    ]


def _more(measured: SemanticGradients, text: str, networks: tuple[str, str], measure: str) -> Claim:
    first, second = (Quantity(f"{name}: {MEASURES[measure]}", measured.mean(name, measure)) for name in networks)
    return Claim(text, "PeerAiD, Figure 6 and section 4.10", first, second, measured.minus(*networks, measure))
