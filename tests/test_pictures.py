"""Every artist drawn shows the numbers it was given: made-up ones, all different, their intervals lopsided."""

import math

import numpy as np
import pandas as pd
import pytest
import torch
from agreed import agreed
from artists import (
    bands,
    corners_of_surface,
    entries,
    is_marker,
    legend_below,
    lines,
    look,
    marks,
    pictures,
    projected,
    tick_labels,
    xy,
)
from matplotlib.colors import to_rgb
from matplotlib.patches import FancyBboxPatch
from matplotlib.text import Annotation

from rkdkit import data, figures, methods
from rkdkit.analysis.curves import BY_PEER, BY_TEACHER
from rkdkit.analysis.embedding import EXAMPLES, Scores
from rkdkit.analysis.gradients import MEASURES
from rkdkit.analysis.trajectories import FIGURES
from rkdkit.exhibits.fig2_method_overview import overview
from rkdkit.exhibits.fig4_loss_landscape import Landscape
from rkdkit.exhibits.fig5_tsne import Embedding
from rkdkit.exhibits.fig6_semantic_gradients import SemanticGradients
from rkdkit.exhibits.fig13_sample_difficulty import Ranking

pytestmark = pytest.mark.usefixtures("closed")

COLOUR = {role: to_rgb(colour) for role, colour in figures.COLOURS.items()}


@pytest.fixture
def numbers():
    return np.random.default_rng(12)


def approx(values):
    return pytest.approx(list(values), abs=1e-9)


def estimated(table, column, numbers):
    """Fill in a value between 0.3 and 0.6 for every row, and an interval that reaches farther up than down."""
    value = numbers.uniform(0.3, 0.6, len(table))
    low, high = value - numbers.uniform(0.01, 0.05, len(table)), value + numbers.uniform(0.1, 0.2, len(table))
    return table.assign(**{column: value, "low": low, "high": high})


def every(**columns):
    """Return a table of all combinations."""
    return pd.MultiIndex.from_product(columns.values(), names=columns).to_frame(index=False)


def compare_curves(axes, expected, x, y, scale):
    """Compare lines and bands with tables, by label in the order of drawing."""
    drawn = lines(axes)
    assert list(drawn) == list(expected)
    assert len(bands(axes)) == len(expected)
    for band, (label, table) in zip(bands(axes), expected.items(), strict=True):
        table = table.sort_values(x)
        assert xy(drawn[label]) == (approx(table[x]), approx(scale * table[y])), label
        assert (band.x, band.low, band.high) == (
            approx(table[x]),
            approx(scale * table.low),
            approx(scale * table.high),
        ), label
        assert band.colour == look(drawn[label]).colour, label


def same_looks(legend, drawn):
    """Compare a legend's entries with the lines of those labels."""
    assert {label: look(handle) for label, handle in legend.items()} == {k: look(v) for k, v in drawn.items()}


def test_robust_accuracy_over_epochs_is_drawn_in_per_cent_with_its_intervals(numbers):
    networks, examples = ("teacher", "peer", "student"), ("student", "own")
    table = estimated(every(network=networks, examples=examples, epoch=(1, 2, 5, 9)), "robust_accuracy", numbers)
    labels = {(n, e): f"{n} on {e}" for e in examples for n in reversed(networks)}
    _, axes = figures.new_figure()
    figures.robust_accuracy_curves(table, axes, labels)
    by_part = dict(tuple(table.groupby(["network", "examples"])))
    compare_curves(axes, {labels[part]: by_part[part] for part in labels}, "epoch", "robust_accuracy", 100)
    looks = {part: look(lines(axes)[label]) for part, label in labels.items()}
    for (network, by), one in looks.items():
        assert one == (COLOUR[network], *(("-", "o") if by == "student" else ("--", "^")), True)
    same_looks(entries(axes.get_legend()), lines(axes))
    assert axes.get_ylim() == (0, 100)
    assert axes.get_ylabel() == "Test robust accuracy (%)"
    assert list(axes.get_xticks()) == [9, 5, 2, 1]


