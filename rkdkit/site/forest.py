"""The forest plot: all differences of the ledger of claims, with their intervals."""

import textwrap
from collections.abc import Iterator
from dataclasses import dataclass

import pandas as pd
import plotly.graph_objects as go

from rkdkit import checks
from rkdkit.claims import FAILS, HOLDS, OPEN
from rkdkit.site.ledger import POINTS
from rkdkit.site.plots import GREY, new_figure, palette, plain, rounded

_LOOKS = {HOLDS: (palette(0), "circle"), FAILS: (palette(3), "x"), OPEN: (GREY, "circle-open")}
"""By verdict, a colour and a symbol: each tells the verdicts apart without the other."""

_ROW, _AROUND = 17, 100
"""The height of a row, and of what is around the rows of one unit, in pixels."""

_WIDTH = 44
"""The characters in a line of a text beside the pointer: they fit a phone."""


@dataclass(frozen=True)
class _Panel:
    """The differences of one unit.

    Attributes
    ----------
    unit : the unit.
    rows : the rows of the ledger, with their `place`: from 0 at the top, with a free place above each group.
    headings : the name of each group, by its place.
    """

    unit: str
    rows: pd.DataFrame
    headings: dict[int, str]

    @property
    def places(self) -> int:
        """How many places there are, headings included."""
        return len(self.rows) + len(self.headings)


def forest(rows: pd.DataFrame) -> go.Figure:
    """Draw the difference of each claim with its interval, grouped by exhibit and scale, coloured by verdict.

    A difference above 0 is as the paper says. Hovering shows the claim's sentence and its numbers; the legend shows and
    hides the claims of a verdict. Differences of other units than points of accuracy have panels of their own below.

    Parameters
    ----------
    rows : the ledger's: exhibit, claim (its sentence), scale, verdict, low, difference and high. It may have a column
        unit: "" for numbers without a unit; where it is missing, the numbers are points of accuracy. Rows without
        numbers are not drawn.

    Raises
    ------
    UnknownNameError
        If a verdict is none that a claim can have.
    """
    drawn = rows.dropna(subset=["low", "difference", "high"])
    for verdict in drawn.verdict.unique():
        checks.one_of("verdict", verdict, list(_LOOKS))
    panels = list(_panels(drawn))
    text = f"Forest plot of {len(drawn)} differences with their intervals. " + _tally(drawn)
    height = sum(_ROW * panel.places + _AROUND for panel in panels) + _AROUND
    figure = new_figure(height, meta={"text": text}, margin={"l": 10, "r": 10, "t": 60, "b": 10})
    bottom = 1.0
    for i, panel in enumerate(panels, start=1):
        top, bottom = bottom, bottom - (_ROW * panel.places + _AROUND) / (height - _AROUND)
        _add(figure, panel, "" if i == 1 else str(i), (max(bottom, 0.0), top - 0.6 * _AROUND / (height - _AROUND)))
    figure.update_layout(legend={"y": 1, "yanchor": "bottom"})
    return figure


def _tally(drawn: pd.DataFrame) -> str:
    """Return how many claims have which verdict, as a sentence."""
    return ", ".join(f"{verdict}: {int((drawn.verdict == verdict).sum())}" for verdict in _LOOKS) + "."


def _panels(drawn: pd.DataFrame) -> Iterator[_Panel]:
    units = drawn["unit"].fillna(POINTS) if "unit" in drawn else pd.Series(POINTS, drawn.index)
    for unit in sorted(units.unique(), key=lambda unit: (unit != POINTS, unit)):
        headings, parts, place = dict[int, str](), [], 0
        for (exhibit, scale), group in drawn[units == unit].groupby(["exhibit", "scale"], sort=False):
            headings[place] = f"{exhibit}, {scale}"
            parts.append(group.assign(place=range(place + 1, place + 1 + len(group))))
            place += 1 + len(group)
        yield _Panel(str(unit), pd.concat(parts), headings)


def _add(figure: go.Figure, panel: _Panel, number: str, domain: tuple[float, float]) -> None:
    """Add a panel: axes "x<number>" and "y<number>" in a part of the figure's height, traces and headings."""
    words = "Difference in points of accuracy" if panel.unit == POINTS else f"Difference in {panel.unit}"
    words = words if panel.unit else "Difference of numbers without a unit (cosines, probabilities, ...)"
    x, y = f"x{number}", f"y{number}"
    figure.update_layout(
        {
            f"xaxis{number}": {"anchor": y, "side": "top", "title": {"text": plain(words)}, "zerolinecolor": GREY},
            f"yaxis{number}": {
                "anchor": x,
                "domain": list(domain),
                "range": [panel.places - 0.3, -0.7],
                "showgrid": False,
                "showticklabels": False,
                "ticks": "",
                "zeroline": False,
            },
        }
    )
    for verdict, (hex_colour, symbol) in _LOOKS.items():
        part = panel.rows[panel.rows.verdict == verdict]
        low, middle, high = (part[column].astype(float) for column in ("low", "difference", "high"))
        figure.add_scatter(
            x=rounded(middle),
            y=part.place.tolist(),
            xaxis=x,
            yaxis=y,
            mode="markers",
            marker={"color": hex_colour, "symbol": symbol, "size": 8},
            error_x={
                "type": "data",
                "symmetric": False,
                "array": rounded(high - middle),
                "arrayminus": rounded(middle - low),
                "color": hex_colour,
                "thickness": 1.5,
                "width": 0,
            },
            customdata=[
                [_in_lines(claim), end, other, plain(exhibit), plain(scale)]
                for claim, end, other, exhibit, scale in zip(
                    part.claim, rounded(low), rounded(high), part.exhibit, part.scale, strict=True
                )
            ],
            name=plain(verdict),
            legendgroup=verdict,
            showlegend=number == "",
            hovertemplate="%{customdata[0]}<br><b>%{x} [%{customdata[1]}, %{customdata[2]}] "
            f"{plain(panel.unit)}: {plain(verdict)}</b><br>%{{customdata[3]}}, %{{customdata[4]}}<extra></extra>",
        )
    for place, heading in panel.headings.items():
        figure.add_annotation(
            text=f"<b>{plain(heading)}</b>",
            x=0,
            xref=f"{x} domain",
            xanchor="left",
            y=place,
            yref=y,
            yanchor="middle",
            showarrow=False,
            font={"size": 12},
        )


def _in_lines(sentence: str) -> str:
    return "<br>".join(plain(line) for line in textwrap.wrap(sentence, _WIDTH, break_on_hyphens=False))
