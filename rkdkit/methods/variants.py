"""Rows that are made from other rows."""

from dataclasses import replace
from typing import Any

from rkdkit.methods.grammar import Method


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