def test_a_long_trainings_ticks_are_ten_at_the_most_with_the_last_epoch_among_them(numbers):
    table = estimated(every(network=["peer"], examples=["own"], epoch=range(1, 32)), "robust_accuracy", numbers)
    _, axes = figures.new_figure()
    figures.robust_accuracy_curves(table, axes, {("peer", "own"): "peer"})
    assert list(axes.get_xticks()) == [31, 27, 23, 19, 15, 11, 7, 3]


def test_peer_tutoring_has_test_images_in_one_panel_and_training_images_in_the_other(numbers):
    parts = {
        ("student", BY_PEER): "student of the peer",
        ("peer", BY_PEER): "peer",
        ("student", BY_TEACHER): "student of the teacher",
        ("teacher", BY_TEACHER): "teacher",
    }
    table = pd.concat(
        every(images=["train", "test"], network=[network], examples=[examples], epoch=[1, 2, 3])
        for network, examples in parts
    )
    table = estimated(table, "robust_accuracy", numbers)
    figure = figures.peer_tutoring(table, parts)
    panels = {axes.get_ylabel().split()[0].lower(): axes for axes in figure.axes}
    assert list(panels) == ["test", "train"]
    assert [axes.get_title() for axes in figure.axes] == ["PeerAiD Figure 3a", "PeerAiD Figure 3b"]
    for images, axes in panels.items():
        of_panel = table[table.images == images]
        by_part = dict(tuple(of_panel.groupby(["network", "examples"])))
        compare_curves(axes, {label: by_part[part] for part, label in parts.items()}, "epoch", "robust_accuracy", 100)
        for (network, examples), label in parts.items():
            styled = ("-", "o") if examples == BY_PEER else ("--", "^")
            assert look(lines(axes)[label])[:3] == (COLOUR[network], *styled)
        assert (axes.get_ylim(), axes.get_xlabel()) == ((0, 100), "Epochs of the students and the peer")
    same_looks(legend_below(figure.subfigs[0]), lines(panels["test"]))


def test_entropies_are_drawn_in_nats_below_the_line_of_guessing(numbers):
    taught_by = {"AKD-Std": "Natural", "AKD-AT": "PGD-AT"}
    table = estimated(
        every(network=["Natural", "AKD-AT", "PGD-AT", "AKD-Std"], epoch=[1, 2, 4]), "entropy_nats", numbers
    )
    (axes,) = figures.entropy_curves(table, 7, taught_by).axes
    labels = {
        "Natural": "Natural, the teacher",
        "AKD-AT": "AKD-AT: student of PGD-AT",
        "PGD-AT": "PGD-AT, the teacher",
        "AKD-Std": "AKD-Std: student of Natural",
    }
    by_network = {label: table[table.network == network] for network, label in labels.items()}
    compare_curves(axes, by_network, "epoch", "entropy_nats", 1)
    looks = {network: look(lines(axes)[label]) for network, label in labels.items()}
    of_role = {"Natural": "natural", "AKD-AT": "student", "PGD-AT": "teacher", "AKD-Std": "student"}
    for network, role in of_role.items():
        assert (looks[network].colour, looks[network].filled) == (COLOUR[role], role == "student")
    for student, teacher in taught_by.items():
        assert looks[student][1:3] == looks[teacher][1:3], "a student has its own teacher's line and marker"
    assert looks["AKD-Std"][1:3] != looks["AKD-AT"][1:3]
    (guessing,) = (line for line in axes.lines if str(line.get_label()).startswith("_"))
    assert list(guessing.get_ydata()) == approx([math.log(7)] * 2)
    (written,) = axes.texts
    assert (written.get_text(), written.xy[1]) == ("guessing: ln 7", pytest.approx(math.log(7)))
    assert axes.get_ylim() == approx([0, 1.12 * math.log(7)])
    same_looks(entries(axes.get_legend()), lines(axes))


