"""Interactive pictures whose points are images; the image is shown beside the point (`hover.js`)."""

import itertools
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import numpy as np
import pandas as pd
import plotly.graph_objects as go

from rkdkit.analysis.embedding import EXAMPLES
from rkdkit.analysis.trajectories import COURSES
from rkdkit.claims import HOLDS, NO_CLAIM
from rkdkit.exhibits import fig5_tsne as fig5
from rkdkit.site.plots import GREY, SYMBOLS, by_order, colour, new_figure, of_training, ordered, palette, plain, rounded
from rkdkit.site.thumbnails import thumbnails

Pictures = dict[str, go.Figure]
"""Figures by their titles."""

_CLASS_COLOURS = tuple(palette(place) for place in (9, 5, 7, 6, 8, 3))
"""Colours that are not used for networks, as far as there are any."""


def _pointed_at(part: str, table: pd.DataFrame, images: Sequence[str], *more: Iterable[Any]) -> dict[str, Any]:
    """Return the fields of a trace by which the image of a point is found, and what hovering tells of it.

    Parameters
    ----------
    part : the part of the data that the images are of.
    table : the columns image and class, a row per point.
    images : as `thumbnails` returns them; [] shows none.
    more : further numbers of each point, for the hover text: from `customdata[2]` on.

    Returns
    -------
    customdata, whose rows begin with the image's index and a text about it, and meta, which marks traces with images.
    """
    index = table.image.astype(int)
    about = [f"{part} image {i}, class {plain(name)}" for i, name in zip(index, table["class"], strict=True)]
    rows = [list(row) for row in zip(index.tolist(), about, *more, strict=True)]
    return {"customdata": rows, "meta": "images" if images else None}


def _classes_of(table: pd.DataFrame) -> dict[int, str]:
    """Return the class of each image that a table names, by the image's index."""
    return dict(zip(table.image.astype(int), table["class"], strict=True))


EMBEDDED = frozenset({"network", "examples", "image", "class", "silhouette", "low", "high", "x", "y"})
"""The columns that :func:`embeddings` needs."""


def embeddings(table: pd.DataFrame, made: Mapping[str, Any]) -> Pictures:
    """Draw one t-SNE per network, with the natural image of each point: x*_S differs from it by eps at most.

    Parameters
    ----------
    table : the CSV of fig5_tsne.
    made : its JSON.
    """
    points, scores = table[table.image != "all"], table[table.image == "all"]
    classes, networks = sorted(points["class"].unique()), list(dict.fromkeys(points.network))
    titles = fig5.titles([name for name in networks if name != fig5.PEER])
    images = thumbnails(str(made.get("dataset", "")), "test", _classes_of(points), classes=classes)
    return {
        f"t-SNE: {titles[network]}": _embedding(
            points[points.network == network], scores[scores.network == network], classes, images
        )
        for network in networks
    }


def _embedding(points: pd.DataFrame, scores: pd.DataFrame, classes: Sequence[str], images: list[str]) -> go.Figure:
    named = {"natural": "natural images", "student": "x*<sub>S</sub>"}
    colours, symbols = by_order(classes, _CLASS_COLOURS), by_order(classes, SYMBOLS)
    figure = new_figure(580, meta={"images": images})
    for name, examples in itertools.product(classes, ordered(points.examples, EXAMPLES)):
        part = points[(points["class"] == name) & (points.examples == examples)]
        hollow = "" if examples == "natural" else "-open"
        figure.add_scatter(
            x=rounded(part.x),
            y=rounded(part.y),
            mode="markers",
            marker={"color": colours[name], "symbol": symbols[name] + hollow, "size": 8, "opacity": 0.85},
            name=f"{plain(name)}, {named.get(examples, plain(examples))}",
            hovertemplate="<b>%{fullData.name}</b><br>%{customdata[1]}<extra></extra>",
            **_pointed_at("test", part, images),
        )
    columns = zip(scores.examples, scores.silhouette, scores.low, scores.high, strict=True)
    read = [f"{named.get(of, plain(of))}: {value:.3f} [{low:.3f}, {high:.3f}]" for of, value, low, high in columns]
    figure.update_xaxes(showticklabels=False, ticks="", title_text="<br>".join(["Silhouette", *read]))
    figure.update_yaxes(showticklabels=False, ticks="", scaleanchor="x")
    return figure


