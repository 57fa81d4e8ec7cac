"""When does knowledge distillation improve robustness? (TMLR submission): its Figures 8 and 9."""

from collections.abc import Callable

from torch import Tensor

from rkdkit import data
from rkdkit.analysis.sample_difficulty import Ranking, blueness, busyness, lightness, likeness
from rkdkit.claims import Claim, Quantity

_LOOKS: dict[str, dict[str, Callable[[data.Split], Tensor]]] = {
    "airplane": {"light": lightness, "blue": blueness, "simple": lambda split: 1 - busyness(split)},
    "automobile": {
        "dark": lambda split: 1 - lightness(split), "red": lambda split: -blueness(split), "busy": busyness
    },
}  # fmt: skip
"""The colours and backgrounds by which the paper says that a network knows a class."""


def figures_8_and_9_claims(ranked: Ranking) -> list[Claim]:
    """Check what the paper says of its Figures 8 and 9 (section D), on each class's easiest and hardest third.

    The paper looked at pictures and counted nothing. Here "features of the other class" is how close an image is to
    the mean images of both classes, "light" and "dark" the mean of its pixels, "blue" and "red" the difference of these
    two channels, "busy" and "simple" the total variation of the whole image, since nothing says where its background
    is. What is said of looks is only checked on colour images of planes and cars.
    """
    found = []
    for label, name in enumerate(ranked.classes):
        found.append(_easy_above_hard(ranked, label, "like their own class rather than another", likeness))
        if ranked.split.images.shape[1] == 3:
            found += [_easy_above_hard(ranked, label, word, of) for word, of in _LOOKS.get(name, {}).items()]
    return found


def _easy_above_hard(ranked: Ranking, label: int, word: str, of: Callable[[data.Split], Tensor]) -> Claim:
    easy, hard, gap = ranked.easy_minus_hard(label, of(ranked.split))
    name = ranked.classes[label]
    return Claim(
        f"The {name} images that are easy to learn look more {word} than the hard ones.",
        "RKD, Figures 8 and 9, section D",
        Quantity(f"{name}, easiest third", easy),
        Quantity(f"{name}, hardest third", hard),
        gap,
    )