def test_trajectories_are_dots_of_values_under_lines_of_smoothed_values(numbers):
    quantities = [("p_S,K - p_T,K", name) for name in ("KD", "AKD", "AKD early")] + [("cosine", "AKD"), ("p_T,K", "")]
    classes = ["8", "3", "3", "8", "3"]
    table = pd.concat(
        every(teacher=[teacher], images=[images], quantity=[quantity], student=[student], rank=range(5)).assign(
            **{"class": classes}
        )
        for teacher in ("PGD-AT", "Natural")
        for images in ("natural", "adversarial")
        for quantity, student in quantities
    )
    table = table.assign(value=numbers.uniform(0, 1, len(table)), smoothed=numbers.uniform(0, 1, len(table)))
    ranked = agreed(range(9))
    figure = figures.trajectories_by_difficulty(table, ranked, "Of these")
    assert figure.get_suptitle() == f"Of these\n{ranked}"
    rows, percent = np.array(figure.axes).reshape(4, 4), [0.0, 25.0, 50.0, 75.0, 100.0]
    columns = list(dict.fromkeys(zip(table.teacher, table.images, strict=True)))
    drawn_in_row = [("cosine", "AKD"), ("p_T,K", ""), ("p_S,K - p_T,K", "AKD")]
    legend, shades = legend_below(figure.subfigs[0]), {}
    for name in ("3", "8"):
        shades[name] = look(legend[f"class {name}"]).colour
    assert shades["3"] != shades["8"]
    for (teacher, images), panels in zip(columns, rows.T, strict=True):
        named = FIGURES[teacher, images]
        assert [panel.get_title() for panel in panels] == [
            f"{teacher} teacher,\n{images} images\nRKD Figure {named['cosine']}",
            f"RKD Figure {named['p_T,K']}",
            f"RKD Figure {named['gain']}",
            f"RKD Figures {named['early']}, {named['mixing']}",
        ]
        part = table[(table.teacher == teacher) & (table.images == images)]
        for panel, (quantity, student) in zip(panels, drawn_in_row, strict=False):
            one = part[(part.quantity == quantity) & (part.student == student)]
            dots = {look(line).colour: xy(line) for line in panel.lines if line.get_marker() == "."}
            assert set(dots) == set(shades.values())
            for name, shade in shades.items():
                own = [i for i, of_class in enumerate(classes) if of_class == name]
                assert dots[shade] == (approx(percent[i] for i in own), approx(one.value.iloc[own]))
            (smooth,) = (line for line in panel.lines if line.get_linestyle() == "-" and len(line.get_xdata()) > 2)
            assert xy(smooth) == (approx(percent), approx(one.smoothed))
            role = {"p_T,K": {"Natural": "natural", "PGD-AT": "teacher"}[teacher]}.get(quantity, "student")
            assert look(smooth).colour == COLOUR[role]
        students = lines(panels[3])
        assert list(students) == ["KD", "AKD", "AKD early", "class 3", "class 8"]
        for student in ("KD", "AKD", "AKD early"):
            one = part[(part.quantity == "p_S,K - p_T,K") & (part.student == student)]
            assert xy(students[student]) == (approx(percent), approx(one.smoothed))
        assert panels[3].get_xlabel() == "Test images, easiest\nto hardest (%)"
        zero = [[list(line.get_ydata()) for line in panel.lines].count([0, 0]) for panel in panels]
        assert zero == [0, 0, 1, 1], "a gain is above nought or below"
    same_looks(legend, lines(rows[3, 0]))
    labels = [row[0].get_ylabel() for row in rows]
    assert labels[0].startswith("Cosine")
    assert labels[1] == "Teacher: $p_{T,K}$"
    assert labels[2] == "Student by AKD:\n$p_{S,K} - p_{T,K}$"
    assert labels[3] == "All students, smoothed:\n$p_{S,K} - p_{T,K}$"
    assert [tuple(row[0].get_ylim()) for row in rows[:3]] == [(-0.03, 1.03), (-0.03, 1.03), (-1.03, 1.03)]


