"""Tables as HTML that readers sort and filter, verdicts in colour, and intervals as small drawings.

The tables are whole without scripts; `docs/_static/site.js` hands them to DataTables, as itables packages it.
"""

import math
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass
from html import escape
from typing import Any

import pandas as pd

from rkdkit.claims import FAILS, HOLDS, OPEN

VERDICTS = {HOLDS: "holds", FAILS: "fails", OPEN: "open"}
"""The verdicts, and the class of each in the style sheet."""

_SIGNS = {HOLDS: "✓", FAILS: "✗", OPEN: "≈"}
_ROWS = 25
_WIDE = 26
_LAST = 1e300


@dataclass(frozen=True)
class Cell:
    """A cell of a table.

    Attributes
    ----------
    html : what is shown.
    order : what it is sorted by; "": by what is shown.
    search : what a filter finds; "": what is shown.
    """

    html: str
    order: str = ""
    search: str = ""


Shown = Callable[["pd.Series[Any]"], Cell]
"""What makes a cell from a row."""


def table(
    name: str,
    caption: str,
    rows: pd.DataFrame,
    columns: Mapping[str, Shown],
    *,
    rows_shown: int = _ROWS,
    within: Collection[str] = (),
    stacks: bool = False,
) -> str:
    """Return a table that can be sorted, searched and paged.

    Parameters
    ----------
    name : its id in the page.
    caption : what it holds, for readers who do not see it.
    rows : a row each.
    columns : by heading, what makes a cell.
    rows_shown : how many rows a page of it has.
    within : the headings of columns that are sorted within groups, whose order stays the same in both directions: the
        `order` of their cells is the group's place, a space and a number.
    stacks : whether its cells stand below each other on a phone, each beside its heading; otherwise it scrolls there.
    """
    paged = "true" if len(rows) > rows_shown else "false"
    return (
        f'<div class="table-box"><table id="{name}" class="sortable{" stacks" if stacks else ""}" role="table" '
        f'data-page-length="{rows_shown}" data-order="[]" '
        f'data-paging="{paged}" data-info="{paged}" data-searching="{"true" if len(rows) > 5 else "false"}">'
        f'<caption class="unseen">{escape(caption)}</caption>'
        f"{_content(rows, columns, within, stacks=stacks)}</table></div>"
    )


def plain(name: str, caption: str, rows: pd.DataFrame, columns: Mapping[str, Shown]) -> str:
    """Return a table to read, without sorting, which stacks on a phone; parameters as :func:`table`."""
    return (
        f'<div class="table-box" role="region" tabindex="0" aria-label="{escape(caption)}">'
        f'<table id="{name}" class="still stacks" role="table">{_content(rows, columns, stacks=True)}</table></div>'
    )


def _content(
    rows: pd.DataFrame, columns: Mapping[str, Shown], within: Collection[str] = (), *, stacks: bool = False
) -> str:
    """Return head and body of a table.

    Where its cells stand below each other, browsers no longer take it for a table: so each part says what it is.
    """
    sorts = dict.fromkeys(within, ' data-type="within-group"')
    head = "".join(
        f'<th role="columnheader" scope="col"{sorts.get(heading, "")}>{escape(heading)}</th>' for heading in columns
    )
    carried = {heading: heading if stacks else "" for heading in columns}
    cells = ("".join(_cell(make(row), carried[name]) for name, make in columns.items()) for _, row in rows.iterrows())
    body = "".join(f'<tr role="row">{each}</tr>\n' for each in cells)
    return f'<thead role="rowgroup"><tr role="row">{head}</tr></thead>\n<tbody role="rowgroup">\n{body}</tbody>'


def filters(name: str, rows: pd.DataFrame, columns: Sequence[str], places: Mapping[str, int]) -> str:
    """Return drop-down lists that filter a table.

    Parameters
    ----------
    name : the table's id.
    rows : its rows.
    columns : the columns of `rows` with a list each; a list has the column's values, in the order of their names.
    places : the label of a list, by which its column of the table is found: its place from the left, from 0 on.
    """
    lists = []
    for column, (label, place) in zip(columns, places.items(), strict=True):
        values = sorted({str(value) for value in rows[column]} - {""}, key=_by_number)
        options = "".join(f'<option value="{escape(value)}">{escape(value)}</option>' for value in values)
        lists.append(
            f'<label for="{name}-by-{place}">{escape(label)} '
            f'<select id="{name}-by-{place}" data-table="{name}" data-column="{place}">'
            f'<option value="">all</option>{options}</select></label>'
        )
    return f'<div class="filters">{"".join(lists)}</div>'


def text(column: str) -> Shown:
    """Return what shows a column as it is."""
    return lambda row: Cell(escape(str(row[column])))


def number(column: str, form: str) -> Shown:
    """Return what shows a column of numbers, in the form of `format`; NaN is shown as nothing and sorted last."""

    def cell(row: "pd.Series[Any]") -> Cell:
        value = float(str(row[column]))
        shown = "" if math.isnan(value) else format(value, form).replace("-", "−")
        return Cell(f'<span class="number">{shown}</span>', repr(_LAST if math.isnan(value) else value), shown or " ")

    return cell


def as_written(values: pd.DataFrame) -> dict[str, Shown]:
    """Return what shows each column of a CSV: numbers to four digits, sorted as numbers, and texts."""
    return {
        str(name): number(str(name), ".4g") if pd.api.types.is_float_dtype(values[name]) else text(str(name))
        for name in values.columns
    }


def verdict(told: str) -> str:
    """Return a verdict as a coloured label; its sign and words tell it, too."""
    return (
        f'<span class="verdict {VERDICTS[told]}"><span aria-hidden="true">{_SIGNS[told]}</span> {escape(told)}</span>'
    )


def counts(found: Mapping[str, int]) -> str:
    """Return how many claims have each verdict as small labels; "": there are no claims."""
    words = {HOLDS: ("holds", "hold"), FAILS: ("does not hold", "do not hold"), OPEN: ("too close", "too close")}
    return "".join(
        f'<span class="verdict {VERDICTS[told]}"><span aria-hidden="true">{_SIGNS[told]}</span> '
        f"{n} {words[told][n != 1]}</span> "
        for told, n in found.items()
        if n
    )


def drawn(low: float, value: float, high: float, widest: float, told: str) -> str:
    """Return an interval as a small drawing: a line from low to high, a dot, and zero as a thin line.

    Parameters
    ----------
    low, value, high : the interval.
    widest : the largest distance from zero of all intervals beside which it stands; they share one scale.
    told : the verdict, which colours it.
    """
    scale = _WIDE / (widest or 1.0)
    left, at, right = (60 + scale * min(max(number, -widest), widest) * 2 for number in (low, value, high))
    return (
        f'<svg class="interval {VERDICTS[told]}" viewBox="0 0 120 14" width="120" height="14" aria-hidden="true">'
        f'<line class="zero" x1="60" x2="60" y1="0" y2="14"/><line x1="{left:.1f}" x2="{right:.1f}" y1="7" y2="7"/>'
        f'<circle cx="{at:.1f}" cy="7" r="3"/></svg>'
    )


def _cell(cell: Cell, heading: str = "") -> str:
    carried = f' data-heading="{escape(heading)}"' if heading else ""
    order = f' data-order="{escape(cell.order)}"' if cell.order else ""
    search = f' data-search="{escape(cell.search)}"' if cell.search else ""
    return f'<td role="cell"{carried}{order}{search}>{cell.html}</td>'


def _by_number(value: str) -> tuple[str, int]:
    word, _, last = value.rpartition(" ")
    return (word, int(last)) if last.isdigit() else (value, 0)
