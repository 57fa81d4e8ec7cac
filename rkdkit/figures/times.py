"""Training times as ratios: measured, counted in passes and in operations, and the paper's."""

from typing import Any

import matplotlib.pyplot as plt
import pandas as pd
from matplotlib.figure import Figure, SubFigure

from rkdkit.figures.look import PALETTE, legend_below, style
from rkdkit.figures.tables import draw_differences, heights_of_differences

_MARKS: dict[str, dict[str, Any]] = {
    "ratio_of_passes": {"fmt": "|", "ms": 13, "mew": 2, "color": PALETTE[0], "label": "the student's passes"},
    "ratio_of_work": {"fmt": "x", "ms": 7, "mew": 2, "color": PALETTE[1], "label": "operations, teacher included"},
}
"""The look of what is counted, by column."""


def differences_and_times(table: pd.DataFrame, title: str, reference: str, width: float = 9.0) -> Figure:
    """Draw accuracies, how much more accurate each method is than another, and how long its training takes.

    Parameters
    ----------
    table : accuracies as `tables.differences` takes them. Below them, training times as `TrainingTimes.table` returns
        them, with the column paper_ratio: lines in which `ratio` is known.
    title : the figure's title.
    reference : the method whose training time is 1.
    width : the figure's width in inches; the height follows from the number of rows.
    """
    style()
    accuracies, times = table[table.ratio.isna()], table[table.ratio.notna()]
    heights = [0.4 + sum(heights_of_differences(accuracies)), 1.4 + 0.26 * len(times)]
    figure = plt.figure(figsize=(width, 0.4 + sum(heights)), layout="constrained")
    above, below = figure.subfigures(2, 1, squeeze=False, height_ratios=heights).flat
    figure.suptitle(title)
    draw_differences(above, accuracies)
    _ratios(below, times, reference)
    return figure


def _ratios(part: SubFigure, times: pd.DataFrame, reference: str) -> None:
    panel, rows = part.subplots(), range(len(times))
    panel.axvline(1, color="0.6", lw=0.8)
    errors = [times.ratio - times.ratio_low, times.ratio_high - times.ratio]
    panel.errorbar(times.ratio, rows, xerr=errors, fmt="o", ms=5, color="0.15", label="measured, with 95 % interval")
    for column, look in _MARKS.items():
        panel.errorbar(times[column], rows, **look)
    panel.errorbar(times.paper_ratio, rows, fmt="D", ms=7, mfc="none", color="0.45", label="paper: hours on its GPU")
    panel.set(title="Training time per update", xlabel=f"Ratio to {reference}")
    panel.set_xlim(left=0)
    panel.set_yticks(rows, list(times.method))
    panel.set_ylim(len(times) - 0.5, -0.5)
    panel.grid(axis="x", alpha=0.3)
    legend_below(part, panel, ncols=4)
