"""What a picture looks like, apart from its numbers: sizes, limits, ticks, widths, texts, grids and legends."""

import math

import matplotlib as mpl
import numpy as np
import pandas as pd
import pytest
import torch
from agreed import agreed
from artists import Form, form, grids, lines, points, ratios, tick_labels, xy
from matplotlib.colors import to_hex, to_rgb, to_rgba
from matplotlib.patches import FancyBboxPatch
from matplotlib.text import Annotation

from rkdkit import data, figures, methods
from rkdkit.analysis.curves import BY_PEER, BY_TEACHER
from rkdkit.analysis.embedding import EXAMPLES, Scores
from rkdkit.analysis.gradients import MEASURES
from rkdkit.exhibits.fig2_method_overview import overview
from rkdkit.exhibits.fig4_loss_landscape import Landscape
from rkdkit.exhibits.fig5_tsne import Embedding
from rkdkit.exhibits.fig6_semantic_gradients import SemanticGradients
from rkdkit.exhibits.fig13_sample_difficulty import Ranking
from rkdkit.figures import look
from rkdkit.statistics import Estimate

pytestmark = pytest.mark.usefixtures("closed")

BELOW = "outside lower center"
COLORBLIND = [
    "#0173b2", "#de8f05", "#029e73", "#d55e00", "#cc78bc", "#ca9161", "#fbafe4", "#949494", "#ece133", "#56b4e9"
]  # fmt: skip


def every(**columns):
    """Return a table of all combinations, with values and intervals."""
    table = pd.MultiIndex.from_product(columns.values(), names=columns).to_frame(index=False)
    return table.assign(low=0.2, high=0.5)


def size(figure):
    return tuple(figure.get_size_inches())


def is_constrained(figure):
    return isinstance(figure.get_layout_engine(), mpl.layout_engine.ConstrainedLayoutEngine)


def anchor(axes):
    """Where a legend of an axes is anchored, as shares of the axes' width and height."""
    box = axes.get_legend().get_bbox_to_anchor()
    return tuple(axes.transAxes.inverted().transform((box.x0, box.y0)))


def test_the_shared_look():
    mpl.rcdefaults()
    figures.new_figure()
    assert (mpl.rcParams["figure.dpi"], mpl.rcParams["savefig.dpi"]) == (110, 200)
    assert not mpl.rcParams["axes.spines.top"]
    assert not mpl.rcParams["axes.spines.right"]
    assert mpl.rcParams["font.size"] == pytest.approx(12 * 0.8 * 1.1), "seaborn's paper, a tenth larger"
    assert mpl.rcParams["xtick.bottom"], "seaborn's ticks"
    assert not mpl.rcParams["axes.grid"]
    assert [to_hex(colour) for colour in mpl.rcParams["axes.prop_cycle"].by_key()["color"]] == COLORBLIND
    assert [to_hex(colour) for colour in look.PALETTE] == COLORBLIND
    roles = ("teacher", "peer", "student", "natural", "TRADES")
    assert {role: to_hex(colour) for role, colour in figures.COLOURS.items()} == dict(
        zip(roles, COLORBLIND, strict=False)
    )


def test_a_new_figures_size_and_layout():
    figure, axes = figures.new_figure()
    assert size(figure) == (6.4, 4.2)
    assert figure.axes == [axes]
    assert is_constrained(figure)
    assert size(figures.new_figure(3, 2)[0]) == (3, 2)
    figure, part = look.new_part(5, 4)
    assert size(figure) == (5, 4)
    assert list(figure.subfigs) == [part]
    assert is_constrained(figure)


def test_names_of_metrics():
    names = {
        "clean": "Clean",
        "fgsm": "FGSM",
        "square": "Square (black box)",
        "unbounded": "Unbounded: PGD-1000, eps = ∞",
        "autoattack": "AutoAttack",
        "pgd-20": "PGD-20",
        "pgd-20 (any iterate)": "PGD-20 (any iterate)",
        "fgsm from resnet34": "FGSM from resnet34",
        "PeerAiD": "PeerAiD",
    }
    assert {name: look.metric_name(name) for name in names} == names


