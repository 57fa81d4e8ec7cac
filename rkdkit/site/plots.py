"""What all interactive pictures share: one look for light and dark pages, colours, rounding, curves with bands."""

import html
import re
from collections.abc import Iterable, Sequence
from typing import Any

import pandas as pd
import plotly.graph_objects as go
from matplotlib.colors import to_hex, to_rgb

from rkdkit.figures.look import COLOURS, PALETTE

DIGITS = 4
"""The significant digits to which numbers are rounded, which keeps a picture below 1 MB; the CSV has them in full."""

HEIGHT = 460
"""The height of a picture in pixels; its width is the page's."""

GREY = "#8a8a8a"
"""A grey that can be told from a white page and from a black one."""

_FAINT, _CLEAR = "rgba(128, 128, 128, 0.3)", "rgba(0, 0, 0, 0)"
_AXIS = {"gridcolor": _FAINT, "linecolor": GREY, "zerolinecolor": _FAINT, "tickcolor": GREY}
_FLAT = {**_AXIS, "showline": True, "ticks": "outside", "automargin": True, "title": {"standoff": 6}}
_DEEP = {**_AXIS, "showbackground": False, "showspikes": False}

_LOOK = go.layout.Template(
    layout={
        "paper_bgcolor": _CLEAR,
        "plot_bgcolor": _CLEAR,
        "font": {"family": "system-ui, sans-serif", "size": 13},
        "margin": {"l": 10, "r": 10, "t": 20, "b": 10},
        "xaxis": _FLAT,
        "yaxis": _FLAT,
        "scene": {"xaxis": _DEEP, "yaxis": _DEEP, "zaxis": _DEEP},
        "legend": {"orientation": "h", "x": 0, "xanchor": "left", "y": -0.22, "yanchor": "top"},
        "modebar": {"bgcolor": _CLEAR, "color": GREY, "activecolor": to_hex(PALETTE[0])},
        "hoverlabel": {"align": "left", "bgcolor": "#222832", "bordercolor": GREY, "font": {"color": "white"}},
        "hovermode": "closest",
    }
)
"""Transparent, with lines that are seen on light and dark pages; the colour of texts is the page's (`theme.js`)."""


def new_figure(height: int = HEIGHT, **layout: Any) -> go.Figure:
    """Return an empty figure in the shared look.

    Parameters
    ----------
    height : in pixels.
    layout : further fields of plotly's layout.
    """
    return go.Figure(layout={"template": _LOOK, "height": height, **layout})


def colour(name: str) -> str:
    """Return the colour that a network has in all exhibits, a key of `COLOURS`, as "#rrggbb"; grey for others."""
    return to_hex(COLOURS[name]) if name in COLOURS else GREY


def palette(place: int) -> str:
    """Return a colour of the kit's palette, for colour-blind readers, as "#rrggbb"; it begins again after the tenth."""
    return to_hex(PALETTE[place % len(PALETTE)])


def faint(hex_colour: str, opacity: float = 0.18) -> str:
    """Return a colour "#rrggbb" as "rgba(...)", with an opacity in [0, 1]."""
    red, green, blue = (round(255 * share) for share in to_rgb(hex_colour))
    return f"rgba({red}, {green}, {blue}, {opacity:g})"


def rounded(values: Iterable[float], scale: float = 1.0) -> list[float | None]:
    """Return numbers times `scale`, to four significant digits, as a picture holds them; None for a missing one."""
    return [None if pd.isna(value) else float(f"{scale * value:.{DIGITS}g}") for value in values]


def plain(text: object) -> str:
    """Return a text as plotly shows it unchanged: plotly reads `<`, `>` and `&` as HTML does."""
    return html.escape(str(text), quote=False)


def legend(text: str) -> str:
    """Return a legend's text of the printed figures, such as "peer on $x^*_S$", with its formulas in plotly's HTML."""
    return re.sub(r"\$x\^\*_([A-Z])\$", r"x*<sub>\1</sub>", plain(text))


def of_images(table: pd.DataFrame, n: str = "n") -> list[str]:
    """Return on how many images, and trainings, each row of a table rests, in words."""
    return [
        f"{int(images):,} images" + (f", {int(seeds)} seeds" if seeds > 1 else "")
        for images, seeds in zip(table[n], table.seeds, strict=True)
    ]


def add_curve(
    figure: go.Figure,
    table: pd.DataFrame,
    x: str,
    y: str,
    name: str,
    hex_colour: str,
    *,
    low: str = "low",
    high: str = "high",
    n: str = "n",
    scale: float = 1.0,
    unit: str = "",
    dash: str = "solid",
    symbol: str = "circle",
    mode: str = "lines+markers",
) -> None:
    """Add a line and its 95 % intervals as a band; the legend shows and hides both, and hovering tells the interval.

    Parameters
    ----------
    figure : the figure to add to.
    table : the columns `x`, `y`, `low`, `high`, `n` and seeds, sorted by `x`.
    x, y, low, high, n : the names of these columns.
    name : the legend's text, as plotly shows it.
    hex_colour : "#rrggbb".
    scale : what values are multiplied by: 100 for per cent.
    unit : what follows a value in the text, such as " %".
    dash, symbol, mode : plotly's names of the line, the marker and what is drawn.
    """
    places = rounded(table[x])
    lowest, highest = (rounded(table[column], scale) for column in (low, high))
    figure.add_scatter(
        x=[*places, *reversed(places)],
        y=[*highest, *reversed(lowest)],
        fill="toself",
        fillcolor=faint(hex_colour),
        line={"width": 0},
        mode="lines",
        hoverinfo="skip",
        showlegend=False,
        legendgroup=name,
    )
    figure.add_scatter(
        x=places,
        y=rounded(table[y], scale),
        customdata=[list(row) for row in zip(lowest, highest, of_images(table, n), strict=True)],
        mode=mode,
        line={"color": hex_colour, "dash": dash},
        marker={"symbol": symbol, "size": 7},
        name=name,
        legendgroup=name,
        hovertemplate="<b>%{fullData.name}</b><br>"
        f"at %{{x}}: %{{y}}{unit} [%{{customdata[0]}}, %{{customdata[1]}}]<br>%{{customdata[2]}}<extra></extra>",
    )


def accuracy_axis(figure: go.Figure, title: str) -> None:
    """Make the y axis an accuracy in per cent, from 0 to 100."""
    figure.update_yaxes(range=[0, 100], title_text=title)


SYMBOLS = ("circle", "square", "diamond", "triangle-up", "triangle-down", "pentagon", "hexagon", "cross")
"""Markers that can be told apart; a teacher is a star."""


def by_order(values: Sequence[Any], looks: Sequence[str]) -> dict[Any, str]:
    """Return a look for each value, by its order; the looks begin again after the last."""
    return {value: looks[i % len(looks)] for i, value in enumerate(values)}


def ordered(found: Iterable[Any], known: Iterable[Any]) -> list[Any]:
    """Return what was found, each once: first what is known, in the order in which it is known."""
    there = dict.fromkeys(found)
    return list(dict.fromkeys([*(each for each in known if each in there), *there]))


def of_training(method: str) -> str:
    """Return the colour of a teacher, and of its students, by the method that trained it."""
    return colour("natural" if method == "Natural" else "teacher")
