"""A paper's table as a picture: our numbers with their intervals, and the paper's beside them."""

import math
from collections.abc import Mapping, Sequence
from typing import Any

import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure, SubFigure

from rkdkit.figures.look import COLOURS, legend_below, mathematics, metric_name, new_part
from rkdkit.methods import titled

_HERE, _PAPER = "0.15", "0.45"  # rows are methods, so a network's colour would mislead
_THEIRS: dict[str, Any] = {"fmt": "D", "ms": 5, "mfc": "none"}
"""The look of a paper's numbers. They are drawn by `errorbar`, because a legend would list lines of `plot` first."""

_MARKS = {"\N{DAGGER}": r"$\dagger$", "\N{DOUBLE DAGGER}": r"$\ddagger$"}
"""Marks of lines with a remark: in their names, and in the legend."""


def accuracy_by_method(
    table: pd.DataFrame,
    title: str,
    their_label: str | None = None,
    width: float = 9.0,
    row: str = "method",
    panel_of: str = "metric",
) -> Figure:
    """Draw our accuracy with its interval and the paper's number, in one panel per metric with one row per method.

    Parameters
    ----------
    table : method, metric, n, and accuracy, low, high and paper as fractions. Lines without an accuracy are left out.
    title : the figure's title.
    their_label : the legend's text for the paper's numbers; None: made from the table's paper_dataset and
        paper_network, which `reported.beside` adds.
    width : the figure's width in inches; the height follows from the number of rows.
    row, panel_of : the columns of `table` that give a number's row and panel.
    """
    if their_label is None:
        their_label = f"paper: {table.paper_dataset.iloc[0]}, {table.paper_network.iloc[0]}"
    table = table[table.accuracy.notna()]
    in_legend = their_label if table.paper.notna().any() else None
    names, titles = list(dict.fromkeys(table[row])), list(dict.fromkeys(table[panel_of]))
    figure, part = new_part(width, 1.8 + 0.28 * len(names))
    figure.suptitle(title)
    panels = _panels(part, titles, [_label(name, row) for name in names])
    for heading, panel in panels.items():
        of_panel = table[table[panel_of] == heading].set_index(row).loc[names]
        _ours(panel, of_panel.accuracy, of_panel.low, of_panel.high)
        panel.errorbar(100 * of_panel.paper, range(len(names)), color=_PAPER, label=in_legend, **_THEIRS)
        number = _number(of_panel.n, table.n)
        panel.set(title=_label(heading, panel_of), xlim=(-3, 103), xlabel=f"Accuracy (%)\n{number}")
    legend_below(part, panels[titles[0]], ncols=2)
    return figure


def in_per_cent(table: pd.DataFrame, row: str = "method") -> pd.DataFrame:
    """Return accuracies to read: per cent with 95 % intervals, a column for each metric, the paper's numbers beside.

    Parameters
    ----------
    table : accuracy, low, high and perhaps paper, as fractions, by metric and by the column `row`.
    row : the column that names a line.
    """
    columns = {}
    for metric in dict.fromkeys(table.metric):
        of_metric = table[table.metric == metric].set_index(row)
        ours = zip(of_metric.accuracy, of_metric.low, of_metric.high, strict=True)
        here = [f"{100 * a:.1f} [{100 * b:.1f}, {100 * c:.1f}]" if not math.isnan(a) else "" for a, b, c in ours]
        columns[metric_name(metric), "here"] = pd.Series(here, of_metric.index)
        if "paper" in table:
            theirs = [f"{100 * value:.2f}" if not math.isnan(value) else "" for value in of_metric.paper]
            columns[metric_name(metric), "paper"] = pd.Series(theirs, of_metric.index)
    rows = list(dict.fromkeys(table[row]))
    shown = pd.DataFrame(columns).reindex(rows).fillna("")
    return shown.rename(index=titled)


def differences(
    table: pd.DataFrame,
    title: str,
    their_label: str | None = None,
    width: float = 9.0,
    row: str = "method",
    difference: str | None = None,
) -> Figure:
    """Draw our accuracies, and below them how much more accurate each method is than another, here and in the paper.

    Accuracies on different data cannot share an axis; differences between methods can.

    Parameters
    ----------
    table : as `WhiteBox.against` returns it. Lines without an accuracy are left out above, lines that are compared with
        none are left out below. The columns paper_dataset and paper_network are those of `reported.beside`. Lines
        with a text in the column remark, if there is one, are marked, and the legend has the text: at most two.
    title : the figure's title.
    their_label : the legend's text for the paper's numbers; None: made from paper_dataset and paper_network.
    width : the figure's width in inches; the height follows from the number of rows.
    row : the column of `table` that names a row.
    difference : the column that names the row of a difference; None: it is named after both methods.
    """
    figure, part = new_part(width, 0.8 + sum(heights_of_differences(table, row)))
    figure.suptitle(title)
    draw_differences(part, table, their_label, row, difference)
    return figure


