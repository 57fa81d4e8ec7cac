"""What exhibits look like and what is saved with them, on made-up numbers."""

import itertools
import json
from importlib.metadata import version

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
import pytest
import torch
from conftest import tiny_spec
from extents import saved_extents
from matplotlib.colors import to_rgb
from PIL import Image
from test_notebooks import setup

from rkdkit import attacks, autoattack, figures, runs
from rkdkit.analysis.embedding import EXAMPLES, Scores
from rkdkit.analysis.gradients import MEASURES
from rkdkit.checks import UnknownNameError
from rkdkit.exhibits.fig4_loss_landscape import Landscape
from rkdkit.exhibits.fig5_tsne import Embedding
from rkdkit.exhibits.fig6_semantic_gradients import SemanticGradients


@pytest.fixture(autouse=True)
def _closed():
    yield
    plt.close("all")


def finished(seed=0, device="cpu, 2 threads", **changes):
    """A run as the store has it, of which nothing was trained."""
    record = {
        "history": [{"seconds": 2.0}],
        "environments": [{"device": device}],
        "data": "digest of the data",
        "guided_by": [],
        "snapshots": {"student": {1: "first", 2: "second"}, "peer": {2: "third"}},
    }
    return runs.Run(tiny_spec("PeerAiD", seed=seed, **changes), record, None)


def saved(folder, **said):
    """The caption and the summary of an exhibit at smoke."""
    figure, _ = figures.new_figure()
    table, asked = pd.DataFrame({"value": [1 / 3]}), setup(output_dir=str(folder))
    picture, numbers, summary = figures.save("made_up", figure, table, [], asked, **said)
    assert numbers.read_text() == "value\n0.333333\n"
    return Image.open(picture).text["Description"], json.loads(summary.read_text())


def test_the_caption_says_what_was_asked_for_on_what_and_where_it_was_trained(tmp_path):
    both = [finished(), finished(seed=1, device="a GPU")]
    caption, summary = saved(tmp_path, runs=both, note="Bands: 95 % intervals.")
    asked, measured, made_by = caption.split("\n")
    assert asked.startswith("smoke profile: toy scale, digits, resnet18/16, eps 0.25, PGD-20")
    assert asked.endswith("seed 0; epochs chosen on held-out images.")
    assert measured == f"Bands: 95 % intervals. Data: {summary['data_source']}."
    assert made_by.startswith(f"rkdkit {version('rkdkit')}, torch ")
    assert made_by.endswith("; trained on a GPU and cpu, 2 threads.")
    assert list(summary["attacks"]) == ["pgd-20"]
    assert summary["n"] == 128


def test_the_caption_and_the_summary_name_what_an_exhibit_was_measured_by_and_on(tmp_path):
    weaker = attacks.PGD(0.25, 0.0625, 10)
    caption, summary = saved(tmp_path, measured_by={"loss": weaker, "again": weaker, "natural": None}, n=32)
    assert caption.startswith(
        "smoke profile: toy scale, digits, resnet18/16, eps 0.25, PGD-10, 256 training and 32 test images, seed 0; "
    )
    assert summary["attacks"]["loss"] == {"name": "PGD-10", **weaker.parameters()}
    assert (summary["n"], summary["part"]) == (32, "test")
    caption, summary = saved(tmp_path, measured_by={"entropy": None}, n=256, part="train")
    assert caption.startswith("smoke profile: toy scale, digits, resnet18/16, eps 0.25, 256 training images, seed 0; ")
    assert (summary["n"], summary["part"]) == (256, "train")
    by = {"fgsm": attacks.FGSM(0.25), "autoattack": autoattack.AutoAttack(0.25)}
    assert "eps 0.25, FGSM, AutoAttack, 256 training" in saved(tmp_path, measured_by=by)[0]
    figure, _ = figures.new_figure()
    asked = setup(output_dir=str(tmp_path), test_iterate="any")
    picture, _, summary = figures.save("any", figure, pd.DataFrame(), [], asked)
    assert "eps 0.25, PGD-20 (any iterate), 256 training" in Image.open(picture).text["Description"]
    (measured_by,) = json.loads(summary.read_text())["attacks"].items()
    assert (measured_by[0], measured_by[1]["name"]) == ("pgd-20 (any iterate)", "PGD-20 (any iterate)")


def test_only_where_autoattack_measured_does_the_caption_say_which_and_on_how_many_images(tmp_path):
    by = {"clean": None, "autoattack": autoattack.AutoAttack(0.25)}
    caption, summary = saved(tmp_path, measured_by=by, note="And more.", n=64)
    assert f"\nAutoAttack: pyautoattack {version('pyautoattack')}, first 4 images. And more. Data: " in caption
    assert summary["attacks"]["clean"] is None
    assert summary["n"] == 64
    for others in (None, {}, {"clean": None, "square": autoattack.Square(0.25), "fgsm": attacks.FGSM(0.25)}):
        caption, _ = saved(tmp_path, measured_by=others)
        assert "pyautoattack" not in caption
        assert "\nData: " in caption, "without a note no space stands in its place"