def test_a_line_with_its_band():
    _, axes = figures.new_figure()
    table = pd.DataFrame({"x": [1, 2], "y": [0.3, 0.4], "low": [0.2, 0.3], "high": [0.5, 0.7]})
    look.line_with_band(axes, table, "x", "y", "--", "red")
    assert xy(axes.lines[0]) == ([1, 2], [0.3, 0.4]), "a scale of 1"
    (band,) = axes.collections
    assert tuple(band.get_facecolor()[0]) == pytest.approx(to_rgba("red", 0.15))
    assert band.get_linewidth() == [0]


def test_an_estimates_dot():
    _, axes = figures.new_figure()
    look.dot(axes, 3, Estimate(0.4, 0.3, 0.8, 9), "red", mfc="white")
    (marker,) = axes.lines
    assert (marker.get_marker(), marker.get_markersize()) == ("o", 5)
    assert (to_rgb(marker.get_color()), to_rgb(marker.get_markerfacecolor())) == (to_rgb("red"), to_rgb("white"))


LABELS = {
    ("student", BY_PEER): "student of the peer",
    ("peer", BY_PEER): "peer",
    ("student", BY_TEACHER): "student of the teacher",
    ("teacher", BY_TEACHER): "teacher",
}


def markers(axes):
    return {(line.get_markersize(), line.get_clip_on(), line.get_zorder()) for line in lines(axes).values()}


def test_the_form_of_robust_accuracy_over_epochs():
    table = every(network=["peer"], examples=["own", "student"], epoch=range(1, 13)).assign(robust_accuracy=0.3)
    _, axes = figures.new_figure()
    figures.robust_accuracy_curves(table, axes, {("peer", "own"): "its own", ("peer", "student"): "the student's"})
    assert form(axes.get_legend()) == Form("upper center", 2, False)
    assert anchor(axes) == pytest.approx((0.5, -0.17))
    assert grids(axes) == {"y": 0.3}
    assert markers(axes) == {(4, False, 3)}, "whole markers, above the axes"
    assert list(axes.get_xticks()) == [12, 10, 8, 6, 4, 2]
    _, axes = figures.new_figure()
    figures.robust_accuracy_curves(table[table.epoch <= 10], axes, {("peer", "own"): "peer"})
    assert len(axes.get_xticks()) == 10


def test_the_form_of_peer_tutoring():
    table = pd.concat(
        every(images=["train", "test"], network=[network], examples=[examples], epoch=[1, 2])
        for network, examples in LABELS
    ).assign(robust_accuracy=0.3)
    figure = figures.peer_tutoring(table, LABELS)
    assert size(figure) == (9, 4.4)
    assert ratios(figure.axes[0]) == ([1, 1], [1]), "side by side"
    assert [axes.get_ylabel() for axes in figure.axes] == [
        "Test robust accuracy on $x^*_S$ (%)",
        "Train robust accuracy on $x^*_S$ (%)",
    ]
    for axes in figure.axes:
        assert grids(axes) == {"y": 0.3}
        assert markers(axes) == {(4, False, 3)}
    assert form(figure.subfigs[0].legends[0]) == Form(BELOW, 2, False)


