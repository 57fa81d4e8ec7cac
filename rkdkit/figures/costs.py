"""What networks cost."""

from typing import Any

import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from rkdkit.figures.look import PALETTE, legend_below, new_part

_PANELS = {
    "Parameters": ("parameters",),
    "Work for one image": ("multiply-adds", "multiplications and additions"),
    "Inference, ms per image": ("inference",),
}
_LOOKS: dict[str, dict[str, Any]] = {
    "multiplications and additions": {"marker": "s", "mfc": "white", "color": PALETTE[1]},
    "multiply-adds": {"marker": "o", "color": PALETTE[0]},
}
_OTHERS: dict[str, Any] = {"marker": "o", "color": "0.15"}


def model_costs(table: pd.DataFrame, title: str) -> Figure:
    """Draw parameters, work and inference time with one row per network, on logarithmic axes, and the paper's numbers.

    Parameters
    ----------
    table : `tab11_model_cost.counts` and `tab11_model_cost.inference_times`, one below the other.
    title : the figure's title.
    """
    names = list(dict.fromkeys(table.network))
    figure, part = new_part(10, 1.9 + 0.26 * len(names))
    figure.suptitle(title)
    panels = part.subplots(1, len(_PANELS), sharey=True)
    for panel, (heading, quantities) in zip(panels, _PANELS.items(), strict=True):
        for quantity in quantities:
            _costs(panel, table[table.quantity == quantity].set_index("network").loc[names], quantity)
        panel.set(title=heading, xscale="log")
        panel.grid(axis="x", alpha=0.3)
    panels[0].set_yticks(range(len(names)), names)
    panels[0].invert_yaxis()
    legend_below(part, panels[1], ncols=3)
    return figure


def _costs(panel: Axes, costs: pd.DataFrame, quantity: str) -> None:
    look, rows = _LOOKS.get(quantity, _OTHERS), range(len(costs))
    errors = [costs.value - costs.fastest, costs.slowest - costs.value] if quantity == "inference" else None
    panel.errorbar(costs.value, rows, xerr=errors, ls="", ms=5, label=quantity, **look)
    if quantity != "multiplications and additions" and costs.paper.notna().any():
        panel.plot(costs.paper, rows, ls="", marker="D", ms=9, mfc="none", color="0.45", label="printed by ARD")
