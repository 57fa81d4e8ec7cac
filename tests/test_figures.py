"""What exhibits look like and what is saved with them, on made-up numbers."""

import hashlib
import itertools
import json
from dataclasses import replace
from importlib.metadata import version

import numpy as np
import pandas as pd
import pytest
import torch
from agreed import agreed
from conftest import ROOT, tiny_spec
from extents import saved_extents
from matplotlib.colors import to_rgb
from PIL import Image
from test_notebooks import setup

from rkdkit import attacks, autoattack, data, executors, exhibits, figures, paths, runs
from rkdkit.analysis.embedding import EXAMPLES, Scores
from rkdkit.analysis.gradients import MEASURES
from rkdkit.claims import Claim, Quantity
from rkdkit.exhibits.fig4_loss_landscape import Landscape
from rkdkit.exhibits.fig5_tsne import Embedding
from rkdkit.exhibits.fig6_semantic_gradients import SemanticGradients
from rkdkit.figures import saving
from rkdkit.measurements import CorrectPredictions
from rkdkit.references import Images, Snapshot, epochs_of
from rkdkit.saved import write_exhibit
from rkdkit.statistics import Estimate, Measure
from rkdkit.tasks import Answer
from rkdkit.trainings import Train

pytestmark = pytest.mark.usefixtures("closed")

SOME, PGD = Images("digits", n=128), attacks.PGD(0.25, 0.0625, 20)


def digest_in_full(text):
    return hashlib.sha256(text.encode()).hexdigest()


def trained(store, spec, device="cpu, 2 threads"):
    """Put a run into the store of which nothing was trained: its record alone."""
    kept = {
        role: {str(e): digest_in_full(f"{role} {e}") for e in epochs_of(spec, role)}
        for role in spec.roles_at(spec.epochs)
    }
    teachers = [Snapshot(each.run, each.role, each.epoch or 0) for each in spec.teachers if each.run is not None]
    record = {
        "spec": spec.to_json(),
        "id": spec.id,
        "finished": spec.epochs,
        "history": [{"loss": 1.0, "seconds": 2.0 / spec.epochs}] * spec.epochs,
        "environments": [{"device": device}],
        "data": {"digest": data.load(spec.dataset).digest, "source": "made up", "extra": None},
        "guided_by": [each.digest() or digest_in_full("not there") for each in teachers],
        "states": {},
        "snapshots": kept,
    }
    store.run_folder(spec).path.mkdir(parents=True)
    store.run_folder(spec).write_record(record)
    return runs.ensure(spec)


class Measured(executors.Here):
    """Has an answer to everything that is to be measured."""

    def answer_all(self, tasks, what):
        trainings = super().answer_all([task for task in tasks if isinstance(task, Train)], what)
        return {task: trainings.get(task, Answer(None)) for task in tasks}


def saved(folder, ask, note="", **parameters):
    """The caption and the summary of Figure 1 at smoke, after something was asked for."""
    with executors.using(Measured()) as executor:
        asked = setup(output_dir=str(folder), **parameters)
        ask(executor)
        figure, _ = figures.new_figure()
        picture, numbers, summary = figures.save(asked, figure, pd.DataFrame({"value": [1 / 3]}), note=note)
    assert numbers.read_text() == "value\n0.333333\n"
    return Image.open(picture).text["Description"], json.loads(summary.read_text())


def by(snapshot, attack, images=SOME, **judges):
    return CorrectPredictions(images=images, judges=(snapshot,), attack=attack, **judges)


def test_the_caption_says_what_was_asked_for_on_what_and_where_it_was_trained(tmp_path, store):
    one = trained(store, tiny_spec("PeerAiD"))
    other = trained(store, tiny_spec("PeerAiD", seed=1), "a GPU")

    def ask(executor):
        executor.gather([Train(one.spec), Train(other.spec)])
        executor.gather([by(one.snapshot(), PGD), by(other.snapshot(), PGD)])

    caption, summary = saved(tmp_path, ask, "Bands: 95 % intervals.")
    asked, measured, made_by = caption.split("\n")
    assert asked == (
        "smoke profile: toy scale, digits, resnet18/16, eps 0.25, PGD-20, 256 training and 128 test images, seed 0; "
        "epochs chosen on held-out images."
    )
    assert measured == f"Bands: 95 % intervals. Data: {summary['data_source']}."
    assert made_by.startswith(f"rkdkit {version('rkdkit')}, torch ")
    assert made_by.endswith("; trained on a GPU and cpu, 2 threads.")
    assert [run["id"] for run in summary["provenance"]["runs"]] == [one.spec.id, other.spec.id]
    assert summary["provenance"]["training_time_s"] == 4.0


