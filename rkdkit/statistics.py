"""Estimates with intervals: shares of images, means over images, paired differences, several trainings.

What is estimated with several trainings is the mean over all seeds and over all images of the population that the test
images are drawn from. `docs/statistics.md` explains the intervals and shows how often they cover the truth.
"""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, ClassVar, Self, TypeVar

from rkdkit.formulas import agreement, effective, newcombe, quantile, two_levels, wilson

if TYPE_CHECKING:
    from torch import Tensor

CONFIDENCE = 0.95
"""The confidence of all intervals, unless another is given."""

Ends = Callable[[float], tuple[float, float]]
"""The ends of an interval by its probability of an error, which is 1 - confidence."""


@dataclass(frozen=True)
class Estimate:
    """A measured quantity with its 95 % interval.

    Attributes
    ----------
    value, low, high : fractions, not per cent.
    n : the number of test images it is measured on.
    seeds : the number of trainings it is measured on.
    degrees : the degrees of freedom of Student's t that the interval is made with; None: the normal distribution.
    ends : the interval at other confidences, for exact p values; None: not known. `replace` does not keep it.
    """

    BOUNDS: ClassVar[tuple[float, float]] = (0.0, 1.0)

    value: float
    low: float
    high: float
    n: int
    seeds: int = 1
    degrees: float | None = None
    ends: Ends | None = field(default=None, init=False, compare=False, repr=False)

    def with_ends(self, ends: Ends | None) -> Self:
        """Return the same estimate, whose interval at other confidences is known."""
        known = replace(self)
        object.__setattr__(known, "ends", ends)
        return known

    def linear(self, factor: float, shift: float = 0.0) -> Self:
        """Return `factor` times the quantity plus `shift`."""
        known = self.ends

        def moved(low: float, high: float) -> tuple[float, float]:
            one, other = factor * low + shift, factor * high + shift
            return min(one, other), max(one, other)

        low, high = moved(self.low, self.high)
        found = replace(self, value=factor * self.value + shift, low=low, high=high)
        return found.with_ends(known and (lambda alpha: moved(*known(alpha))))

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

    @classmethod
    def of(cls, estimate: Estimate) -> Self:
        """Return a share as a plain number."""
        plain = cls(estimate.value, estimate.low, estimate.high, estimate.n, estimate.seeds, estimate.degrees)
        return plain.with_ends(estimate.ends)

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

    It is 1 minus the confidence at which the interval's end that faces 0 is 0: below 1 - `confidence` if and only if
    the interval does not contain 0. It is exact for t intervals and for those of shares and medians, whose `ends` are
    known at each confidence (for one accuracy and a number, it is the score test's; for a median, the sign test's). For
    others, such as a bootstrap's or one that was read from a file, it is approximate: the distance to that end is taken
    to grow as Student's or the normal quantile does.

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
    if estimate.ends is not None:
        return _inverted(estimate.ends, estimate.value > 0, 1 - confidence)
    beyond = -abs(estimate.value) / reach * quantile(1 - confidence, estimate.degrees)
    return 2 * float(ndtr(beyond) if estimate.degrees is None else stdtr(estimate.degrees, beyond))


def _inverted(ends: Ends, is_positive: bool, alpha: float) -> float:
    """Return the probability of an error at which an interval ends at 0; `alpha` is the side that it is sought from."""
    from scipy.optimize import bisect  # the ends of a median's interval jump

    def distance(logarithm: float) -> float:
        low, high = ends(math.exp(logarithm))
        return low if is_positive else -high

    least, own, most = math.log(1e-100), math.log(alpha), -1e-9
    least, most = (least, own) if distance(own) > 0 else (own, most)
    if distance(least) > 0:
        return 0.0
    return math.exp(bisect(distance, least, most)) if distance(most) > 0 else 1.0


