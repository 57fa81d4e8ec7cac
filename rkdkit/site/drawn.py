"""The interactive pictures of each exhibit that has some, from its CSV: what one can turn, play, point at, toggle."""

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from typing import Any

import pandas as pd
import plotly.graph_objects as go

from rkdkit.analysis.curves import BY_PEER
from rkdkit.exhibits import fig1_peer_vs_teacher as fig1
from rkdkit.exhibits import fig3_peer_tutoring as fig3
from rkdkit.exhibits import fig4_loss_landscape as fig4
from rkdkit.exhibits import fig11_entropy as fig11
from rkdkit.figures.look import metric_name
from rkdkit.site import by_image
from rkdkit.site.by_image import Pictures
from rkdkit.site.plots import (
    GREY,
    SYMBOLS,
    accuracy_axis,
    add_curve,
    by_order,
    colour,
    legend,
    new_figure,
    of_images,
    of_training,
    ordered,
    plain,
    rounded,
)


@dataclass(frozen=True)
class Maker:
    """How the pictures of an exhibit are made.

    Attributes
    ----------
    columns : the columns that its CSV must have.
    draw : a function from the CSV and the JSON to the pictures.
    """

    columns: frozenset[str]
    draw: Callable[[pd.DataFrame, Mapping[str, Any]], Pictures]


def _tutoring(table: pd.DataFrame, _: Mapping[str, Any]) -> Pictures:
    return {"Robust accuracy over the epochs": _accuracies(table, fig1.LEGEND, "Test robust accuracy (%)")}


def _peer_tutoring(table: pd.DataFrame, _: Mapping[str, Any]) -> Pictures:
    return {
        f"Over the epochs, {images} images": _accuracies(part, fig3.LEGEND, f"Robust accuracy, {images} images (%)")
        for images, part in table.groupby("images", sort=False)
    }


def _accuracies(table: pd.DataFrame, names: Mapping[tuple[str, str], str], title: str) -> go.Figure:
    """Draw accuracies over the epochs: a line per network and kind of adversarial examples, named by `names`."""
    figure = new_figure(xaxis_title_text="Epochs")
    for pair in ordered(zip(table.network, table.examples, strict=True), names):
        network, examples = pair
        part = table[(table.network == network) & (table.examples == examples)]
        named = legend(names.get(pair, f"{network} on {examples}"))
        first = examples in ("student", BY_PEER)
        look: dict[str, Any] = (
            {"dash": "solid", "symbol": "circle"} if first else {"dash": "dash", "symbol": "triangle-up"}
        )
        add_curve(figure, part, "epoch", "robust_accuracy", named, colour(network), scale=100, unit=" %", **look)
    accuracy_axis(figure, title)
    return figure


def _landscapes(table: pd.DataFrame, _: Mapping[str, Any]) -> Pictures:
    surfaces = table[table.part == "surface"]
    top = rounded([surfaces.loss.max()])[0]
    by_network = surfaces.groupby("network", sort=False)
    drawn = {f"Loss surface of {network}": _surface(part, top) for network, part in by_network}
    profiles = table[table.part == "profile"]
    lines = new_figure(
        xaxis_title_text="Offset along the direction (filter norms)", yaxis_title_text="Adversarial loss (nats)"
    )
    for network, (name, line) in fig4.lines(dict.fromkeys(profiles.network)).items():
        part = profiles[profiles.network == network]
        look: dict[str, Any] = {"dash": "solid" if line == "-" else "dash", "mode": "lines"}
        add_curve(lines, part, "first", "loss", plain(network), colour(name), unit=" nats", **look)
    lines.update_yaxes(rangemode="tozero")
    return {**drawn, "Loss profiles": lines}