def test_the_form_of_entropies():
    networks = ("Natural", "TRADES", "A", "B", "C", "D", "E")
    table = every(network=networks, epoch=[1, 2, 3]).assign(entropy_nats=0.3)
    figure = figures.entropy_curves(table, 5, {"A": "Natural"})
    (axes,) = figure.axes
    assert size(figure) == (6.4, 4.2)
    assert axes.get_xlabel() == "Epochs of each network's own training"
    assert axes.get_ylabel() == "Mean entropy of the answer (nats)"
    assert grids(axes) == {"y": 0.3}
    (guessing,) = (line for line in axes.lines if str(line.get_label()).startswith("_"))
    assert (guessing.get_color(), guessing.get_linewidth(), guessing.get_linestyle()) == ("0.5", 1, ":")
    (written,) = axes.texts
    assert (written.xy, written.xycoords) == ((0, pytest.approx(math.log(5))), ("axes fraction", "data"))
    assert (written.xyann, written.anncoords, written.get_color()) == ((4, 3), "offset points", "0.35")
    assert isinstance(axes.xaxis.get_major_locator(), mpl.ticker.MaxNLocator)
    figure.canvas.draw()
    assert all(tick == int(tick) for tick in axes.get_xticks()), "epochs are whole"
    assert form(axes.get_legend()) == Form("upper center", 2, False)
    assert anchor(axes) == pytest.approx((0.5, -0.17))
    drawn = lines(axes)
    assert {(line.get_markersize(), line.get_clip_on()) for line in drawn.values()} == {(4, False)}
    # a style for every teacher in turn; the fifth has the first one's again
    of_teachers = [(line.get_linestyle(), line.get_marker()) for label, line in drawn.items() if "teacher" in label]
    assert of_teachers == [("-", "o"), ("--", "^"), ("-.", "s"), (":", "D"), ("-", "o"), ("--", "^")]
    assert (drawn["A: student of Natural"].get_linestyle(), len(drawn)) == ("-", 7)


def test_the_form_of_trajectories():
    students = [f"student {i}" for i in range(11)]
    quantities = [("p_S,K - p_T,K", name) for name in ("AKD", *students)] + [("cosine", "AKD"), ("p_T,K", "")]
    table = pd.concat(
        every(teacher=["PGD-AT", "Natural"], images=["natural"], quantity=[quantity], student=[student], rank=[0, 1, 2])
        for quantity, student in quantities
    ).assign(value=0.3, smoothed=0.4)
    table["class"] = np.where(table["rank"] == 1, "3", "8")
    figure = figures.trajectories_by_difficulty(table, agreed(range(9)), "title")
    assert size(figure) == (5.2, 9.8)
    rows = np.array(figure.axes).reshape(4, 2)
    for row in rows:
        assert row[0].get_shared_y_axes().joined(row[0], row[1])
        assert row[0].get_shared_x_axes().joined(row[0], rows[3, 1])
        assert not row[1].get_ylabel()
    assert not rows[0, 0].get_shared_y_axes().joined(rows[0, 0], rows[2, 0])
    assert rows[0, 0].get_ylabel() == "Cosine similarity of\nstudent and teacher"
    assert form(figure.subfigs[0].legends[0]) == Form(BELOW, 4, False)
    for panel in rows[:3].flat:
        dots = [line for line in panel.lines if line.get_marker() == "."]
        assert [(line.get_markersize(), line.get_color()) for line in dots] == [(3, "0.75"), (3, "0.35")]
        assert [len(line.get_xdata()) for line in dots] == [1, 2]
        assert [line.get_linewidth() for line in panel.lines if len(line.get_xdata()) == 3] == [2]
    for panel in rows[2:].flat:
        (zero,) = (line for line in panel.lines if list(line.get_ydata()) == [0, 0])
        assert (zero.get_color(), zero.get_linewidth(), zero.get_linestyle()) == ("0.5", 0.8, ":")
    for panel in rows[3]:
        drawn = lines(panel)
        assert list(drawn) == ["AKD", *students, "class 3", "class 8"]
        one = [drawn[name] for name in ("AKD", *students)]
        assert {line.get_linewidth() for line in one} == {1.8}
        expected = [("-", COLORBLIND[2]), ("--", to_hex("0.2"))]
        expected += [(style, COLORBLIND[i]) for style in ("-.", ":") for i in (9, 5, 6, 7)]
        assert [(line.get_linestyle(), to_hex(line.get_color())) for line in one] == expected + expected[:2]
        assert [drawn[f"class {name}"].get_linestyle() for name in "38"] == ["None", "None"]


