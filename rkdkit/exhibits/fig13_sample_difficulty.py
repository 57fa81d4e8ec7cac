"""RKD, Figures 8 and 9: which images are the easiest and the hardest to learn, and how they differ."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import pandas as pd
import torch
from torch import Tensor

from rkdkit import checks, data, runs
from rkdkit.analysis.difficulty import Difficulty, gap, ranked, ranking_tasks
from rkdkit.claims import Claim, Quantity
from rkdkit.profiles import PROFILES, rkd
from rkdkit.references import Images
from rkdkit.setup import Exhibit, Setup
from rkdkit.statistics import Measure, mean
from rkdkit.trainings import Run

EXHIBIT = Exhibit(
    paper="RKD, Figures 8 and 9",
    differs={profile: rkd(profile, two_classes=True) for profile in PROFILES},
    unused=("select_on", "teacher_method", "peer", "test_steps", "test_iterate", "n_autoattack"),
    trains=("Natural",),
    own={"n_rankers": 5, "part": "train", "n_images": 16},
)


def likeness(split: data.Split) -> Tensor:
    """Return how much closer each image is to its own class's mean image than to the nearest other class's.

    Parameters
    ----------
    split : uint8 images of two classes or more.

    Returns
    -------
    (N,) float32 in [-1, 1]: the difference of two root mean squared pixel distances; below 0, another class is closer.
    """
    pixels = data.to_float(split.images).flatten(1)
    classes = torch.tensor(sorted(set(split.labels.tolist())))
    means = torch.stack([pixels[split.labels == label].mean(0) for label in classes])
    distances: Tensor = torch.cdist(pixels, means) / pixels.shape[1] ** 0.5
    own = split.labels[:, None] == classes
    nearest_other = distances.masked_fill(own, torch.inf).amin(1)
    return nearest_other - distances[own]


def lightness(split: data.Split) -> Tensor:
    """Return the mean of each image's pixels, (N,) float32 in [0, 1]."""
    return data.to_float(split.images).flatten(1).mean(1)


def blueness(split: data.Split) -> Tensor:
    """Return how much more blue than red each colour image is, (N,) float32 in [-1, 1]."""
    channels = data.to_float(split.images).flatten(2).mean(2)
    return channels[:, 2] - channels[:, 0]


def busyness(split: data.Split) -> Tensor:
    """Return the total variation of each image: how much neighbouring pixels differ on average, (N,) float32 in [0, 1].

    It covers the whole image, because the data do not say where the background is.
    """
    pixels = data.to_float(split.images)
    down, across = pixels.diff(dim=2).abs(), pixels.diff(dim=3).abs()
    return (down.flatten(1).mean(1) + across.flatten(1).mean(1)) / 2


@dataclass(frozen=True)
class Ranking:
    """Images ranked by how hard they are to learn.

    Attributes
    ----------
    split : the images.
    classes : their names.
    difficulty : how hard each image is to learn, within its class.
    """

    split: data.Split
    classes: tuple[str, ...]
    difficulty: Difficulty

    def ordered(self, label: int) -> Tensor:
        """Return the images of a class, easiest first, as indices into the split: (n,) int64."""
        own = (self.split.labels == label).nonzero().squeeze(1)
        return own[self.difficulty.of_images[own].argsort(stable=True)]

    def extremes(self, label: int, n: int) -> tuple[Tensor, Tensor]:
        """Return the n easiest and the n hardest images of a class, (n,) int64 each, the most extreme first."""
        order = self.ordered(label)
        return order[:n], order.flip(0)[:n]

    def easy_minus_hard(self, label: int, values: Tensor) -> tuple[Measure, Measure, Measure]:
        """Return the means over a class's easiest and hardest thirds, and their difference.

        Parameters
        ----------
        label : the class.
        values : (N,) values of any measure of the images, such as :func:`likeness`.
        """
        order = self.ordered(label)
        third = len(order) // 3
        easy, hard = mean(values[order[:third]]), mean(values[order[-third:]])
        return easy, hard, gap(easy, hard)

    def in_words(self, part: str) -> str:
        """Return for a caption how the images were ranked; `part` is the split's, "train" or "test"."""
        trainings = f"{len(self.difficulty.scores)} trainings, each with a seed of its own"
        if not self.difficulty.is_reliable:
            return f"Natural images of the {part} set, which {trainings}, do not rank alike."
        ranked = f"Ranked by {trainings}: natural images of the {part} set."
        return f"{ranked} Above each image: how many per cent of its class are easier."

    def table(self, n: int) -> pd.DataFrame:
        """Return a row per image: class, image (its index in the split), rank from 1, difficulty, likeness, drawn.

        Parameters
        ----------
        n : how many of the easiest and how many of the hardest images are drawn, if the trainings agree on a ranking.
        """
        score, alike = self.difficulty.of_images, likeness(self.split)
        frames = []
        for label, name in enumerate(self.classes):
            order = self.ordered(label)
            rank = torch.arange(1, len(order) + 1)
            frames.append(
                pd.DataFrame(
                    {
                        "class": name,
                        "image": order.numpy(),
                        "rank": rank.numpy(),
                        "difficulty": score[order].numpy(),
                        "likeness": alike[order].numpy(),
                        "drawn": (((rank <= n) | (rank > len(order) - n)) & self.difficulty.is_reliable).numpy(),
                    }
                )
            )
        return pd.concat(frames, ignore_index=True)


