"""Clean against robust accuracy: what students of different teachers trade for what."""

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import pandas as pd
import seaborn as sns
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from rkdkit.figures.look import COLOURS, legend_below, line_with_band, metric_name, new_part

_Range = tuple[float, float]

_MARKERS = ("o", "s", "^", "D", "v", "P", "X", "h", "<", ">")
_TEACHER: dict[str, Any] = {"marker": "*", "ms": 13, "mec": "black", "mew": 0.8, "ls": ""}

_HOLLOW: dict[str, Any] = {"mfc": "white", "mec": "0.4", "mew": 1.5}
"""The look of a teacher that is beyond the limits of the axes."""


def ordered_colours(values: Sequence[Any]) -> dict[Any, Any]:
    """Return a colour for each of several ordered values, from dark to light; colour-blind readers can order them."""
    return dict(zip(values, sns.color_palette("viridis", len(values)), strict=True))


def markers(values: Sequence[Any]) -> dict[Any, str]:
    """Return a marker for each of at most ten values; the star is a teacher's."""
    return dict(zip(values, _MARKERS, strict=False))


def trade_offs(
    panel: Axes,
    table: pd.DataFrame,
    colours: Mapping[Any, Any],
    shapes: Mapping[Any, str],
    *,
    colour: str,
    shape: str,
    joined: bool = False,
    intervals: bool = False,
    limits: tuple[_Range, _Range] | None = None,
) -> None:
    """Draw networks as points: clean accuracy to the right, robust accuracy upwards, both in per cent.

    Parameters
    ----------
    panel : the axes to draw on.
    table : role, clean, robust, clean_low, clean_high, robust_low, robust_high (fractions), robust_by, and the columns
        that `colour` and `shape` name. Teachers are stars.
    colours, shapes : by the values of these columns, a colour and a marker.
    colour, shape : the names of two columns; in the rows of teachers, `shape` has no effect.
    joined : whether students of one colour are joined by a thin line, in the order of the table.
    intervals : whether the 95 % intervals of students are drawn, lightly.
    limits : the ranges of both axes in per cent, as :func:`limits_of` returns them; a teacher beyond them is a hollow
        star at the edge. None: all networks are shown where they are.
    """
    students, teachers = table[table.role == "student"], table[table.role == "teacher"]
    for value, part in students.groupby(colour, sort=False):
        if joined:
            panel.plot(100 * part.clean, 100 * part.robust, color=colours[value], lw=0.8, alpha=0.6, zorder=1)
    for _, one in students.iterrows():
        at = 100 * one.clean, 100 * one.robust
        if intervals:
            x = [[100 * (one.clean - one.clean_low)], [100 * (one.clean_high - one.clean)]]
            y = [[100 * (one.robust - one.robust_low)], [100 * (one.robust_high - one.robust)]]
            panel.errorbar(*at, xerr=x, yerr=y, color=colours[one[colour]], alpha=0.35, lw=1, zorder=1)
        look = {"color": colours[one[colour]], "marker": shapes[one[shape]], "ms": 7, "mec": "white", "mew": 0.6}
        panel.plot(*at, ls="", **look)
    for _, one in teachers.iterrows():
        place, drawn = _places(one, limits)
        beyond = {} if drawn == place else {**_HOLLOW, "mec": colours[one[colour]]}
        panel.plot(*drawn, color=colours[one[colour]], zorder=3, clip_on=False, **{**_TEACHER, **beyond})
    panel.set(xlabel="Clean accuracy (%)", ylabel=f"Robust accuracy,\n{metric_name(table.robust_by.iloc[0])} (%)")
    panel.margins(0.08)
    if limits is not None:
        panel.set(xlim=limits[0], ylim=limits[1])
    panel.grid(alpha=0.3)


def both_in_per_cent(table: pd.DataFrame, *about: str) -> pd.DataFrame:
    """Return networks' accuracies to read: in per cent, with 95 % intervals.

    Parameters
    ----------
    table : as `mixing.trade_off` makes its lines.
    about : the columns that say which network a line is of; they are kept.
    """
    names = {"clean": "Clean (%)", "robust": f"{metric_name(table.robust_by.iloc[0])} (%)"}
    read = {
        name: [
            f"{100 * value:.1f} [{100 * low:.1f}, {100 * high:.1f}]"
            for value, low, high in zip(table[of], table[f"{of}_low"], table[f"{of}_high"], strict=True)
        ]
        for of, name in names.items()
    }
    words = table[list(about)].astype(object)  # a column of numbers cannot hold ""
    return words.where(words.notna(), "").assign(**read)


def limits_of(table: pd.DataFrame) -> tuple[_Range, _Range]:
    """Return ranges of clean and robust accuracy in per cent that hold all students and the teachers' last epochs.

    Teachers that are stopped early may be so much less accurate that the students would be crowded in a corner.

    Parameters
    ----------
    table : as :func:`trade_offs`, with teacher and teacher_epoch.
    """
    last = table.teacher_epoch == table.groupby("teacher").teacher_epoch.transform("max")
    shown = table[(table.role == "student") | last]
    return _around(100 * shown.clean), _around(100 * shown.robust)