def test_the_form_of_easiest_and_hardest_images():
    labels = torch.arange(36) % 3
    split = data.Split(torch.zeros(36, 1, 2, 2, dtype=torch.uint8), labels)
    figure = figures.easiest_and_hardest(Ranking(split, ("a", "b", "c"), agreed(torch.arange(36) / 10)), 5, "title")
    assert size(figure) == pytest.approx((5, 0.9 + 1.45 * 3))
    assert is_constrained(figure)
    (part,) = figure.subfigs
    assert len(part.subfigs) == 6
    assert part.subfigs[0]._subplotspec.get_gridspec().wspace == 0.03
    for block in part.subfigs:
        assert block._suptitle.get_fontsize() == points("medium")
        assert ratios(block.axes[0]) == ([1, 1, 1], [1, 1]), "in two rows"
        assert not any(panel.axison for panel in block.axes)
        for panel in block.axes[:5]:
            assert panel.title.get_fontsize() == 7
            assert panel.titleOffsetTrans.transform((0, 0))[1] == pytest.approx(2 / 72 * figure.dpi)
            assert panel.images[0].get_cmap().name == "gray"
        assert not block.axes[5].images


def test_the_form_of_semantic_gradients():
    values = {name: {measure: [torch.rand(4).double()] for measure in MEASURES} for name in ("peer", "student")}
    maps = {name: torch.rand(4, 2, 3) for name in values}
    images = torch.zeros(4, 1, 2, 3, dtype=torch.uint8)
    figure = figures.semantic_gradients(SemanticGradients(values, torch.arange(4), images, tuple("abcd"), maps))
    assert size(figure) == pytest.approx((12, 0.6 + 3 * 6.9 / 4))
    assert is_constrained(figure)
    left, right = figure.subfigs
    assert ratios(left) == ([0.62, 0.38], [1])
    for panel in left.axes:
        assert not len(panel.get_xticks())
        assert not len(panel.get_yticks())
        assert not any(spine.get_visible() for spine in panel.spines.values())
        assert panel.images[0].get_cmap().name == "gray"
    for panel in left.axes[::4]:
        named = panel.yaxis.label
        assert (named.get_rotation(), named.get_ha(), named.get_va()) == (0, "right", "center")
    for panel in left.axes[4:]:
        assert panel.images[1].get_cmap().name == "YlOrRd", "laid over the image"
    assert ratios(right.axes[0]) == ([1, 1], [1, 1, 1])
    for panel in right.axes[1::2]:
        assert panel.get_ylim() == (0.5, -0.5)
        assert panel.get_xlabel() == "Difference"
        assert tick_labels(panel, "y") == {0: "peer \N{MINUS SIGN}\nstudent"}
    for panel in right.axes[::2]:
        assert panel.get_ylim() == (1.5, -0.5)
        assert panel.xaxis.label.get_fontsize() == points("small")
        assert grids(panel) == {"x": 0.3}
        assert tick_labels(panel, "y") == {0: "peer", 1: "student"}
        assert [line.get_markersize() for line in panel.lines if line.get_marker() == "o"] == [5, 5]


def landscape(rising=True):
    offsets = (-0.75, -0.5, -0.25, 0.0, 0.25, 0.5, 0.75)
    tall = torch.tensor([0.1 if offset == 0 else 1.0 for offset in offsets])
    profile = torch.stack([tall if rising else 2 - tall] * 6).T.expand(2, 7, 6) + torch.rand(2, 1, 6) / 10
    surfaces = {name: torch.rand(3, 3) for name in "abc"}
    return Landscape(offsets, {name: [profile.double()] for name in "abc"}, (-0.75, 0.0, 0.75), surfaces, 3)