def proportion(correct: "Tensor", confidence: float = CONFIDENCE) -> Estimate:
    """Return the share of True with its Wilson score interval.

    Parameters
    ----------
    correct : (N,) bool, N at least 1.
    confidence : of the interval.
    """
    n = len(correct)
    return _share(int(correct.sum()) / n, n, n, confidence)


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
    return _difference(agreement(first, second), len(first), confidence)


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
    _, only_first, only_second, _ = map(int, agreement(first, second))
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
    half = quantile(1 - confidence, n - 1) * float(values.std()) / math.sqrt(n)
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

    n, ordered = len(values), values.double().sort().values

    def ends(alpha: float) -> tuple[float, float]:
        place = int(binom.ppf(alpha / 2, n, 0.5)) if n else 0
        return (float(ordered[place - 1]), float(ordered[n - place])) if place else (-math.inf, math.inf)

    low, high = ends(1 - confidence)
    if not (math.isfinite(low) and values.isfinite().all()):
        raise ValueError(f"A median's interval needs six finite values or more, not {n}: {values[:5].tolist()}.")
    middle = float(ordered[(n - 1) // 2] + ordered[n // 2]) / 2
    return Measure(middle, low, high, n, unit=unit).with_ends(ends)


def accuracy_over_seeds(of_seeds: Sequence["Tensor"], confidence: float = CONFIDENCE) -> Estimate:
    """Return the share of True over trainings with different seeds; the interval is for new seeds and new images.

    With several seeds it is Wilson's interval for as many images as have the same variance as these seeds and images
    (:func:`.two_levels`), stretched from the normal distribution's quantile to Student's. With one seed it is that of
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
    value, (variance, degrees) = float(values.mean()), two_levels(values)
    images = effective(value * (1 - value), variance, values)
    return _share(value, images, values.shape[1], confidence, len(values), degrees)


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
    first, second = (_stacked([pair[i] for pair in pairs]) for i in (0, 1))
    if first.shape != second.shape:
        raise ValueError(f"Paired results must be of one length, not {first.shape[1]} and {second.shape[1]}.")
    values = first.double() - second.double()
    variance, degrees = two_levels(values)
    of_one = float(values.square().mean() - values.mean() ** 2)
    part = effective(of_one, variance, values) / values.numel()
    both, only_first, only_second, neither = (part * count for count in agreement(first, second))
    counts = (both, only_first, only_second, neither)
    return _difference(counts, values.shape[1], confidence, len(values), degrees)


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
        value, (variance, degrees) = float(values.mean()), two_levels(values)
        half = quantile(1 - confidence, degrees) * math.sqrt(variance)
        found = Measure(value, value - half, value + half, n, len(values), degrees, unit)
    return replace(found, low=max(found.low, bounds[0]), high=min(found.high, bounds[1]))


AnyEstimate = TypeVar("AnyEstimate", bound=Estimate)


def over_seeds(
    estimates: Sequence[AnyEstimate], bounds: tuple[float, float] | None = None, confidence: float = CONFIDENCE
) -> AnyEstimate:
    """Return the mean over trainings of a quantity that is no mean over images, such as a silhouette.

    Nothing is known of single images here, so their uncertainty is taken not to shrink with the number of seeds. The
    spread between trainings (Student's t) is added to it in quadrature, though a part of it is due to the images: the
    interval is approximate, rather too wide than too narrow: two quantiles of Student's t with different degrees of
    freedom are added, and :func:`p_value` takes the sum for a third. With one seed, it does not include the variance
    between trainings. For means over images, use the other three functions.

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
        spread = quantile(1 - confidence, k - 1) * math.sqrt(variance)
        images = ((high - low) / 2 / quantile(1 - confidence, degrees)) ** 2
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


def _share(
    share: float, images: float, n: int, confidence: float, seeds: int = 1, degrees: float | None = None
) -> Estimate:
    """Return a share with Wilson's interval for so many `images`, stretched to Student's quantile."""

    def reach(normal: float) -> tuple[float, float]:
        low, high = wilson(share, images, normal)
        return share - low, high - share

    return _stretched(Estimate(share, share, share, n, seeds, degrees), reach, 0.0, confidence)


def _difference(
    counts: tuple[float, float, float, float], n: int, confidence: float, seeds: int = 1, degrees: float | None = None
) -> Estimate:
    """Return a paired difference with Newcombe's interval for so many images, stretched to Student's quantile."""
    value, *_ = newcombe(*counts, 1.0)
    found = Estimate(value, value, value, n, seeds, degrees)
    return _stretched(found, lambda normal: newcombe(*counts, normal)[1:], -1.0, confidence)


def _stretched(found: Estimate, reach: Ends, least: float, confidence: float) -> Estimate:
    """Return an estimate with an interval; `reach` is how far it reaches down and up by the normal quantile."""

    def ends(alpha: float) -> tuple[float, float]:
        normal = quantile(alpha)
        stretch = 1.0 if found.degrees is None else quantile(alpha, found.degrees) / normal
        down, up = reach(normal)
        return max(found.value - stretch * down, least), min(found.value + stretch * up, 1.0)

    low, high = ends(1 - confidence)
    return replace(found, low=low, high=high).with_ends(ends)


def _stacked(of_seeds: Sequence["Tensor"]) -> "Tensor":
    """Return one (N,) tensor per seed as (S, N)."""
    import torch

    lengths = {len(each) for each in of_seeds}
    if not lengths:
        raise ValueError("There is no training.")
    if len(lengths) != 1:
        raise ValueError(f"The trainings must be measured on the same images, not on {sorted(lengths)} of them.")
    return torch.stack(list(of_seeds))