@pytest.mark.parametrize("channels", [1, 3])
def test_the_easiest_images_stand_left_and_the_hardest_right_with_their_scores(numbers, channels):
    images = torch.from_numpy(numbers.integers(0, 256, (16, channels, 2, 3), dtype=np.uint8))
    labels = torch.tensor([0, 1] * 8)
    difficulty = agreed(numbers.permutation(16) / 10.0, labels)
    mean = difficulty.of_images
    ranking = Ranking(data.Split(images, labels), ("plane", "car"), difficulty)
    figure = figures.easiest_and_hardest(ranking, 3, "Hard?")
    assert figure.get_suptitle() == f"Hard?\n{difficulty}"
    blocks = figure.subfigs[0].subfigs
    assert [block.get_suptitle() for block in blocks] == [
        f"{name}: {which} to learn" for name in ("plane", "car") for which in ("easiest", "hardest")
    ]
    for label in (0, 1):
        order = sorted((i for i in range(16) if labels[i] == label), key=lambda i: float(mean[i]))
        for block, chosen in zip(blocks[2 * label : 2 * label + 2], (order[:3], order[::-1][:3]), strict=True):
            shown = [panel for panel in block.axes if panel.images]
            assert len(shown) == 3
            for panel, i in zip(shown, chosen, strict=True):
                (picture,) = pictures(panel)
                assert picture.reshape(2, 3, channels).tolist() == images[i].permute(1, 2, 0).tolist()
                assert panel.get_title() == f"{100 * mean[i]:.0f}"
                assert panel.images[0].get_clim() == (0, 255)


def lopsided(shift):
    """Values of four images near 0, so that the interval of their mean ends at 0: it reaches farther up than down."""
    return torch.tensor([0.0, 0.0, 0.0, 0.25 + shift], dtype=torch.float64)


def compare_dots(axes, table, names, colours):
    """Compare a row of estimates a name with a table, from the top down."""
    drawn = marks(axes)
    assert len(drawn) == len(names)
    for row, (name, dot) in enumerate(zip(names, drawn, strict=True)):
        of_name = table[table.network == name]
        assert (dot.x, dot.y) == (approx(of_name.value), [row]), name
        assert (dot.low, dot.high) == (approx(of_name.low), approx(of_name.high)), name
        assert dot.colour == colours[name], name
    assert list(tick_labels(axes, "y").values()) == list(names)
    assert list(tick_labels(axes, "y")) == list(range(len(names)))
    bottom, top = axes.get_ylim()
    assert bottom > top


@pytest.mark.parametrize("channels", [1, 3])
def test_gradients_stand_below_their_images_and_beside_the_means(numbers, channels):
    names = ("natural", "peer", "student")
    values = {
        name: {measure: [lopsided((3 * i + j) / 40)] for j, measure in enumerate(MEASURES)}
        for i, name in enumerate(names)
    }
    maps = {name: torch.from_numpy(numbers.uniform(0, 1, (2, 2, 3))) for name in reversed(names)}
    images = torch.from_numpy(numbers.integers(0, 256, (2, channels, 2, 3), dtype=np.uint8))
    measured = SemanticGradients(values, torch.tensor([1, 3]), images, ("cat", "dog"), maps)
    left, right = figures.semantic_gradients(measured).subfigs
    panels = np.array(left.axes).reshape(4, 2)
    assert [panel.get_title() for panel in panels[0]] == ["cat", "dog"]
    assert [panel.get_ylabel() for panel in panels[:, 0]] == ["image", "student", "peer", "natural"]
    for column, panel in enumerate(panels[0]):
        (picture,) = pictures(panel)
        assert picture.reshape(2, 3, channels).tolist() == images[column].permute(1, 2, 0).tolist()
        assert panel.images[0].get_clim() == (0, 255)
    for row, name in zip(panels[1:], maps, strict=True):
        for panel, gradient in zip(row, maps[name], strict=True):
            below, above = pictures(panel)
            assert above.tolist() == gradient.tolist()
            assert panel.images[1].get_alpha().tolist() == gradient.tolist()
            assert panel.images[1].get_clim() == (0, 1)
            assert below.shape == gradient.shape
    table = measured.table()
    means = table[table.image == "all"]
    assert (means.high - means.value > 1.5 * (means.value - means.low)).all(), "lopsided"
    for apart, measure in zip(right.axes[1::2], MEASURES, strict=True):
        *others, last = measured.pictures
        drawn = [float(container.lines[0].get_xdata()[0]) for container in apart.containers]
        assert drawn == pytest.approx([measured.minus(name, last, measure).value for name in others])
    for panel, (measure, title) in zip(right.axes[::2], MEASURES.items(), strict=True):
        assert (panel.get_xlabel(), panel.get_xlim()) == (title, (0, 1.02))
        compare_dots(panel, means[means.measure == measure], list(maps), COLOUR)