def test_the_form_of_landscapes():
    shown = {"a": ("student", "-"), "b": ("teacher", "--"), "c": ("TRADES", "-")}
    figure = figures.loss_landscapes(landscape(), shown)
    assert size(figure) == (9, 6.5)
    assert is_constrained(figure)
    upper, lower = figure.subfigs
    assert ratios(upper) == ([1], [0.52, 0.48])
    assert ratios(upper.axes[0]) == ([1, 1, 1], [1])
    assert upper.get_supylabel() == "Adversarial loss (nats)"
    assert upper._supylabel.get_fontsize() == points("small")
    for panel in upper.axes:
        (surface,) = panel.collections
        assert (surface.get_cmap().name, list(surface.get_linewidth())) == ("viridis", [0])
        assert list(panel.get_xticks()) == list(panel.get_yticks()) == [-0.75, 0, 0.75]
        assert {text.get_fontsize() for text in panel.get_xticklabels()} == {points("x-small")}
    profile, rise = lower.axes
    assert ratios(profile) == ([0.6, 0.4], [1])
    assert profile.get_xlabel() == "Offset along the direction (filter norms)"
    assert profile.get_ylabel() == "Adversarial loss (nats)"
    assert profile.get_ylim()[0] == 0
    assert profile.get_ylim()[1] > 1, "as high as the loss"
    assert list(profile.get_xticks()) == pytest.approx([-0.75, -0.5, -0.25, 0, 0.25, 0.5, 0.75])
    assert (grids(profile), grids(rise)) == ({"y": 0.3}, {"x": 0.3})
    assert (rise.get_xlabel(), rise.get_ylim()) == ("Mean rise over the profile (nats)", (2.5, -0.5))
    assert rise.get_xlim()[0] == 0
    assert form(lower.legends[0]) == Form(BELOW, 3, False)


def test_a_fall_of_the_loss_is_seen_as_well():
    _, rise = figures.loss_landscapes(landscape(rising=False), {"a": ("student", "-")}).subfigs[1].axes
    assert rise.get_xlim()[0] < -0.7


def embedded(classes, networks):
    points_ = every(network=networks, examples=EXAMPLES, **{"class": list(classes)}, image=range(3)).assign(
        x=1.0, y=2.0
    )
    scores = {name: {examples: [Scores(0.1, np.linspace(0, 0.2, 50), 9)] for examples in EXAMPLES} for name in networks}
    return Embedding(points_, scores)