TRAJECTORIES = frozenset(
    {"teacher", "images", "quantity", "student", "image", "class", "difficulty", "value", "smoothed"}
)
"""The columns that :func:`trajectories` needs; earlier CSVs have no epoch."""

_P_T, _P_S, _GAIN = "p<sub>T,K</sub>", "p<sub>S,K</sub>", "p_S,K - p_T,K"


def trajectories(table: pd.DataFrame, made: Mapping[str, Any]) -> Pictures:
    """Draw what student and teacher answer to each image: epoch by epoch, and at the end by the image's difficulty.

    Parameters
    ----------
    table : the CSV of fig12_trajectories.
    made : its JSON. If the trainings did not agree on which images are hard, nothing is drawn.
    """
    if not _are_ranked(made):
        return {}
    table = table.fillna({"student": ""})
    if "epoch" not in table:
        table = table.assign(epoch=float("nan"))
    thumbs = thumbnails(str(made.get("dataset", "")), "test", _classes_of(table))
    pictures: Pictures = {}
    for (teacher, images), part in table.groupby(["teacher", "images"], sort=False):
        of = f"{teacher} teacher, {images} images"
        followed = part[part.epoch.notna()]
        if len(followed):
            pictures[f"Epoch by epoch: {of}"] = _followed(followed, thumbs)
        pictures[f"By difficulty: {of}"] = _by_difficulty(part[part.epoch.isna()], str(teacher), thumbs)
    return pictures


def _followed(table: pd.DataFrame, thumbs: list[str]) -> go.Figure:
    """Draw the probability of the correct class by teacher and student, with a slider over their epochs."""
    wide = {
        course: part.pivot(index="epoch", columns="image", values="value").to_dict("index")
        for course, part in table.groupby("quantity", sort=False)
    }
    one = table.drop_duplicates("image")
    order = one.image.tolist()
    epochs = table.epoch.astype(int).drop_duplicates().tolist()

    def at(epoch: int) -> dict[str, Any]:
        of_teacher, of_student = (rounded([wide[course][epoch][image] for image in order]) for course in COURSES)
        return {"x": of_teacher, "y": of_student}

    figure = new_figure(
        620,
        meta={"images": thumbs},
        xaxis={"title": {"text": "Teacher: probability of the correct class"}, "range": [-0.03, 1.03]},
        yaxis={"title": {"text": "Student by AKD: the same"}, "range": [-0.03, 1.03]},
        shapes=[{"type": "line", "x0": 0, "y0": 0, "x1": 1, "y1": 1, "line": {"color": GREY, "dash": "dot"}}],
        sliders=[_slider(epochs)],
    )
    bar = {"thickness": 10, "title": {"text": "difficulty", "side": "right"}}
    figure.add_scatter(
        **at(epochs[-1]),
        mode="markers",
        marker={
            "color": rounded(one.difficulty),
            "colorscale": "Viridis",
            "colorbar": bar,
            "size": 9,
            "line": {"color": GREY, "width": 1},
        },
        name="images",
        showlegend=False,
        hovertemplate="%{customdata[1]}<br>difficulty %{customdata[2]}<br>teacher %{x}, student %{y}<extra></extra>",
        **_pointed_at("test", one, thumbs, rounded(one.difficulty)),
    )
    figure.frames = [go.Frame(name=str(epoch), data=[go.Scatter(**at(epoch))], traces=[0]) for epoch in epochs]
    return figure


def _slider(epochs: Sequence[int]) -> dict[str, Any]:
    """Return a slider that shows the frame of an epoch; it begins at the last."""
    moved = {"mode": "immediate", "frame": {"duration": 0, "redraw": False}, "transition": {"duration": 150}}
    return {
        "active": len(epochs) - 1,
        "currentvalue": {"prefix": "After epoch "},
        "pad": {"t": 55},
        "steps": [{"method": "animate", "label": str(epoch), "args": [[str(epoch)], moved]} for epoch in epochs],
    }