def images_of(setup: Setup, part: str) -> Images:
    """Return the images to rank: the training images ("train") or the test images ("test").

    Raises
    ------
    UnknownNameError
        If there is no such part.
    """
    parts = {"train": setup.train_images, "test": setup.images}
    return parts[checks.one_of("part", part, parts)]


def check(images: Images, n: float) -> int:
    """Check how many easiest and hardest images of each class to draw, and return the number as an integer.

    Raises
    ------
    ValueError
        If n is not a whole number, or a class has fewer than 2 n images, or fewer than six.
    """
    n, classes = checks.whole("n_images", n, 1), images.class_names
    counts = torch.bincount(images.split().labels, minlength=len(classes)).tolist()
    for name, count in zip(classes, counts, strict=True):
        if count < max(2 * n, 6):
            raise ValueError(
                f"{name} has {count} images to rank: at least six are needed, and the {n} easiest and {n} hardest must "
                f"be different ones. Set n_images to {count // 2} or less, or rank more images."
            )
    return n


def measure(ranked_by: Sequence[Run], images: Images) -> Ranking:
    """Rank the images of each class by their mean cross entropy over several trainings (RKD eq. 8).

    Parameters
    ----------
    ranked_by : the trainings that rank, at least two; RKD takes one natural training.
    images : the natural images to rank.
    """
    answers = runs.answers({task: task for task in ranking_tasks(ranked_by, images)}, "Difficulty")
    return Ranking(images.split(), images.class_names, ranked(ranked_by, images, answers, within_class=True))


_LOOKS: dict[str, dict[str, Callable[[data.Split], Tensor]]] = {
    "airplane": {"lighter": lightness, "bluer": blueness, "simpler": lambda split: 1 - busyness(split)},
    "automobile": {
        "darker": lambda split: 1 - lightness(split), "redder": lambda split: -blueness(split), "busier": busyness
    },
}  # fmt: skip
"""The colours and backgrounds by which, the paper says, a network recognises a class."""


def check_claims(ranking: Ranking) -> list[Claim]:
    """Check what the paper says of its Figures 8 and 9 (section D), on each class's easiest and hardest third.

    The paper looks at pictures and measures nothing. Here, "features of the other class" is how close an image is to
    the mean images of both classes; "light" and "dark" are the mean of its pixels; "blue" and "red" are the difference
    of these two channels; "busy" and "simple" are the total variation of the whole image, because the data do not say
    where its background is. The claims about colours and backgrounds are checked only on colour images of planes and
    cars. The first claim is that the images can be ranked at all; if it does not hold, it is the only one.
    """
    found = [ranking.difficulty.claim]
    if not ranking.difficulty.is_reliable:
        return found
    for label, name in enumerate(ranking.classes):
        closer = "closer to their own class's mean image than to the nearest other's, compared with hard ones"
        found.append(_easy_above_hard(ranking, label, closer, likeness))
        if ranking.split.images.shape[1] == 3:
            found += [
                _easy_above_hard(ranking, label, f"{word} than hard ones", of)
                for word, of in _LOOKS.get(name, {}).items()
            ]
    return found


def _easy_above_hard(ranking: Ranking, label: int, word: str, of: Callable[[data.Split], Tensor]) -> Claim:
    easy, hard, difference = ranking.easy_minus_hard(label, of(ranking.split))
    name = ranking.classes[label]
    return Claim(
        f"Images of class {name} that are easy to learn are {word}.",
        "RKD, Figures 8 and 9, section D",
        Quantity(f"{name}, easiest third", easy),
        Quantity(f"{name}, hardest third", hard),
        difference,
    )
