"""How points and weights are written, and the objects that they are parsed to.

Points are written as the papers write them. ``S(x)`` is the student's logits at the natural images, ``S(x*)`` at the
finished adversarial examples, ``S(x~)`` at the current iterate of the attack. ``T`` is a fixed teacher, or the weighted
average of several; ``P`` is a peer trained beside the student; ``y`` is the labels. ``P(x*).detach`` is P(x*) without a
gradient. In an update, teachers are always constants.
"""

import json
import re
from collections.abc import Mapping
from dataclasses import dataclass

from rkdkit import checks

Setting = float | str
Settings = Mapping[str, Setting]

TRAINED = {"S": "student", "P": "peer"}
"""The slots of the networks that a row trains, and their roles elsewhere in the kit."""

GUIDES = {"T": "teacher", "T_rob": "robust teacher", "T_nat": "natural teacher"}
"""The teacher slots, and what the fixed network in each is."""

_POINT = re.compile(r"(\w+)\((x|x~|x\*\w*)\)(\.detach)?")
_FACTOR = re.compile(r"\d+(\.\d+)?|[A-Za-z]\w*|1(-[A-Za-z]\w*)+")


@dataclass(frozen=True)
class Point:
    """The logits of a network at some images: ``P(x*).detach``, parsed.

    Attributes
    ----------
    network : the network's slot, a key of `TRAINED` or `GUIDES`.
    place : the images: "x", "x~", "x*", or another name of an attack's examples, such as "x*_S".
    constant : whether the gradient stops here.
    """

    network: str
    place: str
    constant: bool = False

    @classmethod
    def parse(cls, text: str, of: object) -> "Point":
        """Parse the text of a point.

        Parameters
        ----------
        text : such as "S(x*)" or "P(x*).detach".
        of : the term or attack that the point belongs to, for error messages.

        Raises
        ------
        UnknownNameError
            If there is no such network.
        ValueError
            If the text is not a point.
        """
        match = _POINT.fullmatch(text)
        if match is None:
            raise ValueError(f"{of}: {text!r} is not a point such as 'S(x*)' or 'P(x*).detach'.")
        return cls(checks.one_of("network of a row", match[1], [*TRAINED, *GUIDES]), match[2], match[3] is not None)

    @property
    def fixed(self) -> bool:
        """Whether the network is a fixed teacher."""
        return self.network in GUIDES

    def __str__(self) -> str:
        return f"{self.network}({self.place}){'.detach' if self.constant else ''}"


CERTAINTY_POINT = Point("T", "x*")
"""The probability of the true class at this point is the certainty `a` of a term."""


@dataclass(frozen=True)
class Factor:
    """A factor of a weight: a number, a setting, or 1 minus the sum of some settings.

    Attributes
    ----------
    first : a number, or the name of a setting.
    subtracted : the settings subtracted from it: ("a1", "a2") in 1-a1-a2.
    """

    first: float | str
    subtracted: tuple[str, ...] = ()

    def value(self, settings: Settings) -> float:
        """Return its value."""
        first = self.first if isinstance(self.first, float) else float(settings[self.first])
        return first - sum(float(settings[name]) for name in self.subtracted)


@dataclass(frozen=True)
class Product:
    """The weight of a term, parsed.

    Attributes
    ----------
    factors : the factors; an empty product is 1.
    """

    factors: tuple[Factor, ...] = ()

    @classmethod
    def parse(cls, text: str, of: object) -> "Product":
        """Parse the text of a product.

        Parameters
        ----------
        text : settings, numbers and remainders: "l2", "0.5 * own", "1-a1-a2"; "" means 1.
        of : the term that the weight belongs to, for error messages.

        Raises
        ------
        ValueError
            If a factor is none of these.
        """
        factors = []
        for factor in split_factors(text):
            if not _FACTOR.fullmatch(factor):
                raise ValueError(f"{of}: {factor!r} is not a number, setting or remainder 1-a-b.")
            first, *subtracted = factor.split("-")
            factors.append(Factor(float(first) if first[0].isdigit() else first, tuple(subtracted)))
        return cls(tuple(factors))

    @property
    def settings(self) -> frozenset[str]:
        """The names of all its settings."""
        firsts = (factor.first for factor in self.factors)
        return frozenset(name for name in firsts if isinstance(name, str)).union(*self.shares)

    @property
    def shares(self) -> tuple[tuple[str, ...], ...]:
        """The groups of settings that are subtracted from 1 in a factor."""
        return tuple(factor.subtracted for factor in self.factors if factor.subtracted)

    def value(self, settings: Settings) -> float:
        """Return its value."""
        value = 1.0
        for factor in self.factors:
            value *= factor.value(settings)
        return value


def split_factors(weight: str) -> list[str]:
    """Return the factors of a weight as they are written, without spaces."""
    return [factor.replace(" ", "") for factor in weight.split("*")] if weight else []


def without_default(title: str, lacking: Settings) -> str:
    """Return the sentence that refuses a row without defaults for settings that it uses, and says what to type.

    Parameters
    ----------
    title : the row's.
    lacking : a value that each of the settings could have.
    """
    names, typed = ", ".join(lacking), json.dumps(dict(lacking))
    return f"The row {title} has no default for its setting {names}: name one, as in settings={typed}."
