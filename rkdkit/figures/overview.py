"""The table of methods as a picture."""

from typing import Any

import matplotlib as mpl
import matplotlib.pyplot as plt
import pandas as pd
from matplotlib.artist import Artist
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.patches import FancyBboxPatch, Patch

from rkdkit.exhibits.fig2_method_overview import PARTS
from rkdkit.figures.look import COLOURS, mathematics, style
from rkdkit.methods import titled

_LETTERS = {"S": "student", "P": "peer", "T": "teacher", "T_rob": "teacher", "T_nat": "natural"}
_COLUMNS = {"maximise": (1.4, 6.2), "minimise": (6.35, 12.3)}  # inches, as is the height of a line
_LINE = 0.29
_FITS = 16
"""How many characters of a method's title fit to the left of the columns; where it is longer, its name stands there."""


def method_overview(table: pd.DataFrame) -> Figure:
    """Draw one row per method: what its attack maximises (left) and what its update minimises (right), a line per term.

    A term's two points have the colours of their networks, with its divergence between them. An arrow to a point means
    that the gradient reaches it; a line without an arrowhead means that it does not.

    Parameters
    ----------
    table : as `fig2_method_overview.overview`.
    """
    style()
    by_method = {str(name): rows for name, rows in table.groupby("method", sort=False)}
    lines = {name: rows.groupby("part").size().max() for name, rows in by_method.items()}
    width, height = _COLUMNS["minimise"][1] + 0.1, _LINE * (sum(lines.values()) + 0.6 * len(lines) + 2.5)
    figure, axes = plt.subplots(figsize=(width, height))
    figure.subplots_adjust(0, 0, 1, 1)
    axes.set(xlim=(0, width), ylim=(height, 0))  # in inches
    axes.axis("off")
    known = {"student": "student S", "peer": "peer P", "teacher": "fixed teacher T", "natural": "natural teacher T_nat"}
    handles: list[Artist] = [
        Patch(fc=_paler(COLOURS[role]), ec=COLOURS[role], label=label) for role, label in known.items()
    ]
    handles += [
        Patch(fc=_paler("0.5"), ec="0.5", label="labels y"),
        Line2D([], [], marker=">", color="0.3", label="gradient"),
    ]
    axes.legend(handles=handles, loc="upper center", ncols=len(handles), frameon=False)
    for part, (left, _) in _COLUMNS.items():
        axes.text(left, 2 * _LINE, PARTS[part], weight="bold")
    top = 2.5 * _LINE
    for name, rows in by_method.items():
        title = titled(name) if len(titled(name)) <= _FITS else name
        axes.text(0.05, top + lines[name] * _LINE / 2, title, weight="bold", va="center")
        for part, (left, right) in _COLUMNS.items():
            box = FancyBboxPatch((left, top), right - left, lines[name] * _LINE, "round,pad=0.04", fc="0.985", ec="0.8")
            axes.add_patch(box)
            for i, term in enumerate(rows[rows.part == part].itertuples()):
                _draw_term(axes, left, top + (i + 0.5) * _LINE, term)
        top += (lines[name] + 0.6) * _LINE
    return figure


def _draw_term(axes: Axes, left: float, y: float, term: Any) -> None:
    """Draw target, divergence and output of one line of the overview, and its formula to the right of them."""
    formula = f"{term.makes}: {term.term}" if term.makes else term.term
    axes.text(left + (2.45 if term.divergence else 0.1), y, formula, va="center", fontsize=8.5)
    if not term.divergence:
        return
    middle = left + 1.2
    for point, x in ((term.target, left + 0.42), (term.output, left + 1.98)):
        colour = COLOURS.get(_LETTERS.get(point.partition("(")[0], ""), (0.5, 0.5, 0.5))
        arrow = {"arrowstyle": "-|>" if point in term.gradient_to.split() else "-", "color": "0.3", "shrinkA": 9}
        edge = x + (0.4 if x < middle else -0.4)
        axes.annotate("", (edge, y), (middle, y), arrowprops={**arrow, "shrinkB": 0})
        chip = FancyBboxPatch((x - 0.36, y - 0.08), 0.72, 0.16, "round,pad=0.04", fc=_paler(colour), ec=colour)
        axes.add_patch(chip)
        axes.text(x, y, mathematics(point), ha="center", va="center", fontsize=9)
    clear = {"fc": "0.985", "ec": "none", "pad": 1}
    axes.text(middle, y, term.divergence, ha="center", va="center", fontsize=8, weight="bold", bbox=clear)


def _paler(colour: Any) -> tuple[float, float, float]:
    red, green, blue = mpl.colors.to_rgb(colour)
    return (red + 3) / 4, (green + 3) / 4, (blue + 3) / 4
