"""Decision regions in the plane."""

from typing import Any

import matplotlib.pyplot as plt
from matplotlib.axes import Axes
from matplotlib.colors import ListedColormap
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.patches import Patch, Rectangle

from rkdkit.analysis.decisions import SIDE, points_of
from rkdkit.exhibits.fig7_decision_boundaries import TEACHER, Decisions
from rkdkit.figures.look import PALETTE, dot, style
from rkdkit.statistics import Estimate

_CLASSES = (PALETTE[0], PALETTE[1])
_PALE = ListedColormap([tuple(1 - 0.35 * (1 - part) for part in colour) for colour in _CLASSES])
_MARKERS = ("o", "s")
_VULNERABLE: dict[str, Any] = {"ec": "#c00000", "lw": 1.8}
_SAFE: dict[str, Any] = {"ec": "0.35", "lw": 0.6, "ls": "--"}


def decision_regions(measured: Decisions, title: str) -> Figure:
    """Draw a panel of decision regions per network, for the first seed; below, both measures with their intervals.

    Parameters
    ----------
    measured : as `fig7_decision_boundaries.measure`, of two classes; the panels are in the order of its networks.
    title : the figure's title.
    """
    style()
    names = list(measured.regions)
    figure = plt.figure(figsize=(2.6 * len(names), 5.6), layout="constrained")
    figure.suptitle(title)
    upper, lower = figure.subfigures(2, 1, squeeze=False, height_ratios=(0.66, 0.34)).flat
    for panel, name in zip(upper.subplots(1, len(names), squeeze=False)[0], names, strict=True):
        _regions(panel, measured, name)
    upper.legend(handles=_legend(), loc="outside lower center", ncols=4, frameon=False)
    vulnerable, agreeing = lower.subplots(1, 2, sharey=True)
    for row, name in enumerate(names):
        dot(vulnerable, row, _in_per_cent(measured.share("changing", name)), "0.15")
        if name != TEACHER:
            dot(agreeing, row, _in_per_cent(measured.agreement(name)), "0.15")
    vulnerable.set_yticks(range(len(names)), names)
    vulnerable.set(xlabel="Vulnerable training points (%)", xlim=(-3, 103), ylim=(len(names) - 0.5, -0.5))
    agreeing.set(xlabel="Area with the teacher's class (%)")
    for panel in (vulnerable, agreeing):
        panel.grid(axis="x", alpha=0.3)
    return figure


def _regions(panel: Axes, measured: Decisions, name: str) -> None:
    half = 0.5 / (SIDE - 1)  # a place is the middle of its cell
    extent = (-half, 1 + half, -half, 1 + half)
    panel.imshow(
        measured.regions[name][0].numpy(), origin="lower", extent=extent, cmap=_PALE, vmin=0, vmax=1,
        interpolation="nearest",
    )  # fmt: skip
    points, changing = points_of(measured.points), measured.changing[name][0]
    for label, (colour, marker) in enumerate(zip(_CLASSES, _MARKERS, strict=True)):
        own = points[measured.points.labels == label]
        panel.scatter(own[:, 0], own[:, 1], s=16, marker=marker, color=colour, edgecolors="black", linewidths=0.6)
    for (x, y), changes in zip(points.tolist(), changing.tolist(), strict=True):
        corner, side = (x - measured.eps, y - measured.eps), 2 * measured.eps
        panel.add_patch(Rectangle(corner, side, side, fill=False, **(_VULNERABLE if changes else _SAFE)))
    found = f"{int(changing.sum())} of {len(changing)} points vulnerable"
    panel.set(title=f"{name}\n{found}", xticks=(0, 0.5, 1), yticks=(0, 0.5, 1), xlim=(0, 1), ylim=(0, 1))
    panel.title.set_fontsize("small")


def _legend() -> list[Line2D | Patch]:
    points = [
        Line2D([], [], ls="", marker=marker, color=colour, mec="black", label=f"{which} class")
        for which, colour, marker in zip(("first", "second"), _CLASSES, _MARKERS, strict=True)
    ]
    boxes = [
        Patch(fill=False, label=label, **look)
        for label, look in (("class changes in the box", _VULNERABLE), ("class stays the same", _SAFE))
    ]
    return [*points, *boxes]


def _in_per_cent(estimate: Estimate) -> Estimate:
    return Estimate(100 * estimate.value, 100 * estimate.low, 100 * estimate.high, estimate.n, estimate.seeds)