def _surface(part: pd.DataFrame, top: float | None) -> go.Figure:
    """Draw one surface; all have the same scale and colours, and are turned together (`draw.js`)."""
    grid = part.pivot(index="first", columns="second", values="loss")
    first, second = rounded(grid.index.tolist()), rounded(map(float, grid.columns))
    bar = {"orientation": "h", "thickness": 12, "len": 0.7, "y": 0, "yanchor": "bottom"}
    figure = new_figure(
        540,
        meta={"turned": "together"},
        scene={
            "xaxis": {"title": {"text": "second"}, "tickvals": [second[0], 0, second[-1]]},
            "yaxis": {"title": {"text": "first"}, "tickvals": [first[0], 0, first[-1]]},
            "zaxis": {"title": {"text": "loss"}, "range": [0, top]},
            "aspectmode": "cube",
            "camera": {"eye": {"x": 1.85, "y": -1.85, "z": 1.1}, "center": {"x": 0, "y": 0, "z": -0.1}},
            "domain": {"y": [0.14, 1]},
        },
    )
    figure.add_surface(
        x=second,
        y=first,
        z=[rounded(row) for row in grid.to_numpy()],
        cmin=0,
        cmax=top,
        colorscale="Viridis",
        colorbar={**bar, "title": {"text": "Adversarial loss (nats)", "side": "bottom"}},
        hovertemplate="first direction %{y}, second %{x}<br>loss %{z} nats<extra></extra>",
    )
    return figure


def _stopping_and_mixing(table: pd.DataFrame, _: Mapping[str, Any]) -> Pictures:
    grid = table[table.figure.str.startswith("1")]
    pictures = {
        f"Clean against robust accuracy, {teacher} teachers": _trade_off(part)
        for teacher, part in grid.groupby("teacher", sort=False)
    }
    for figure, x, words in (("4a", "teacher_epoch", "epoch of the teacher"), ("4b", "alpha", "weight of the teacher")):
        part = table[(table.figure == figure) & (table.role == "student")]
        if len(part):
            pictures[f"Accuracy by the {words}"] = _accuracies_by(part, x, words.capitalize())
    return pictures


def _teachers_compared(table: pd.DataFrame, _: Mapping[str, Any]) -> Pictures:
    return {"Clean against robust accuracy": _trade_off(table)}


def _ensembles(table: pd.DataFrame, _: Mapping[str, Any]) -> Pictures:
    students = table[table.role == "student"]
    figure = _accuracy_plane(table)
    names = [plain(name) for name in students["name"]]
    _add_networks(figure, students, "students", colour("student"), "circle", names, mode="lines+markers")
    _add_teachers(figure, table, lambda part: [plain(name) for name in part["name"]])
    return {
        "Clean against robust accuracy": figure,
        "Accuracy by the weight of the robust teachers": _accuracies_by(
            students, "beta", "Weight of the robust teachers"
        ),
    }


def _trade_off(table: pd.DataFrame) -> go.Figure:
    """Draw students as points, coloured by how their teacher was trained, and teachers as stars."""
    figure = _accuracy_plane(table)
    students = table[table.role == "student"]
    symbols = by_order(list(dict.fromkeys(students.method)), SYMBOLS)
    for (teacher, method), part in students.groupby(["teacher", "method"], sort=False):
        about = [
            f"{plain(teacher)} teacher of epoch {int(epoch)}, alpha {alpha:g}"
            for epoch, alpha in zip(part.teacher_epoch, part.alpha, strict=True)
        ]
        name = f"{plain(method)}, {plain(teacher)} teacher"
        _add_networks(figure, part, name, of_training(str(teacher)), symbols[method], about)
    _add_teachers(figure, table, lambda part: [f"epoch {int(epoch)}" for epoch in part.teacher_epoch])
    return figure


def _accuracy_plane(table: pd.DataFrame) -> go.Figure:
    robust = plain(metric_name(table.robust_by.iloc[0]))
    return new_figure(540, xaxis_title_text="Clean accuracy (%)", yaxis_title_text=f"Robust accuracy, {robust} (%)")


def _add_teachers(figure: go.Figure, table: pd.DataFrame, about: Callable[[pd.DataFrame], Iterable[str]]) -> None:
    for teacher, part in table[table.role == "teacher"].groupby("teacher", sort=False):
        _add_networks(
            figure, part, f"the {plain(teacher)} teacher itself", of_training(str(teacher)), "star", about(part)
        )