def test_runs_that_several_tables_share_are_listed_once(tmp_path):
    shared, other = finished(), finished(seed=1)
    _, summary = saved(tmp_path, runs=[shared, other, finished()])
    provenance = summary["provenance"]
    assert [run["id"] for run in provenance["runs"]] == [shared.spec.id, other.spec.id]
    assert provenance["training_time_s"] == 4.0


def test_snapshots_may_come_by_method_or_in_a_row_and_are_listed_once(tmp_path):
    run, again = finished(), finished()
    chosen = {"PeerAiD": [run.snapshot()], "early": [run.snapshot(epoch=1)], "again": [again.snapshot()]}
    in_a_row = [run.snapshot(), run.snapshot(epoch=1), again.snapshot()]
    teachers = {"peer": [run.snapshot("peer")], "the same": [again.snapshot("peer")]}
    _, by_method = saved(tmp_path, networks=chosen, teachers=teachers)
    _, as_listed = saved(tmp_path, networks=in_a_row, teachers=[run.snapshot("peer")])
    for summary in (by_method, as_listed):
        assert [(s["role"], s["epoch"], s["sha256"]) for s in summary["networks"]] == [
            ("student", 2, "second"),
            ("student", 1, "first"),
        ]
        assert [(s["role"], s["run"]) for s in summary["teachers"]] == [("peer", run.spec.id)]


def test_a_drawing_is_of_no_profile_that_does_not_exist(tmp_path):
    figure, _ = figures.new_figure()
    with pytest.raises(UnknownNameError, match=r"Unknown profile 'quik'\. Did you mean 'quick'"):
        figures.save_drawing("drawing", figure, pd.DataFrame(), "quik", str(tmp_path))
    assert not list(tmp_path.iterdir())


def accuracies(networks=("teacher", "peer")):
    """Robust accuracy of networks over three epochs."""
    rows = [(n, e, k, 0.5, 0.4, 0.6) for n in networks for e in ("student", "own") for k in (1, 2, 3)]
    return pd.DataFrame(rows, columns=["network", "examples", "epoch", "robust_accuracy", "low", "high"])


def test_the_caption_and_the_legend_cover_nothing():
    table = accuracies()
    figure, axes = figures.new_figure()
    labels = {(n, e): f"a long label of {n} and {e}" for n, e in zip(table.network, table.examples, strict=True)}
    figures.robust_accuracy_curves(table, axes, labels)
    axes.set_xlabel("Epochs")
    label, legend, caption = saved_extents(figure, axes, axes.get_legend())
    assert label.y0 >= legend.y1
    assert legend.y0 >= caption.y1
    assert not figure.texts, "the figure stays as it was"


def by_method(n_methods=2):
    """A table as `reported.beside` makes it."""
    rows = [
        (f"method {i}", metric, 0.5, 0.4, 0.6, 0.45, 64 if metric == "autoattack" else 497)
        for i in range(n_methods)
        for metric in ("clean", "fgsm", "pgd-20", "autoattack")
    ]
    table = pd.DataFrame(rows, columns=["method", "metric", "accuracy", "low", "high", "paper", "n"])
    return table.assign(paper_dataset="cifar10", paper_network="resnet18")


@pytest.mark.parametrize("n_methods", [2, 9, 19])
def test_a_table_of_many_methods_or_few_has_its_legend_between_the_panels_and_the_caption(n_methods):
    figure = figures.accuracy_by_method(by_method(n_methods), "White box")
    label, legend, caption = saved_extents(figure, figure.axes[3], figure.subfigs[0].legends[0])
    assert label.y0 >= legend.y1
    assert legend.y0 >= caption.y1
    assert legend.y0 - caption.y1 < 100, "and no gap"


def colours(axes):
    """The colour of each line or dot that the legend names."""
    handles, labels = axes.get_legend_handles_labels()
    lines = [handle.lines[0] if hasattr(handle, "lines") else handle for handle in handles]
    return {label: to_rgb(line.get_color()) for label, line in zip(labels, lines, strict=True)}


def test_a_tables_legend_names_the_papers_data_and_network_in_colours_of_no_network():
    drawn = colours(figures.accuracy_by_method(by_method(), "White box").axes[0])
    assert list(drawn) == ["here, with 95 % interval", "paper: cifar10, resnet18"]
    assert not set(drawn.values()) & {to_rgb(colour) for colour in figures.COLOURS.values()}
    assert len(set(drawn.values())) == 2
    named = figures.accuracy_by_method(by_method(), "White box", "paper: two tables")
    assert "paper: two tables" in colours(named.axes[0])


def entropies(*networks):
    rows = [(network, epoch, 1.0, 0.9, 1.1) for network in networks for epoch in (1, 2)]
    return pd.DataFrame(rows, columns=["network", "epoch", "entropy_nats", "low", "high"])


