"""Rows that are made from other rows."""

from dataclasses import replace
from typing import Any

from rkdkit import checks
from rkdkit.methods.grammar import Method

PARTS: dict[str, tuple[str, ...]] = {
    "attack mode": ("attack_mode",),
    "random start": ("clamps_start",),
    "forward passes": ("passes", "passes_after"),
    "normalisation": ("normalises",),
    "loss": ("minimises", "maximises", "settings", "settings_on"),
    "schedule": ("recipe", "recipe_on"),
    "weight averaging": ("averages_weights",),
}
"""The single differences of a released code that have a row of their own, and the fields that each is made of.

Terms and their settings are one difference, because a row with the one and without the other may not be valid.
"""

_WITH = " with the code's "


def part_name(name: str, part: str) -> str:
    """Return the name of a method's row with a single difference: "ARD with the code's attack mode"."""
    return f"{name}{_WITH}{part}"


def split_name(name: str) -> tuple[str, str]:
    """Return the method and the single difference that a name is made of, as :func:`part_name` does; "": none."""
    method, _, part = name.partition(_WITH)
    return method, part


def parts_of(method: Method) -> tuple[str, ...]:
    """Return the keys of `PARTS` in which a row's released code differs; none, if it has no code of its own."""
    return tuple(part for part, names in PARTS.items() if any(name in method.code for name in names))


def with_part(method: Method, part: str) -> Method:
    """Return a row as its paper states it, except for one difference of its released code.

    Parameters
    ----------
    method : a row that has a released code.
    part : a key of `PARTS`.

    Raises
    ------
    UnknownNameError
        If the code does not differ in this.
    ValueError
        If the row has no released code of its own.
    """
    as_code = method.read("code")
    checks.one_of(f"difference of the code of {method.title}", part, parts_of(method))
    changes = {name: getattr(as_code, name) for name in PARTS[part] if name in method.code}
    return replace(method, title=part_name(method.title, part), code={}, **changes)


def with_label_mixing(method: Method, source: str, **changes: Any) -> Method:
    """Return a method's "+" form: the teacher's outputs mixed with the labels (RKD eq. 5 to 7).

    RKD uses the same settings on all datasets, so the new row does, too. It has no released code, unless `changes` says
    otherwise. A row without a teacher is refused.

    Parameters
    ----------
    method : a row with a teacher.
    source : the new row's source.
    changes : further fields of the new row; settings are added to those of `method`.
    """
    settings = {**method.settings, "mixing": 0.7, **changes.pop("settings", {})}
    terms = tuple(
        replace(term, mixing="mixing") if term.target_point is not None and term.target_point.fixed else term
        for term in method.minimises
    )
    changes = {"title": f"{method.title}+", "settings_on": {}, "code": {}, **changes}
    return replace(method, source=source, minimises=terms, settings=settings, **changes)
