"""The papers' numbers: what others report, and what came out here, beside each."""

import re
from collections.abc import Iterable
from typing import Any

import pandas as pd

from rkdkit.papers.places import TITLES, places
from rkdkit.papers.reported import PAPERS, reported, with_replications
from rkdkit.site.found import Found, in_the_papers

_VALUES = ("accuracy", "value")
"""The columns of an exhibit's CSV that may hold our number; low and high hold its interval."""

_EXACT = 1e-5
"""How far a paper's number in a CSV may be from the number itself, relatively: a CSV has six digits."""

_COLUMNS = ("exhibit", "scale", "paper", "value", "low", "high", "label", "table", "metric", "dataset", "network")
_NOTHING = pd.DataFrame(columns=list(_COLUMNS))


def numbers(found: Iterable[Found]) -> pd.DataFrame:
    """Return all numbers that the papers' tables print, each with what others report and what came out here.

    A number stands beside ours where an exhibit's CSV has them in one line, and no other line could be meant.

    Parameters
    ----------
    found : the exhibits, at all scales.

    Returns
    -------
    The columns of `reported.with_replications`, with paper ("PeerAiD"), exhibit (its name; "": none shows the table)
    and here: our number with its interval and its scale, "64.6 [60.3, 68.7] (quick)"; "": there is none.
    """
    made = [exhibit for exhibit in found if not exhibit.problem]
    shown = {exhibit.name: places(in_the_papers(exhibit.name)) for exhibit in made}
    ours = pd.concat([_NOTHING, *(_beside(exhibit) for exhibit in made)], ignore_index=True)
    tables = []
    for paper in PAPERS:
        theirs = with_replications(reported(paper)).assign(paper=TITLES[paper])
        place = {table: (paper, "Table", int(table.removeprefix("Table "))) for table in theirs.table.unique()}
        exhibits = {table: [name for name, has in shown.items() if place[table] in has] for table in place}
        theirs["exhibit"] = [next(iter(exhibits[table]), "") for table in theirs.table]
        theirs["here"] = [_here(number, ours[ours.exhibit.isin(exhibits[number.table])]) for number in _rows(theirs)]
        tables.append(theirs)
    return pd.concat(tables, ignore_index=True)


def _rows(table: pd.DataFrame) -> list["pd.Series[Any]"]:
    return [row for _, row in table.iterrows()]


def _beside(exhibit: Found) -> pd.DataFrame:
    """Return the lines of an exhibit's CSV that have a number of the paper and one of ours, in the same columns."""
    lines = pd.read_csv(exhibit.folder / f"{exhibit.name}.csv", keep_default_na=False, na_values=[""])
    value = next((column for column in _VALUES if column in lines), None)
    if value is None or not {"paper", "low", "high"} <= set(lines):
        return _NOTHING
    lines = lines[lines.paper.notna() & lines[value].notna()]
    if "paper_loss" in lines:  # a student that was chosen with another loss than the paper's is another method's
        lines = lines[lines.loss == lines.paper_loss]
    label = lines[[column for column in ("method", "guide") if column in lines]].fillna("").agg(" ".join, axis=1)
    unknown = pd.Series(None, index=lines.index, dtype=object)
    named = lines.method.str.extract(r"^(Table \d+):", expand=False) if "method" in lines else unknown
    return pd.DataFrame(
        {
            "exhibit": exhibit.name,
            "scale": exhibit.scale,
            "paper": lines.paper,
            "value": lines[value],
            "low": lines.low,
            "high": lines.high,
            "label": label,
            "table": lines.get("table", named),
            "metric": lines.get("paper_metric", lines.get("metric", unknown)),
            "dataset": lines.get("paper_dataset", unknown),
            "network": lines.get("paper_network", unknown),
        }
    )


def _here(number: "pd.Series[Any]", ours: pd.DataFrame) -> str:
    """Return what came out here in place of a paper's number, at each scale; "": nothing, or it is not certain what."""
    if ours.empty:
        return ""
    per_cent = number["unit"] == "%"
    theirs = float(str(number["value"])) / (100 if per_cent else 1)
    same = (ours.paper - theirs).abs() <= _EXACT * max(abs(theirs), 1e-3)
    for column in ("table", "metric", "dataset", "network"):
        same &= ours[column].isna() | (ours[column] == number[column])
    told = [_told(lines, str(number["method"]), per_cent) for _, lines in ours[same].groupby("scale", sort=False)]
    return "; ".join(filter(None, told))


def _told(lines: pd.DataFrame, method: str, per_cent: bool) -> str:
    """Return our number of one scale; of several lines, only the one whose label names the method can be meant."""
    if len(lines) > 1:
        lines = lines[[re.search(rf"(?<!\w){re.escape(method)}(?![\w+-])", label) is not None for label in lines.label]]
    if len(lines) != 1:
        return ""
    line = lines.iloc[0]
    if per_cent:
        return f"{100 * line.value:.1f} [{100 * line.low:.1f}, {100 * line.high:.1f}] ({line.scale})"
    return f"{line.value:.3g} [{line.low:.3g}, {line.high:.3g}] ({line.scale})"
