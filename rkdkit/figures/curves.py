"""Curves over the epochs of a training, or from easy images to hard ones."""

import itertools
import math
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt
import pandas as pd
import seaborn as sns
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from rkdkit.analysis.curves import BY_PEER
from rkdkit.analysis.difficulty import Difficulty
from rkdkit.analysis.trajectories import FIGURES
from rkdkit.exhibits import fig3_peer_tutoring
from rkdkit.figures.look import (
    COLOURS,
    PALETTE,
    accuracy_axis,
    legend_below,
    line_with_band,
    new_figure,
    new_part,
    style,
)
from rkdkit.methods import titled


def robust_accuracy_curves(table: pd.DataFrame, axes: Axes, labels: dict[tuple[str, str], str]) -> None:
    """Draw accuracy over epochs with its interval as a band: one line per network and kind of adversarial examples.

    Parameters
    ----------
    table : as `TutoringCurves.table`: network, examples, epoch, robust_accuracy, low, high (fractions).
    axes : the axes to draw on.
    labels : the legend's text by (network, examples), in the order of drawing.
    """
    _accuracies(table, axes, labels)
    # anchored to the axes, not the figure: a figure's legend moves when the saved picture is cropped
    axes.legend(loc="upper center", bbox_to_anchor=(0.5, -0.17), ncols=2, frameon=False)
    accuracy_axis(axes, "Test robust accuracy")


