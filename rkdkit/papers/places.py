"""Figures and tables of the papers, as a text names them."""

import re
from collections.abc import Collection

from rkdkit import checks

NONE = 1000
"""A number that no figure or table has; it stands for all larger ones."""

TITLES = {"peeraid": "PeerAiD", "ard": "ARD", "rkd": "RKD"}
"""What the papers are called in texts, by their names in the kit."""

Place = tuple[str, str, int]
"""A figure or table: the paper's name in the kit, "Figure" or "Table", and its number."""

_KINDS = {"fig": "Figure", "tab": "Table"}


def places(text: str) -> set[Place]:
    """Return the figures and tables that a text names.

    Parameters
    ----------
    text : such as "RKD, Figures 6 and 10 to 12; ARD, Table 1".

    Returns
    -------
    For this text: ("rkd", "Figure", 6), ("rkd", "Figure", 10), ..., ("ard", "Table", 1).
    """
    found = set()
    for part in text.lower().split(";"):
        named = re.fullmatch(r"\W*([a-z]+)\W+(fig|tab)[a-z]*\W*(\d.*)", part)
        if named is None:
            continue
        paper, kind, numbers = named.groups()
        for first, last in re.findall(r"(\d+)(?:\s*(?:to|-|–)\s*(\d+))?", numbers):
            found |= {(paper, _KINDS[kind], i) for i in range(_number(first), _number(last or first) + 1)}
    return found


def in_words(place: Place) -> str:
    """Return how a text names one figure or table: "RKD Table 9"; the paper is one of :data:`TITLES`."""
    paper, kind, number = place
    return f"{TITLES[paper]} {kind} {number}"


def check_places(text: str, known: Collection[Place]) -> None:
    """Refuse a text that names a figure, a table or a paper that is not there.

    Parameters
    ----------
    text : as :func:`places`.
    known : all figures and tables of the papers.

    Raises
    ------
    UnknownNameError
        If it does; the message lists the paper's other figures or tables, close ones first, or the papers.
    """
    for paper, kind, _ in sorted(places(text).difference(known)):
        if paper not in TITLES:
            checks.one_of("paper", paper, TITLES.values())
        others = sorted(place for place in known if place[:2] == (paper, kind))
        checks.one_of(f"{kind.lower()} of {TITLES[paper]}", text, map(in_words, others))


def _number(digits: str) -> int:
    """Return the number of a figure or table, or `NONE` if no paper has as many."""
    return int(digits) if len(digits) < len(str(NONE)) else NONE