def _add_networks(
    figure: go.Figure,
    part: pd.DataFrame,
    name: str,
    hex_colour: str,
    symbol: str,
    about: Iterable[str],
    mode: str = "markers",
) -> None:
    """Add networks as points; hovering tells what `about` says of each, and its intervals."""
    ends = [rounded(part[f"{which}_{end}"], 100) for which in ("clean", "robust") for end in ("low", "high")]
    look = {"color": hex_colour, "symbol": symbol, "size": 15 if symbol == "star" else 9, "opacity": 0.85}
    figure.add_scatter(
        x=rounded(part.clean, 100),
        y=rounded(part.robust, 100),
        customdata=[list(row) for row in zip(about, *ends, of_images(part), strict=True)],
        mode=mode,
        line={"color": GREY, "width": 1},
        marker={**look, "line": {"color": GREY, "width": 1}},
        name=name,
        hovertemplate="<b>%{fullData.name}</b><br>%{customdata[0]}<br>"
        "clean %{x} % [%{customdata[1]}, %{customdata[2]}]<br>"
        "robust %{y} % [%{customdata[3]}, %{customdata[4]}]<br>%{customdata[5]}<extra></extra>",
    )


def _accuracies_by(students: pd.DataFrame, x: str, title: str) -> go.Figure:
    """Draw clean and robust accuracy of students as two lines over a column."""
    robust = plain(metric_name(students.robust_by.iloc[0]))
    figure, drawn = new_figure(xaxis_title_text=title), students.sort_values(x)
    for which, n, name, dash, symbol in (
        ("clean", "n", "student, clean", "solid", "circle"),
        ("robust", "n_robust", f"student, robust ({robust})", "dash", "triangle-up"),
    ):
        add_curve(
            figure, drawn, x, which, name, colour("student"), low=f"{which}_low", high=f"{which}_high", n=n,
            scale=100, unit=" %", dash=dash, symbol=symbol,
        )  # fmt: skip
    accuracy_axis(figure, "Accuracy (%)")
    return figure


def _entropy(table: pd.DataFrame, _: Mapping[str, Any]) -> Pictures:
    figure = new_figure(
        xaxis_title_text="Epochs of each network's own training", yaxis_title_text="Mean entropy (nats)"
    )
    dashes = by_order(list(dict.fromkeys(fig11.TEACHERS.values())), ("solid", "dash"))
    for name, part in table.groupby("network", sort=False):
        network = str(name)
        teacher = fig11.TEACHERS.get(network)
        look: dict[str, Any] = {
            "dash": dashes.get(teacher or network, "dot"),
            "symbol": "circle" if teacher else "circle-open",
        }
        drawn = colour("student") if teacher else of_training(network)
        told = f"{network}, student of {teacher}" if teacher else f"{network}, the teacher"
        add_curve(figure, part, "epoch", "entropy_nats", plain(told), drawn, unit=" nats", **look)
    figure.update_yaxes(rangemode="tozero")
    return {"Entropy over the epochs": figure}


_CURVE = frozenset({"network", "epoch", "low", "high", "n", "seeds"})
_NETWORK = frozenset({"role", "teacher", "alpha", "robust_by", "n", "n_robust", "seeds"}) | {
    f"{which}{end}" for which in ("clean", "robust") for end in ("", "_low", "_high")
}

MAKERS: dict[str, Maker] = {
    "fig1_peer_vs_teacher": Maker(_CURVE | {"examples", "robust_accuracy"}, _tutoring),
    "fig3_peer_tutoring": Maker(_CURVE | {"examples", "robust_accuracy", "images"}, _peer_tutoring),
    "fig4_loss_landscape": Maker((_CURVE - {"epoch"}) | {"part", "first", "second", "loss"}, _landscapes),
    "fig5_tsne": Maker(by_image.EMBEDDED, by_image.embeddings),
    "fig8_early_stopping_label_mixing": Maker(_NETWORK | {"method", "teacher_epoch", "figure"}, _stopping_and_mixing),
    "fig9_teacher_robustness": Maker(_NETWORK | {"method", "teacher_epoch"}, _teachers_compared),
    "fig10_ensemble_mixing": Maker(_NETWORK | {"name", "beta"}, _ensembles),
    "fig11_entropy": Maker(_CURVE | {"entropy_nats"}, _entropy),
    "fig12_trajectories": Maker(by_image.TRAJECTORIES, by_image.trajectories),
    "fig13_sample_difficulty": Maker(by_image.RANKING, by_image.ranking),
}
"""By exhibit, how its interactive pictures are made."""
