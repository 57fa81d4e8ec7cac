"""How often the intervals of several trainings cover the truth, on simulated networks whose truth is known.

python benchmarks/intervals.py

A network's accuracy on all images of the population is drawn between seeds, normally distributed on the logit scale.
Images have a difficulty that all networks share: an image is classified correctly if a mixture of its difficulty and of
chance is below a threshold, which is such that the network has its accuracy. In a comparison, both networks of a seed
see the same images, and their accuracies are correlated. What the intervals shall cover is the mean accuracy over all
seeds and all images, and the difference of two such means.
"""

import itertools
import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import Annotated

import numpy as np
import numpy.typing as npt
import torch
import typer
from scipy.optimize import brentq
from scipy.special import expit, ndtri

from rkdkit import statistics
from rkdkit.claims import OPEN, Claim, Quantity, as_family

ACCURACIES = (0.05, 0.5, 0.8, 0.97)
PAIRS = ((0.05, 0.05), (0.55, 0.5), (0.8, 0.8), (0.97, 0.94))
KINDS = {"an accuracy": [(accuracy,) for accuracy in ACCURACIES], "a paired difference": list(PAIRS)}
IMAGES = (100, 1000)
SDS = (0.0, 0.02, 0.08)
SEEDS = (3, 5, 10)
SHARED = (0.3, 0.8)
"""What is simulated: accuracies, two methods' accuracies, numbers of test images, standard deviations of a network's
accuracy between seeds, numbers of seeds, and which part of an image's outcome is its difficulty."""

UNSEEN_IMAGES, UNSEEN_SDS = 497, (0.0, 0.01, 0.03)
UNSEEN = {
    "an accuracy": [(0.95,)],
    "a paired difference": [(0.95, 0.95)],
    "a paired difference, own difficulties": [(0.95, 0.95), (0.8, 0.8), (0.55, 0.5)],
}
"""Simulated, too, but not used for choosing how the intervals are made. In the last line, each method has its own
difficulty of images."""

OF_A_SEED = 0.5
"""The correlation of two methods' accuracies with the same seed, on the logit scale."""

FAMILY = 8
"""The number of claims in a simulated family; none of them is true."""

RANGE = (0.93, 0.97)
"""The coverage that an interval of 95 % should have."""

Answers = list[torch.Tensor]
"""One (N,) bool per seed."""


@dataclass(frozen=True)
class World:
    """Networks and images to draw from.

    Attributes
    ----------
    accuracies : the mean accuracy of each method's networks on all images.
    sd : the standard deviation of a network's accuracy between seeds, a fraction.
    n, seeds : how many test images and seeds are drawn.
    shared : which part of an image's outcome is its difficulty, in [0, 1); the rest is each network's own.
    own_difficulty : whether an image's difficulty for one method says nothing of that for the other.
    """

    accuracies: tuple[float, ...]
    sd: float
    n: int
    seeds: int
    shared: float
    own_difficulty: bool = False

    @property
    def difference(self) -> float:
        """The first method's mean accuracy minus the second's."""
        return self.accuracies[0] - self.accuracies[1]

    def draws(self, trials: int, seed: int = 0) -> Iterator[list[Answers]]:
        """Yield, as often as `trials` says, each method's answers to the same images."""
        random = np.random.default_rng(seed)
        scales = [on_the_logit_scale(accuracy, self.sd) for accuracy in self.accuracies]
        for _ in range(trials):
            of_seeds = random.standard_normal(self.seeds)
            hardness = [self._hardness(random)] * len(scales)
            if self.own_difficulty:
                hardness[1:] = [self._hardness(random) for _ in scales[1:]]
            yield [
                self._answers(centre + spread * self._of_method(of_seeds, random), of_method, random)
                for (centre, spread), of_method in zip(scales, hardness, strict=True)
            ]

    def _hardness(self, random: np.random.Generator) -> npt.NDArray[np.float32]:
        return np.float32(math.sqrt(self.shared)) * random.standard_normal(self.n, dtype=np.float32)

    def _of_method(self, of_seeds: npt.NDArray[np.float64], random: np.random.Generator) -> npt.NDArray[np.float64]:
        own = random.standard_normal(self.seeds)
        return math.sqrt(OF_A_SEED) * of_seeds + math.sqrt(1 - OF_A_SEED) * own

    def _answers(
        self, logits: npt.NDArray[np.float64], hardness: npt.NDArray[np.float32], random: np.random.Generator
    ) -> Answers:
        own = random.standard_normal((self.seeds, self.n), dtype=np.float32)
        outcome = hardness + np.float32(math.sqrt(1 - self.shared)) * own
        return list(torch.from_numpy(outcome < ndtri(expit(logits))[:, None]))