def test_the_caption_and_the_summary_name_what_an_exhibit_was_measured_by_and_on(tmp_path, store):
    snapshot, weaker = trained(store, tiny_spec()).snapshot(), attacks.PGD(0.25, 0.0625, 10)
    asked = [by(snapshot, weaker, SOME.first(32)), by(snapshot, None, SOME.first(32))]
    caption, summary = saved(tmp_path, lambda executor: executor.gather(asked))
    assert caption.startswith(
        "smoke profile: toy scale, digits, resnet18/16, eps 0.25, PGD-10, 256 training and 32 test images, seed 0; "
    )
    where = {"measurement": "CorrectPredictions", "dataset": "digits", "part": "test", "n": 32}
    described = {"name": "PGD-10", **weaker.parameters()}
    assert summary["measured"] == [{**where, "attack": described}, {**where, "attack": None}]
    train = Images("digits", "train", n_train=256, n_val=64)
    caption, summary = saved(tmp_path, lambda executor: executor.gather([by(snapshot, None, train)]))
    assert caption.startswith("smoke profile: toy scale, digits, resnet18/16, eps 0.25, 256 training images, seed 0; ")
    assert [(each["n"], each["part"]) for each in summary["measured"]] == [(256, "train")]
    both = [by(snapshot, PGD, train), by(snapshot, PGD, SOME.first(9)), by(snapshot, PGD, SOME.first(12))]
    caption, _ = saved(tmp_path, lambda executor: executor.gather(both))
    assert "256 training and 12 test images" in caption, "of test images the most, if there are any"
    assert "\nMeasured on 256 of the training images, too. Data: " in caption
    any_iterate = attacks.PGD(0.25, 0.0625, 20, iterate="any")
    two = [by(snapshot, attacks.FGSM(0.25)), by(snapshot, any_iterate)]
    caption, summary = saved(tmp_path, lambda executor: executor.gather(two), test_iterate="any")
    assert "eps 0.25, FGSM, PGD-20 (any iterate), 256 training" in caption
    assert [each["attack"]["name"] for each in summary["measured"]] == ["FGSM", "PGD-20 (any iterate)"]


def test_the_caption_has_the_sentences_of_the_exhibit(tmp_path, store):
    snapshot = trained(store, tiny_spec()).snapshot()
    with executors.using(Measured()) as executor:
        plain = setup(output_dir=str(tmp_path))
        exhibit = replace(plain.exhibit, says=lambda asked: f"So many: {asked.profile.n_val}.", times=True)
        asked = replace(plain, exhibit=exhibit)
        executor.gather([by(snapshot, PGD)])
        figure, _ = figures.new_figure()
        picture, *_ = figures.save(asked, figure, pd.DataFrame({"value": [1]}), note="A note.")
    caption = Image.open(picture).text["Description"]
    assert f"\nA note. {saving.ALONE} Data: " in caption
    assert caption.split("\n")[2] == "So many: 64."


def test_an_exhibits_claims_are_saved_as_one_family(tmp_path, store):
    snapshot = trained(store, tiny_spec()).snapshot()
    side = Quantity("side", Estimate(0.5, 0.4, 0.6, 9))
    clear, hardly = (Claim(f"above {low}", "a paper", side, side, Estimate(0.3, low, 0.5, 9)) for low in (0.2, 0.01))
    for claims, verdicts in (
        ([clear, hardly, hardly], ["holds"] + ["too close to tell here"] * 2),
        ([hardly], ["holds"]),
    ):
        with executors.using(Measured()) as executor:
            asked = setup(output_dir=str(tmp_path))
            executor.gather([by(snapshot, PGD)])
            figure, _ = figures.new_figure()
            picture, _, summary = figures.save(asked, figure, pd.DataFrame(), claims)
        written = json.loads(summary.read_text())
        assert [claim["verdict"] for claim in written["claims"]] == verdicts
        assert (written["family"]["name"], written["family"]["size"]) == ("claims of fig1_peer_vs_teacher", len(claims))
        named = "\nVerdicts: one family, the 3 claims of fig1_peer_vs_teacher, at 95 % together (Holm).\nrkdkit "
        assert (named in Image.open(picture).text["Description"]) == (len(claims) > 1)


@pytest.mark.parametrize("name", exhibits.NAMES)
def test_an_exhibit_that_measures_times_says_that_it_is_to_be_run_alone(name):
    notebook = json.loads((ROOT / "notebooks" / f"{name}.ipynb").read_text(encoding="utf-8"))
    text = "".join(line for cell in notebook["cells"] if cell["cell_type"] == "markdown" for line in cell["source"])
    assert (saving.ALONE in text) == exhibits.get(name).times


