"""A paper's table as a picture: our numbers with their intervals, and the paper's beside them."""

from collections.abc import Mapping
from typing import Any

import pandas as pd
from matplotlib.figure import Figure

from rkdkit.figures.look import COLOURS, legend_below, mathematics, metric_name, new_part

_HERE, _PAPER = "0.15", "0.45"  # rows are methods, so a network's colour would mislead
_THEIRS: dict[str, Any] = {"fmt": "D", "ms": 5, "mfc": "none"}
"""The look of a paper's numbers. They are drawn by `errorbar`, because a legend would list lines of `plot` first."""


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
    table : method, metric, n, and accuracy, low, high and paper as fractions.
    title : the figure's title.
    their_label : the legend's text for the paper's numbers; None: made from the table's paper_dataset and
        paper_network, which `reported.beside` adds.
    width : the figure's width in inches; the height follows from the number of rows.
    row, panel_of : the columns of `table` that give a number's row and panel.
    """
    if their_label is None:
        their_label = f"paper: {table.paper_dataset.iloc[0]}, {table.paper_network.iloc[0]}"
    names, titles = list(dict.fromkeys(table[row])), list(dict.fromkeys(table[panel_of]))
    figure, part = new_part(width, 1.8 + 0.28 * len(names))
    panels = part.subplots(1, len(titles), sharey=True, squeeze=False)
    figure.suptitle(title)
    rows = range(len(names))
    for panel, heading in zip(panels[0], titles, strict=True):
        of_panel = table[table[panel_of] == heading].set_index(row).loc[names]
        value = 100 * of_panel.accuracy
        errors = [value - 100 * of_panel.low, 100 * of_panel.high - value]
        panel.errorbar(value, rows, xerr=errors, fmt="o", ms=5, color=_HERE, label="here, with 95 % interval")
        panel.errorbar(100 * of_panel.paper, rows, color=_PAPER, label=their_label, **_THEIRS)
        number = _number(of_panel.n, table.n)
        panel.set(title=metric_name(heading), xlim=(-3, 103), xlabel=f"Accuracy (%)\n{number}")
        panel.grid(axis="x", alpha=0.3)
    panels[0][0].set_yticks(rows, [metric_name(name) for name in names])
    panels[0][0].invert_yaxis()
    legend_below(part, panels[0, 0], ncols=2)
    return figure


def differences(
    table: pd.DataFrame,
    title: str,
    their_label: str | None = None,
    width: float = 9.0,
    row: str | None = None,
) -> Figure:
    """Draw how much more accurate each method is than the one it is compared with, here and in the paper.

    Accuracies on different data cannot share an axis; differences between methods can.

    Parameters
    ----------
    table : as `WhiteBox.against` returns it; lines that are compared with none are left out. The columns
        paper_dataset and paper_network are those of `reported.beside`.
    title : the figure's title.
    their_label : the legend's text for the paper's numbers; None: made from paper_dataset and paper_network.
    width : the figure's width in inches; the height follows from the number of rows.
    row : the column of `table` that names the rows; None: they are named after both methods.
    """
    if their_label is None:
        their_label = f"paper: {table.paper_dataset.iloc[0]}, {table.paper_network.iloc[0]}"
    shown = table[table.compared_with != ""]
    references = list(dict.fromkeys(shown.compared_with))
    pairs = list(dict.fromkeys(zip(shown.method, shown.compared_with, strict=True)))
    several = len(references) > 1
    figure, part = new_part(width, 1.8 + 0.28 * len(pairs))
    metrics = list(dict.fromkeys(shown.metric))
    panels = part.subplots(1, len(metrics), sharey=True, squeeze=False)
    figure.suptitle(title)
    rows = range(len(pairs))
    for panel, metric in zip(panels[0], metrics, strict=True):
        of_panel = shown[shown.metric == metric].set_index("method").reindex([method for method, _ in pairs])
        ours = 100 * of_panel.difference
        errors = [ours - 100 * of_panel.difference_low, 100 * of_panel.difference_high - ours]
        panel.axvline(0, color="0.6", lw=0.8)
        panel.errorbar(ours, rows, xerr=errors, fmt="o", ms=5, color=_HERE, label="here, with 95 % interval")
        panel.errorbar(100 * of_panel.paper_difference, rows, color=_PAPER, label=their_label, **_THEIRS)
        label = "Difference" if several or row else f"Accuracy minus {references[0]}'s"
        panel.set(title=metric_name(metric), xlabel=f"{label} (points)\n{_number(of_panel.n, table.n)}")
        panel.grid(axis="x", alpha=0.3)
    names = [f"{metric_name(m)} \N{MINUS SIGN} {metric_name(r)}" if several else metric_name(m) for m, r in pairs]
    if row is not None:
        names = list(shown.drop_duplicates("method")[row])
    panels[0][0].set_yticks(rows, names)
    panels[0][0].invert_yaxis()
    legend_below(part, panels[0, 0], ncols=2)
    return figure


def _number(of_panel: pd.Series, of_all: pd.Series) -> str:
    n = of_panel.max()
    return f"first {n:,.0f} images" if n < of_all.max() else f"{n:,.0f} images"


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