def test_the_form_of_embeddings():
    figure = figures.embeddings(embedded("abcdef", ["peer", "teacher"]), {"peer": "Peer", "teacher": "Teacher"})
    assert size(figure) == (9, 6)
    assert ratios(figure.axes[0]) == ([1, 1], [1])
    for panel in figure.axes:
        assert not len(panel.get_xticks())
        assert not len(panel.get_yticks())
        colours = [COLORBLIND[9], to_hex("0.25"), *COLORBLIND[5:9]]
        for i, dots in enumerate(panel.collections):
            assert (list(dots.get_sizes()), dots.get_alpha(), list(dots.get_linewidth())) == ([14], 0.8, [0.9])
            assert to_hex(dots.get_edgecolor()[0]) == colours[i // 2]
    assert form(figure.subfigs[0].legends[0]) == Form(BELOW, 3, False)
    alone = figures.embeddings(embedded("ab", ["peer"]), {"peer": "Peer"})
    assert size(alone) == (9, 10.5)
    assert form(alone.subfigs[0].legends[0]) == Form(BELOW, 2, False)


def test_a_seventh_class_has_no_colour():
    with pytest.raises(ValueError, match="zip"):
        figures.embeddings(embedded("abcdefg", ["peer"]), {"peer": "Peer"})


def test_the_form_of_accuracies_by_method():
    table = every(method=["B", "A", "C"], metric=["clean", "fgsm"]).assign(accuracy=0.3, paper=0.4, n=[4000, 2000] * 3)
    figure = figures.accuracy_by_method(table, "title", "theirs")
    assert size(figure) == pytest.approx((9, 1.8 + 0.28 * 3))
    assert size(figures.accuracy_by_method(table, "title", "theirs", width=5)) == pytest.approx((5, 1.8 + 0.28 * 3))
    first, second = figure.axes
    assert first.get_shared_y_axes().joined(first, second)
    assert (first.get_xlabel(), second.get_xlabel()) == (
        "Accuracy (%)\n4,000 images",
        "Accuracy (%)\nfirst 2,000 images",
    )
    for panel in figure.axes:
        assert grids(panel) == {"x": 0.3}
        ours, theirs = (container.lines[0] for container in panel.containers)
        assert (ours.get_color(), theirs.get_color()) == ("0.15", "0.45")
        assert (ours.get_markersize(), theirs.get_markersize()) == (5, 5)
        assert (theirs.get_markerfacecolor(), theirs.get_linestyle()) == ("none", "None")
    assert tick_labels(first, "y") == {0: "B", 1: "A", 2: "C"}
    assert form(figure.subfigs[0].legends[0]) == Form(BELOW, 2, False)


def test_the_form_of_a_comparison_of_guides():
    quantities = ["f(x)", "f(x*_f)", "cos(f(x), f(x*_S))"]
    table = every(guide=["peer", "teacher"], quantity=quantities).assign(value=0.3, paper=0.4)
    figure = figures.guides_compared(table, {"peer": "Peer", "teacher": "Teacher"}, "theirs")
    assert size(figure) == (9, 4.1)
    assert [panel.get_xlabel() for panel in figure.axes] == [
        "Accuracy of guide f or student S (%)",
        "Cosine of the guide's penultimate features",
    ]
    for panel in figure.axes:
        assert grids(panel) == {"x": 0.3}
        drawn = [container.lines[0] for container in panel.containers]
        assert {line.get_markersize() for line in drawn} == {5}
        assert [line.get_markerfacecolor() == "none" for line in drawn[:4]] == [False, True, False, True]
    assert list(tick_labels(figure.axes[0], "y")) == [0, 1]
    assert form(figure.subfigs[0].legends[0]) == Form(BELOW, 3, False)


LINE = 0.29  # inches
PALER = {name: tuple((c + 3) / 4 for c in to_rgb(COLORBLIND[i])) for i, name in enumerate(("T", "P", "S", "T_nat"))}


def test_the_form_of_the_overview():
    table = overview({name: methods.get(name) for name in ("KD", "AdaAD")})
    rows = table.groupby(["method", "part"], sort=False).size()
    high = [max(rows[name]) for name in ("KD", "AdaAD")]
    figure = figures.method_overview(table)
    (axes,) = figure.axes
    height = LINE * (sum(high) + 2 * 0.6 + 2.5)
    assert size(figure) == pytest.approx((12.4, height))
    assert axes.get_position().bounds == (0, 0, 1, 1)
    assert (axes.get_xlim(), axes.get_ylim()) == (pytest.approx((0, 12.4)), pytest.approx((height, 0)))
    assert not axes.axison
    legend = axes.get_legend()
    assert form(legend) == Form("upper center", 6, False)
    texts = [text.get_text() for text in legend.get_texts()]
    assert texts == ["student S", "peer P", "fixed teacher T", "natural teacher T_nat", "labels y", "gradient"]
    faces = [to_rgb(patch.get_facecolor()) for patch in legend.get_patches()]
    assert faces == [pytest.approx(PALER[role]) for role in ("S", "P", "T", "T_nat")] + [(0.875, 0.875, 0.875)]
    (gradient,) = (line for line in legend.get_lines() if line.get_marker() == ">")
    assert gradient.get_color() == "0.3"
    bold = {text.get_text(): text for text in axes.texts if text.get_weight() == "bold"}
    assert bold["inner maximisation"].get_position() == pytest.approx((1.4, 2 * LINE))
    assert bold["outer minimisation"].get_position() == pytest.approx((6.35, 2 * LINE))
    tops = [2.5 * LINE, (2.5 + high[0] + 0.6) * LINE]
    wide = [patch for patch in axes.patches if isinstance(patch, FancyBboxPatch) and patch.get_width() > 2]
    assert len(wide) == 4
    for i, name in enumerate(("KD", "AdaAD")):
        assert bold[name].get_position() == pytest.approx((0.05, tops[i] + high[i] * LINE / 2))
        assert bold[name].get_va() == "center"
        for box, (left, right) in zip(wide[2 * i : 2 * i + 2], ((1.4, 6.2), (6.35, 12.3)), strict=True):
            assert (box.get_x(), box.get_y()) == pytest.approx((left, tops[i]))
            assert (box.get_width(), box.get_height()) == pytest.approx((right - left, high[i] * LINE))
            assert (to_rgb(box.get_facecolor()), to_rgb(box.get_edgecolor())) == ((0.985,) * 3, (0.8,) * 3)
            assert (type(box.get_boxstyle()).__name__, box.get_boxstyle().pad) == ("Round", 0.04)


def test_the_form_of_a_line_of_the_overview():
    line = {"method": "KD", "part": "minimise", "makes": "", "term": "0.9 KL(T(x), S(x))", "target": "T(x)"}
    table = pd.DataFrame([{**line, "divergence": "KL", "output": "S(x)", "gradient_to": "S(x)"}])
    (axes,) = figures.method_overview(table).axes
    y = (2.5 + 0.5) * LINE
    written = {text.get_text(): text for text in axes.texts if text.get_text()}
    expected = {
        "0.9 KL(T(x), S(x))": (6.35 + 2.45, 8.5, "normal", "left"),
        "$T(x)$": (6.35 + 0.42, 9, "normal", "center"),
        "$S(x)$": (6.35 + 1.98, 9, "normal", "center"),
        "KL": (6.35 + 1.2, 8, "bold", "center"),
    }
    for name, (x, points_, weight, side) in expected.items():
        text = written[name]
        assert text.get_position() == pytest.approx((x, y)), name
        assert (text.get_fontsize(), text.get_weight(), text.get_ha(), text.get_va()) == (
            points_,
            weight,
            side,
            "center",
        ), name
    clear = written["KL"].get_bbox_patch()
    assert clear is not None, "the arrow does not cross the letters"
    assert (to_rgb(clear.get_facecolor()), clear.get_edgecolor()[3]) == ((0.985,) * 3, 0)
    assert clear.get_boxstyle().pad == pytest.approx(1 / 8, abs=0.01), "one point, in sizes of the text"
    chips = [patch for patch in axes.patches if patch.get_width() == 0.72]
    for chip, x, role in zip(chips, (6.35 + 0.42, 6.35 + 1.98), "TS", strict=True):
        assert (chip.get_x(), chip.get_y()) == pytest.approx((x - 0.36, y - 0.08))
        assert chip.get_height() == 0.16
        assert to_rgb(chip.get_facecolor()) == pytest.approx(PALER[role])
        assert (type(chip.get_boxstyle()).__name__, chip.get_boxstyle().pad) == ("Round", 0.04)
    arrows = [text for text in axes.texts if isinstance(text, Annotation)]
    for arrow, x, shape in zip(arrows, (6.35 + 0.82, 6.35 + 1.58), ("Curve", "CurveFilledB"), strict=True):
        assert (*arrow.xy, *arrow.xyann) == pytest.approx((x, y, 6.35 + 1.2, y))
        drawn = arrow.arrow_patch
        assert (type(drawn.get_arrowstyle()).__name__, to_rgb(drawn.get_edgecolor())) == (shape, (0.3,) * 3)
        assert (drawn.shrinkA, drawn.shrinkB) == (9, 0)


def test_a_term_without_a_divergence_is_its_formula_alone():
    nothing = dict.fromkeys(("makes", "target", "divergence", "output", "gradient_to"), "")
    (axes,) = figures.method_overview(
        pd.DataFrame([{"method": "KD", "part": "maximise", "term": "nothing", **nothing}])
    ).axes
    (formula,) = (text for text in axes.texts if text.get_text() == "nothing")
    assert formula.get_position() == pytest.approx((1.4 + 0.1, 3 * LINE))


def test_a_points_name_as_a_figure_prints_it():
    printed = {"S(x*)": "$S(x^*)$", "T_rob(x~)": r"$T_{\mathrm{rob}}(\tilde{x})$", "f(x*_S)": "$f(x^*_S)$"}
    assert {name: look.mathematics(name) for name in printed} == printed


def test_the_form_of_differences():
    table = every(method=["B", "A", "C"], metric=["clean", "fgsm"]).assign(n=[4000, 2000] * 3, difference=0.1)
    table = table.assign(difference_low=0.05, difference_high=0.2, paper_difference=-0.02, compared_with="C")
    table = table.assign(accuracy=0.3, low=0.2, high=0.5)
    table.loc[table.method == "C", "compared_with"] = ""
    only_theirs = table[table.method == "A"].assign(method="theirs", accuracy=math.nan, n=math.nan)
    figure = figures.differences(pd.concat([table, only_theirs]), "title", "paper")
    assert size(figure) == pytest.approx((9, 0.8 + 0.9 + 0.26 * 3 + 0.9 + 0.26 * 3))
    first, second, third, fourth = figure.axes
    assert (first.get_xlabel(), second.get_xlabel()) == (
        "Accuracy (%)\n4,000 images",
        "Accuracy (%)\nfirst 2,000 images",
    )
    assert third.get_xlabel() == fourth.get_xlabel() == "Accuracy minus\nC's (points)"
    assert [tick.get_text() for tick in first.get_yticklabels()] == ["B", "A", "C"]
    assert [tick.get_text() for tick in third.get_yticklabels()] == ["B", "A", "theirs"]
    (accuracies,) = (container.lines[0] for container in first.containers)
    assert list(accuracies.get_xdata()) == pytest.approx([30, 30, 30])
    ours, theirs = (container.lines[0] for container in third.containers)
    assert list(ours.get_xdata()) == pytest.approx([10] * 3)
    assert list(theirs.get_xdata()) == pytest.approx([-2] * 3)
    for panel, ends in ((first, [20, 50]), (third, [5, 20])):
        (bars,) = panel.containers[0].lines[2]
        assert [segment[:, 0].tolist() for segment in bars.get_segments()] == [pytest.approx(ends)] * 3

    table.loc[table.method == "A", "compared_with"] = "B"
    several = figures.differences(table, "title", "paper").axes[2]
    assert [tick.get_text() for tick in several.get_yticklabels()] == ["B \N{MINUS SIGN} C", "A \N{MINUS SIGN} B"]
    assert several.get_xlabel() == "Difference (points)"

    named = figures.differences(table.assign(pair="the row of " + table.method), "title", "theirs", difference="pair")
    shown = [[tick.get_text() for tick in panel.get_yticklabels()] for panel in named.axes]
    assert ["the row of B", "the row of A"] in shown
    assert ["B", "A", "C"] in shown, "accuracies keep the methods' names"

    remark = table.method.map({"A": "unlike others", "B": "", "C": "alone"})
    marked, unmarked = (figures.differences(table.assign(remark=each), "title", "paper") for each in (remark, ""))
    names = [[tick.get_text() for tick in marked.axes[place].get_yticklabels()] for place in (0, 2)]
    assert names == [
        ["B", "A \N{DAGGER}", "C \N{DOUBLE DAGGER}"],
        ["B \N{MINUS SIGN} C", "A \N{MINUS SIGN} B \N{DAGGER}"],
    ]
    explained = [[text.get_text() for text in each.subfigs[0].legends[0].get_texts()] for each in (marked, unmarked)]
    assert explained[0] == [*explained[1], "unlike others", "alone"]
    assert len(explained[1]) == 2