class LopsidedLandscape(Landscape):
    """A landscape whose intervals are made up as well: as they are measured, they are as long on both sides."""

    def table(self):
        table = super().table()
        about = dict(zip(self.profiles, (0.02, 0.05), strict=True))
        reach = table.network.map(about) * (1 + table.index % 5)
        return table.assign(low=table.loss - reach, high=table.loss + 3 * reach)

    def rise(self, network):
        measured = super().rise(network)
        return type(measured)(measured.value, measured.value - 0.1, measured.value + 0.4, measured.n, measured.seeds)


def test_landscapes_surfaces_profiles_and_rises_are_the_numbers_measured(numbers):
    offsets, grid = (-0.5, 0.0, 0.5), (-0.75, 0.0, 0.75)
    profiles = {
        name: [torch.from_numpy(numbers.uniform(low, low + 0.3, (2, 3, 6)))] for name, low in (("a", 1), ("b", 2))
    }
    surfaces = {name: torch.from_numpy(numbers.uniform(0.2, 3, (3, 3))) for name in ("b", "a")}
    measured = LopsidedLandscape(offsets, profiles, grid, surfaces, 3)
    shown = {"b": ("student", "-"), "a": ("teacher", "--")}
    figure = figures.loss_landscapes(measured, shown)
    figure.canvas.draw()
    upper, lower = figure.subfigs
    assert [panel.get_title() for panel in upper.axes] == ["b", "a"]
    top = max(float(surface.max()) for surface in surfaces.values())
    for panel, (name, surface) in zip(upper.axes, surfaces.items(), strict=True):
        corners = [(x, y, float(surface[i, j])) for i, x in enumerate(grid) for j, y in enumerate(grid)]
        assert corners_of_surface(panel) == projected(panel, corners), name
        assert panel.get_zlim() == approx([0, top])
        assert panel.collections[0].get_clim() == approx([0, top])
        assert (panel.get_xlabel(), panel.get_ylabel()) == ("first", "second")
    profile, rise = lower.axes
    table = measured.table()
    by_name = {name: table[(table.network == name) & (table.part == "profile")] for name in shown}
    compare_curves(profile, by_name, "first", "loss", 1)
    for name, (role, line) in shown.items():
        assert look(lines(profile)[name])[:2] == (COLOUR[role], line)
    rises = pd.DataFrame([{"network": name, **measured.rise(name).columns()} for name in shown])
    assert rise.get_xlim()[0] <= 0, "rises are seen against nought"
    compare_dots(rise, rises, list(shown), {name: COLOUR[role] for name, (role, _) in shown.items()})
    filled = [to_rgb(dots.lines[0].get_markerfacecolor()) for dots in rise.containers]
    assert filled == [COLOUR["student"], (1.0, 1.0, 1.0)]
    same_looks(legend_below(lower), lines(profile))


