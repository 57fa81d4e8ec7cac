"""A sentence of a paper that can be checked: two measured quantities, a direction, an interval, a verdict.

The claims of one exhibit are a family: their verdicts are corrected together (:func:`as_family`), so that the chance
that any of them is wrong by chance is at most 5 %. Intervals stay those of each claim alone.
"""

import math
import textwrap
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from typing import Any

from rkdkit import checks, progress
from rkdkit.statistics import CONFIDENCE, Estimate, Measure, p_value

HOLDS, FAILS, OPEN = "holds", "does not hold", "too close to tell here"

NO_CLAIM = "no claim of"
"""How the source of a claim begins that is no paper's: a check of the exhibit's own, which is in no family."""


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
    adjusted_p_value : the p value that decides the verdict in a family of claims (:func:`as_family`); None: the claim
        is judged alone.
    note : what is to be known beside the verdict; "": nothing.
    """

    text: str
    source: str
    higher: Quantity
    lower: Quantity
    difference: Estimate
    confidence: float = CONFIDENCE
    adjusted_p_value: float | None = None
    note: str = ""

    @property
    def alone(self) -> str:
        """`HOLDS` if the whole interval of the difference is above 0, `FAILS` if it is below 0, otherwise `OPEN`."""
        if self.difference.low > 0:
            return HOLDS
        return FAILS if self.difference.high < 0 else OPEN

    @property
    def verdict(self) -> str:
        """The verdict in the family: that of the claim :attr:`alone`, or `OPEN` if the family leaves it open."""
        adjusted = self.adjusted_p_value
        return OPEN if adjusted is not None and adjusted >= 1 - CONFIDENCE else self.alone

    @property
    def p_value(self) -> float:
        """The two-sided p value of the hypothesis that both quantities are equal, for this claim alone.

        Where the comparison was picked out of several, it is multiplied by as much as the interval's confidence was
        raised (Bonferroni).
        """
        picked_of = (1 - CONFIDENCE) / (1 - self.confidence) if self.confidence < 1 else math.inf
        return min(picked_of * p_value(self.difference, self.confidence), 1.0) if picked_of < math.inf else 1.0

    @property
    def is_of_a_family(self) -> bool:
        """Whether it is a claim of a paper that rests on a sample: what was counted exactly needs no correction."""
        return self.difference.low < self.difference.high and not self.source.startswith(NO_CLAIM)

    def to_json(self) -> dict[str, Any]:
        """Return text, verdict, both quantities and all intervals as plain JSON values."""
        values = {**asdict(self), "verdict": self.verdict}
        for estimate in (values["higher"]["estimate"], values["lower"]["estimate"], values["difference"]):
            _without(estimate, "degrees")
            del estimate["ends"]
        if not self.note:
            del values["note"]
        return _without(values, "adjusted_p_value")

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
        named = checks.fields("claim", values, known, ["verdict", "adjusted_p_value", "note"])
        higher, lower = (_quantity(name, named[name]) for name in ("higher", "lower"))
        text, source = (checks.text(f"{name} of a claim", named[name]) for name in ("text", "source"))
        checks.number("confidence of a claim", named["confidence"], 0, 1)
        adjusted = named.get("adjusted_p_value")
        if adjusted is not None:
            checks.number("adjusted_p_value of a claim", adjusted, 0, 1)
        difference = _estimate("difference", named["difference"])
        note = checks.text("note of a claim", named.get("note", ""))
        return cls(text, source, higher, lower, difference, named["confidence"], adjusted, note)


def deciding(differences: Callable[[float], Sequence[Estimate]]) -> tuple[int, Estimate, float]:
    """Return which of several differences decides a claim that all of them are above 0.

    If all of them are above 0 as measured, it is the one with the largest p value: the claim holds if that one's 95 %
    interval is above 0. Otherwise, of those that are not, it is the one with the smallest p value. The claim does not
    hold if its interval is below 0, where the intervals hold for all comparisons together (Bonferroni).

    Parameters
    ----------
    differences : confidence of the intervals -> the differences, always in the same order; at least one.

    Returns
    -------
    The place of the difference, the difference, and the confidence of its interval.
    """
    found, confidence = differences(CONFIDENCE), CONFIDENCE
    if all(each.value > 0 for each in found):
        place = max(range(len(found)), key=lambda i: p_value(found[i]))
    else:
        confidence = 1 - (1 - CONFIDENCE) / len(found)
        found = differences(confidence)
        not_above = [i for i, each in enumerate(found) if not each.value > 0]
        place = min(not_above, key=lambda i: p_value(found[i], confidence))
    return place, found[place], confidence


@dataclass(frozen=True)
class Question:
    """A sentence of a paper that becomes a claim where all that it is about was measured.

    Attributes
    ----------
    text : the sentence.
    needs : the methods or networks that it is about.
    judge : makes the claim from the sentence.
    """

    text: str
    needs: Collection[str]
    judge: Callable[[str], Claim]


def judged(questions: Iterable[Question], measured: Collection[str]) -> list[Claim]:
    """Return the claims that can be judged; say which are left out.

    Parameters
    ----------
    questions : what the paper says.
    measured : the methods or networks that were measured.
    """
    found, left_out = list[Claim](), list[str]()
    for question in questions:
        lacking = [name for name in question.needs if name not in measured]
        if lacking:
            left_out.append(f"  {question.text} (not compared here: {', '.join(lacking)})")
        else:
            found.append(question.judge(question.text))
    if left_out:
        progress.say("\n".join(["Left out, as they are about methods that are not compared here:", *left_out]))
    return found


def as_family(claims: Sequence[Claim]) -> list[Claim]:
    """Return the claims of one exhibit with verdicts that are corrected for their number (Holm 1979).

    The smallest p value is multiplied by the number of claims in the family, the second smallest by one less, and so
    on; none is smaller than one before it. A claim's verdict stays if its adjusted p value is below 0.05. So the
    probability that any verdict of the family is "holds" or "does not hold" though the two quantities are equal is at
    most 5 %.

    Parameters
    ----------
    claims : all claims of an exhibit. Those that are of no family (`Claim.is_of_a_family`) are returned as they are,
        and so are all claims of a family that was judged before, whose p values were perhaps read from a file.
    """
    p_values = {i: claim.p_value for i, claim in enumerate(claims) if claim.is_of_a_family}
    if all(claims[i].adjusted_p_value is not None for i in p_values):
        return list(claims)
    adjusted, last = dict[int, float](), 0.0
    for tested, i in enumerate(sorted(p_values, key=lambda i: p_values[i])):
        last = adjusted[i] = max(last, min((len(p_values) - tested) * p_values[i], 1.0))
    return [replace(claim, adjusted_p_value=adjusted.get(i)) for i, claim in enumerate(claims)]


def family(claims: Sequence[Claim], exhibit: str) -> dict[str, Any]:
    """Return what the family of an exhibit's claims is, as plain JSON values: its name, size, correction, confidence.

    Parameters
    ----------
    claims : all claims of the exhibit.
    exhibit : its name.
    """
    size = sum(claim.is_of_a_family for claim in claims)
    return {"name": f"claims of {exhibit}", "size": size, "correction": "Holm", "confidence": CONFIDENCE}


def family_in_words(claims: Sequence[Claim], exhibit: str = "this exhibit") -> str:
    """Return a sentence that names the family of an exhibit's claims; "": they are fewer than two.

    Parameters
    ----------
    claims, exhibit : as :func:`family`.
    """
    size = sum(claim.is_of_a_family for claim in claims)
    if size < 2:
        return ""
    return f"Verdicts: one family, the {size} claims of {exhibit}, at {100 * CONFIDENCE:g} % together (Holm)."


def _without(values: dict[str, Any], name: str) -> dict[str, Any]:
    """Remove a field that is None: earlier files do not have it."""
    if values[name] is None:
        del values[name]
    return values


def _quantity(name: str, values: object) -> Quantity:
    """Return a quantity from its JSON; `name` is its name in the claim."""
    named = checks.fields(f"claim's {name} quantity", values, ("name", "estimate"))
    return Quantity(checks.text(f"name of the {name} quantity", named["name"]), _estimate(name, named["estimate"]))


def _estimate(name: str, values: object) -> Estimate:
    """Return an estimate from its JSON; `name` is its name in the claim."""
    fields = ("value", "low", "high", "n", "seeds")
    named = checks.fields(f"claim's estimate ({name})", values, fields, ["degrees", "unit"])
    for field in ("value", "low", "high", *(["degrees"] if "degrees" in named else [])):
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

    The claims are judged as one family (:func:`as_family`); a line says what the verdict of its claim alone would be,
    if that is another.

    The largest surprises are claims that do not hold: those whose intervals are farthest below 0, compared with their
    width. All quantities of all claims are in the exhibit's JSON file.
    """
    if not claims:
        return "No claims are judged."
    claims = as_family(claims)
    verdicts = [claim.verdict for claim in claims]
    tally = ", ".join(f"{verdict}: {verdicts.count(verdict)}" for verdict in (HOLDS, FAILS, OPEN))
    surprises = sorted((claim for claim in claims if claim.verdict == FAILS), key=_surprise, reverse=True)[:SURPRISES]
    named = " ".join(filter(None, [f"Claims: {tally}.", family_in_words(claims)]))
    parts = [named, "\n".join(map(_line, claims))]
    if surprises:
        parts.append("The largest surprises:\n" + "\n".join(map(_in_full, surprises)))
    return "\n\n".join(filter(None, parts))


