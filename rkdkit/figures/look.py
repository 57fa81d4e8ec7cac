"""The look that all figures share: colours, names, and the drawing functions that several of them use."""

import re
from typing import Any

import matplotlib as mpl
import matplotlib.pyplot as plt
import pandas as pd
import seaborn as sns
from matplotlib.axes import Axes
from matplotlib.figure import Figure, SubFigure

from rkdkit import executors
from rkdkit.statistics import Estimate

PALETTE = sns.color_palette("colorblind")
"""The colours of all figures; colour-blind readers can distinguish them."""

COLOURS = {
    "teacher": PALETTE[0], "peer": PALETTE[1], "student": PALETTE[2], "natural": PALETTE[3], "TRADES": PALETTE[4]
}  # fmt: skip
"""The same network has the same colour in every exhibit; "teacher" is a fixed robust teacher."""

METRICS = {
    "clean": "Clean",
    "fgsm": "FGSM",
    "square": "Square (black box)",
    "deepfool": "DeepFool",
    "unbounded": "Unbounded: PGD-1000, eps = ∞",
    "autoattack": "AutoAttack",
}
"""The names of metrics in figures. "pgd-20" and similar metrics become "PGD-20"; other metrics keep their name."""


def style() -> None:
    """Give all later figures the shared look: readable in print, colour-blind safe.

    Every drawing function calls it first, so an executor without answers to draw stops all of them here.
    """
    executors.current().before_drawing()
    sns.set_theme(context="paper", style="ticks", palette="colorblind", font_scale=1.1)
    mpl.rcParams.update({"figure.dpi": 110, "savefig.dpi": 200, "axes.spines.top": False, "axes.spines.right": False})


def accuracy_axis(axes: Axes, label: str) -> None:
    """Make the y axis an accuracy in per cent, from 0 to 100."""
    axes.set(ylim=(0, 100), ylabel=f"{label} (%)")
    axes.grid(axis="y", alpha=0.3)


def new_figure(width: float = 6.4, height: float = 4.2) -> tuple[Figure, Axes]:
    """Return a figure in the shared look with one axes; sizes in inches."""
    style()
    figure, axes = plt.subplots(figsize=(width, height), layout="constrained")
    return figure, axes


def new_part(width: float, height: float) -> tuple[Figure, SubFigure]:
    """Return a figure in the shared look and its one part; sizes in inches.

    A legend "outside" a part gets room below its panels; a legend outside a whole figure would move onto the caption
    when the saved picture is cropped.
    """
    style()
    figure = plt.figure(figsize=(width, height), layout="constrained")
    (part,) = figure.subfigures(squeeze=False).flat
    return figure, part


def legend_below(part: SubFigure, panel: Axes, ncols: int) -> None:
    """Put the legend of one panel below all panels."""
    part.legend(*panel.get_legend_handles_labels(), loc="outside lower center", ncols=ncols, frameon=False)


def line_with_band(
    axes: Axes, table: pd.DataFrame, x: str, y: str, line: str, colour: Any, scale: float = 1, **look: Any
) -> None:
    """Draw the columns `x` and `y` of a table as a line, and its interval from `low` to `high` as a band."""
    axes.plot(table[x], scale * table[y], line, color=colour, **look)
    axes.fill_between(table[x], scale * table.low, scale * table.high, color=colour, alpha=0.15, lw=0)


def dot(panel: Axes, row: int, estimate: Estimate, colour: Any, **look: Any) -> None:
    """Draw an estimate with its interval in a separate row."""
    errors = [[estimate.value - estimate.low], [estimate.high - estimate.value]]
    panel.errorbar(estimate.value, row, xerr=errors, fmt="o", ms=5, color=colour, **look)


def metric_name(name: str) -> str:
    """Return the name of a metric in figures; a transferred attack has " from " and a network in its metric."""
    metric, transferred, network = name.partition(" from ")
    return METRICS.get(metric, metric.replace("pgd-", "PGD-").replace("mi-fgsm-", "MI-FGSM-")) + transferred + network


def mathematics(text: str) -> str:
    """Return a point or quantity such as "S(x*)" or "cos(f(x), f(x*_S))" as a figure prints it."""
    written = text.replace("*", "^*").replace("x~", r"\tilde{x}").replace("cos", r"\cos")
    return "$" + re.sub(r"_([a-z]{2,})", r"_{\\mathrm{\1}}", written) + "$"