def _accuracies(table: pd.DataFrame, axes: Axes, labels: dict[tuple[str, str], str]) -> None:
    for (network, examples), label in labels.items():
        part = table[(table.network == network) & (table.examples == examples)]
        line, marker = ("-", "o") if examples in ("student", BY_PEER) else ("--", "^")
        look = {"marker": marker, "ms": 4, "label": label, "clip_on": False, "zorder": 3}
        line_with_band(axes, part, "epoch", "robust_accuracy", line, COLOURS[network], scale=100, **look)
    epochs = sorted(set(table.epoch), reverse=True)
    axes.set_xticks(epochs[:: -(-len(epochs) // 10)])  # at most ten ticks, the last epoch included


def peer_tutoring(table: pd.DataFrame, labels: dict[tuple[str, str], str]) -> Figure:
    """Draw a panel of test images and one of training images, over the epochs.

    Parameters
    ----------
    table : as `PeerTutoring.table`.
    labels : as :func:`robust_accuracy_curves`.
    """
    figure, part = new_part(9, 4.4)
    for axes, (images, numbers) in zip(part.subplots(1, 2), table.groupby("images"), strict=True):
        _accuracies(numbers, axes, labels)
        accuracy_axis(axes, f"{str(images).capitalize()} robust accuracy on $x^*_S$")
        axes.set_title(f"PeerAiD Figure {fig3_peer_tutoring.FIGURES[str(images)]}")
        axes.set_xlabel("Epochs of the students and the peer")
    legend_below(part, axes, ncols=2)
    return figure


_PAIRS = (("-", "o"), ("--", "^"), ("-.", "s"), (":", "D"))


def entropy_curves(table: pd.DataFrame, num_classes: int, taught_by: Mapping[str, str]) -> Figure:
    """Draw mean entropy over epochs with its interval as a band, one line per network.

    A student and its teacher share the line style and the marker; the teacher's markers are open. Further students of a
    teacher have colours of their own.

    Parameters
    ----------
    table : as `EntropyCurves.table`: network, epoch, entropy_nats, low, high.
    num_classes : the uniform prediction has an entropy of ln(num_classes).
    taught_by : by student, the network that teaches it.
    """
    figure, axes = new_figure()
    teachers = dict.fromkeys(taught_by.get(network, network) for network in table.network)
    pairs = dict(zip(teachers, itertools.cycle(_PAIRS), strict=False))
    of_teacher = {
        teacher: [s for s, theirs in taught_by.items() if theirs == teacher] for teacher in taught_by.values()
    }
    shades = [COLOURS["student"], *PALETTE[5:]]  # the others are of other networks
    for network in dict.fromkeys(table.network):
        part, teacher = table[table.network == network], taught_by.get(network)
        line, marker = pairs[teacher or network]
        if teacher is None:
            look: dict[str, Any] = {"label": f"{titled(network)}, the teacher", "mfc": "white"}
            colour = COLOURS["natural" if network == "Natural" else "teacher"]
        else:
            look = {"label": f"{titled(network)}: student of {teacher}"}
            colour = shades[of_teacher[teacher].index(network) % len(shades)]
        line_with_band(axes, part, "epoch", "entropy_nats", line, colour, marker=marker, ms=4, clip_on=False, **look)
    guessing = math.log(num_classes)
    axes.set(xlabel="Epochs of each network's own training", ylabel="Mean entropy of the answer (nats)")
    axes.set_ylim(0, 1.12 * guessing)
    axes.axhline(guessing, color="0.5", lw=1, ls=":")
    axes.annotate(
        f"guessing: ln {num_classes}", (0, guessing), (4, 3), ("axes fraction", "data"), "offset points", color="0.35"
    )
    axes.grid(axis="y", alpha=0.3)
    axes.xaxis.set_major_locator(MaxNLocator(integer=True))
    axes.legend(loc="upper center", bbox_to_anchor=(0.5, -0.17), ncols=2, frameon=False)
    return figure


_BY_DIFFICULTY = {
    "cosine": ("Cosine similarity of\nstudent and teacher", (-0.03, 1.03)),
    "p_T,K": ("Teacher: $p_{T,K}$", (-0.03, 1.03)),
    "p_S,K - p_T,K": ("Student by AKD:\n$p_{S,K} - p_{T,K}$", (-1.03, 1.03)),
}


def trajectories_by_difficulty(table: pd.DataFrame, difficulty: Difficulty, title: str) -> Figure:
    """Draw similarity, teacher, AKD's gain and all students' gain, with one column per teacher and kind of images.

    The titles name the panels of RKD's figures. If the trainings that rank the images do not agree on which are hard,
    their agreement is drawn instead.

    Parameters
    ----------
    table : as `Trajectories.table`: teacher, images, quantity, student, class, value, smoothed, easiest image first;
        the rows with an epoch are not drawn.
    difficulty : how the images were ranked.
    title : the figure's title.
    """
    style()
    if not difficulty.is_reliable:
        return no_agreement(difficulty, title)
    shades = dict(zip(sorted(table["class"].unique()), itertools.cycle(_CLASS_SHADES), strict=False))
    columns = list(table.groupby(["teacher", "images"], sort=False))
    figure, whole = new_part(2.6 * len(columns), 9.8)
    panels = whole.subplots(len(_BY_DIFFICULTY) + 1, len(columns), sharex=True, sharey="row", squeeze=False)
    figure.suptitle(f"{title}\n{difficulty}")
    for column, ((teacher, images), part) in zip(panels.T, columns, strict=True):
        column[0].set_title(f"{teacher} teacher,\n{images} images")
        _name_figures(column, FIGURES.get((str(teacher), str(images)), {}))
        for panel, (quantity, (label, limits)) in zip(column, _BY_DIFFICULTY.items(), strict=False):
            one = part[(part.quantity == quantity) & part.student.isin(["", "AKD"])]
            colour = COLOURS["student"]
            if quantity == "p_T,K":
                colour = COLOURS["natural" if teacher == "Natural" else "teacher"]
            for name, dots in one.assign(percent=_percent(one)).groupby("class"):
                panel.plot(dots.percent, dots.value, ".", ms=3, color=shades[name])
            panel.plot(_percent(one), one.smoothed, color=colour, lw=2)
            panel.set(ylim=limits)
            panels[list(_BY_DIFFICULTY).index(quantity), 0].set_ylabel(label)
        gains = part[part.quantity == "p_S,K - p_T,K"].groupby("student", sort=False)
        for (student, one), (line, colour) in zip(gains, itertools.cycle(_STUDENT_LINES), strict=False):
            column[-1].plot(_percent(one), one.smoothed, line, color=colour, lw=1.8, label=student)
        for name, shade in shades.items():
            column[-1].plot([], [], ".", color=shade, label=f"class {name}")
        column[-1].set_xlabel("Test images, easiest\nto hardest (%)")
        for panel in column[2:]:
            panel.axhline(0, color="0.5", lw=0.8, ls=":")
    panels[-1, 0].set_ylabel("All students, smoothed:\n$p_{S,K} - p_{T,K}$")
    legend_below(whole, panels[-1, 0], ncols=4)
    return figure


def _name_figures(column: Sequence[Axes], figures: Mapping[str, str]) -> None:
    """Name in the titles of a column's panels which of RKD's panels they are.

    Parameters
    ----------
    column : the panels of one teacher and kind of images, from the top.
    figures : one of `trajectories.FIGURES`; empty: none of RKD's.
    """
    for panel, shown in zip(column, (["cosine"], ["p_T,K"], ["gain"], ["early", "mixing"]), strict=True):
        named = ", ".join(figures[each] for each in shown if figures)
        if named:
            title = f"{panel.get_title()}\n" if panel.get_title() else ""
            panel.set_title(f"{title}RKD Figure{'s' * (len(shown) > 1)} {named}")


def no_agreement(difficulty: Difficulty, title: str) -> Figure:
    """Draw how far the trainings that should rank the images agree, where they do not agree enough to rank them.

    Parameters
    ----------
    difficulty : the trainings' rankings.
    title : the title of the figure that would have been drawn.
    """
    figure, axes = new_figure(5.2, 4.6)
    sns.heatmap(
        difficulty.correlations, vmin=-1, vmax=1, cmap="vlag", annot=True, fmt=".2f", square=True, ax=axes,
        cbar_kws={"label": "Rank correlation of two trainings"},
    )  # fmt: skip
    numbers = [str(i + 1) for i in range(len(difficulty.correlations))]
    axes.set(xticklabels=numbers, yticklabels=numbers, xlabel="Training", ylabel="Training")
    figure.suptitle(f"{title}\nNot ranked: the trainings do not agree on which images are hard\n{difficulty}")
    return figure


_STUDENT_LINES = [
    ("-", COLOURS["student"]),
    ("--", "0.2"),
    *itertools.product(("-.", ":"), (PALETTE[i] for i in (9, 5, 6, 7))),
]


_CLASS_SHADES = ("0.75", "0.35")  # grey shades for classes; colours are used for networks


def _percent(part: pd.DataFrame) -> npt.NDArray[np.float64]:
    return np.linspace(0, 100, len(part))
