"""A sentence of a paper that can be checked: two measured quantities, a direction, an interval, a verdict."""

import math
import textwrap
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from typing import Any

from rkdkit import checks
from rkdkit.statistics import CONFIDENCE, Estimate, Measure

HOLDS, FAILS, OPEN = "holds", "does not hold", "too close to tell here"


@dataclass(frozen=True)
class Quantity:
    """One side of a claim.

    Attributes
    ----------
    name : a description in words.
    estimate : its value and 95 % interval; for a constant, the interval has width 0.
    """

    name: str
    estimate: Estimate


@dataclass(frozen=True)
class Claim:
    """The claim that one quantity is above another.

    Attributes
    ----------
    text : the claim in one sentence.
    source : the paper, and the place in it.
    higher, lower : the quantity claimed to be higher, and the one claimed to be lower.
    difference : higher - lower with its interval; a paired difference if both are measured on the same images.
    confidence : the confidence of that interval; above 0.95 if the comparison was picked out of several.
    """

    text: str
    source: str
    higher: Quantity
    lower: Quantity
    difference: Estimate
    confidence: float = CONFIDENCE

    @property
    def verdict(self) -> str:
        """`HOLDS` if the whole interval of the difference is above 0, `FAILS` if it is below 0, otherwise `OPEN`."""
        if self.difference.low > 0:
            return HOLDS
        return FAILS if self.difference.high < 0 else OPEN

    def to_json(self) -> dict[str, Any]:
        """Return text, verdict, both quantities and all intervals as plain JSON values."""
        return {**asdict(self), "verdict": self.verdict}

    @classmethod
    def from_json(cls, values: Mapping[str, Any]) -> "Claim":
        """Return the claim that :meth:`to_json` wrote.

        Raises
        ------
        UnknownNameError
            If there is an unknown field.
        ValueError
            If a field is missing, or a value does not fit.
        """
        known = ("text", "source", "higher", "lower", "difference", "confidence")
        named = checks.fields("claim", values, known, ["verdict"])
        higher, lower = (_quantity(name, named[name]) for name in ("higher", "lower"))
        text, source = (checks.text(f"{name} of a claim", named[name]) for name in ("text", "source"))
        checks.number("confidence of a claim", named["confidence"], 0, 1)
        return cls(text, source, higher, lower, _estimate("difference", named["difference"]), named["confidence"])


def _quantity(name: str, values: object) -> Quantity:
    """Return a quantity from its JSON; `name` is its name in the claim."""
    named = checks.fields(f"claim's {name} quantity", values, ("name", "estimate"))
    return Quantity(checks.text(f"name of the {name} quantity", named["name"]), _estimate(name, named["estimate"]))


def _estimate(name: str, values: object) -> Estimate:
    """Return an estimate from its JSON; `name` is its name in the claim."""
    named = checks.fields(f"claim's estimate ({name})", values, ("value", "low", "high", "n", "seeds"), ["unit"])
    for field in ("value", "low", "high"):
        checks.number(f"{field} of a claim's estimate ({name})", named[field])
    for field in ("n", "seeds"):
        named[field] = checks.whole(f"{field} of a claim's estimate ({name})", named[field], 0)
    if "unit" not in named:
        return Estimate(**named)
    checks.text(f"unit of a claim's estimate ({name})", named["unit"])
    return Measure(**named)


SURPRISES = 3
"""How many of the claims that do not hold a report shows with all their numbers."""

_WIDTH = 110


def report(claims: Sequence[Claim]) -> str:
    """Return a tally, a line for each claim with its verdict and difference, and the largest surprises, as text.

    The largest surprises are claims that do not hold: those whose intervals are farthest below 0, compared with their
    width. All quantities of all claims are in the exhibit's JSON file.
    """
    verdicts = [claim.verdict for claim in claims]
    tally = ", ".join(f"{verdict}: {verdicts.count(verdict)}" for verdict in (HOLDS, FAILS, OPEN))
    surprises = sorted((claim for claim in claims if claim.verdict == FAILS), key=_surprise, reverse=True)[:SURPRISES]
    parts = [f"Claims: {tally}.", "\n".join(map(_line, claims))]
    if surprises:
        parts.append("The largest surprises:\n" + "\n".join(map(_in_full, surprises)))
    return "\n\n".join(filter(None, parts))


def _line(claim: Claim) -> str:
    level = "" if claim.confidence == CONFIDENCE else f" ({100 * claim.confidence:.4g} % interval)"
    start = f"{claim.verdict:<{len(OPEN)}}  {_difference(claim.difference):<28}  "
    return textwrap.fill(claim.text + level, _WIDTH, initial_indent=start, subsequent_indent=" " * len(start))


def _in_full(claim: Claim) -> str:
    sides = [f"{side.name}: {side.estimate}" for side in (claim.higher, claim.lower)]
    return textwrap.indent("\n  ".join([f"{claim.text} ({claim.source})", *sides]), "  ")


def _surprise(claim: Claim) -> float:
    difference = claim.difference
    width = difference.high - difference.low
    return -difference.high / width if width else math.inf


def _difference(estimate: Estimate) -> str:
    """Return a difference in words: of accuracies it is in points, not in per cent."""
    if isinstance(estimate, Measure):
        return str(estimate)
    return f"{100 * estimate.value:.1f} [{100 * estimate.low:.1f}, {100 * estimate.high:.1f}] points"


def below(limit: float, name: str, quantity: Quantity) -> tuple[Quantity, Quantity, Estimate]:
    """Return `higher`, `lower` and `difference` of a claim that a quantity is below a number.

    Parameters
    ----------
    limit : the number.
    name : the name of the number, such as "guessing".
    quantity : the quantity claimed to be below it.
    """
    own = quantity.estimate
    return (
        Quantity(name, replace(own, value=limit, low=limit, high=limit)),
        quantity,
        replace(own, value=limit - own.value, low=limit - own.high, high=limit - own.low),
    )


def above(limit: float, name: str, quantity: Quantity) -> tuple[Quantity, Quantity, Estimate]:
    """Return `higher`, `lower` and `difference` of a claim that a quantity is above a number; see :func:`below`."""
    own = quantity.estimate
    return (
        quantity,
        Quantity(name, replace(own, value=limit, low=limit, high=limit)),
        replace(own, value=own.value - limit, low=own.low - limit, high=own.high - limit),
    )


def below_guessing(quantity: Quantity, num_classes: int) -> tuple[Quantity, Quantity, Estimate]:
    """Return `higher`, `lower` and `difference` of a claim that a quantity is below guessing."""
    return below(1 / num_classes, "guessing", quantity)
