"""Saving an exhibit as picture, numbers and provenance; the look they share."""

import io
import itertools
import json
import math
import re
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import matplotlib as mpl
import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
import seaborn as sns
import torch
from matplotlib.artist import Artist
from matplotlib.axes import Axes
from matplotlib.figure import Figure, SubFigure
from matplotlib.lines import Line2D
from matplotlib.patches import FancyBboxPatch, Patch
from matplotlib.ticker import MaxNLocator
from torch import Tensor

from rkdkit.analysis.embedding import EXAMPLES, Embedding
from rkdkit.analysis.gradients import MEASURES, SemanticGradients
from rkdkit.analysis.landscape import Landscape
from rkdkit.analysis.overview import PARTS
from rkdkit.analysis.peer_tutoring import BY_PEER
from rkdkit.analysis.sample_difficulty import Ranking
from rkdkit.attacks import Attack
from rkdkit.claims import Claim
from rkdkit.evaluation import Estimate
from rkdkit.profiles import Setup
from rkdkit.progress import say
from rkdkit.provenance import environment
from rkdkit.runs import Run, Snapshot, default_device
from rkdkit.store import write_atomically

_PALETTE = sns.color_palette("colorblind")
COLOURS = {
    "teacher": _PALETTE[0], "peer": _PALETTE[1], "student": _PALETTE[2], "natural": _PALETTE[3], "TRADES": _PALETTE[4]
}  # fmt: skip
"""The same network has the same colour in every exhibit."""


_CHOSEN_ON = {
    "val": "epochs chosen on held-out images",
    "test": "epochs chosen on the test images",
    "last": "where one epoch stands for a network, it is the last",
}


def style() -> None:
    """Give all figures from here on the shared look: readable in print, colour-blind safe."""
    sns.set_theme(context="paper", style="ticks", palette="colorblind", font_scale=1.1)
    mpl.rcParams.update({"figure.dpi": 110, "savefig.dpi": 200, "axes.spines.top": False, "axes.spines.right": False})


def accuracy_axis(axes: Axes, label: str) -> None:
    """Make the y axis one of accuracy in per cent, from 0 to 100."""
    axes.set(ylim=(0, 100), ylabel=f"{label} (%)")
    axes.grid(axis="y", alpha=0.3)


