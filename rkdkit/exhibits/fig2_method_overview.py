"""PeerAiD, Figure 2, and ARD, Figure 1: what every method maximises and minimises, and where the gradients go."""

from collections.abc import Iterator, Mapping

import pandas as pd

from rkdkit import methods
from rkdkit.methods import Maximised, Method, Term
from rkdkit.setup import FIELDS, Exhibit

EXHIBIT = Exhibit(paper="PeerAiD, Figure 2; ARD, Figure 1", unused=FIELDS, trains=())

PARTS = {"maximise": "inner maximisation", "minimise": "outer minimisation"}
"""The two parts of a method (PeerAiD Figure 2, ARD Figure 1)."""


def overview(rows: Mapping[str, Method]) -> pd.DataFrame:
    """List what methods maximise and minimise, one row per term, as `figures.method_overview` draws it.

    Parameters
    ----------
    rows : methods by name; all of them are `methods.METHODS`.

    Returns
    -------
    A table with the columns method, part (a key of `PARTS`), makes (the name of an attack's examples), term (the
    formula), target, divergence, output and gradient_to. gradient_to says which of target and output receive the
    gradient: in an update it reaches their weights; in an attack it passes through them to the image that is perturbed.
    A method without an attack has a row that says so.

    Raises
    ------
    ValueError
        If `rows` is empty.
    """
    if not rows:
        raise ValueError("There is no method to draw: give at least one row of methods.METHODS.")
    return pd.DataFrame(line for name, row in rows.items() for line in _lines(name, row))


def _lines(name: str, row: Method) -> Iterator[dict[str, str]]:
    replayed = [term for term in row.minimises if row.free and "S(x*)" in term.points]
    for attack in row.maximises:
        yield _line(name, "maximise", attack, attack.makes, [p for p in attack.points if p.endswith("(x~)")])
    for term in replayed:
        yield _line(name, "maximise", term, "x*", [p for p in _learning(term) if p.endswith("(x*)")])
    if not row.attacks:
        nothing = dict.fromkeys(("makes", "target", "divergence", "output", "gradient_to"), "")
        yield {"method": name, "part": "maximise", "term": "nothing: natural images", **nothing}
    for term in row.minimises:
        yield _line(name, "minimise", term, "", _learning(term))


def _line(name: str, part: str, term: Term | Maximised, makes: str, gradient_to: list[str]) -> dict[str, str]:
    mixed = " + y" if isinstance(term, Term) and term.mixing else ""
    return {
        "method": name,
        "part": part,
        "makes": makes,
        "term": str(term),
        "target": term.target.removesuffix(".detach") + mixed,
        "divergence": term.divergence,
        "output": term.output,
        "gradient_to": " ".join(gradient_to),
    }


def _learning(term: Term) -> list[str]:
    """Return the points of a term whose networks it trains."""
    return [
        p for p in (term.target, term.output) if p.partition("(")[0] in methods.TRAINED and not p.endswith("detach")
    ]
