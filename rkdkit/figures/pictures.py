"""Pictures that show images, gradients, surfaces and embeddings."""

import itertools
import math
from collections.abc import Mapping, Sequence

import matplotlib.pyplot as plt
import numpy as np
from matplotlib.figure import Figure, SubFigure

from rkdkit.analysis.embedding import EXAMPLES
from rkdkit.analysis.gradients import MEASURES
from rkdkit.exhibits.fig4_loss_landscape import Landscape
from rkdkit.exhibits.fig5_tsne import Embedding
from rkdkit.exhibits.fig6_semantic_gradients import SemanticGradients
from rkdkit.exhibits.fig13_sample_difficulty import Ranking
from rkdkit.figures.curves import no_agreement
from rkdkit.figures.look import COLOURS, PALETTE, dot, legend_below, line_with_band, new_part, style
from rkdkit.methods import titled


def easiest_and_hardest(ranking: Ranking, n: int, title: str) -> Figure:
    """Draw each class's easiest images on the left and its hardest images on the right, with their difficulty.

    If the trainings do not agree on which images are hard, their agreement is drawn instead.

    Parameters
    ----------
    ranking : the images and their difficulty.
    n : the number of easiest and of hardest images, each drawn in two rows, the most extreme first.
    title : the figure's title.
    """
    style()
    if not ranking.difficulty.is_reliable:
        return no_agreement(ranking.difficulty, title)
    wide, classes = math.ceil(n / 2), len(ranking.classes)
    figure, part = new_part(max(1.0 * wide, 5), 0.9 + 1.45 * classes)
    figure.suptitle(f"{title}\n{ranking.difficulty}")
    per_cent = (100 * ranking.difficulty.of_images).round().int().tolist()
    for label, blocks in enumerate(part.subfigures(classes, 2, squeeze=False, wspace=0.03, hspace=0.0)):
        for block, which, chosen in zip(blocks, ("easiest", "hardest"), ranking.extremes(label, n), strict=True):
            block.suptitle(f"{ranking.classes[label]}: {which} to learn", fontsize="medium")
            for place, panel in enumerate(block.subplots(2, wide, gridspec_kw={"wspace": 0.05, "hspace": 0.05}).flat):
                panel.set_axis_off()
                if place < n:
                    image = ranking.split.images[chosen[place]].permute(1, 2, 0).numpy()
                    panel.imshow(image, cmap="gray", vmin=0, vmax=255)
                    panel.set_title(str(per_cent[chosen[place]]), fontsize=7, pad=2)
    return figure


def semantic_gradients(measured: SemanticGradients) -> Figure:
    """Draw a row of images, below it one row per network of its gradients laid over the images, and means beside them.

    Parameters
    ----------
    measured : as `fig6_semantic_gradients.measure`, its networks in the order of the rows. All networks but the last
        are also compared with the last.
    """
    style()
    k, names = len(measured.images), list(measured.pictures)
    rows = len(names) + 1
    figure = plt.figure(figsize=(12, 0.6 + rows * 6.9 / k), layout="constrained")
    left, right = figure.subfigures(1, 2, squeeze=False, width_ratios=(0.62, 0.38)).flat
    panels = left.subplots(rows, k, squeeze=False)
    for column, (image, label) in enumerate(zip(measured.images, measured.classes, strict=True)):
        panels[0, column].imshow(image.permute(1, 2, 0).squeeze(2).numpy(), cmap="gray", vmin=0, vmax=255)
        panels[0, column].set_title(label)
        for row, network in enumerate(names, start=1):
            gradient = measured.pictures[network][column].numpy()
            shown = image.permute(1, 2, 0).numpy().mean(2)
            panels[row, column].imshow(shown, cmap="gray", vmin=-500, vmax=300)  # pale enough for the colours above it
            panels[row, column].imshow(gradient, cmap="YlOrRd", vmin=0, vmax=1, alpha=gradient)
    for panel, label in zip(panels[:, 0], ("image", *names), strict=True):
        panel.set_ylabel(label, rotation=0, ha="right", va="center")
    for panel in panels.flat:
        panel.set(xticks=[], yticks=[])
        panel.spines[:].set_visible(False)
    _means_by_network(measured, names, right)
    return figure


def _means_by_network(measured: SemanticGradients, names: Sequence[str], part: SubFigure) -> None:
    *others, last = names
    for (means, apart), (measure, title) in zip(part.subplots(len(MEASURES), 2), MEASURES.items(), strict=True):
        for row, network in enumerate(names):
            dot(means, row, measured.mean(network, measure), COLOURS[network])
        for row, network in enumerate(others):
            dot(apart, row, measured.minus(network, last, measure), COLOURS[network])
        apart.axvline(0, color="0.6", lw=0.8)
        means.set_yticks(range(len(names)), names)
        apart.set_yticks(range(len(others)), [f"{name} \N{MINUS SIGN}\n{last}" for name in others])
        means.set(xlim=(0, 1.02), ylim=(len(names) - 0.5, -0.5))
        apart.set(ylim=(len(others) - 0.5, -0.5))
        means.set_xlabel(title, fontsize="small")
        apart.set_xlabel("Difference", fontsize="small")
        for panel in (means, apart):
            panel.grid(axis="x", alpha=0.3)