def test_what_only_chose_an_epoch_is_neither_in_the_caption_nor_in_the_summary(tmp_path, store):
    snapshot, weaker = trained(store, tiny_spec()).snapshot(), attacks.PGD(0.25, 0.0625, 10)

    def ask(executor):
        executor.gather([by(snapshot, weaker, Images("digits", "val", n_val=64))], deciding=True)
        executor.gather([by(snapshot, PGD)])

    caption, summary = saved(tmp_path, ask)
    assert ("PGD-10" in caption, "PGD-20" in caption) == (False, True)
    assert [each["attack"]["name"] for each in summary["measured"]] == ["PGD-20"]


def test_only_where_autoattack_measured_does_the_caption_say_which_and_on_how_many_images(tmp_path, store):
    snapshot = trained(store, tiny_spec()).snapshot()
    fewer = [by(snapshot, None), by(snapshot, autoattack.AutoAttack(0.25), SOME.first(4))]
    caption, summary = saved(tmp_path, lambda executor: executor.gather(fewer), "And more.")
    assert f"\nAutoAttack: pyautoattack {version('pyautoattack')}, first 4 images. And more. Data: " in caption
    assert [(each["n"], each["attack"] is None) for each in summary["measured"]] == [(128, True), (4, False)]
    for other in (None, autoattack.Square(0.25), attacks.FGSM(0.25)):
        asked = [by(snapshot, other)]
        caption, _ = saved(tmp_path, lambda executor, asked=asked: executor.gather(asked))
        assert "pyautoattack" not in caption
        assert "\nData: " in caption, "without a note no space stands in its place"


def test_networks_and_teachers_are_those_of_the_runs_and_measurements_each_once(tmp_path, store):
    teacher = trained(store, tiny_spec("TRADES"))
    guided = tiny_spec("ARD", teachers=(teacher.snapshot(epoch=1).as_teacher(),))
    student, peers = trained(store, guided), trained(store, tiny_spec("PeerAiD"))
    in_two_slots = tuple(teacher.snapshot(epoch=1).as_teacher(slot) for slot in ("T_rob", "T_nat"))
    two = trained(store, tiny_spec("AKD2", teachers=in_two_slots))
    asked = [
        by(student.snapshot(), PGD),
        by(student.snapshot(), None),
        by(peers.snapshot("peer"), PGD, attacked=peers.snapshot(epoch=1)),
        by(peers.snapshot(), PGD),
        by(two.snapshot(), PGD),
    ]
    _, summary = saved(tmp_path, lambda executor: executor.gather(asked))
    listed = [(s["method"], s["role"], s["sha256_by_epoch"]) for s in summary["networks"]]
    assert listed == [
        ("ARD", "student", {"2": digest_in_full("student 2")}),
        ("PeerAiD", "peer", {"2": digest_in_full("peer 2")}),
        ("PeerAiD", "student", {"1": digest_in_full("student 1"), "2": digest_in_full("student 2")}),
        ("AKD2", "student", {"2": digest_in_full("student 2")}),
    ]
    assert [(s["method"], s["sha256_by_epoch"]) for s in summary["teachers"]] == [
        ("TRADES", {"1": digest_in_full("student 1")})
    ]
    runs_of = (teacher, student, peers, two)
    assert [run["id"] for run in summary["provenance"]["runs"]] == [r.spec.id for r in runs_of]


def test_two_attacks_of_one_name_are_named_once_in_the_caption(tmp_path, store):
    snapshot, unbounded = trained(store, tiny_spec()).snapshot(), attacks.PGD(1.0, 0.0625, 20)
    caption, summary = saved(tmp_path, lambda executor: executor.gather([by(snapshot, PGD), by(snapshot, unbounded)]))
    assert caption.count("PGD-20") == 1
    assert [each["attack"]["eps"] for each in summary["measured"]] == [0.25, 1.0]


def test_every_setup_hears_what_is_asked_for_and_one_that_heard_nothing_is_not_saved(tmp_path, store):
    snapshot = trained(store, tiny_spec()).snapshot()
    with executors.using(Measured()):
        first, second = setup(output_dir=str(tmp_path / "first")), setup(output_dir=str(tmp_path / "second"))
        figure, _ = figures.new_figure()
        with pytest.raises(ValueError, match="Nothing was trained or measured since fig1_peer_vs_teacher was set up"):
            figures.save(first, figure, pd.DataFrame())
        with executors.using(Measured()) as another:
            another.gather([by(snapshot, PGD)])
        for asked in (first, second):
            *_, summary = figures.save(asked, figure, pd.DataFrame())
            assert [n["method"] for n in json.loads(summary.read_text())["networks"]] == ["PGD-AT"]