def test_every_embedding_has_its_own_networks_points(numbers):
    names, classes = ("peer", "teacher"), ("cat", "dog", "ship")
    points = every(network=names, examples=EXAMPLES, **{"class": classes}, image=range(3))
    points = points.assign(x=numbers.uniform(-9, 9, len(points)), y=numbers.uniform(20, 30, len(points)))
    scores = {
        name: {
            examples: [Scores(0.1 + 0.2 * i + 0.05 * j, numbers.uniform(0, 0.2, 50) + 0.2 * i, 9)]
            for j, examples in enumerate(EXAMPLES)
        }
        for i, name in enumerate(names)
    }
    measured = Embedding(points, scores)
    titles = {"teacher": "Robust teacher", "peer": "Peer"}
    figure = figures.embeddings(measured, titles)
    assert [panel.get_title() for panel in figure.axes] == list(titles.values())
    called, marker = {"natural": "natural images", "student": "$x^*_S$"}, {"natural": "o", "student": "x"}
    colours = {}
    for panel, network in zip(figure.axes, titles, strict=True):
        drawn = {dots.get_label(): dots for dots in panel.collections}
        assert len(drawn) == len(panel.collections) == 6
        for name in classes:
            for examples, written in called.items():
                dots = drawn[f"{name}, {written}"]
                own = points[(points.network == network) & (points.examples == examples) & (points["class"] == name)]
                assert sorted(dots.get_offsets().tolist()) == sorted(own[["x", "y"]].to_numpy().tolist())
                assert is_marker(dots, marker[examples])
                colours.setdefault(name, to_rgb(dots.get_edgecolor()[0]))
                assert to_rgb(dots.get_edgecolor()[0]) == colours[name]
        assert panel.get_xlabel() == "silhouette of\n" + "\n".join(
            f"{written}: {measured.silhouette(network, examples)}" for examples, written in called.items()
        )
    assert len(set(colours.values())) == 3
    for label, handle in legend_below(figure.subfigs[0]).items():
        name, written = label.split(", ")
        assert to_rgb(handle.get_edgecolor()[0]) == colours[name]
        assert is_marker(handle, "o" if written == "natural images" else "x")


def accuracies(numbers):
    """A table as `reported.beside` makes it, its rows in no order."""
    table = every(method=["TRADES", "PGD-AT", "PeerAiD"], metric=["pgd-20", "clean", "autoattack"])
    table = estimated(table, "accuracy", numbers)
    n = table.metric.map({"pgd-20": 497, "clean": 497, "autoattack": 64})
    theirs = numbers.uniform(0.2, 0.7, len(table))
    return table.assign(paper=theirs, n=n, paper_dataset="cifar10", paper_network="resnet18").sample(
        frac=1, random_state=3
    )


def test_each_methods_accuracy_stands_in_its_row_beside_its_own_number_in_the_paper(numbers):
    table = accuracies(numbers)
    names, metrics = list(dict.fromkeys(table.method)), list(dict.fromkeys(table.metric))
    assert names != sorted(names)
    figure = figures.accuracy_by_method(table, "All of them")
    assert figure.get_suptitle() == "All of them"
    called = {"clean": "Clean", "pgd-20": "PGD-20", "autoattack": "AutoAttack"}
    images = {"clean": "497 images", "pgd-20": "497 images", "autoattack": "first 64 images"}
    for panel, metric in zip(figure.axes, metrics, strict=True):
        of_panel = table[table.metric == metric].set_index("method").loc[names]
        ours, theirs = marks(panel)
        assert (ours.x, ours.y) == (approx(100 * of_panel.accuracy), [0, 1, 2])
        assert (ours.low, ours.high) == (approx(100 * of_panel.low), approx(100 * of_panel.high))
        assert (theirs.x, theirs.y, theirs.low) == (approx(100 * of_panel.paper), [0, 1, 2], [])
        assert (ours.marker, theirs.marker) == ("o", "D")
        assert (ours.label, theirs.label) == ("here, with 95 % interval", "paper: cifar10, resnet18")
        assert panel.get_title() == called[metric]
        assert panel.get_xlabel() == f"Accuracy (%)\n{images[metric]}"
        assert panel.get_xlim() == (-3, 103)
        assert panel.get_ylim()[0] > panel.get_ylim()[1], "the first method on top"
    assert tick_labels(figure.axes[0], "y") == dict(enumerate(names))
    legend = legend_below(figure.subfigs[0])
    assert {label: handle.get_marker() for label, handle in legend.items()} == {
        "here, with 95 % interval": "o",
        "paper: cifar10, resnet18": "D",
    }