def confidence_in_words(confidence: float) -> str:
    """Return what an interval is called that is not one of 95 %: "99.67 % interval"; "": it is one."""
    return "" if confidence == CONFIDENCE else f"{100 * confidence:.4g} % interval"


def notes_in_words(claim: Claim) -> str:
    """Return what stands beside a claim's difference and verdict: "99 % interval; alone: holds"; "": nothing."""
    alone = "" if claim.verdict == claim.alone else f"alone: {claim.alone}"
    return "; ".join(filter(None, (confidence_in_words(claim.confidence), alone, claim.note)))


def _line(claim: Claim) -> str:
    notes = notes_in_words(claim)
    text = f"{claim.text} ({notes})" if notes else claim.text
    start = f"{claim.verdict:<{len(OPEN)}}  {difference_in_words(claim.difference):<28}  "
    return textwrap.fill(text, _WIDTH, initial_indent=start, subsequent_indent=" " * len(start))


def _in_full(claim: Claim) -> str:
    sides = [f"{side.name}: {side.estimate}" for side in (claim.higher, claim.lower)]
    return textwrap.indent("\n  ".join([f"{claim.text} ({claim.source})", *sides]), "  ")


def _surprise(claim: Claim) -> float:
    difference = claim.difference
    width = difference.high - difference.low
    return -difference.high / width if width else math.inf


def difference_in_words(estimate: Estimate) -> str:
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
        own.linear(-1, limit),
    )


def above(limit: float, name: str, quantity: Quantity) -> tuple[Quantity, Quantity, Estimate]:
    """Return `higher`, `lower` and `difference` of a claim that a quantity is above a number; see :func:`below`."""
    own = quantity.estimate
    return (
        quantity,
        Quantity(name, replace(own, value=limit, low=limit, high=limit)),
        own.linear(1, -limit),
    )


def below_guessing(quantity: Quantity, num_classes: int) -> tuple[Quantity, Quantity, Estimate]:
    """Return `higher`, `lower` and `difference` of a claim that a quantity is below guessing."""
    return below(1 / num_classes, "guessing", quantity)
