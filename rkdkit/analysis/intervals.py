"""Intervals of what is no accuracy: a quantity that each test image has a value of."""

import math
from collections.abc import Sequence
from dataclasses import dataclass

from torch import Tensor

from rkdkit import evaluation
from rkdkit.evaluation import Estimate


@dataclass(frozen=True)
class Measure(Estimate):
    """An estimate of something that is no share, shown as it is rather than in per cent.

    Attributes
    ----------
    unit : "nats" for a loss; "" for what has none.
    """

    unit: str = ""

    def __str__(self) -> str:
        return f"{self.value:.3f} [{self.low:.3f}, {self.high:.3f}]{' ' * bool(self.unit)}{self.unit}"


def mean(values: Tensor, unit: str = "", confidence: float = evaluation.CONFIDENCE) -> Measure:
    """Mean over images with Student's interval; of paired differences it is the paired t interval.

    Parameters
    ----------
    values : (N,) floating point, one an image, N at least 2.
    unit : of the values.
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


def over_seeds(measures: Sequence[Measure], bounds: tuple[float, float] = (-math.inf, math.inf)) -> Measure:
    """As `evaluation.over_seeds`, for a quantity that need not have bounds."""
    combined = evaluation.over_seeds(measures, bounds)
    return Measure(**vars(combined), unit=measures[0].unit)