def test_rows_and_panels_of_a_table_may_be_exchanged(numbers):
    table = accuracies(numbers)
    figure = figures.accuracy_by_method(table, "title", "paper", row="metric", panel_of="method")
    metrics = list(dict.fromkeys(table.metric))
    called = {"clean": "Clean", "pgd-20": "PGD-20", "autoattack": "AutoAttack"}
    assert list(tick_labels(figure.axes[0], "y").values()) == [called[metric] for metric in metrics]
    for panel, method in zip(figure.axes, dict.fromkeys(table.method), strict=True):
        of_panel = table[table.method == method].set_index("metric").loc[metrics]
        ours, theirs = marks(panel)
        assert panel.get_title() == method
        assert ours.x == approx(100 * of_panel.accuracy)
        assert theirs.x == approx(100 * of_panel.paper)


def test_guides_are_compared_in_per_cent_on_the_left_and_in_cosines_on_the_right(numbers):
    quantities = {
        "cos(f(x), f(x*_S))": r"$\cos(f(x), f(x^*_S))$",
        "f(x*_f)": "$f(x^*_f)$",
        "cos(f(x), f(x*_f))": r"$\cos(f(x), f(x^*_f))$",
        "S(x*_S)": "$S(x^*_S)$",
        "f(x)": "$f(x)$",
    }
    table = estimated(every(guide=["natural", "peer", "teacher"], quantity=quantities), "value", numbers)
    table = table.assign(paper=numbers.uniform(0.2, 0.7, len(table))).sample(frac=1, random_state=3)
    names = {"peer": "Peer", "natural": "Natural teacher", "teacher": "Robust teacher"}
    figure = figures.guides_compared(table, names, "the paper's")
    in_order = list(dict.fromkeys(table.quantity))
    panels = {100: [q for q in in_order if q[0] != "c"], 1: [q for q in in_order if q[0] == "c"]}
    assert [len(rows) for rows in panels.values()] == [3, 2]
    for panel, (scale, rows) in zip(figure.axes, panels.items(), strict=True):
        assert list(tick_labels(panel, "y").values()) == [quantities[row] for row in rows]
        assert panel.get_ylim()[0] > panel.get_ylim()[1], "the first row on top"
        drawn = marks(panel)
        assert len(drawn) == 2 * len(names)
        for i, (guide, label) in enumerate(names.items()):
            ours, theirs = drawn[2 * i], drawn[2 * i + 1]
            of_guide = table[table.guide == guide].set_index("quantity").loc[rows]
            assert ours.label == label
            assert ours.x == approx(scale * of_guide.value)
            assert (ours.low, ours.high) == (approx(scale * of_guide.low), approx(scale * of_guide.high))
            assert theirs.x == approx(scale * of_guide.paper)
            assert ours.y == theirs.y == approx(row + 0.22 * (i - 1) for row in range(len(rows)))
            assert (ours.marker, theirs.marker) == ("o", "D")
            assert ours.colour == theirs.colour == COLOUR[guide]
    assert [panel.get_xlabel()[:6] for panel in figure.axes] == ["Accura", "Cosine"]
    assert figure.axes[0].get_xlim() == (-3, 103)
    legend = legend_below(figure.subfigs[0])
    assert {label: (to_rgb(h.get_color()), h.get_marker()) for label, h in legend.items()} == {
        **{label: (COLOUR[guide], "o") for guide, label in names.items()},
        "the paper's": (to_rgb("0.45"), "D"),
    }


