"""A paper's sentence made checkable: two measured quantities, a direction, an interval, a verdict."""

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from typing import Any

from rkdkit.statistics import CONFIDENCE, Estimate, Measure

HOLDS, FAILS, OPEN = "holds", "does not hold", "too close to tell here"


@dataclass(frozen=True)
class Quantity:
    """One side of a claim.

    Attributes
    ----------
    name : what it is, in words.
    estimate : its value and 95 % interval; an interval of width 0 for a constant.
    """

    name: str
    estimate: Estimate


@dataclass(frozen=True)
class Claim:
    """The first quantity is said to be above the second.

    Attributes
    ----------
    text : the claim in one sentence.
    source : the paper, and where in it.
    higher, lower : the two quantities.
    difference : higher - lower with its interval, paired where both come from the same images.
    confidence : of that interval; above 0.95 where one of several was picked.
    """

    text: str
    source: str
    higher: Quantity
    lower: Quantity
    difference: Estimate
    confidence: float = CONFIDENCE

    @property
    def verdict(self) -> str:
        """`HOLDS` or `FAILS` where the whole interval of the difference is on one side of 0, else `OPEN`."""
        if self.difference.low > 0:
            return HOLDS
        return FAILS if self.difference.high < 0 else OPEN

    def to_json(self) -> dict[str, Any]:
        """Return text, verdict, both quantities and all intervals as plain JSON values."""
        return {**asdict(self), "verdict": self.verdict}

    @classmethod
    def from_json(cls, values: Mapping[str, Any]) -> "Claim":
        """Return the claim that :meth:`to_json` wrote."""

        def estimate(fields: Mapping[str, Any]) -> Estimate:
            return Measure(**fields) if "unit" in fields else Estimate(**fields)

        higher, lower = (Quantity(q["name"], estimate(q["estimate"])) for q in (values["higher"], values["lower"]))
        difference = estimate(values["difference"])
        return cls(values["text"], values["source"], higher, lower, difference, values["confidence"])


def report(claims: Sequence[Claim]) -> str:
    """Return the claims with their verdicts and what was measured, as text to read."""
    return "\n\n".join(
        f"{claim.verdict.upper()}: {claim.text}\n"
        f"  {claim.higher.name}: {claim.higher.estimate}\n"
        f"  {claim.lower.name}: {claim.lower.estimate}\n"
        f"  difference: {_difference(claim.difference)}, a {100 * claim.confidence:.4g} % interval ({claim.source})"
        for claim in claims
    )


def _difference(estimate: Estimate) -> str:
    """Return a difference in words: of accuracies it is in points, not in per cent."""
    if isinstance(estimate, Measure):
        return str(estimate)
    return f"{100 * estimate.value:.1f} [{100 * estimate.low:.1f}, {100 * estimate.high:.1f}] points"


def below(limit: float, name: str, quantity: Quantity) -> tuple[Quantity, Quantity, Estimate]:
    """Return what a claim takes where a quantity is said to be below a number: higher, lower and their difference.

    Parameters
    ----------
    limit : the number.
    name : what to call it: "guessing".
    quantity : what is below it.
    """
    own = quantity.estimate
    return (
        Quantity(name, replace(own, value=limit, low=limit, high=limit)),
        quantity,
        replace(own, value=limit - own.value, low=limit - own.high, high=limit - own.low),
    )


def below_guessing(quantity: Quantity, num_classes: int) -> tuple[Quantity, Quantity, Estimate]:
    """Return what a claim takes where a quantity is said to be below guessing: higher, lower and their difference."""
    return below(1 / num_classes, "guessing", quantity)
