"""Which images are the easiest and the hardest to learn, and what tells them apart (RKD section D)."""

from collections.abc import Sequence
from dataclasses import dataclass

import pandas as pd
import torch
from torch import Tensor

from rkdkit import checks, data
from rkdkit.analysis.trajectories import BY_IMAGE, difficulty, gap, trajectory
from rkdkit.progress import track
from rkdkit.runs import Run
from rkdkit.statistics import Measure, mean, over_seeds
from rkdkit.store import Store


def likeness(split: data.Split) -> Tensor:
    """Return how much closer each image is to the mean image of its own class than to the nearest other class's.

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

    It is that of the whole image, since nothing says where the background is.
    """
    pixels = data.to_float(split.images)
    down, across = pixels.diff(dim=2).abs(), pixels.diff(dim=3).abs()
    return (down.flatten(1).mean(1) + across.flatten(1).mean(1)) / 2


@dataclass(frozen=True)
class Ranking:
    """Images by how hard they are to learn.

    Attributes
    ----------
    split : the images.
    classes : their names.
    difficulty : S(x) in nats, one (N,) a seed.
    """

    split: data.Split
    classes: tuple[str, ...]
    difficulty: BY_IMAGE

    def ordered(self, label: int, seed: int | None = None) -> Tensor:
        """Return the images of a class, easiest first: (n,) int64, places in the split.

        Parameters
        ----------
        label : the class.
        seed : which of the trainings ranks them; None: their mean.
        """
        by = torch.stack(list(self.difficulty)).mean(0) if seed is None else self.difficulty[seed]
        own = (self.split.labels == label).nonzero().squeeze(1)
        return own[by[own].argsort(stable=True)]

    def extremes(self, label: int, n: int) -> tuple[Tensor, Tensor]:
        """Return the n easiest and the n hardest images of a class, (n,) int64 each, the most extreme first."""
        order = self.ordered(label)
        return order[:n], order.flip(0)[:n]

    def easy_minus_hard(self, label: int, values: Tensor) -> tuple[Measure, Measure, Measure]:
        """Return the means over a class's easiest third and over its hardest, and their difference; over all seeds.

        Parameters
        ----------
        label : the class.
        values : (N,) of any measure of the images, such as :func:`likeness`.
        """
        orders = [self.ordered(label, seed) for seed in range(len(self.difficulty))]
        third = len(orders[0]) // 3
        easy = [mean(values[order[:third]]) for order in orders]
        hard = [mean(values[order[-third:]]) for order in orders]
        return over_seeds(easy), over_seeds(hard), over_seeds([gap(*pair) for pair in zip(easy, hard, strict=True)])

    def table(self, n: int) -> pd.DataFrame:
        """Return every image: class, image (its place in the split), rank from 1, difficulty_nats, likeness, drawn.

        Parameters
        ----------
        n : how many of the easiest and of the hardest are drawn.
        """
        score, alike = torch.stack(list(self.difficulty)).mean(0), likeness(self.split)
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
                        "difficulty_nats": score[order].numpy(),
                        "likeness": alike[order].numpy(),
                        "drawn": ((rank <= n) | (rank > len(order) - n)).numpy(),
                    }
                )
            )
        return pd.concat(frames, ignore_index=True)


def check(split: data.Split, classes: tuple[str, ...], n: float) -> int:
    """Return how many easiest and hardest images of each class to draw, or refuse where there are too few.

    Raises
    ------
    ValueError
        If n is no whole number, or a class has fewer than 2 n images, or fewer than six.
    """
    checks.number("n_images", n, 1)
    if n != int(n):
        raise ValueError(f"n_images must be a whole number, not {n!r}.")
    n = int(n)
    counts = torch.bincount(split.labels, minlength=len(classes)).tolist()
    for name, count in zip(classes, counts, strict=True):
        if count < max(2 * n, 6):
            raise ValueError(
                f"{name} has {count} images to rank: six are needed at least, and the {n} easiest and {n} hardest must "
                f"be different ones. Set n_images to {count // 2} or less, or rank more images."
            )
    return n


def ranking(
    ranked_by: Sequence[Run], split: data.Split, classes: tuple[str, ...], *, store: Store | None = None
) -> Ranking:
    """Rank images by their mean cross entropy over a training (RKD eq. 8).

    Parameters
    ----------
    ranked_by : the trainings, one a seed; RKD takes natural ones.
    split : the natural images to rank.
    classes : their names.
    store : as `runs.ensure`.
    """
    scores = [difficulty(trajectory(run, split, store=store)) for run in track(ranked_by, desc="Difficulty")]
    return Ranking(split, classes, scores)