ROLES = {"S": "student", "P": "peer", "T": "teacher", "T_rob": "teacher", "T_nat": "natural"}
PRINTED = {"x*": "x^*", "x~": r"\tilde{x}", "T_rob": r"T_{\mathrm{rob}}", "T_nat": r"T_{\mathrm{nat}}"}


def printed(point):
    for plain, mathematical in PRINTED.items():
        point = point.replace(plain, mathematical)
    return f"${point}$"


def box_around(axes, x, y):
    """Return the smallest box that a place lies in."""
    boxes = [patch for patch in axes.patches if isinstance(patch, FancyBboxPatch)]
    around = [b for b in boxes if b.get_x() <= x <= b.get_x() + b.get_width()]
    around = [b for b in around if b.get_y() <= y <= b.get_y() + b.get_height()]
    return min(around, key=lambda b: b.get_width())


def test_every_term_of_the_overview_stands_in_its_methods_row_with_its_networks_colours():
    lines_of = overview({name: methods.get(name) for name in ("AKD2", "KD", "AdaAD", "PeerAiD")})
    (axes,) = figures.method_overview(lines_of).axes
    bottom, top = axes.get_ylim()
    assert bottom > top, "the first method on top"
    written = [(*text.get_position(), text.get_text()) for text in axes.texts if text.get_text()]
    heads = {text: x for x, _, text in written if text.endswith("maximisation") or text.endswith("minimisation")}
    assert list(heads) == ["inner maximisation", "outer minimisation"]
    heights = {text: y for x, y, text in written if x < min(heads.values())}
    assert list(heights) == ["AKD2", "KD", "AdaAD", "PeerAiD"]
    assert list(heights.values()) == sorted(heights.values())
    arrows = [text for text in axes.texts if isinstance(text, Annotation) and text.arrow_patch]
    for part, left in zip(("maximise", "minimise"), heads.values(), strict=True):
        for method, middle in heights.items():
            box = box_around(axes, left + 0.01, middle)
            own = [t for t in written if box.get_x() <= t[0] <= box.get_x() + box.get_width()]
            own = [t for t in own if box.get_y() < t[1] < box.get_y() + box.get_height()]
            rows = lines_of[(lines_of.method == method) & (lines_of.part == part)]
            at = sorted({y for _, y, _ in own})
            assert len(at) == len(rows)
            for y, term in zip(at, rows.itertuples(), strict=True):
                in_line = sorted(t for t in own if t[1] == y)
                formula = f"{term.makes}: {term.term}" if term.makes else term.term
                points = [term.target, term.output] if term.divergence else []
                between = [term.divergence] if term.divergence else []
                expected = [*map(printed, points[:1]), *between, *map(printed, points[1:]), formula]
                assert [text for *_, text in in_line] == expected
                for point, (x, _, _) in zip(points, in_line[0:3:2], strict=False):
                    role = ROLES.get(point.partition("(")[0])
                    edge = to_rgb(box_around(axes, x, y).get_edgecolor())
                    assert edge == (COLOUR[role] if role else (0.5, 0.5, 0.5)), point
                    (arrow,) = (a for a in arrows if a.get_position()[1] == y and abs(a.xy[0] - x) < 0.5)
                    has_head = type(arrow.arrow_patch.get_arrowstyle()).__name__ == "CurveFilledB"
                    assert has_head == (point in term.gradient_to.split()), (method, point)
    legend = {text: handle for text, handle in entries(axes.get_legend()).items() if hasattr(handle, "get_edgecolor")}
    assert {text: to_rgb(handle.get_edgecolor()) for text, handle in legend.items()} == {
        "student S": COLOUR["student"],
        "peer P": COLOUR["peer"],
        "fixed teacher T": COLOUR["teacher"],
        "natural teacher T_nat": COLOUR["natural"],
        "labels y": (0.5, 0.5, 0.5),
    }
