"""Estimates with intervals: shares of images, means over images, paired differences, several trainings."""

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
    """

    BOUNDS: ClassVar[tuple[float, float]] = (0.0, 1.0)

    value: float
    low: float
    high: float
    n: int
    seeds: int = 1

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


def proportion(correct: "Tensor", confidence: float = CONFIDENCE) -> Estimate:
    """Return the share of True with its Wilson score interval.

    Parameters
    ----------
    correct : (N,) bool, N at least 1.
    confidence : of the interval.
    """
    from scipy.stats import binomtest

    n, hits = len(correct), int(correct.sum())
    interval = binomtest(hits, n).proportion_ci(confidence, method="wilson")
    return Estimate(hits / n, float(interval.low), float(interval.high), n)


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
    p, q, n = proportion(first, confidence), proportion(second, confidence), len(first)
    both, neither = int((first & second).sum()), int((~first & ~second).sum())
    only_first, only_second = int((first & ~second).sum()), int((~first & second).sum())
    cross = float(both * neither - only_first * only_second)
    if cross > 0:
        cross = max(cross - n / 2, 0)
    margins = (both + only_first) * (only_second + neither) * (both + only_second) * (only_first + neither)
    phi = cross / math.sqrt(margins) if margins else 0.0
    down = _combined(p.value - p.low, q.high - q.value, phi)
    up = _combined(p.high - p.value, q.value - q.low, phi)
    value = p.value - q.value
    return Estimate(value, max(value - down, -1.0), min(value + up, 1.0), n)


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
    only_first, only_second = int((first & ~second).sum()), int((~first & second).sum())
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
    from scipy.stats import t

    n = len(values)
    if n < 2 or not values.isfinite().all():
        raise ValueError(f"An interval needs the finite values of two images or more, not {n}: {values[:5].tolist()}.")
    value = float(values.mean())
    half = float(t.ppf((1 + confidence) / 2, n - 1)) * float(values.std()) / math.sqrt(n)
    return Measure(value, value - half, value + half, n, unit=unit)


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


AnyEstimate = TypeVar("AnyEstimate", bound=Estimate)


def over_seeds(
    estimates: Sequence[AnyEstimate], bounds: tuple[float, float] | None = None, confidence: float = CONFIDENCE
) -> AnyEstimate:
    """Return the mean of one quantity over trainings with different seeds; the interval includes their spread.

    The test images are the same for every seed, so the uncertainty from the images does not shrink with the number of
    seeds. The spread between trainings (Student's t) is added to it in quadrature. With one seed, the interval does not
    include the variance between trainings.

    Parameters
    ----------
    estimates : one per seed, at least one.
    bounds : the range of the quantity, such as (-1, 1) for a difference of accuracies; the interval is clipped to it.
        None: (0, 1) for an :class:`Estimate`, no bounds for a :class:`Measure`.
    confidence : the confidence of the estimates' intervals and of the result's.
    """
    from scipy.stats import t

    k = len(estimates)
    value, low, high = (math.fsum(getattr(e, name) for e in estimates) / k for name in ("value", "low", "high"))
    spread = 0.0
    if k > 1:
        variance = math.fsum((e.value - value) ** 2 for e in estimates) / (k - 1)
        spread = float(t.ppf((1 + confidence) / 2, k - 1)) * math.sqrt(variance / k)
    least, most = estimates[0].BOUNDS if bounds is None else bounds
    return replace(
        estimates[0],
        value=value,
        low=max(value - math.hypot(value - low, spread), least),
        high=min(value + math.hypot(high - value, spread), most),
        seeds=sum(e.seeds for e in estimates),
    )


def _combined(a: float, b: float, correlation: float) -> float:
    return math.sqrt(max(a * a - 2 * correlation * a * b + b * b, 0.0))
