"""What a figure's artists show, as numbers, so that tests can compare it with the numbers that were to be drawn."""

from typing import Any, NamedTuple

import numpy as np
from matplotlib.axes import Axes
from matplotlib.collections import PathCollection, PolyCollection
from matplotlib.colors import to_rgb
from matplotlib.figure import SubFigure
from matplotlib.font_manager import FontProperties
from matplotlib.legend import Legend
from matplotlib.lines import Line2D
from matplotlib.markers import MarkerStyle
from mpl_toolkits.mplot3d import Axes3D, proj3d

Colour = tuple[float, float, float]


class Band(NamedTuple):
    """A filled area between two curves."""

    colour: Colour
    x: list[float]
    low: list[float]
    high: list[float]


class Marks(NamedTuple):
    """What one call of `errorbar` drew; low and high are the ends of the horizontal bars, none without bars."""

    label: str
    colour: Colour
    marker: str
    x: list[float]
    y: list[float]
    low: list[float]
    high: list[float]


class Look(NamedTuple):
    """What tells lines apart."""

    colour: Colour
    line: str
    marker: str
    filled: bool


def xy(line: Line2D) -> tuple[list[float], list[float]]:
    """Return a line's points."""
    return list(line.get_xdata()), list(line.get_ydata())


def look(line: Line2D) -> Look:
    """Return what a line looks like; open markers are not filled."""
    filled = to_rgb(line.get_markerfacecolor()) == to_rgb(line.get_color())
    return Look(to_rgb(line.get_color()), line.get_linestyle(), str(line.get_marker()), filled)


def lines(axes: Axes) -> dict[str, Line2D]:
    """Return the lines that have a label and can be seen, by their labels."""
    labelled = {str(line.get_label()): line for line in axes.lines if line.get_visible()}
    return {label: line for label, line in labelled.items() if not label.startswith("_")}


def bands(axes: Axes) -> list[Band]:
    """Return the filled areas that can be seen, in the order of drawing."""
    found = []
    for area in axes.collections:
        if isinstance(area, PolyCollection) and area.get_visible() and area.get_facecolor()[0, 3] > 0.05:
            (path,) = area.get_paths()
            corners = np.asarray(path.vertices)
            places = sorted(set(corners[:, 0].tolist()))
            heights = [corners[corners[:, 0] == x, 1] for x in places]
            colour = to_rgb(area.get_facecolor()[0])
            found.append(Band(colour, places, [float(h.min()) for h in heights], [float(h.max()) for h in heights]))
    return found


def marks(axes: Axes) -> list[Marks]:
    """Return what `errorbar` drew, in the order of drawing; markers without a place are left out."""
    found = []
    for container in axes.containers:
        line, _, bars = container.lines
        x, y = (np.atleast_1d(values).tolist() for values in xy(line))
        ends = [segment for collection in bars for segment in collection.get_segments()]
        assert all(low[1] == high[1] == at for (low, high), at in zip(ends, y, strict=False)), "a bar beside its marker"
        low, high = ([float(end[i][0]) for end in ends] for i in (0, 1))
        if x:
            label = str(container.get_label())
            found.append(Marks(label, to_rgb(line.get_color()), str(line.get_marker()), x, y, low, high))
    return found


def tick_labels(axes: Axes, which: str) -> dict[float, str]:
    """Return the labels of the x or y axis by their places."""
    axis = getattr(axes, f"{which}axis")
    return {float(at): label.get_text() for at, label in zip(axis.get_ticklocs(), axis.get_ticklabels(), strict=True)}


def pictures(axes: Axes) -> list[Any]:
    """Return the arrays shown by `imshow`."""
    return [np.asarray(image.get_array()) for image in axes.images]


def is_marker(points: PathCollection, marker: str) -> bool:
    """Return whether scattered points have that marker."""
    style = MarkerStyle(marker)
    path = style.get_path().transformed(style.get_transform())
    drawn = points.get_paths()[0]
    return len(drawn.vertices) == len(path.vertices) and bool(np.allclose(drawn.vertices, path.vertices))


def corners_of_surface(axes: Axes3D) -> set[tuple[float, float]]:
    """Return where the corners of a drawn surface lie in the picture; :func:`projected` says where they ought to."""
    (surface,) = axes.collections
    return {_rounded(point) for path in surface.get_paths() for point in path.vertices}


def projected(axes: Axes3D, points: list[tuple[float, float, float]]) -> set[tuple[float, float]]:
    """Return where points of space lie in the picture of a drawn axes."""
    places = (proj3d.proj_transform(*point, axes.get_proj()) for point in points)
    return {_rounded(place[:2]) for place in places}


def _rounded(point: Any) -> tuple[float, float]:
    return round(float(point[0]), 6), round(float(point[1]), 6)


def legend_below(part: SubFigure) -> dict[str, Any]:
    """Return the entries of a part's only legend, by their texts."""
    (legend,) = part.legends
    return entries(legend)


def entries(legend: Legend) -> dict[str, Any]:
    """Return a legend's entries by their texts: where each has a marker, its marker, for error bars have more parts."""
    texts = [text.get_text() for text in legend.get_texts()]
    with_marker = [line for line in legend.findobj(Line2D) if str(line.get_marker()).lower() != "none"]
    shown = with_marker if len(with_marker) == len(texts) else legend.legend_handles
    return dict(zip(texts, shown, strict=True))


class Form(NamedTuple):
    """How a legend is laid out."""

    place: str
    columns: int
    framed: bool


def form(legend: Legend) -> Form:
    """Return a legend's layout; its place is as it was asked for, such as "upper center"."""
    place = {code: name for name, code in Legend.codes.items()}[legend._loc]  # matplotlib has no public name for it
    return Form(f"outside {place}" if legend._outside_loc else place, legend._ncols, legend.get_frame_on())


def grids(axes: Axes) -> dict[str, float | None]:
    """Return the opacity of the grid lines across the x and the y axis, where there are any."""
    by_axis = {"x": axes.xaxis.get_gridlines(), "y": axes.yaxis.get_gridlines()}
    return {name: drawn[0].get_alpha() for name, drawn in by_axis.items() if drawn and drawn[0].get_visible()}


def points(size: str) -> float:
    """Return a size of text such as "small" in points, in the look that was set last."""
    return FontProperties(size=size).get_size_in_points()


def ratios(part: SubFigure | Axes) -> tuple[list[float], list[float]]:
    """Return the widths and heights of the columns and rows among which a part stands, as they were asked for."""
    grid = part._subplotspec.get_gridspec() if isinstance(part, SubFigure) else part.get_subplotspec().get_gridspec()
    return list(grid.get_width_ratios()), list(grid.get_height_ratios())