def loss_landscapes(measured: Landscape, lines: Mapping[str, tuple[str, str]]) -> Figure:
    """Draw one surface per network; below them, the profiles and the mean rise of the loss.

    Parameters
    ----------
    measured : as `fig4_loss_landscape.measure`.
    lines : by network, its key in `COLOURS` or another colour, and its line style, in the order of drawing.
    """
    style()
    figure = plt.figure(figsize=(max(9, 3 * len(measured.surfaces)), 6.5), layout="constrained")
    upper, lower = figure.subfigures(2, 1, squeeze=False, height_ratios=(0.52, 0.48)).flat
    _surfaces(measured, upper)
    profile, rise = lower.subplots(1, 2, width_ratios=(0.6, 0.4))
    table = measured.table()
    for row, (network, (named, line)) in enumerate(lines.items()):
        colour = COLOURS.get(named, named)
        part = table[(table.network == network) & (table.part == "profile")]
        line_with_band(profile, part, "first", "loss", line, colour, label=titled(network))
        dot(rise, row, measured.rise(network), colour, mfc=colour if line == "-" else "white")
    profile.set(xlabel="Offset along the direction (filter norms)", ylabel="Adversarial loss (nats)", ylim=(0, None))
    profile.set_xticks(np.linspace(measured.offsets[0], measured.offsets[-1], 7))
    profile.grid(axis="y", alpha=0.3)
    rise.set_yticks(range(len(lines)), [titled(network) for network in lines])
    rise.set(xlabel="Mean rise over the profile (nats)", ylim=(len(lines) - 0.5, -0.5))
    rise.set_xlim(left=min(0, rise.get_xlim()[0]))
    rise.grid(axis="x", alpha=0.3)
    legend_below(lower, profile, ncols=min(len(lines), 4))
    return figure


def _surfaces(measured: Landscape, part: SubFigure) -> None:
    first, second = np.meshgrid(measured.grid, measured.grid, indexing="ij")
    top = max(float(surface.max()) for surface in measured.surfaces.values())
    panels = part.subplots(1, len(measured.surfaces), subplot_kw={"projection": "3d"}, squeeze=False)
    for panel, (network, surface) in zip(panels[0], measured.surfaces.items(), strict=True):
        panel.plot_surface(first, second, surface.numpy(), cmap="viridis", vmin=0, vmax=top, lw=0, rstride=1, cstride=1)
        ends = (-measured.grid[-1], 0, measured.grid[-1])
        panel.set(title=titled(network), zlim=(0, top), xticks=ends, yticks=ends, xlabel="first", ylabel="second")
        panel.tick_params(labelsize="x-small")
    part.supylabel("Adversarial loss (nats)", fontsize="small")


def embeddings(measured: Embedding, titles: Mapping[str, str]) -> Figure:
    """Draw one t-SNE per network, natural images as dots and x*_S as crosses, with the silhouettes below it.

    Parameters
    ----------
    measured : as `fig5_tsne.measure`.
    titles : the title of each network, in the order of the panels.

    Raises
    ------
    ValueError
        If there are more than six classes, the number of colours that are not used for networks.
    """
    figure, part = new_part(9, 9 / len(titles) + 1.5)
    panels = part.subplots(1, len(titles), squeeze=False)
    names = {"natural": "natural images", "student": "$x^*_S$"}
    markers, points = {"natural": "o", "student": "x"}, measured.points
    apart = (PALETTE[9], "0.25", *PALETTE[5:9])  # colours that are not used for networks
    classes = sorted(set(points["class"]))
    colours = dict(zip(classes, apart[: len(classes)], strict=True))
    for panel, (network, title) in zip(panels[0], titles.items(), strict=True):
        for name, examples in itertools.product(colours, EXAMPLES):
            own = (points["class"] == name) & (points.examples == examples) & (points.network == network)
            panel.scatter(
                points.x[own], points.y[own], s=14, marker=markers[examples], color=colours[name], alpha=0.8, lw=0.9,
                label=f"{name}, {names[examples]}",
            )  # fmt: skip
        scores = "\n".join(f"{names[e]}: {measured.silhouette(network, e)}" for e in EXAMPLES)
        panel.set(title=title, xticks=[], yticks=[], xlabel=f"silhouette of\n{scores}")
    legend_below(part, panels[0, 0], ncols=min(len(colours), 3))
    return figure