def draw_differences(
    part: SubFigure,
    table: pd.DataFrame,
    their_label: str | None = None,
    row: str = "method",
    difference: str | None = None,
) -> None:
    """Draw into a part of a figure what :func:`differences` draws; parameters as there."""
    if their_label is None:
        their_label = f"paper: {table.paper_dataset.iloc[0]}, {table.paper_network.iloc[0]}"
    measured, compared = table[table.accuracy.notna()], table[table.compared_with != ""]
    rows, pairs = _rows_and_pairs(table, row)
    several = compared.compared_with.nunique() > 1 or difference is not None
    heights = heights_of_differences(table, row)
    upper, *lower = part.subfigures(len(heights), 1, height_ratios=heights, squeeze=False).flat
    remarks = dict(zip(table[row], table.remark, strict=True)) if "remark" in table else {}
    kinds = [remark for remark in dict.fromkeys(remarks.values()) if remark]
    marks = dict(zip(kinds, list(_MARKS)[: len(kinds)], strict=True))
    endings = {name: f" {marks[remark]}" if remark else "" for name, remark in remarks.items()}
    marked = [titled(name) + endings.get(name, "") for name in rows]
    above = _panels(upper, list(dict.fromkeys(measured.metric)), marked)
    for metric, panel in above.items():
        of_panel = measured[measured.metric == metric].set_index(row).reindex(rows)
        _ours(panel, of_panel.accuracy, of_panel.low, of_panel.high)
        panel.set(title=metric_name(metric), xlim=(-3, 103), xlabel=f"Accuracy (%)\n{_number(of_panel.n, table.n)}")
    if not lower:  # nothing is compared
        legend_below(part, next(iter(above.values())), ncols=2)
        return
    names = [f"{titled(m)} \N{MINUS SIGN} {titled(r)}" if several else titled(m) for m, r in pairs]
    if difference is not None:
        names = list(compared.drop_duplicates([row, "compared_with"])[difference])
    names = [name + endings.get(of, "") for name, (of, _) in zip(names, pairs, strict=True)]
    label = "Difference" if several else f"Accuracy minus\n{titled(pairs[0][1])}'s"
    in_legend = their_label if compared.paper_difference.notna().any() else None
    below = _panels(lower[0], list(dict.fromkeys(compared.metric)), names)
    for metric, panel in below.items():
        of_panel = compared[compared.metric == metric].set_index(row).reindex([name for name, _ in pairs])
        panel.axvline(0, color="0.6", lw=0.8)
        _ours(panel, of_panel.difference, of_panel.difference_low, of_panel.difference_high)
        theirs = 100 * of_panel.paper_difference
        panel.errorbar(theirs, range(len(pairs)), color=_PAPER, label=in_legend, **_THEIRS)
        panel.set(title=metric_name(metric), xlabel=f"{label} (points)")
    first = next(iter(below.values()))
    for remark, mark in marks.items():
        first.errorbar([], [], ls="", marker=_MARKS[mark], ms=7, color=_HERE, label=remark)
    legend_below(part, first, ncols=2)


def heights_of_differences(table: pd.DataFrame, row: str = "method") -> list[float]:
    """Return the heights in inches of the accuracies and, unless there are none, of the differences."""
    return [0.9 + 0.26 * len(rows) for rows in _rows_and_pairs(table, row) if rows]


def _rows_and_pairs(table: pd.DataFrame, row: str) -> tuple[list[str], list[tuple[str, str]]]:
    measured, compared = table[table.accuracy.notna()], table[table.compared_with != ""]
    pairs = zip(compared[row], compared.compared_with, strict=True)
    return list(dict.fromkeys(measured[row])), list(dict.fromkeys(pairs))


def _panels(part: SubFigure, metrics: Sequence[str], rows: Sequence[str]) -> dict[str, Axes]:
    """Return a panel for each metric, side by side, with the same named rows."""
    panels = part.subplots(1, len(metrics), sharey=True, squeeze=False)[0]
    panels[0].set_yticks(range(len(rows)), rows)
    panels[0].set_ylim(len(rows) - 0.5, -0.5)
    for panel in panels:
        panel.grid(axis="x", alpha=0.3)
    return dict(zip(metrics, panels, strict=True))


def _ours(panel: Axes, values: pd.Series, low: pd.Series, high: pd.Series) -> None:
    errors = [100 * (values - low), 100 * (high - values)]
    look: dict[str, Any] = {"fmt": "o", "ms": 5, "color": _HERE, "label": "here, with 95 % interval"}
    panel.errorbar(100 * values, range(len(values)), xerr=errors, **look)


def _label(name: str, column: str) -> str:
    """Return what a figure calls a line or panel, by the column that it is of."""
    return metric_name(name) if column == "metric" else titled(name)


def _number(of_panel: pd.Series, of_all: pd.Series) -> str:
    n = of_panel.max()
    return f"first {n:,.0f} images" if n < of_all.max() else f"{n:,.0f} images"


