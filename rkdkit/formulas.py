"""Formulas for intervals: the variance over seeds and images, quantiles, Wilson's and Newcombe's intervals."""

import math
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from torch import Tensor


def two_levels(values: "Tensor") -> tuple[float, float | None]:
    """Return the variance of the mean of seeds and images, both drawn at random, and its degrees of freedom.

    One part is due to the images: the variance of an image's mean over the seeds, over the number of images. Every seed
    is measured on the same images, so more seeds do not average out how difficult these are. The other part is due to
    the seeds: the variance between their means, less what chance alone makes of it, over the number of seeds. It may be
    negative, but the sum is at least what chance alone makes of the mean. These are the estimates of a two-way analysis
    of variance with random effects. In Satterthwaite's degrees of freedom, the variance between the means is chance's
    at least.

    Parameters
    ----------
    values : (S, N) float64, S at least 2.

    Returns
    -------
    The variance, and the degrees of freedom, at least S - 1; None: the variance is 0.
    """
    seeds, n = values.shape
    free = max(n - 1, 1)  # of one image only the variance between the seeds is known
    of_images, of_seeds = values.mean(0), values.mean(1, keepdim=True)
    rest = float((values - of_images - of_seeds + values.mean()).square().sum()) / ((seeds - 1) * free)
    by_images, between = float(of_images.var()) / n if n > 1 else 0.0, float(of_seeds.var())
    variance = max(by_images + (between - rest / n) / seeds, rest / n / seeds)
    if variance <= 1e-24 * float(values.square().mean()):  # but for rounding, nothing varies
        return 0.0, None
    degrees = variance**2 / ((max(between, rest / n) / seeds) ** 2 / (seeds - 1) + by_images**2 / free)
    return variance, max(degrees, seeds - 1.0)


def effective(of_one: float, variance: float, values: "Tensor") -> float:
    """Return how many images give the mean of one training, of values with variance `of_one`, this variance.

    `values` are all values, (S, N): the answer is N if none differs.
    """
    n = values.shape[1]
    some = of_one * n / max(n - 1, 1) / variance if variance else values.numel()
    return some if of_one > 0 else n


def quantile(alpha: float, degrees: float | None = None) -> float:
    """Return what Student's t exceeds in absolute value with probability `alpha`, which may be tiny.

    Without degrees of freedom it is the normal distribution's.
    """
    from scipy.special import ndtri, stdtrit

    return -float(ndtri(alpha / 2) if degrees is None else stdtrit(degrees, alpha / 2))


def wilson(share: float, n: float, normal: float) -> tuple[float, float]:
    """Return Wilson's score interval of a share of `n` images, which need not be a whole number."""
    scale = 2 * (n + normal**2)
    centre = (2 * n * share + normal**2) / scale
    half = normal / scale * math.sqrt(4 * n * share * (1 - share) + normal**2)
    return (0.0 if share == 0 else centre - half), (1.0 if share == 1 else centre + half)


def agreement(first: "Tensor", second: "Tensor") -> tuple[float, float, float, float]:
    """Return how often both are True, only the first, only the second, neither."""
    both, only_first = float((first & second).sum()), float((first & ~second).sum())
    only_second = float((~first & second).sum())
    return both, only_first, only_second, first.numel() - both - only_first - only_second


def newcombe(
    both: float, only_first: float, only_second: float, neither: float, normal: float
) -> tuple[float, float, float]:
    """Return a paired difference of shares and the distances to both ends of its interval (Newcombe 1998, method 10).

    Parameters
    ----------
    both, only_first, only_second, neither : how many images; they need not be whole numbers.
    normal : the two-sided quantile of the normal distribution.
    """
    n = both + only_first + only_second + neither
    p, q = (both + only_first) / n, (both + only_second) / n
    (p_low, p_high), (q_low, q_high) = wilson(p, n, normal), wilson(q, n, normal)
    cross = both * neither - only_first * only_second
    if cross > 0:
        cross = max(cross - n / 2, 0)
    margins = (both + only_first) * (only_second + neither) * (both + only_second) * (only_first + neither)
    phi = cross / math.sqrt(margins) if margins > 0 else 0.0
    return p - q, _combined(p - p_low, q_high - q, phi), _combined(p_high - p, q - q_low, phi)


def _combined(a: float, b: float, correlation: float) -> float:
    return math.sqrt(max(a * a - 2 * correlation * a * b + b * b, 0.0))