def test_a_claim_without_a_number_is_not_saved(tmp_path, store):
    snapshot = trained(store, tiny_spec()).snapshot()
    quantity = Quantity("peer", Estimate(0.5, 0.4, 0.6, 9))
    with executors.using(Measured()) as executor:
        asked = setup(output_dir=str(tmp_path / "made"))
        executor.gather([by(snapshot, PGD)])
        figure, _ = figures.new_figure()
        for bad in (float("nan"), float("inf")):
            claim = Claim("text", "source", quantity, quantity, Estimate(bad, 0.0, 0.1, 9))
            with pytest.raises(ValueError, match="JSON"):
                figures.save(asked, figure, pd.DataFrame(), [claim])
    assert not list(tmp_path.glob("made/*")), "neither a picture nor numbers"


def test_what_is_committed_is_read_from_its_json(tmp_path, monkeypatch):
    monkeypatch.setattr(paths, "project_root", lambda: tmp_path)
    assert "rkdkit figures fig1_peer_vs_teacher" in figures.at_quick("fig1_peer_vs_teacher")
    higher, lower = (Quantity(name, Estimate(v, v - 0.1, v + 0.2, 9)) for name, v in (("peer", 0.75), ("rival", 0.5)))
    accuracy = Claim("The peer is ahead.", "a paper", higher, lower, Estimate(0.25, 0.125, 0.5, 9))
    sharp, flat = (
        Quantity(name, Measure(v, v - 0.1, v, 9, unit="nats")) for name, v in (("sharp", 2.5), ("flat", 1.0))
    )
    rise = Claim("It is flatter.", "a paper", flat, sharp, Measure(-1.5, -2.0, -0.0001, 9, unit="nats"), 0.99)
    made = {
        "dataset": "digits",
        "seeds": [0, 1],
        "overrides": {"eps": 0.1},
        "claims": [accuracy.to_json(), rise.to_json()],
    }
    file = tmp_path / "figures" / "quick" / "fig1_peer_vs_teacher.json"
    write_exhibit(file, made, picture=b"drawn", numbers=b"")
    assert figures.at_quick("fig1_peer_vs_teacher").splitlines() == [
        "For comparison, in figures/quick/fig1_peer_vs_teacher.png (digits, 2 seeds: 0 to 1; eps 0.1):",
        "",
        "  Claims: holds: 1, does not hold: 1, too close to tell here: 0. Verdicts: one family, the 2 claims of this "
        "exhibit, at 95 % together (Holm).",
        "",
        "  holds                   25.0 [12.5, 50.0] points      The peer is ahead.",
        "  does not hold           -1.500 [-2.000, 0.000] nats   It is flatter. (99 % interval)",
        "",
        "  The largest surprises:",
        "    It is flatter. (a paper)",
        "      flat: 1.000 [0.900, 1.000] nats",
        "      sharp: 2.500 [2.400, 2.500] nats",
    ]
    file.with_suffix(".png").write_bytes(b"drawn another time")
    assert figures.at_quick("fig1_peer_vs_teacher") == (
        f"{file.with_suffix('.png')} and fig1_peer_vs_teacher.json do not belong together. Make the three files again: "
        # with another eps, a picture does not lie in this folder unless it is named
        f"rkdkit figures fig1_peer_vs_teacher -p eps=0.1 -p n_seeds=2 -p output_dir={file.parent}"
    )


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
    means = figures.semantic_gradients(measured).axes[-2].containers
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
    *panels, last = figures.trajectories_by_difficulty(table, agreed(range(9)), "title").axes
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


def test_a_table_is_read_in_per_cent_in_the_order_of_its_lines_and_metrics():
    table = by_method().assign(accuracy=[0.5123 + 0.01 * i for i in range(8)])
    theirs = pd.DataFrame({"method": ["theirs"], "metric": ["clean"], "paper": [0.1234]})
    shown = figures.in_per_cent(pd.concat([table, theirs]))
    metrics = ["Clean", "FGSM", "PGD-20", "AutoAttack"]
    assert list(shown.columns) == [(metric, whose) for metric in metrics for whose in ("here", "paper")]
    assert list(shown.index) == ["method 0", "method 1", "theirs"]
    assert shown.loc["method 0", ("Clean", "here")] == "51.2 [40.0, 60.0]"
    assert shown.loc["method 1", ("AutoAttack", "here")] == "58.2 [40.0, 60.0]"
    assert shown.loc["method 1", ("FGSM", "paper")] == "45.00"
    assert shown.loc["theirs", ("Clean", "here")] == ""
    assert shown.loc["theirs", ("Clean", "paper")] == "12.34"
    assert shown.loc["theirs", ("FGSM", "paper")] == ""
    assert list(figures.in_per_cent(table.drop(columns="paper")).columns) == [(metric, "here") for metric in metrics]