@lru_cache
def on_the_logit_scale(accuracy: float, sd: float) -> tuple[float, float]:
    """Return mean and standard deviation of normal logits whose accuracies have the given ones."""
    places = 20_000
    normal = ndtri((np.arange(places) + 0.5) / places)

    def centre(spread: float) -> float:
        return float(brentq(lambda c: expit(c + spread * normal).mean() - accuracy, -60, 60))

    if sd == 0:
        return centre(0.0), 0.0
    spread = brentq(lambda s: expit(centre(s) + s * normal).std() - sd, 0.0, 15.0)
    return centre(spread), float(spread)


def covered(world: World, trials: int, interval: Callable[..., statistics.Estimate] | None = None) -> float:
    """Return in which share of the trials an interval covers the truth.

    Parameters
    ----------
    world : of one method: its accuracy is estimated; of two: their difference.
    trials : how often seeds and images are drawn.
    interval : is given a method's answers, or for two methods a pair of answers for each seed; None: the kit's.
    """
    compared = len(world.accuracies) > 1
    truth = world.difference if compared else world.accuracies[0]
    estimate = interval or (statistics.difference_over_seeds if compared else statistics.accuracy_over_seeds)
    hits = 0
    for drawn in world.draws(trials):
        found = estimate(list(zip(*drawn, strict=True)) if compared else drawn[0])
        hits += found.low <= truth <= found.high
    return hits / trials


def wrong_families(world: World, trials: int, claims: int = FAMILY) -> tuple[float, float]:
    """Return how often a family has a wrong verdict: with each claim judged alone, and corrected.

    Parameters
    ----------
    world : of two methods with the same accuracy, so that any verdict but "too close to tell" is wrong.
    trials : how many families are drawn.
    claims : the size of a family; each is of other networks and images.
    """
    draws, wrong = world.draws(trials * claims), [0, 0]
    for _ in range(trials):
        drawn = [list(zip(*next(draws), strict=True)) for _ in range(claims)]
        family = as_family([_claim(statistics.difference_over_seeds(pairs)) for pairs in drawn])
        wrong[0] += any(claim.alone != OPEN for claim in family)
        wrong[1] += any(claim.verdict != OPEN for claim in family)
    return wrong[0] / trials, wrong[1] / trials


def _claim(difference: statistics.Estimate) -> Claim:
    side = Quantity("one", difference)
    return Claim("One is above the other.", "nobody", side, side, difference)


def _table(
    kinds: Mapping[str, Sequence[tuple[float, ...]]], images: Sequence[int], sds: Sequence[float], trials: int
) -> dict[World, float]:
    """Print a line for each kind, number of seeds and spread; return the coverages that are out of range."""
    outside = {}
    print("| of | seeds | sd between seeds, points | lowest | mean | highest |\n|---|---|---|---|---|---|")
    for (kind, methods), seeds, sd in itertools.product(kinds.items(), SEEDS, sds):
        asked = itertools.product(methods, images, SHARED)
        worlds = [World(accuracies, sd, n, seeds, shared, "own" in kind) for accuracies, n, shared in asked]
        found = {world: covered(world, trials) for world in worlds}
        of = 100 * np.array(list(found.values()))
        print(f"| {kind} | {seeds} | {100 * sd:g} | {of.min():.1f} | {of.mean():.1f} | {of.max():.1f} |", flush=True)
        outside |= {world: share for world, share in found.items() if not RANGE[0] <= share <= RANGE[1]}
    return outside


def main(trials: Annotated[int, typer.Option(help="Draws for each cell.")] = 2000) -> None:
    """Print the coverage by seeds and by the spread between them, where it is out of range, and families."""
    outside = _table(KINDS, IMAGES, SDS, trials)
    print("\nNot used for choosing how the intervals are made:\n")
    outside |= _table(UNSEEN, (UNSEEN_IMAGES,), UNSEEN_SDS, trials)
    print(f"\nOutside {100 * RANGE[0]:g} to {100 * RANGE[1]:g} %:\n")
    print("| accuracies, % | sd, points | seeds | images | shared | coverage, % |\n|---|---|---|---|---|---|")
    for world, share in outside.items():
        named = " and ".join(f"{100 * accuracy:g}" for accuracy in world.accuracies) + ", own" * world.own_difficulty
        print(f"| {named} | {100 * world.sd:g} | {world.seeds} | {world.n} | {world.shared:g} | {100 * share:.1f} |")
    print(f"\nFamilies of {FAMILY} claims, none of them true: a wrong verdict in per cent of them\n")
    print("| seeds | each claim alone | corrected |\n|---|---|---|")
    for seeds in (1, *SEEDS):
        alone, together = wrong_families(World((0.8, 0.8), 0.02 if seeds > 1 else 0.0, 300, seeds, 0.8), trials)
        print(f"| {seeds} | {100 * alone:.1f} | {100 * together:.1f} |", flush=True)


if __name__ == "__main__":
    typer.run(main)
