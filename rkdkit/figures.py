"""Saving an exhibit as picture, numbers and provenance; the look they share."""

import io
import json
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import matplotlib as mpl
import matplotlib.pyplot as plt
import pandas as pd
import seaborn as sns
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from rkdkit.attacks import Attack
from rkdkit.claims import Claim
from rkdkit.profiles import Setup
from rkdkit.progress import say
from rkdkit.provenance import environment
from rkdkit.runs import Run, Snapshot, default_device
from rkdkit.store import write_atomically

_PALETTE = sns.color_palette("colorblind")
COLOURS = {"teacher": _PALETTE[0], "peer": _PALETTE[1], "student": _PALETTE[2], "natural": _PALETTE[3]}
"""The same network has the same colour in every exhibit."""


_CHOSEN_ON = {"val": "held-out images", "test": "the test images", "last": "nothing: the last"}


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
) -> list[Path]:
    """Write `<output_dir>/<name>.png`, `.csv` (the numbers drawn) and `.json` (claims and provenance).

    Parameters
    ----------
    name : the exhibit's.
    figure : what was drawn; a line naming profile, data, network and seeds is set below it.
    table : the numbers drawn.
    claims : the paper's claims, checked.
    setup : what was asked for.
    runs : every run the exhibit rests on.
    teachers : the fixed teachers, as chosen from their runs.
    note : a sentence for the caption, about what this exhibit alone draws.
    networks : what was measured, where an epoch was chosen.
    measured_by : the attacks by metric, None for natural images; None: the profile's `test_attack` alone.

    Raises
    ------
    StoreError
        If a file cannot be written.
    """
    device = default_device()
    by = {str(setup.profile.test_attack).lower(): setup.profile.test_attack} if measured_by is None else measured_by
    made_with = environment(device)
    devices = sorted({trained["device"] for run in runs for trained in run.record["environments"]})
    caption = (
        f"{setup}; epochs chosen on {_CHOSEN_ON[setup.profile.select_on]}.\n{note} {setup.dataset.source}.\n"
        f"rkdkit {made_with['rkdkit']}, torch {made_with['torch']}; trained on {' and '.join(devices)}."
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
        "n": setup.n_test,
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
        marker, line = ("o", "-") if examples == "student" else ("^", "--")
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
"""What a metric is called in figures; others keep their name, as do methods."""


def accuracy_by_method(
    table: pd.DataFrame, their_label: str, width: float = 9.0, row: str = "method", panel_of: str = "metric"
) -> Figure:
    """Draw a panel a metric and a row a method: our accuracy with its interval, and the paper's number beside it.

    Parameters
    ----------
    table : method, metric, accuracy, low, high and paper, as fractions.
    their_label : what the legend calls the paper's numbers.
    width : of the figure, in inches; the height follows from the number of rows.
    row, panel_of : the columns of `table` that say in which row and panel a number stands.
    """
    style()
    names, titles = list(dict.fromkeys(table[row])), list(dict.fromkeys(table[panel_of]))
    figure, panels = plt.subplots(
        1, len(titles), figsize=(width, 1.4 + 0.28 * len(names)), sharey=True, layout="constrained", squeeze=False
    )
    rows = range(len(names))
    for panel, title in zip(panels[0], titles, strict=True):
        part = table[table[panel_of] == title].set_index(row).loc[names]
        value = 100 * part.accuracy
        errors = [value - 100 * part.low, 100 * part.high - value]
        panel.errorbar(value, rows, xerr=errors, fmt="o", ms=5, color=_PALETTE[0], label="here, with 95 % interval")
        panel.plot(100 * part.paper, rows, "D", ms=5, mfc="none", color=_PALETTE[1], label=their_label, clip_on=False)
        number = f"first {part.n.iloc[0]:,} images" if part.n.iloc[0] < table.n.max() else f"{part.n.iloc[0]:,} images"
        panel.set(title=_metric_name(title), xlim=(-3, 103), xlabel=f"Accuracy (%)\n{number}")
        panel.grid(axis="x", alpha=0.3)
    panels[0][0].set_yticks(rows, [_metric_name(name) for name in names])
    panels[0][0].invert_yaxis()
    handles, labels = panels[0][0].get_legend_handles_labels()
    figure.legend(handles, labels, loc="outside lower center", ncols=2, frameon=False)
    return figure


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
    for legend in figure.legends:  # by the transform, not the figure's box, which the crop changes
        legend.set_bbox_to_anchor((0, 0, 1, 1), figure.transFigure)
    picture = io.BytesIO()
    figure.savefig(picture, format="png", bbox_inches="tight", metadata={"Title": title, "Description": caption})
    note.remove()
    for legend in figure.legends:
        legend.set_bbox_to_anchor(None)
    figure.set_layout_engine(layout)
    return picture.getvalue()


def new_figure(width: float = 6.4, height: float = 4.2) -> tuple[Figure, Axes]:
    """Return a figure in the shared look with one axes; sizes in inches."""
    style()
    figure, axes = plt.subplots(figsize=(width, height), layout="constrained")
    return figure, axes
