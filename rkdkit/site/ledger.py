"""The ledger: every claim of the papers at every scale, a line each."""

from collections.abc import Iterable, Iterator

import pandas as pd

from rkdkit.claims import Claim
from rkdkit.site.found import Found, paper_of
from rkdkit.statistics import Estimate, Measure

POINTS = "points"
"""The unit of differences of accuracies and other shares."""

COLUMNS = (
    *("paper", "claim", "source", "exhibit", "scale", "folder", "dataset", "network", "seeds", "n", "verdict"),
    *("low", "difference", "high", "unit", "confidence", "adjusted_p_value"),
)
"""The columns of the ledger."""


def ledger(found: Iterable[Found]) -> pd.DataFrame:
    """Return all claims of exhibits.

    Parameters
    ----------
    found : the exhibits; those without readable files have no lines.

    Returns
    -------
    `COLUMNS`, in the order of the exhibits: difference (what is claimed to be higher minus what is claimed to be lower)
    with its interval, low and high, in `unit`: points, the unit of a quantity that is no share, or "" for none.
    """
    return pd.DataFrame([dict(zip(COLUMNS, line, strict=True)) for line in _lines(found)], columns=list(COLUMNS))


def _lines(found: Iterable[Found]) -> Iterator[tuple[object, ...]]:
    for exhibit in found:
        for claim in exhibit.claims:
            yield (
                *(paper_of(claim.source), claim.text, claim.source, exhibit.name, exhibit.scale, exhibit.place),
                *(exhibit.made.get("dataset", ""), exhibit.made.get("network", "")),
                *(claim.difference.seeds, claim.difference.n, claim.verdict),
                *interval(claim.difference),
                *(unit(claim.difference), claim.confidence, claim.adjusted_p_value),
            )


def interval(difference: Estimate) -> tuple[float, float, float]:
    """Return the low end of a difference, the difference and the high end, in its :func:`unit`."""
    factor = 1 if isinstance(difference, Measure) else 100
    return factor * difference.low, factor * difference.value, factor * difference.high


def unit(difference: Estimate) -> str:
    """Return the unit in which a difference is told."""
    return difference.unit if isinstance(difference, Measure) else POINTS


def counted(claims: Iterable[Claim], verdicts: Iterable[str]) -> dict[str, int]:
    """Return how many claims have each of the verdicts."""
    found = [claim.verdict for claim in claims]
    return {verdict: found.count(verdict) for verdict in verdicts}