def readings_compared(table: pd.DataFrame, ablated: str, title: str, limit: float) -> Figure:
    """Draw what a code's reading changes: of every method above, and below, of one method, what each difference does.

    Parameters
    ----------
    table : base (the method), reading ("paper", "code" or the name of a single difference), metric, n, seeds, and
        difference, difference_low and difference_high as fractions, as `WhiteBox.against` has them.
    ablated : the method below.
    title : the figure's title.
    limit : a fraction; where the metric is not "clean", smaller changes lie in a shaded band.
    """
    whole, single = table[table.reading == "code"], table[~table.reading.isin(["paper", "code"])]
    of_one = pd.concat([whole[whole.base == ablated], single]).replace({"reading": {"code": "all differences"}})
    groups = {
        "The code's reading minus the paper's": whole.set_index("base"),
        f"{ablated}: one difference at a time": of_one.set_index("reading"),
    }
    heights = [1.3 + 0.26 * lines.index.nunique() for lines in groups.values()]
    figure, part = new_part(9.0, 0.6 + sum(heights))
    figure.suptitle(title)
    ends = table[["difference_low", "difference_high"]].abs().max().max()
    widest = 105 * max(limit, ends)
    places = part.subfigures(2, 1, height_ratios=heights, squeeze=False).flat
    for (heading, lines), place in zip(groups.items(), places, strict=True):
        rows = list(dict.fromkeys(lines.index))
        panels = _panels(place, list(dict.fromkeys(lines.metric)), rows)
        place.suptitle(heading, fontsize="medium")
        for metric, panel in panels.items():
            of_panel = lines[lines.metric == metric].loc[rows]
            panel.axvline(0, color="0.6", lw=0.8)
            if metric != "clean":
                panel.axvspan(
                    -100 * limit, 100 * limit, color="0.9", zorder=0, label=f"less than {100 * limit:g} points"
                )
            _ours(panel, of_panel.difference, of_panel.difference_low, of_panel.difference_high)
            seeds = f"{of_panel.seeds.max():.0f} seed{'s' if of_panel.seeds.max() > 1 else ''}"
            label = f"Difference (points)\n{_number(of_panel.n, table.n)}, {seeds}"
            panel.set(title=metric_name(metric), xlim=(-widest, widest), xlabel=label)
        legend = panels[lines.metric.iloc[-1]]
    legend_below(part, legend, ncols=2)
    return figure


def readings_in_points(table: pd.DataFrame) -> pd.DataFrame:
    """Return the numbers of :func:`readings_compared` to read: accuracies in per cent, differences in points.

    Parameters
    ----------
    table : as there, with accuracy, low and high.

    Returns
    -------
    A line per method and reading; for each metric, the accuracy and the difference from the paper's reading as text.
    """
    lines = list(dict.fromkeys(zip(table.base, table.reading, strict=True)))
    columns = {}
    for metric in dict.fromkeys(table.metric):
        found = table[table.metric == metric].set_index(["base", "reading"]).loc[lines]
        ours = zip(found.accuracy, found.low, found.high, strict=True)
        apart = zip(found.difference, found.difference_low, found.difference_high, strict=True)
        columns[metric_name(metric), "accuracy"] = [f"{100 * a:.1f} [{100 * b:.1f}, {100 * c:.1f}]" for a, b, c in ours]
        columns[metric_name(metric), "minus the paper's"] = [
            "" if math.isnan(a) else f"{100 * a:+.1f} [{100 * b:+.1f}, {100 * c:+.1f}]" for a, b, c in apart
        ]
    return pd.DataFrame(columns, pd.MultiIndex.from_tuples(lines, names=["method", "reading"]))


def guides_compared(table: pd.DataFrame, names: Mapping[str, str], their_label: str) -> Figure:
    """Draw a panel of accuracies and a panel of cosine similarities, ours with intervals and the paper's.

    Parameters
    ----------
    table : guide, quantity, value, low, high and paper; accuracies as fractions.
    names : the legend's text by guide, in the order of drawing.
    their_label : the legend's text for the paper's numbers.
    """
    figure, part = new_part(9, 4.1)
    panels = part.subplots(1, 2)
    is_cosine = table.quantity.str.startswith("cos")
    for panel, numbers, scale in zip(panels, (table[~is_cosine], table[is_cosine]), (100, 1), strict=True):
        rows = list(dict.fromkeys(numbers.quantity))
        for i, (guide, label) in enumerate(names.items()):
            of_guide = numbers[numbers.guide == guide].set_index("quantity").loc[rows]
            y = [row + 0.22 * (i - (len(names) - 1) / 2) for row in range(len(rows))]
            errors = [scale * (of_guide.value - of_guide.low), scale * (of_guide.high - of_guide.value)]
            colour = COLOURS[guide]
            panel.errorbar(scale * of_guide.value, y, xerr=errors, fmt="o", ms=5, color=colour, label=label)
            panel.errorbar(scale * of_guide.paper, y, color=colour, **_THEIRS)
        panel.set_yticks(range(len(rows)), [mathematics(row) for row in rows])
        panel.invert_yaxis()
        panel.grid(axis="x", alpha=0.3)
    panels[0].set(xlim=(-3, 103), xlabel="Accuracy of guide f or student S (%)")
    panels[1].set(xlabel="Cosine of the guide's penultimate features")
    panels[0].errorbar([], [], color=_PAPER, label=their_label, **_THEIRS)
    legend_below(part, panels[0], ncols=len(names) + 1)
    return figure