def _by_difficulty(table: pd.DataFrame, teacher: str, thumbs: list[str]) -> go.Figure:
    """Draw each quantity over the images, from the easiest to the hardest: points, and their running mean."""
    figure = new_figure(
        540,
        meta={"images": thumbs},
        xaxis_title_text="Test images, easiest to hardest (%)",
        yaxis={"title": {"text": "Probability, difference or cosine"}, "range": [-1.05, 1.05]},
    )
    looks = itertools.cycle(itertools.product(("dash", "dot", "dashdot"), (palette(i) for i in (9, 5, 7, 6))))
    for (quantity, student), part in table.groupby(["quantity", "student"], sort=False):
        dash, hex_colour = ("solid", colour("student"))
        name = f"{plain(student)}: {_P_S} − {_P_T}"
        if quantity == "p_T,K":
            name, hex_colour = f"the teacher: {_P_T}", of_training(teacher)
        elif quantity == "cosine":
            name, dash = "cosine of student and teacher", "dash"
        elif student != "AKD":
            dash, hex_colour = next(looks)
        places = rounded(np.linspace(0, 100, len(part)))
        shown = True if (quantity, student) == (_GAIN, "AKD") else "legendonly"
        common: dict[str, Any] = {"x": places, "name": name, "legendgroup": name, "visible": shown}
        figure.add_scatter(
            y=rounded(part.smoothed), mode="lines", line={"color": hex_colour, "dash": dash}, hoverinfo="skip", **common
        )
        figure.add_scatter(
            y=rounded(part.value),
            mode="markers",
            marker={"color": hex_colour, "size": 6, "opacity": 0.7},
            showlegend=False,
            hovertemplate="<b>%{fullData.name}</b><br>%{customdata[1]}<br>"
            "difficulty %{customdata[2]}<br>%{y}<extra></extra>",
            **common,
            **_pointed_at("test", part, thumbs, rounded(part.difficulty)),
        )
    return figure


def _are_ranked(made: Mapping[str, Any]) -> bool:
    """Return whether the trainings agreed on which images are hard: otherwise nothing is drawn by difficulty."""
    judged = [claim for claim in made.get("claims", []) if claim["source"].startswith(NO_CLAIM)]
    return all(claim["verdict"] == HOLDS for claim in judged)


RANKING = frozenset({"class", "image", "rank", "difficulty", "likeness"})
"""The columns that :func:`ranking` needs."""


def ranking(table: pd.DataFrame, made: Mapping[str, Any]) -> Pictures:
    """Draw each training image: how hard it is to learn, and how like its own class's mean image it is.

    Parameters
    ----------
    table : the CSV of fig13_sample_difficulty.
    made : its JSON; its runs say which images were trained on. If the trainings did not agree on which
        images are hard, nothing is drawn.
    """
    if not _are_ranked(made):
        return {}
    spec: Mapping[str, Any] = next((run["spec"] for run in made.get("provenance", {}).get("runs", [])), {})
    division = {"n_train": spec.get("n_train"), "n_val": spec.get("n_val", 0)}
    images = thumbnails(str(made.get("dataset", "")), "train", _classes_of(table), **division)
    classes = sorted(table["class"].unique())
    colours, symbols = by_order(classes, _CLASS_COLOURS), by_order(classes, SYMBOLS)
    figure = new_figure(
        540,
        meta={"images": images},
        xaxis_title_text="Difficulty (mean rank over trainings)",
        yaxis_title_text="Likeness to the class's mean image",
    )
    for name in classes:
        part = table[table["class"] == name]
        figure.add_scatter(
            x=rounded(part.difficulty),
            y=rounded(part.likeness),
            mode="markers",
            marker={"color": colours[name], "symbol": symbols[name], "size": 8, "opacity": 0.85},
            name=f"class {plain(name)}",
            hovertemplate="%{customdata[1]}<br>rank %{customdata[2]} in its class<br>"
            "difficulty %{x}, likeness %{y}<extra></extra>",
            **_pointed_at("train", part, images, part["rank"].tolist()),
        )
    return {"Difficulty and likeness": figure}