def test_a_network_has_the_same_colour_in_every_exhibit():
    _, axes = figures.new_figure()
    roles = ("student", "peer", "teacher")
    figures.robust_accuracy_curves(accuracies(roles), axes, {(role, "own"): role for role in roles})
    found = [colours(axes)]

    guides = {role: role for role in ("peer", "teacher", "natural")}
    rows = [(role, quantity, 0.5, 0.4, 0.6, 0.5) for role in guides for quantity in ("f(x)", "cos(f(x), f(x*_S))")]
    table = pd.DataFrame(rows, columns=["guide", "quantity", "value", "low", "high", "paper"])
    found.append(
        {k: v for k, v in colours(figures.guides_compared(table, guides, "paper").axes[0]).items() if k in guides}
    )

    taught_by = {"AKD-AT": "PGD-AT", "AKD-Std": "Natural"}
    drawn = colours(figures.entropy_curves(entropies(*taught_by.values(), *taught_by), 10, taught_by).axes[0])
    found.append({"teacher": drawn["PGD-AT, the teacher"], "natural": drawn["Natural, the teacher"]})
    found += [{"student": drawn[f"{student}: student of {teacher}"]} for student, teacher in taught_by.items()]

    values = {role: {measure: [torch.tensor([0.1, 0.2])] for measure in MEASURES} for role in roles}
    maps = dict.fromkeys(roles, torch.zeros(1, 2, 2))
    measured = SemanticGradients(values, torch.tensor([0]), torch.zeros(1, 1, 2, 2, dtype=torch.uint8), ("0",), maps)
    means = figures.semantic_gradients(measured).axes[-1].containers
    found.append({role: to_rgb(dot.lines[0].get_color()) for role, dot in zip(roles, means, strict=True)})

    profile, surface = torch.tensor([1.0, 0.5, 1.0]).view(1, 3, 1) + torch.rand(1, 1, 4), torch.ones(3, 3)
    places, lines = (-1.0, 0.0, 1.0), {"PeerAiD": ("student", "-"), "PGD-AT": ("teacher", "--")}
    around = Landscape(places, {name: [profile] for name in lines}, places, dict.fromkeys(lines, surface), 4)
    drawn = colours(next(a for a in figures.loss_landscapes(around, lines).axes if a.get_legend_handles_labels()[0]))
    found.append({"student": drawn["PeerAiD"], "teacher": drawn["PGD-AT"]})

    for drawn in found:
        assert drawn == {role: to_rgb(figures.COLOURS[role]) for role in drawn}
    assert len(set(figures.COLOURS.values())) == len(figures.COLOURS)


def test_students_of_entropy_curves_are_told_apart_and_a_teacher_may_have_any_name():
    taught_by = {"AKD-Std": "Natural", "AKD-AT": "PGD-AT", "AKD-T": "TRADES"}
    (axes,) = figures.entropy_curves(entropies(*taught_by, *taught_by.values()), 10, taught_by).axes
    lines = {line.get_label(): (line.get_linestyle(), line.get_marker()) for line in axes.lines}
    students = [lines[f"{student}: student of {teacher}"] for student, teacher in taught_by.items()]
    assert len(set(students)) == 3
    assert [lines[f"{teacher}, the teacher"] for teacher in taught_by.values()] == students
    assert colours(axes)["TRADES, the teacher"] == to_rgb(figures.COLOURS["teacher"])


def test_students_by_difficulty_have_no_other_networks_colour():
    names = ["AKD", *(f"student {i}" for i in range(9))]
    rows = [("Natural", "natural", q, "", 0.5, 0.5) for q in ("cosine", "p_T,K")]
    rows += [("Natural", "natural", "p_S,K - p_T,K", name, 0.5, 0.5) for name in names]
    columns = ["teacher", "images", "quantity", "student", "value", "smoothed", "class"]
    table = pd.DataFrame([(*row, name) for row in rows for name in ("3", "8", "3")], columns=columns)
    *panels, last = figures.trajectories_by_difficulty(table, "title").axes
    drawn = colours(last)
    shades = [drawn.pop("class 3"), drawn.pop("class 8")]
    assert shades[0] != shades[1]
    for panel in panels:
        dots = {to_rgb(line.get_color()): list(line.get_xdata()) for line in panel.lines if line.get_marker() == "."}
        assert dots == {shades[0]: [0, 100], shades[1]: [50]}
    assert drawn.pop("AKD") == to_rgb(figures.COLOURS["student"])
    assert not set(drawn.values()) & {to_rgb(colour) for colour in figures.COLOURS.values()}


def embedded(classes):
    places = itertools.product(("peer",), EXAMPLES, classes)
    points = pd.DataFrame(places, columns=["network", "examples", "class"]).assign(x=0.0, y=1.0)
    return Embedding(points, {"peer": {examples: [Scores(0.5, np.array([0.4, 0.6]), 9)] for examples in EXAMPLES}})


def test_classes_are_drawn_in_a_colour_each_or_not_at_all():
    panel = figures.embeddings(embedded("abcdef"), {"peer": "peer"}).axes[0]
    assert len({tuple(points.get_facecolor()[0]) for points in panel.collections}) == 6
    assert sum(len(points.get_offsets()) for points in panel.collections) == 2 * 6
    with pytest.raises(ValueError, match="shorter"):
        figures.embeddings(embedded("abcdefg"), {"peer": "peer"})
