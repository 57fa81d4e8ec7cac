"""Estimates with intervals: shares of images, means over images, paired differences, several trainings.

What is estimated with several trainings is the mean over all seeds and over all images of the population that the test
images are drawn from. `docs/statistics.md` explains the intervals and shows how often they cover the truth.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, ClassVar, TypeVar

if TYPE_CHECKING:
    from torch import Tensor

CONFIDENCE = 0.95
"""The confidence of all intervals, unless another is given."""


@dataclass(frozen=True)
class Estimate:
    """A measured quantity with its 95 % interval.

    Attributes
    ----------
    value, low, high : fractions, not per cent.
    n : the number of test images it is measured on.
    seeds : the number of trainings it is measured on.
    degrees : the degrees of freedom of Student's t that the interval is made with; None: the normal distribution.
    """

    BOUNDS: ClassVar[tuple[float, float]] = (0.0, 1.0)

    value: float
    low: float
    high: float
    n: int
    seeds: int = 1
    degrees: float | None = None

    def columns(self, name: str = "value") -> dict[str, float]:
        """Return the estimate as columns of a table: `name`, low, high, n and seeds."""
        return {name: self.value, "low": self.low, "high": self.high, "n": self.n, "seeds": self.seeds}

    def __str__(self) -> str:
        return f"{100 * self.value:.1f} % [{100 * self.low:.1f}, {100 * self.high:.1f}]"


@dataclass(frozen=True)
class Measure(Estimate):
    """An estimate of a quantity that is not a share; it is printed as a plain number, not in per cent.

    Attributes
    ----------
    unit : "nats" for a loss; "" for a quantity without a unit.
    """

    BOUNDS = (-math.inf, math.inf)

    unit: str = ""

    def __str__(self) -> str:
        value, low, high = (
            f"{round(number, 3) + 0.0:.3f}" for number in (self.value, self.low, self.high)
        )  # no "-0.000"
        return f"{value} [{low}, {high}]{' ' * bool(self.unit)}{self.unit}"


@dataclass(frozen=True)
class PairedTest:
    """A comparison of two networks on the same images.

    Attributes
    ----------
    difference : accuracy of the first minus that of the second, with its 95 % interval.
    p_value : the p value of McNemar's exact test of the hypothesis that both are equally accurate.
    """

    difference: Estimate
    p_value: float


def p_value(estimate: Estimate, confidence: float = CONFIDENCE) -> float:
    """Return the two-sided p value of the hypothesis that a quantity is 0, from its interval.

    It is below 1 - `confidence` if and only if the interval does not contain 0. For other levels, the distance to the
    end that faces 0 is taken to grow with the confidence as the quantile of Student's t or the normal distribution
    does: exact for t intervals, close for the others.

    Parameters
    ----------
    estimate : the quantity; with an interval of width 0 it is known exactly, and the p value is 0 or 1.
    confidence : of the estimate's interval.
    """
    from scipy.special import ndtr, stdtr

    reach = estimate.value - estimate.low if estimate.value > 0 else estimate.high - estimate.value
    if estimate.value == 0 or not math.isfinite(reach):
        return 1.0
    if reach == 0:
        return 0.0
    beyond = -abs(estimate.value) / reach * _quantile(confidence, estimate.degrees)
    return 2 * float(ndtr(beyond) if estimate.degrees is None else stdtr(estimate.degrees, beyond))


def proportion(correct: "Tensor", confidence: float = CONFIDENCE) -> Estimate:
    """Return the share of True with its Wilson score interval.

    Parameters
    ----------
    correct : (N,) bool, N at least 1.
    confidence : of the interval.
    """
    n = len(correct)
    share = int(correct.sum()) / n
    return Estimate(share, *_wilson(share, n, _quantile(confidence)), n)


def paired_difference(first: "Tensor", second: "Tensor", confidence: float = CONFIDENCE) -> Estimate:
    """Return the difference of two accuracies on the same images, with its interval (Newcombe 1998, method 10).

    The pairing matters: if two networks fail on the same images, far fewer images are needed to distinguish them.

    Parameters
    ----------
    first, second : (N,) bool, correctness on the same images.
    confidence : of the interval.

    Returns
    -------
    Estimate of mean(first) - mean(second), in [-1, 1].

    Raises
    ------
    ValueError
        If the two are not of one length.
    """
    if first.shape != second.shape:
        raise ValueError(f"Paired results must be of one length, not {len(first)} and {len(second)}.")
    value, down, up = _newcombe(*_agreement(first, second), _quantile(confidence))
    return Estimate(value, max(value - down, -1.0), min(value + up, 1.0), len(first))


def paired_test(first: "Tensor", second: "Tensor") -> PairedTest:
    """Compare two networks on the same images: Newcombe's interval and McNemar's exact test.

    Parameters
    ----------
    first, second : (N,) bool, correctness on the same images.

    Raises
    ------
    ValueError
        If the two are not of one length.
    """
    from scipy.stats import binomtest

    difference = paired_difference(first, second)
    _, only_first, only_second, _ = map(int, _agreement(first, second))
    disagreements = only_first + only_second
    return PairedTest(difference, float(binomtest(only_first, disagreements).pvalue) if disagreements else 1.0)


def mean(values: "Tensor", unit: str = "", confidence: float = CONFIDENCE) -> Measure:
    """Return the mean over images with Student's t interval; for paired differences, this is the paired t interval.

    Parameters
    ----------
    values : (N,) floating point, one per image, N at least 2.
    unit : the unit of the values.
    confidence : of the interval.

    Raises
    ------
    ValueError
        If there are fewer than two images, or a value is NaN or infinite.
    """
    n = len(values)
    if n < 2 or not values.isfinite().all():
        raise ValueError(f"An interval needs the finite values of two images or more, not {n}: {values[:5].tolist()}.")
    value = float(values.mean())
    half = _quantile(confidence, n - 1) * float(values.std()) / math.sqrt(n)
    return Measure(value, value - half, value + half, n, degrees=n - 1, unit=unit)


def median(values: "Tensor", unit: str = "", confidence: float = CONFIDENCE) -> Measure:
    """Return the median with the interval between two of the values, which assumes no form of their distribution.

    The interval's ends are as many places from the smallest and the largest value as the binomial distribution of the
    number of values below the true median allows.

    Parameters
    ----------
    values : (N,) floating point; N at least 6 for an interval of 95 %.
    unit : the unit of the values.
    confidence : of the interval, at least.

    Raises
    ------
    ValueError
        If a value is NaN or infinite, or there are too few values for the confidence.
    """
    from scipy.stats import binom

    n = len(values)
    place = int(binom.ppf((1 - confidence) / 2, n, 0.5)) if n else 0
    if place == 0 or not values.isfinite().all():
        raise ValueError(f"A median's interval needs six finite values or more, not {n}: {values[:5].tolist()}.")
    ordered = values.double().sort().values
    middle = (ordered[(n - 1) // 2] + ordered[n // 2]) / 2
    return Measure(float(middle), float(ordered[place - 1]), float(ordered[n - place]), n, unit=unit)


def accuracy_over_seeds(of_seeds: Sequence["Tensor"], confidence: float = CONFIDENCE) -> Estimate:
    """Return the share of True over trainings with different seeds; the interval is for new seeds and new images.

    With several seeds it is Wilson's interval for as many images as have the same variance as these seeds and images
    (:func:`_two_levels`), stretched from the normal distribution's quantile to Student's. With one seed it is that of
    :func:`proportion`, which does not include the variance between trainings.

    Parameters
    ----------
    of_seeds : one (N,) bool per seed, always on the same N images.
    confidence : of the interval.

    Raises
    ------
    ValueError
        If there is no training, or they are not of one length.
    """
    if len(of_seeds) == 1:
        return proportion(of_seeds[0], confidence)
    values = _stacked(of_seeds).double()
    value, (variance, degrees) = float(values.mean()), _two_levels(values)
    normal = _quantile(confidence)
    low, high = _wilson(value, _effective(value * (1 - value), variance, values), normal)
    stretch = _quantile(confidence, degrees) / normal
    ends = max(value - stretch * (value - low), 0.0), min(value + stretch * (high - value), 1.0)
    return Estimate(value, *ends, values.shape[1], len(values), degrees)


def difference_over_seeds(pairs: Sequence[tuple["Tensor", "Tensor"]], confidence: float = CONFIDENCE) -> Estimate:
    """Return the difference of two accuracies, paired by seed and by image; the interval is for new seeds and images.

    With several seeds it is Newcombe's interval, where :func:`accuracy_over_seeds` has Wilson's; with one seed it is
    that of :func:`paired_difference`, which does not include the variance between trainings.

    Parameters
    ----------
    pairs : for each seed, (N,) bool of the first and of the second network, always on the same N images.
    confidence : of the interval.

    Raises
    ------
    ValueError
        If there is no training, or they are not of one length.
    """
    if len(pairs) == 1:
        return paired_difference(*pairs[0], confidence)
    first, second = (_stacked(each) for each in zip(*pairs, strict=True))
    if first.shape != second.shape:
        raise ValueError(f"Paired results must be of one length, not {first.shape[1]} and {second.shape[1]}.")
    values = first.double() - second.double()
    variance, degrees = _two_levels(values)
    normal = _quantile(confidence)
    of_one = float(values.square().mean() - values.mean() ** 2)
    share = _effective(of_one, variance, values) / values.numel()
    both, only_first, only_second, neither = (share * count for count in _agreement(first, second))
    value, down, up = _newcombe(both, only_first, only_second, neither, normal)
    stretch = _quantile(confidence, degrees) / normal
    ends = max(value - stretch * down, -1.0), min(value + stretch * up, 1.0)
    return Estimate(value, *ends, values.shape[1], len(values), degrees)


def mean_over_seeds(
    of_seeds: Sequence["Tensor"],
    unit: str = "",
    bounds: tuple[float, float] = Measure.BOUNDS,
    confidence: float = CONFIDENCE,
) -> Measure:
    """Return the mean over images and trainings with Student's interval, which is for new seeds and new images.

    For paired differences, this is the interval paired by seed and by image. With one seed it is that of :func:`mean`,
    which does not include the variance between trainings.

    Parameters
    ----------
    of_seeds : one (N,) floating point per seed, always on the same N images, N at least 2.
    unit : the unit of the values.
    bounds : the range of the mean; the interval is clipped to it.
    confidence : of the interval.

    Raises
    ------
    ValueError
        If there is no training, they are not of one length or of fewer than two images, or a value is NaN or infinite.
    """
    if len(of_seeds) == 1:
        found = mean(of_seeds[0], unit, confidence)
    else:
        values = _stacked(of_seeds).double()
        n = values.shape[1]
        if n < 2 or not values.isfinite().all():
            raise ValueError(f"An interval needs the finite values of two images or more, not of {n}.")
        value, (variance, degrees) = float(values.mean()), _two_levels(values)
        half = _quantile(confidence, degrees) * math.sqrt(variance)
        found = Measure(value, value - half, value + half, n, len(values), degrees, unit)
    return replace(found, low=max(found.low, bounds[0]), high=min(found.high, bounds[1]))


AnyEstimate = TypeVar("AnyEstimate", bound=Estimate)


def over_seeds(
    estimates: Sequence[AnyEstimate], bounds: tuple[float, float] | None = None, confidence: float = CONFIDENCE
) -> AnyEstimate:
    """Return the mean over trainings of a quantity that is no mean over images, such as a silhouette.

    Nothing is known of single images here, so their uncertainty is taken not to shrink with the number of seeds. The
    spread between trainings (Student's t) is added to it in quadrature, though a part of it is due to the images: the
    interval is rather too wide than too narrow. With one seed, it does not include the variance between trainings. For
    means over images, use the other three functions.

    Parameters
    ----------
    estimates : one per seed, at least one.
    bounds : the range of the quantity, such as (-1, 1) for a difference of accuracies; the interval is clipped to it.
        None: (0, 1) for an :class:`Estimate`, no bounds for a :class:`Measure`.
    confidence : the confidence of the estimates' intervals and of the result's.
    """
    k, first = len(estimates), estimates[0]
    value, low, high = (math.fsum(getattr(e, name) for e in estimates) / k for name in ("value", "low", "high"))
    spread, degrees = 0.0, first.degrees
    if k > 1:
        variance = math.fsum((e.value - value) ** 2 for e in estimates) / (k - 1) / k
        spread = _quantile(confidence, k - 1) * math.sqrt(variance)
        images = ((high - low) / 2 / _quantile(confidence, degrees)) ** 2
        if variance:  # Satterthwaite's
            of_images = images**2 / degrees if degrees else 0.0
            degrees = (variance + images) ** 2 / (variance**2 / (k - 1) + of_images)
    least, most = first.BOUNDS if bounds is None else bounds
    return replace(
        first,
        value=value,
        low=max(value - math.hypot(value - low, spread), least),
        high=min(value + math.hypot(high - value, spread), most),
        seeds=sum(e.seeds for e in estimates),
        degrees=degrees,
    )


def _stacked(of_seeds: Sequence["Tensor"]) -> "Tensor":
    """Return one (N,) tensor per seed as (S, N)."""
    import torch

    lengths = {len(each) for each in of_seeds}
    if len(lengths) != 1:
        raise ValueError(f"The trainings must be measured on the same images, not on {sorted(lengths)} of them.")
    return torch.stack(list(of_seeds))


def _two_levels(values: "Tensor") -> tuple[float, float | None]:
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


def _effective(of_one: float, variance: float, values: "Tensor") -> float:
    """Return how many images give the mean of one training, of values with variance `of_one`, this variance.

    `values` are all values, (S, N): the answer is N if none differs.
    """
    n = values.shape[1]
    some = of_one * n / max(n - 1, 1) / variance if variance else values.numel()
    return some if of_one > 0 else n


def _quantile(confidence: float, degrees: float | None = None) -> float:
    """Return the two-sided quantile of Student's t; of the normal distribution without degrees of freedom."""
    from scipy.special import ndtri, stdtrit

    upper = (1 + confidence) / 2
    return float(ndtri(upper) if degrees is None else stdtrit(degrees, upper))


def _wilson(share: float, n: float, quantile: float) -> tuple[float, float]:
    """Return Wilson's score interval of a share of `n` images, which need not be a whole number."""
    scale = 2 * (n + quantile**2)
    centre = (2 * n * share + quantile**2) / scale
    half = quantile / scale * math.sqrt(4 * n * share * (1 - share) + quantile**2)
    return (0.0 if share == 0 else centre - half), (1.0 if share == 1 else centre + half)


def _agreement(first: "Tensor", second: "Tensor") -> tuple[float, float, float, float]:
    """Return how often both are True, only the first, only the second, neither."""
    both, only_first = float((first & second).sum()), float((first & ~second).sum())
    only_second = float((~first & second).sum())
    return both, only_first, only_second, first.numel() - both - only_first - only_second


def _newcombe(
    both: float, only_first: float, only_second: float, neither: float, quantile: float
) -> tuple[float, float, float]:
    """Return a paired difference of shares and the distances to both ends of its interval (Newcombe 1998, method 10).

    Parameters
    ----------
    both, only_first, only_second, neither : how many images; they need not be whole numbers.
    quantile : of the normal distribution.
    """
    n = both + only_first + only_second + neither
    p, q = (both + only_first) / n, (both + only_second) / n
    (p_low, p_high), (q_low, q_high) = _wilson(p, n, quantile), _wilson(q, n, quantile)
    cross = both * neither - only_first * only_second
    if cross > 0:
        cross = max(cross - n / 2, 0)
    margins = (both + only_first) * (only_second + neither) * (both + only_second) * (only_first + neither)
    phi = cross / math.sqrt(margins) if margins > 0 else 0.0
    return p - q, _combined(p - p_low, q_high - q, phi), _combined(p_high - p, q - q_low, phi)


def _combined(a: float, b: float, correlation: float) -> float:
    return math.sqrt(max(a * a - 2 * correlation * a * b + b * b, 0.0))