def _around(values: "pd.Series[float]") -> _Range:
    margin = 0.4 + 0.07 * (values.max() - values.min())
    return float(values.min() - margin), float(values.max() + margin)


def _places(one: pd.Series, limits: tuple[_Range, _Range] | None) -> tuple[list[float], list[float]]:
    """Return the place of a teacher, and where it is drawn, in per cent; they differ if it is beyond the limits."""
    place = [100 * one.clean, 100 * one.robust]
    if limits is None:
        return place, place
    return place, [min(max(value, low), high) for value, (low, high) in zip(place, limits, strict=True)]


def _explain_beyond(panel: Axes, drawn: Iterable[tuple[pd.DataFrame, tuple[_Range, _Range]]]) -> None:
    """Add hollow stars to a panel's legend, if one was drawn.

    Parameters
    ----------
    panel : the panel whose legend it is.
    drawn : tables and limits as :func:`trade_offs` had them.
    """
    teachers = [_places(one, at) for table, at in drawn for _, one in table[table.role == "teacher"].iterrows()]
    if any(place != shown for place, shown in teachers):
        panel.plot([], [], color="0.7", label="a teacher beyond the edge", **{**_TEACHER, **_HOLLOW})


def early_stopping_and_mixing(
    table: pd.DataFrame, methods: Sequence[str], teachers: Mapping[str, str], title: str
) -> Figure:
    """Draw a grid of students in a panel per method and teacher, and the curves over epoch and alpha alone.

    Parameters
    ----------
    table : as `fig8_early_stopping_label_mixing.table` returns it: of the grid, of the curves, or of both.
    methods : the methods, a column of panels each.
    teachers : the methods that train the teachers, a row of panels each, and what the figure calls them.
    title : the figure's title.
    """
    of_grid = table.figure.str.startswith("1")
    grid, curves = table[of_grid], table[~of_grid]
    columns = len(methods) * (not grid.empty) + (not curves.empty)
    figure, part = new_part(3.1 * columns, 7.4) if columns > 1 else new_part(8, 4.2)
    figure.suptitle(title)
    panels = part.subplots(2, columns, squeeze=False) if columns > 1 else part.subplots(1, 2, squeeze=False).T
    named = []
    if not grid.empty:
        _grid(panels.tolist(), grid, methods, teachers)
        named.append(panels[0, 0])
    if not curves.empty:
        epoch, alpha = (curves[curves.figure == which] for which in ("4a", "4b"))
        networks = f"{epoch.network.iloc[0]} of {epoch.teacher_network.iloc[0]}"
        at = alpha.teacher_epoch[alpha.role == "student"].iloc[0]
        by_epoch, by_alpha = f"AKD alone,\n{networks}", f"AKD+, teacher of epoch {at},\n{networks}"
        _curves(panels[0, -1], epoch, "teacher_epoch", "Epoch of the teacher", f"RKD Figure 4a\n{by_epoch}")
        _curves(panels[1, -1], alpha, "alpha", r"Weight of the teacher, $\alpha$", f"RKD Figure 4b\n{by_alpha}")
        named.append(panels[0, -1])
    both = [panel.get_legend_handles_labels() for panel in named]
    handles, labels = ([entry for entries in each for entry in entries] for each in zip(*both, strict=True))
    part.legend(handles, labels, loc="outside lower center", ncols=min(5, 2 * columns), frameon=False)
    return figure


def _grid(
    panels: Sequence[Sequence[Axes]], grid: pd.DataFrame, methods: Sequence[str], teachers: Mapping[str, str]
) -> None:
    """Draw a panel per method and teacher, and name colours and markers in the first one."""
    students = grid[grid.role == "student"]
    colours, shapes = ordered_colours(sorted(set(grid.teacher_epoch))), markers(sorted(set(students.alpha)))
    of_teachers = [grid[grid.teacher == teacher] for teacher in teachers]
    for row, of_teacher, (teacher, called) in zip(panels, of_teachers, teachers.items(), strict=True):
        limits = limits_of(of_teacher)
        for panel, method in zip(row, methods, strict=False):
            shown = of_teacher[(of_teacher.role == "teacher") | (of_teacher.method == method)]
            drawn: dict[str, Any] = {"colour": "teacher_epoch", "shape": "alpha", "joined": True, "limits": limits}
            trade_offs(panel, shown, colours, shapes, **drawn)
            letter = shown.figure[shown.role == "student"].iloc[0]
            panel.set_title(f"RKD Figure {letter}\n{method}, {called} teacher\n({teacher})")
        for panel in row[1 : len(methods)]:
            panel.set_ylabel("")
    first = panels[0][0]
    for value, colour in colours.items():
        first.plot([], [], color=colour, lw=3, label=f"student, teacher of epoch {value}")
    for value, marker in shapes.items():
        first.plot([], [], marker, color="0.3", ms=7, mec="white", label=rf"student, $\alpha$ = {value:g}")
    first.plot([], [], color="0.7", label="the teacher itself", **_TEACHER)
    _explain_beyond(first, [(each, limits_of(each)) for each in of_teachers])