def save(
    name: str,
    figure: Figure,
    table: pd.DataFrame,
    claims: Sequence[Claim],
    setup: Setup,
    runs: Sequence[Run],
    teachers: Sequence[Snapshot] = (),
    note: str = "",
    networks: Sequence[Snapshot] = (),
    measured_by: Mapping[str, Attack | None] | None = None,
    n: int | None = None,
) -> list[Path]:
    """Write `<output_dir>/<name>.png`, `.csv` (the numbers drawn) and `.json` (claims and provenance).

    Parameters
    ----------
    name : the exhibit's.
    figure : what was drawn; a line naming profile, data, network and seeds is set below it.
    table : the numbers drawn.
    claims : the paper's claims, checked.
    setup : what was asked for.
    runs : every run the exhibit rests on; none: the caption says nothing of data and training.
    teachers : the fixed teachers, as chosen from their runs.
    note : a sentence for the caption, about what this exhibit alone draws.
    networks : what was measured, where an epoch was chosen.
    measured_by : the attacks by metric, None for natural images; None: the profile's `test_attack` alone.
    n : how many images were measured; None: the profile's test images.

    Raises
    ------
    StoreError
        If a file cannot be written.
    """
    device = default_device()
    by = {str(setup.profile.test_attack).lower(): setup.profile.test_attack} if measured_by is None else measured_by
    made_with = environment(device)
    devices = sorted({trained["device"] for run in runs for trained in run.record["environments"]})
    by_whom = f"rkdkit {made_with['rkdkit']}, torch {made_with['torch']}"
    caption = f"{note}\n{by_whom}."
    if runs:
        caption = (
            f"{setup}; {_CHOSEN_ON[setup.profile.select_on]}.\n{note} Data: {setup.dataset.source}.\n"
            f"{by_whom}; trained on {' and '.join(devices)}."
        )
    picture = _captioned_png(figure, caption, name)
    provenance = {
        "made_with": made_with,
        "wall_time_s": round(time.perf_counter() - setup.started, 1),
        "training_time_s": round(sum(run.training_seconds for run in runs), 1),
        "runs": [
            {
                "id": run.spec.id,
                "run": str(run.spec),
                "spec": run.spec.to_json(),
                "data": run.record["data"],
                "guided_by": run.record["guided_by"],
                "trained_with": run.record["environments"],
                "training_time_s": round(run.training_seconds, 1),
            }
            for run in runs
        ],
    }
    summary: dict[str, Any] = {
        "exhibit": name,
        "profile": setup.profile.name,
        "overrides": setup.overrides,
        "dataset": setup.profile.dataset,
        "data_source": setup.dataset.source,
        "network": setup.profile.student,
        "eps": setup.profile.test_attack.eps,
        "attacks": {metric: None if attack is None else attack.parameters() for metric, attack in by.items()},
        "select_on": setup.profile.select_on,
        "teachers": [_named(snapshot) for snapshot in teachers],
        "networks": [_named(snapshot) for snapshot in networks],
        "seeds": list(setup.seeds),
        "n": setup.n_test if n is None else n,
        "claims": [claim.to_json() for claim in claims],
        "provenance": provenance,
    }
    contents = {
        "png": picture,
        "csv": table.to_csv(index=False, float_format="%.6g", lineterminator="\n").encode(),
        "json": (json.dumps(summary, indent=1, allow_nan=False) + "\n").encode(),
    }
    files = [setup.output_dir / f"{name}.{suffix}" for suffix in contents]
    for file, content in zip(files, contents.values(), strict=True):
        write_atomically(file, content)
    say("Written:\n  " + "\n  ".join(map(str, files)))
    return files


def robust_accuracy_curves(table: pd.DataFrame, axes: Axes, labels: dict[tuple[str, str], str]) -> None:
    """Draw accuracy over epochs with its interval as a band, one line a network and kind of adversarial examples.

    Parameters
    ----------
    table : as `TutoringCurves.table`: network, examples, epoch, robust_accuracy, low, high (fractions).
    axes : where.
    labels : the legend's text by (network, examples), in the order of drawing.
    """
    for (network, examples), label in labels.items():
        part = table[(table.network == network) & (table.examples == examples)]
        colour = COLOURS[network]
        marker, line = ("o", "-") if examples in ("student", BY_PEER) else ("^", "--")
        axes.plot(
            part.epoch,
            100 * part.robust_accuracy,
            line,
            marker=marker,
            ms=4,
            color=colour,
            label=label,
            clip_on=False,
            zorder=3,
        )
        axes.fill_between(part.epoch, 100 * part.low, 100 * part.high, color=colour, alpha=0.15, lw=0)
    epochs = sorted(set(table.epoch), reverse=True)
    axes.set_xticks(epochs[:: -(-len(epochs) // 10)])  # ten at the most, the last among them
    # anchored to the axes, not the figure: a figure's legend moves when the saved picture is cropped
    axes.legend(loc="upper center", bbox_to_anchor=(0.5, -0.17), ncols=2, frameon=False)
    accuracy_axis(axes, "Test robust accuracy")


def _named(snapshot: Snapshot) -> dict[str, Any]:
    return {
        "method": snapshot.spec.method,
        "network": snapshot.architecture,
        "role": snapshot.role,
        "epoch": snapshot.epoch,
        "seed": snapshot.spec.seed,
        "run": snapshot.spec.id,
        "sha256": snapshot.digest,
    }


METRICS = {
    "clean": "Clean",
    "fgsm": "FGSM",
    "pgd-10": "PGD-10",
    "pgd-20": "PGD-20",
    "pgd-1000": "PGD-1000",
    "square": "Square (black box)",
    "unbounded": "PGD-1000, any radius",
    "autoattack": "AutoAttack",
}
"""What a metric is called in figures; others keep their name."""


def accuracy_by_method(
    table: pd.DataFrame, title: str, their_label: str, width: float = 9.0, row: str = "method", panel_of: str = "metric"
) -> Figure:
    """Draw a panel a metric and a row a method: our accuracy with its interval, and the paper's number beside it.

    Parameters
    ----------
    table : method, metric, accuracy, low, high and paper, as fractions.
    title : of the figure.
    their_label : what the legend calls the paper's numbers.
    width : of the figure, in inches; the height follows from the number of rows.
    row, panel_of : the columns of `table` that say in which row and panel a number stands.
    """
    names, titles = list(dict.fromkeys(table[row])), list(dict.fromkeys(table[panel_of]))
    figure, part = _part(width, 1.8 + 0.28 * len(names))
    panels = part.subplots(1, len(titles), sharey=True, squeeze=False)
    figure.suptitle(title)
    rows = range(len(names))
    for panel, heading in zip(panels[0], titles, strict=True):
        of_panel = table[table[panel_of] == heading].set_index(row).loc[names]
        value = 100 * of_panel.accuracy
        errors = [value - 100 * of_panel.low, 100 * of_panel.high - value]
        panel.errorbar(value, rows, xerr=errors, fmt="o", ms=5, color=_PALETTE[0], label="here, with 95 % interval")
        panel.plot(
            100 * of_panel.paper, rows, "D", ms=5, mfc="none", color=_PALETTE[1], label=their_label, clip_on=False
        )
        n = of_panel.n.iloc[0]
        number = f"first {n:,} images" if n < table.n.max() else f"{n:,} images"
        panel.set(title=_metric_name(heading), xlim=(-3, 103), xlabel=f"Accuracy (%)\n{number}")
        panel.grid(axis="x", alpha=0.3)
    panels[0][0].set_yticks(rows, [_metric_name(name) for name in names])
    panels[0][0].invert_yaxis()
    _legend_below(part, panels[0, 0], ncols=2)
    return figure


def _part(width: float, height: float) -> tuple[Figure, SubFigure]:
    """Return a figure in the shared look and its one part; sizes in inches.

    A legend "outside" a part gets room below its panels; one outside a whole figure moves onto the caption when the
    saved picture is cropped.
    """
    style()
    figure = plt.figure(figsize=(width, height), layout="constrained")
    (part,) = figure.subfigures(squeeze=False).flat
    return figure, part


def _legend_below(part: SubFigure, panel: Axes, ncols: int) -> None:
    """Put the legend of one panel below all."""
    part.legend(*panel.get_legend_handles_labels(), loc="outside lower center", ncols=ncols, frameon=False)


def _metric_name(name: str) -> str:
    """Return what a metric, which may be transferred "from" a network, is called in figures."""
    metric, transferred, network = name.partition(" from ")
    return METRICS.get(metric, metric) + transferred + network


def _captioned_png(figure: Figure, caption: str, title: str) -> bytes:
    """Return the figure as PNG with a small caption below whatever it shows now; the figure itself stays as it is."""
    figure.canvas.draw()
    lowest = figure.get_tightbbox().y0 - 0.08  # inches
    note = figure.text(0.5, lowest / figure.get_figheight(), caption, ha="center", va="top", fontsize=7, color="0.35")
    layout = figure.get_layout_engine()
    figure.set_layout_engine("none")  # what is drawn stays where it is, the caption takes no room from it
    picture = io.BytesIO()
    figure.savefig(picture, format="png", bbox_inches="tight", metadata={"Title": title, "Description": caption})
    note.remove()
    figure.set_layout_engine(layout)
    return picture.getvalue()


def new_figure(width: float = 6.4, height: float = 4.2) -> tuple[Figure, Axes]:
    """Return a figure in the shared look with one axes; sizes in inches."""
    style()
    figure, axes = plt.subplots(figsize=(width, height), layout="constrained")
    return figure, axes


def guides_compared(table: pd.DataFrame, names: Mapping[str, str], their_label: str) -> Figure:
    """Draw a panel of accuracies and one of cosine similarities: ours with its interval, and the paper's beside it.

    Parameters
    ----------
    table : guide, quantity, value, low, high and paper; accuracies as fractions.
    names : the legend's text by guide, in the order of drawing.
    their_label : what the legend calls the paper's numbers.
    """
    figure, part = _part(9, 4.1)
    panels = part.subplots(1, 2)
    is_cosine = table.quantity.str.startswith("cos")
    for panel, numbers, scale in zip(panels, (table[~is_cosine], table[is_cosine]), (100, 1), strict=True):
        rows = list(dict.fromkeys(numbers.quantity))
        for i, (guide, label) in enumerate(names.items()):
            of_guide = numbers[numbers.guide == guide].set_index("quantity").loc[rows]
            y = [row + 0.22 * (i - (len(names) - 1) / 2) for row in range(len(rows))]
            errors = [scale * (of_guide.value - of_guide.low), scale * (of_guide.high - of_guide.value)]
            colour = COLOURS[guide]
            panel.errorbar(scale * of_guide.value, y, xerr=errors, fmt="o", ms=5, color=colour, label=label)
            panel.plot(scale * of_guide.paper, y, "D", ms=5, mfc="none", color=colour, clip_on=False)
        panel.set_yticks(range(len(rows)), [_mathematics(row) for row in rows])
        panel.invert_yaxis()
        panel.grid(axis="x", alpha=0.3)
    panels[0].set(xlim=(-3, 103), xlabel="Accuracy of guide f or student S (%)")
    panels[1].set(xlabel="Cosine of the guide's penultimate features")
    panels[0].plot([], [], "D", ms=5, mfc="none", color="0.35", label=their_label)
    _legend_below(part, panels[0], ncols=len(names) + 1)
    return figure


def peer_tutoring(table: pd.DataFrame, labels: dict[tuple[str, str], str]) -> Figure:
    """Draw a panel of test images and one of training images, over the epochs.

    Parameters
    ----------
    table : as `PeerTutoring.table`.
    labels : as :func:`robust_accuracy_curves`.
    """
    figure, part = _part(9, 4.4)
    for axes, (images, numbers) in zip(part.subplots(1, 2), table.groupby("images"), strict=True):
        robust_accuracy_curves(numbers, axes, labels)
        axes.get_legend().remove()
        accuracy_axis(axes, f"{str(images).capitalize()} robust accuracy on $x^*_S$")
        axes.set_xlabel("Epochs of the students and the peer")
    _legend_below(part, axes, ncols=2)
    return figure


_LETTERS = {"S": "student", "P": "peer", "T": "teacher", "T_rob": "teacher", "T_nat": "natural"}


_COLUMNS = {"maximise": (1.4, 6.2), "minimise": (6.35, 12.3)}  # inches, as is the height of a line


_LINE = 0.29


def method_overview(table: pd.DataFrame) -> Figure:
    """Draw a row a method: left what its attack maximises, right what its update minimises, a line a term.

    A term's two points stand in the colours of their networks, its divergence between them; an arrow says that the
    gradient arrives there, a line that it does not.

    Parameters
    ----------
    table : as `overview.overview`.
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
        axes.text(0.05, top + lines[name] * _LINE / 2, name, weight="bold", va="center")
        for part, (left, right) in _COLUMNS.items():
            box = FancyBboxPatch((left, top), right - left, lines[name] * _LINE, "round,pad=0.04", fc="0.985", ec="0.8")
            axes.add_patch(box)
            for i, term in enumerate(rows[rows.part == part].itertuples()):
                _draw_term(axes, left, top + (i + 0.5) * _LINE, term)
        top += (lines[name] + 0.6) * _LINE
    return figure


def _draw_term(axes: Axes, left: float, y: float, term: Any) -> None:
    """Draw target, divergence and output of a line of the overview, and its formula behind them."""
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
        axes.text(x, y, _mathematics(point), ha="center", va="center", fontsize=9)
    clear = {"fc": "0.985", "ec": "none", "pad": 1}
    axes.text(middle, y, term.divergence, ha="center", va="center", fontsize=8, weight="bold", bbox=clear)


def _paler(colour: Any) -> tuple[float, float, float]:
    red, green, blue = mpl.colors.to_rgb(colour)
    return (red + 3) / 4, (green + 3) / 4, (blue + 3) / 4


def _mathematics(text: str) -> str:
    """Return a point or quantity such as "S(x*)" or "cos(f(x), f(x*_S))" as a figure prints it."""
    written = text.replace("*", "^*").replace("x~", r"\tilde{x}").replace("cos", r"\cos")
    return "$" + re.sub(r"_([a-z]{2,})", r"_{\\mathrm{\1}}", written) + "$"


def entropy_curves(table: pd.DataFrame, num_classes: int, taught_by: Mapping[str, str]) -> Figure:
    """Draw mean entropy over epochs with its interval as a band, one line a network; dashed: what it teaches.

    Parameters
    ----------
    table : as `EntropyCurves.table`: network, epoch, entropy_nats, low, high.
    num_classes : guessing has an entropy of ln(num_classes).
    taught_by : the students and the network that teaches each; a student is drawn in its teacher's colour.
    """
    figure, axes = new_figure()
    colours = {"Natural": COLOURS["natural"], "PGD-AT": COLOURS["teacher"]}
    for network in dict.fromkeys(table.network):
        part, teacher = table[table.network == network], taught_by.get(network)
        colour = colours[teacher or network]
        label = f"{network}: student of {teacher}" if teacher else f"{network}, the teacher"
        line, marker = ("-", "o") if teacher else ("--", "^")
        axes.plot(part.epoch, part.entropy_nats, line, marker=marker, ms=4, color=colour, label=label, clip_on=False)
        axes.fill_between(part.epoch, part.low, part.high, color=colour, alpha=0.15, lw=0)
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


def trajectories_by_difficulty(table: pd.DataFrame, title: str) -> Figure:
    """Draw a column a teacher and kind of images: similarity, the teacher, AKD's gain, and all students' smoothed gain.

    Parameters
    ----------
    table : as `Trajectories.table`: teacher, images, quantity, student, value, smoothed, easiest image first.
    title : of the figure.
    """
    columns = list(table.groupby(["teacher", "images"], sort=False))
    figure, whole = _part(2.6 * len(columns), 9.8)
    panels = whole.subplots(len(_BY_DIFFICULTY) + 1, len(columns), sharex=True, sharey="row", squeeze=False)
    figure.suptitle(title)
    for column, ((teacher, images), part) in zip(panels.T, columns, strict=True):
        column[0].set_title(f"{teacher} teacher,\n{images} images")
        for panel, (quantity, (label, limits)) in zip(column, _BY_DIFFICULTY.items(), strict=False):
            one = part[(part.quantity == quantity) & part.student.isin(["", "AKD"])]
            colour = COLOURS["student"]
            if quantity == "p_T,K":
                colour = COLOURS["natural" if teacher == "Natural" else "teacher"]
            panel.plot(_percent(one), one.value, ".", ms=3, color="0.7")
            panel.plot(_percent(one), one.smoothed, color=colour, lw=2)
            panel.set(ylim=limits)
            panels[list(_BY_DIFFICULTY).index(quantity), 0].set_ylabel(label)
        gains = part[part.quantity == "p_S,K - p_T,K"].groupby("student", sort=False)
        for (student, one), (line, colour) in zip(gains, itertools.cycle(_STUDENT_LINES), strict=False):
            column[-1].plot(_percent(one), one.smoothed, line, color=colour, lw=1.8, label=student)
        column[-1].set_xlabel("Test images, easiest\nto hardest (%)")
        for panel in column[2:]:
            panel.axhline(0, color="0.5", lw=0.8, ls=":")
    panels[-1, 0].set_ylabel("All students, smoothed:\n$p_{S,K} - p_{T,K}$")
    _legend_below(whole, panels[-1, 0], ncols=4)
    return figure


_STUDENT_LINES = [
    ("-", COLOURS["student"]),
    ("--", "0.2"),
    *itertools.product(("-.", ":"), (_PALETTE[i] for i in (9, 5, 4, 6))),
]


def _percent(part: pd.DataFrame) -> Tensor:
    return torch.linspace(0, 100, len(part))


def easiest_and_hardest(ranked: Ranking, n: int) -> Figure:
    """Draw each class's easiest images on the left and its hardest on the right, with their scores.

    Parameters
    ----------
    ranked : the images and their difficulty.
    n : how many of each, drawn in two rows, the most extreme first.
    """
    style()
    wide = math.ceil(n / 2)
    figure = plt.figure(figsize=(1.3 * wide, 2.2 * len(ranked.classes)), layout="constrained")
    score = torch.stack(list(ranked.difficulty)).mean(0)
    for label, blocks in enumerate(figure.subfigures(len(ranked.classes), 2, squeeze=False, wspace=0.05)):
        for block, which, chosen in zip(blocks, ("easiest", "hardest"), ranked.extremes(label, n), strict=True):
            block.suptitle(f"{ranked.classes[label]}: {which} to learn", fontsize="medium")
            for place, panel in enumerate(block.subplots(2, wide).flat):
                panel.set_axis_off()
                if place < n:
                    image = ranked.split.images[chosen[place]].permute(1, 2, 0)
                    panel.imshow(image, cmap="gray", vmin=0, vmax=255)
                    panel.set_title(f"{score[chosen[place]]:.2f}", fontsize=7, pad=2)
    return figure


def semantic_gradients(measured: SemanticGradients, names: Mapping[str, str], width: float = 9.0) -> Figure:
    """Draw a row of images, below it a row of gradients a network, and beside them what was measured of all images.

    Parameters
    ----------
    measured : as `gradients.semantic_gradients`.
    names : what to call each network, in the order of the rows.
    width : of the figure, in inches.
    """
    style()
    k, rows = len(measured.images), len(names) + 1
    figure = plt.figure(figsize=(width, 0.6 + rows * 0.62 * width / k), layout="constrained")
    left, right = figure.subfigures(1, 2, squeeze=False, width_ratios=(0.68, 0.32)).flat
    panels = left.subplots(rows, k, squeeze=False)
    for column, (image, label) in enumerate(zip(measured.images, measured.classes, strict=True)):
        panels[0, column].imshow(image.permute(1, 2, 0).squeeze(2).numpy(), cmap="gray", vmin=0, vmax=255)
        panels[0, column].set_title(label)
        for row, network in enumerate(names, start=1):
            panels[row, column].imshow(measured.pictures[network][column].numpy(), cmap="gray", vmin=0, vmax=1)
    for panel, label in zip(panels[:, 0], ("image", *names.values()), strict=True):
        panel.set_ylabel(label, rotation=0, ha="right", va="center")
    for panel in panels.flat:
        panel.set(xticks=[], yticks=[])
        panel.spines[:].set_visible(False)
    _means_by_network(measured, names, right)
    return figure


def _means_by_network(measured: SemanticGradients, names: Mapping[str, str], part: SubFigure) -> None:
    for panel, (measure, title) in zip(part.subplots(len(MEASURES), 1), MEASURES.items(), strict=True):
        for row, network in enumerate(names):
            _dot(panel, row, measured.mean(network, measure), COLOURS[network])
        panel.set_yticks(range(len(names)), list(names.values()))
        panel.set(xlim=(0, 1.02), ylim=(len(names) - 0.5, -0.5))
        panel.set_xlabel(title, fontsize="small")
        panel.grid(axis="x", alpha=0.3)


def _dot(panel: Axes, row: int, estimate: Estimate, colour: Any, **look: Any) -> None:
    errors = [[estimate.value - estimate.low], [estimate.high - estimate.value]]
    panel.errorbar(estimate.value, row, xerr=errors, fmt="o", ms=5, color=colour, **look)


def loss_landscapes(measured: Landscape, lines: Mapping[str, tuple[str, str]], width: float = 9.0) -> Figure:
    """Draw a surface a network, below them the profiles, and how far the loss rises on average.

    Parameters
    ----------
    measured : as `landscape.landscapes`.
    lines : by network, its key in `COLOURS` and its line style, in the order of drawing.
    width : of the figure, in inches.
    """
    style()
    figure = plt.figure(figsize=(width, 0.72 * width), layout="constrained")
    upper, lower = figure.subfigures(2, 1, squeeze=False, height_ratios=(0.52, 0.48)).flat
    _surfaces(measured, upper)
    profile, rise = lower.subplots(1, 2, width_ratios=(0.6, 0.4))
    table = measured.table()
    for row, (network, (colour, line)) in enumerate(lines.items()):
        part = table[(table.network == network) & (table.part == "profile")]
        profile.plot(part["first"], part.loss, line, color=COLOURS[colour], label=network)
        profile.fill_between(part["first"], part.low, part.high, color=COLOURS[colour], alpha=0.12, lw=0)
        _dot(rise, row, measured.rise(network), COLOURS[colour], mfc=COLOURS[colour] if line == "-" else "white")
    profile.set(xlabel="Offset along the direction (filter norms)", ylabel="Adversarial loss (nats)", ylim=(0, None))
    profile.set_xticks(np.linspace(measured.offsets[0], measured.offsets[-1], 7))
    profile.grid(axis="y", alpha=0.3)
    rise.set_yticks(range(len(lines)), list(lines))
    rise.set(xlabel="Mean rise over the profile (nats)", ylim=(len(lines) - 0.5, -0.5))
    rise.set_xlim(left=min(0, rise.get_xlim()[0]))
    rise.grid(axis="x", alpha=0.3)
    _legend_below(lower, profile, ncols=len(lines))
    return figure


def _surfaces(measured: Landscape, part: SubFigure) -> None:
    first, second = np.meshgrid(measured.grid, measured.grid, indexing="ij")
    top = max(float(surface.max()) for surface in measured.surfaces.values())
    panels = part.subplots(1, len(measured.surfaces), subplot_kw={"projection": "3d"}, squeeze=False)
    for panel, (network, surface) in zip(panels[0], measured.surfaces.items(), strict=True):
        panel.plot_surface(first, second, surface.numpy(), cmap="viridis", vmin=0, vmax=top, lw=0, rstride=1, cstride=1)
        ends = (-measured.grid[-1], 0, measured.grid[-1])
        panel.set(title=network, zlim=(0, top), xticks=ends, yticks=ends, xlabel="first", ylabel="second")
        panel.tick_params(labelsize="x-small")
    part.supylabel("Adversarial loss (nats)", fontsize="small")


def embeddings(measured: Embedding, titles: Mapping[str, str], width: float = 9.0) -> Figure:
    """Draw a t-SNE a network, natural images as dots and x*_S as crosses, and the silhouettes below it.

    Parameters
    ----------
    measured : as `embedding.embed`.
    titles : what to call each network, in the order of the panels.
    width : of the figure, in inches.
    """
    figure, part = _part(width, width / len(titles) + 1.5)
    panels = part.subplots(1, len(titles), squeeze=False)
    names = {"natural": "natural images", "student": "$x^*_S$"}
    markers, points = {"natural": "o", "student": "x"}, measured.points
    apart = (_PALETTE[9], "0.25", *_PALETTE[5:9])  # colours that stand for no network
    colours = dict(zip(sorted(set(points["class"])), apart, strict=False))
    for panel, (network, title) in zip(panels[0], titles.items(), strict=True):
        for name, examples in itertools.product(colours, EXAMPLES):
            own = (points["class"] == name) & (points.examples == examples) & (points.network == network)
            panel.scatter(
                points.x[own], points.y[own], s=14, marker=markers[examples], color=colours[name], alpha=0.8, lw=0.9,
                label=f"{name}, {names[examples]}",
            )  # fmt: skip
        scores = "\n".join(f"{names[e]}: {measured.silhouette(network, e)}" for e in EXAMPLES)
        panel.set(title=title, xticks=[], yticks=[], xlabel=f"silhouette of\n{scores}")
    _legend_below(part, panels[0, 0], ncols=len(colours))
    return figure