def teachers_compared(table: pd.DataFrame, methods: Sequence[str], teachers: Mapping[str, str], title: str) -> Figure:
    """Draw the students of each method in a panel, coloured by how their teacher was trained.

    Parameters
    ----------
    table : as `mixing.table`.
    methods : the methods, a panel each.
    teachers : the methods that train the teachers, and what the figure calls them.
    title : the figure's title.
    """
    colours, shapes = _by_training(teachers), markers(list(teachers))
    figure, part = new_part(3.3 * len(methods), 4.3)
    figure.suptitle(title)
    panels = part.subplots(1, len(methods), sharex=True, sharey=True, squeeze=False)[0]
    limits = limits_of(table)
    for panel, method in zip(panels, methods, strict=True):
        shown = table[(table.role == "teacher") | (table.method == method)]
        trade_offs(panel, shown, colours, shapes, colour="teacher", shape="teacher", limits=limits)
        panel.set_title(method)
        panel.label_outer()
    for teacher, called in teachers.items():
        look = {"color": colours[teacher], "marker": shapes[teacher], "ls": "", "ms": 7}
        panels[0].plot([], [], label=f"student of the {called} teacher ({teacher})", **look)
    for teacher, called in teachers.items():
        panels[0].plot([], [], label=f"the {called} teacher itself", color=colours[teacher], **_TEACHER)
    _explain_beyond(panels[0], [(table, limits)])
    legend_below(part, panels[0], ncols=3)
    return figure


def ensembles_mixed(table: pd.DataFrame, title: str) -> Figure:
    """Draw students of an ensemble by the weight of its robust teachers: as a trade-off, and over that weight.

    Parameters
    ----------
    table : as `fig10_ensemble_mixing.table`.
    title : the figure's title.
    """
    students, teachers = table[table.role == "student"], table[table.role == "teacher"]
    by_beta = ordered_colours(sorted(set(students.beta)))
    training = list(dict.fromkeys(teachers.teacher))
    figure, part = new_part(9, 4.6)
    figure.suptitle(title)
    scatter, curves = part.subplots(1, 2)
    scatter.plot(100 * students.clean, 100 * students.robust, color="0.6", lw=0.8, zorder=1)
    circles = dict.fromkeys(by_beta, "o")
    trade_offs(scatter, students, by_beta, circles, colour="beta", shape="beta", intervals=True)
    trade_offs(scatter, teachers, _by_training(training), {}, colour="teacher", shape="teacher")
    for value, colour in by_beta.items():
        scatter.plot([], [], "o", ms=7, mec="white", color=colour, label=rf"student, $\beta$ = {value:g}")
    for name in training:
        scatter.plot([], [], color=_by_training(training)[name], label=f"{name} teacher", **_TEACHER)
    _lines(curves, students, "beta", COLOURS["student"], "student, ")
    curves.set(xlabel=r"Weight of the robust teachers, $\beta$", ylim=(0, 100), ylabel="Accuracy (%)")
    curves.grid(axis="y", alpha=0.3)
    curves.legend(frameon=False)
    legend_below(part, scatter, ncols=4)
    return figure


def _by_training(teachers: Iterable[str]) -> dict[str, Any]:
    """Return the colours of teachers and of their students, by the method that trains the teacher."""
    return {teacher: COLOURS["natural" if teacher == "Natural" else "teacher"] for teacher in teachers}


def _curves(panel: Axes, table: pd.DataFrame, x: str, label: str, title: str) -> None:
    """Draw the accuracies of students and of their teacher over the teacher's epoch, or over alpha."""
    students, teachers = table[table.role == "student"], table[table.role == "teacher"]
    _lines(panel, students, x, COLOURS["student"], "student, ")
    if x == "alpha":  # one teacher teaches all students: a line across the panel
        one = teachers[teachers.teacher_epoch == students.teacher_epoch.iloc[0]]
        teachers = pd.concat([one.assign(alpha=students.alpha.min()), one.assign(alpha=students.alpha.max())])
    _lines(panel, teachers.sort_values(x), x, COLOURS["teacher"], "teacher, ", lw=1, ms=3, mfc="white", band=False)
    panel.set(xlabel=label, title=title, ylim=(0, 100), ylabel="Accuracy (%)")
    panel.grid(axis="y", alpha=0.3)
    if x == "teacher_epoch":
        panel.xaxis.set_major_locator(MaxNLocator(integer=True))


def _lines(panel: Axes, table: pd.DataFrame, x: str, colour: Any, prefix: str, band: bool = True, **look: Any) -> None:
    """Draw clean and robust accuracy as two lines, with their intervals as bands."""
    robust = f"robust ({metric_name(table.robust_by.iloc[0])})"
    for which, line, marker, words in (("clean", "-", "o", "clean"), ("robust", "--", "^", robust)):
        part = table.assign(low=table[f"{which}_low"], high=table[f"{which}_high"])
        part = part if band else part.assign(low=part[which], high=part[which])
        drawn = {"marker": marker, "ms": 5, "clip_on": False, "label": f"{prefix}{words}", **look}
        line_with_band(panel, part, x, which, line, colour, scale=100, **drawn)
