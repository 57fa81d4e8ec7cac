"""What exhibits need: exactly what they then ask for, with the work that arithmetic says, and nothing written."""

import ast
import re
from dataclasses import replace

import nbformat
import pytest
import torch
from conftest import ROOT, OneBlock, tiny_spec
from torch import nn
from torch.nn.modules.module import register_module_forward_hook
from typer.testing import CliRunner

from rkdkit import (
    attacks,
    autoattack,
    cli,
    comparisons,
    data,
    evaluation,
    executors,
    exhibits,
    models,
    paths,
    plan,
    profiles,
    runs,
    runtime,
)
from rkdkit.analysis.features import Similarities
from rkdkit.analysis.landscape import LossesAround
from rkdkit.exhibits import tab1_white_box as tab1
from rkdkit.measurements import CorrectPredictions, PerImage
from rkdkit.plan import cost, names, report
from rkdkit.references import Images, Snapshot
from rkdkit.spec import Teacher
from rkdkit.store import Store
from rkdkit.training import fresh_networks
from rkdkit.trainings import Run, Train

NOTEBOOKS = {path.stem: path for path in sorted(paths.exhibit_notebooks())}
NOTHING_TO_DO = ("fig2_method_overview", "tab11_model_cost")
PARAMETERS = {"profile": "smoke", "epochs": 2}
MORE = {"n_train": 64, "n_val": 32, "n_test": 40, "attack_steps": 1, "swa_start": 1}
TINY = {**PARAMETERS, "more": MORE}
CPU = torch.device("cpu")


def asked_for(name, planner=None, **parameters):
    planner = planner or plan.Planner()
    return planner, plan.ask(planner, NOTEBOOKS[name], parameters)


def asked_of(*tasks, store=None):
    planner = plan.Planner(store)
    with executors.using(planner):
        planner.gather(tasks)
    return planner


def specs_of(planner):
    return {task.spec: finished for task, finished in planner.trainings.items()}


def examples(planner):
    with executors.using(planner):
        return [made for task in planner.measurements for made in cost.examples_of(task)]


def planned(planner, calibrated=False, **options):
    return plan.count(planner, calibrated=calibrated, **options)


def rkdkit(*arguments):
    return CliRunner().invoke(cli.app, [str(argument) for argument in arguments])


def files_below(folder):
    return {path: path.stat().st_mtime_ns for path in folder.rglob("*")}


@pytest.fixture(scope="module")
def table_1(tmp_path_factory):
    """What Table 1 asked for before its networks were trained, and these as its notebook trains them."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("RKDKIT_STORE", str(tmp_path_factory.mktemp("store")))
        asked, _ = asked_for("tab1_white_box", **TINY)
        setup = exhibits.setup("tab1_white_box", **PARAMETERS, **MORE)
        assert not any(Store().root.iterdir())
        yield asked, comparisons.train(setup, tab1.METHODS)


def test_figure_1_needs_a_teacher_and_peeraid(store):
    asked, notes = asked_for("fig1_peer_vs_teacher", profile="smoke")
    smoke = profiles.PROFILES["smoke"]
    assert specs_of(asked) == {smoke.spec("PGD-AT"): 0, smoke.spec("PeerAiD"): 0}
    made = examples(asked)
    of_epochs = [m for m in made if m.attack == smoke.test_attack]
    # the teacher on its own examples; at each of 3 epochs both guides on the student's, and the peer on its own
    assert sorted(len(m.judges) for m in of_epochs) == [1] * 4 + [2] * 3
    assert {m.n for m in of_epochs} == {128}
    chosen_by = cost.Examples(smoke.selection_attack, "resnet18/16", ("resnet18/16",), "digits", 64)
    assert [m for m in made if m not in of_epochs] == [chosen_by] * 3
    assert notes == []
    assert not store.root.exists()


def test_what_rests_on_a_choice_that_is_not_made_yet_is_not_certain(store):
    asked, _ = asked_for("fig1_peer_vs_teacher", profile="smoke")
    assert all(asked.certain(task) for task in asked.trainings)
    smoke = profiles.PROFILES["smoke"]
    (teacher,) = (t for t in asked.measurements if t.attack == smoke.test_attack and t.specs == (smoke.spec("PGD-AT"),))
    assert not asked.certain(teacher), "the last epoch, as long as none is chosen"
    assert [asked.certain(task) for task in asked.measurements].count(False) == 1 + 3, "and beside each peer"
    assert "would choose an epoch" in planned(asked).text()
    asked.gather(
        [CorrectPredictions(images=teacher.images, judges=(Snapshot(smoke.spec("PGD-AT")),), attack=teacher.attack)]
    )
    assert asked.certain(teacher), "it was asked for in earnest, too"
    asked_for("fig1_peer_vs_teacher", asked, profile="smoke")
    assert asked.certain(teacher), "whatever was asked for later"
    assert not store.root.exists()


def test_a_choice_of_the_last_epoch_is_certain():
    asked, _ = asked_for("fig1_peer_vs_teacher", profile="smoke", select_on="last")
    assert asked.all_certain
    assert "would choose an epoch" not in planned(asked).text()


def test_table_1_needs_what_it_then_trains(table_1):
    before, trained = table_1
    finished = [run for of_seeds in trained.runs.values() for run in of_seeds]
    (teacher,) = {t.run for run in finished for t in run.spec.teachers if t.slot != "T_nat"}
    assert {spec.method for spec in specs_of(before)} == set(trained.runs)
    alone = {run.spec for run in finished if not run.spec.teachers}
    assert alone == {spec for spec in specs_of(before) if not spec.teachers}
    assert teacher in alone
    assert {t.epoch for spec in specs_of(before) for t in spec.teachers} == {2}, "the last, as long as none is chosen"
    was = files_below(Store().root)
    after, _ = asked_for("tab1_white_box", **TINY)
    assert specs_of(after) == {run.spec: 2 for run in finished}
    assert files_below(Store().root) == was
    metrics = {str(m.attack) for m in after.measurements if m.certain}
    assert metrics >= {"None", "FGSM", "PGD-20", "AutoAttack"}


@pytest.mark.usefixtures("table_1")
def test_a_plan_says_what_is_in_the_store_and_counts_no_work_for_it():
    after, _ = asked_for("tab1_white_box", **TINY)
    counted = planned(after)
    assert {line.amount for line in counted.trainings} == {"in the store"}
    assert sum(line.work for line in counted.trainings) == 0
    assert "in the store" in counted.text()
    (bound,) = (line for line in counted.measurements if line.at_most)
    assert (bound.name, bound.amount) == ("AutoAttack on resnet18/16", "9 x 4 images")
    assert re.search(r"  all +<= \d", counted.text())


def test_a_measurement_that_two_exhibits_need_is_counted_once():
    asked, _ = asked_for("fig1_peer_vs_teacher", profile="smoke")
    once = len(asked.measurements)
    asked_for("fig1_peer_vs_teacher", asked, profile="smoke")
    assert len(asked.measurements) == once
    assert len(asked.trainings) == 2


@pytest.mark.usefixtures("store")
def test_of_several_judges_only_those_not_noted_yet_are_asked():
    run, images, attack = Run(tiny_spec("PeerAiD"), None), Images("digits", n=40), attacks.PGD(0.1, 0.05, 2)
    student, peer = run.snapshot(), run.snapshot("peer")
    one = CorrectPredictions(images=images, judges=(peer,), attack=attack, attacked=student)
    both = CorrectPredictions(images=images, judges=(student, peer), attack=attack)
    asked = asked_of(one, both, one, both)
    assert asked.measurements == [one, replace(both, judges=(student,))]
    assert [made.judges for made in examples(asked_of(both))] == [("resnet18/16",) * 2], "the examples are made once"


@pytest.mark.parametrize("name", NOTEBOOKS)
def test_every_exhibit_can_be_asked(store, name):
    asked, notes = asked_for(name, profile="smoke", output_dir="nowhere")
    assert bool(asked.trainings) == bool(asked.measurements) == (name not in NOTHING_TO_DO)
    assert notes == []
    assert not asked.cut_short
    assert not store.root.exists()
    assert not (ROOT / "nowhere").exists()


def notebook_of(folder, *cells):
    """Write a notebook of a user's own: a parameters cell, then these."""
    made = nbformat.v4.new_notebook(
        metadata={"kernelspec": {"name": "python3", "display_name": "Python 3", "language": "python"}}
    )
    first = nbformat.v4.new_code_cell(f'profile = "quick"\noutput_dir = {str(folder / "out")!r}')
    first.metadata["tags"] = ["parameters"]
    made.cells = [first, *map(nbformat.v4.new_code_cell, cells)]
    path = folder / "mine.ipynb"
    nbformat.write(made, path)
    return path


SET_UP = """
import matplotlib.pyplot, pandas
from rkdkit import exhibits, runs
setup = exhibits.setup("fig1_peer_vs_teacher", profile, output_dir=output_dir)
(run,) = runs.ensure_all(setup.specs("PGD-AT"))[0]
"""
DRAW = 'figure, numbers = matplotlib.pyplot.figure(), pandas.DataFrame({"a": [1]})'


@pytest.mark.parametrize(
    "saving",
    [
        "import rkdkit.figures as pictures\npictures.save(setup, figure, numbers)",
        "from rkdkit.figures import save as keep\nkeep(setup, figure, numbers)",
        "from rkdkit import figures\ntry:\n    figures.save(setup, figure, numbers)\nexcept Exception:\n    pass",
    ],
)
def test_nothing_is_saved_while_planning_whatever_a_notebook_calls_it(store, tmp_path, saving):
    path = notebook_of(tmp_path, SET_UP, DRAW, saving, "raise AssertionError('what comes after is not asked')")
    planner = plan.Planner()
    assert plan.ask(planner, path, {"profile": "smoke"}) == []
    assert list(specs_of(planner)) == [profiles.PROFILES["smoke"].spec("PGD-AT")], "the given profile counts"
    assert not (tmp_path / "out").exists()
    assert not store.root.exists()


@pytest.mark.usefixtures("store")
def test_what_needs_trained_networks_is_said_not_to_be_counted(tmp_path):
    path = notebook_of(tmp_path, SET_UP, "x = 1\nnetwork = run.snapshot().load()", "raise AssertionError")
    planner = plan.Planner()
    (note,) = plan.ask(planner, path, {"profile": "smoke"})
    assert note == "Not counted: what mine does from `network = run.snapshot().load()` on; it needs trained networks."
    assert planner.cut_short
    text = plan.count(planner, [note], calibrated=False).text()
    assert re.findall(r"^ *(training|measuring|all) .*>= \d", text, re.MULTILINE) == ["training", "measuring", "all"]
    assert "At least (>=)" in text
    assert "Not counted: what mine does" in text


def test_nothing_but_notebooks_and_ones_own_methods_is_executed():
    calls = [
        (file.relative_to(ROOT).as_posix(), node.func.id)
        for file in (ROOT / "rkdkit").rglob("*.py")
        for node in ast.walk(ast.parse(file.read_text(encoding="utf-8")))
        if isinstance(node, ast.Call) and isinstance(node.func, ast.Name) and node.func.id in ("exec", "eval")
    ]
    # notebooks, and the file with methods of their own that users name
    assert sorted(calls) == [("rkdkit/methods/own.py", "exec"), ("rkdkit/plan/ask.py", "exec")]


def test_totals_are_marked_by_what_they_are():
    def total(at_most, cut_short):
        line = report.Line("Measuring on digits", "AutoAttack", "", 7.2e15, at_most=at_most)
        text = report.Plan([], [line], [], "", "", cut_short).text(plan.Rates(1))
        return re.search(r"all +(\S* ?7.2 PFLOP)", text)[1], re.search("In all (.*? GPU-hours)", text)[1]

    assert total(False, False) == ("7.2 PFLOP", "2.0 GPU-hours")
    assert total(True, False) == ("<= 7.2 PFLOP", "at most 2.0 GPU-hours")
    assert total(False, True) == (">= 7.2 PFLOP", "at least 2.0 GPU-hours")
    assert total(True, True) == ("~ 7.2 PFLOP", "about 2.0 GPU-hours")


def test_runs_go_by_short_names_that_tell_them_apart():
    trades, elsewhere = (tiny_spec("TRADES", epochs=4, lr=lr) for lr in (0.1, 0.2))

    def taught(method="ARD", run=trades, epoch=4, **settings):
        return tiny_spec(method, teachers=(Teacher(run=run, epoch=epoch),), settings=tuple(settings.items()))

    specs = [trades, taught(), taught(epoch=2), taught("AKD+", mixing=0.3), taught("AKD+", mixing=0.7)]
    specs += [taught(run=elsewhere), tiny_spec("PeerAiD", peer="resnet34/16"), tiny_spec("TRADES", epochs=4, lr=0.3)]
    assert list(names.named(specs).values()) == [
        "1 TRADES resnet18/16, lr 0.1",
        "8 TRADES resnet18/16, lr 0.3",
        "2 ARD resnet18/16 taught by 1",
        "3 ARD resnet18/16 taught by 1 at epoch 2",
        "4 AKD+ resnet18/16 taught by 1, mixing 0.3",
        "5 AKD+ resnet18/16 taught by 1, mixing 0.7",
        "6 ARD resnet18/16 taught by TRADES resnet18/16 at epoch 4",
        "7 PeerAiD resnet18/16 with resnet34/16",
    ]


def test_a_report_fits_a_terminal_and_leaves_nothing_out():
    name = "12 " + " ".join(f"word{i}" for i in range(40))
    line = report.Line("Training", name, "123 epochs of 1,234 steps (45 done)", 1e18, 1e17, 2**30, 1e5, True, True)
    counted = report.Plan([line], [line], ["A note. " * 40], "a device", "counted", True)
    text = counted.text(plan.Rates(300, 30))
    assert max(map(len, text.splitlines())) <= report.WIDTH
    assert {f"word{i}" for i in range(40)} <= set(text.split())
    assert "\x1b" not in text


@pytest.mark.usefixtures("store")
def test_features_and_landscapes_ask_networks_as_often_as_planned():
    images, attack = Images("digits", n=20), attacks.PGD(0.1, 0.05, 2)
    run = runs.ensure(tiny_spec("PeerAiD", epochs=1))
    guide, student = run.snapshot("peer"), run.snapshot()
    places = tuple((offset,) for offset in (-1.0, 0.0, 1.0))
    tasks = [
        Similarities(images=images, guide=guide, student=student, attack=attack),
        LossesAround(images=images.first(8), snapshot=student, draws=(0,), places=places, attack=attack),
        PerImage(images=images, quantity="entropy", snapshot=student),
        CorrectPredictions(images=images, judges=(student, guide), attack=attack),
    ]
    asked = asked_of(*tasks)
    planned_for = 20 * (1 + 3 + 3) + 3 * 8 * 3 + 20 + 20 * (2 + 2)
    assert (
        sum(m.times * m.n * (sum(cost.passes(m.attack, 10)[:2]) + len(m.judges)) for m in examples(asked))
        == planned_for
    )
    seen = []

    def count(module, inputs, _):
        # trunk, so that features without logits count as well
        # and no tensors without content, by which the bar of progress knows what each task costs
        if isinstance(module, nn.Conv2d) and module.in_channels == 1 and not inputs[0].is_meta:
            seen.append(len(inputs[0]))

    hook = register_module_forward_hook(count)
    runs.gather(tasks)
    hook.remove()
    assert sum(seen) == planned_for
    assert asked_of(*tasks).measurements == []


@pytest.mark.usefixtures("store")
def test_table_1_at_paper_scale_is_planned_without_data(tmp_path, monkeypatch):
    monkeypatch.setenv("RKDKIT_DATA", str(tmp_path))
    asked, _ = asked_for("tab1_white_box", profile="paper", more={"n_test": 500})
    epochs = {spec.method: spec.epochs for spec in specs_of(asked)}
    assert set(epochs) == set(tab1.METHODS)
    assert (epochs["PeerAiD"], epochs["IAD"]) == (300, 200)
    with executors.using(asked):
        assert {len(m.images) for m in asked.measurements if isinstance(m.attack, autoattack.AutoAttack)} == {500}
    assert asked.blank == ["cifar10"]
    with pytest.raises(data.DataNotFoundError):
        data.load("cifar10")


def test_without_data_a_run_in_the_store_counts_as_done_and_a_measurement_does_not(store, tmp_path, monkeypatch):
    monkeypatch.setenv("RKDKIT_DATA", str(tmp_path))
    spec = tiny_spec(dataset="cifar10")
    of_other_data = {"digest": "of the data", "source": "their files", "extra": None}
    kept = {"snapshots": {"student": {"1": "0" * 64, "2": "1" * 64}}, "states": {}, "guided_by": [], "environments": []}
    record = {"spec": spec.to_json(), "id": spec.id, "finished": 2, "data": of_other_data, **kept}
    store.run_folder(spec).write_record({**record, "history": [{"loss": 1.0, "seconds": 1.0}] * 2})
    asked = asked_of(CorrectPredictions(images=Images("cifar10"), judges=(Snapshot(spec),)))
    assert specs_of(asked) == {spec: 2}
    assert [m.n for m in examples(asked)] == [10_000]
    assert "The data cifar10 are not on this machine" in planned(asked).text()


@pytest.mark.parametrize("name", ["cifar10", "cifar100", "tiny_imagenet", "cifar10:cat,dog"])
def test_absent_data_have_their_published_sizes(tmp_path, monkeypatch, name):
    monkeypatch.setenv("RKDKIT_DATA", str(tmp_path))
    blank = data.load_or_blank(name)
    n = {"cifar10": 50_000, "cifar100": 50_000, "tiny_imagenet": 100_000, "cifar10:cat,dog": 10_000}[name]
    assert (len(blank.train), blank.source) == (n, data.BLANK)
    assert len(set(blank.test.labels.tolist())) == len(blank.classes)
    with pytest.raises(data.DataNotFoundError):
        data.load_or_blank("folder:mine")


def after(record, epochs):
    """A finished run's record as it was after so many epochs."""
    kept = {
        role: {epoch: digest for epoch, digest in by_epoch.items() if int(epoch) <= epochs}
        for role, by_epoch in record["snapshots"].items()
    }
    return {**record, "finished": epochs, "snapshots": kept, "history": record["history"][:epochs]}


def test_a_half_trained_run_counts_what_is_left(store):
    spec = tiny_spec("PGD-AT", epochs=4)
    run = runs.ensure(spec)
    folder, digest = store.run_folder(spec), run.snapshot(epoch=1).digest()
    asked = asked_of(Train(spec))
    folder.write_record(after(folder.read_record(), 1))
    half = plan.Planner()
    with executors.using(half):
        again = runs.ensure(spec)
        assert again.snapshot(epoch=1).digest() == digest
        with pytest.raises(plan.NeedsNetworkError):
            again.snapshot().load()
    none = asked_of(Train(tiny_spec("PGD-AT", epochs=4, seed=1)))
    assert [list(a.trainings.values()) for a in (asked, half, none)] == [[4], [1], [0]]
    (finished,), (some,), (whole,) = (planned(a).trainings for a in (asked, half, none))
    assert finished.work == 0
    assert some.work == pytest.approx(whole.work * 3 / 4)
    assert some.amount == "3 epochs of 2 steps (1 done)"


def test_of_a_half_trained_run_only_the_averages_to_come_are_counted(store):
    spec = tiny_spec(epochs=4, swa_start=1)
    runs.ensure(spec)
    record = store.run_folder(spec).read_record()
    forward = cost.Costs().forward(spec.student, spec.dataset)
    of = {}
    for finished in (0, 2):
        store.run_folder(spec).write_record(after(record, finished))
        of[finished] = planned(asked_of(Train(spec))).trainings[0].work
    of_a_step = (of[0] - 3 * 128 * forward) / 8  # an average at the end of the last three epochs
    assert of[2] == pytest.approx(2 * 2 * of_a_step + 2 * 128 * forward)


@pytest.mark.usefixtures("store")
def test_the_work_of_a_step_is_what_arithmetic_says():
    forward = 2 * models.cost(models.build("resnet18/16", 10, (0.5,), (0.5,)), (1, 8, 8)).multiply_adds
    into_the_image = 2 * 64 * 9 * 4  # of the first convolution, which an update does not ask for
    kinds = (tiny_spec("Natural"), tiny_spec("PGD-AT"), tiny_spec("PGD-AT", swa_start=1, seed=1))
    natural, adversarial, averaged = planned(asked_of(*map(Train, kinds))).trainings
    images = 2 * 2 * 64
    assert natural.work == images * (3 * forward - into_the_image)
    assert adversarial.work == images * ((2 * 2 + 3) * forward - into_the_image)
    assert averaged.work == adversarial.work + 2 * 64 * forward, "one pass more, for the norms of the average"
    assert averaged.memory > adversarial.memory > natural.memory * 0.9


# conftest's OneBlock on 8x8 grey images: a 3x3 convolution from 1 to 4 channels, and a head from 4 to 10 classes
CONVOLUTION, HEAD = 8 * 8 * 4 * 9, 4 * 10  # multiply-adds of an image
FORWARD = CONVOLUTION + HEAD
TO_THE_IMAGE = CONVOLUTION + HEAD
"""A backward pass of an attack: no weight's gradient is asked for."""
TO_THE_WEIGHTS = CONVOLUTION + HEAD + HEAD
"""Of an update: the convolution's weights, the head's weights, and the head's input; not the image."""

K = 3
A_STEP = {
    "Natural": FORWARD + TO_THE_WEIGHTS,
    "PGD-AT": K * (FORWARD + TO_THE_IMAGE) + FORWARD + TO_THE_WEIGHTS,
    # the student's answer to the natural image, which the attack moves away from
    "TRADES": FORWARD + K * (FORWARD + TO_THE_IMAGE) + 2 * (FORWARD + TO_THE_WEIGHTS),
    # the teacher's answer to the natural image, and those that the loop asks it for to see that it fits: 2 beside 64
    "ARD": (1 + 2 / 64) * FORWARD + K * (FORWARD + TO_THE_IMAGE) + FORWARD + TO_THE_WEIGHTS,
    # the peer's answer to the natural image; then S(x), S(x*) and P(x*)
    "PeerAiD": FORWARD + K * (FORWARD + TO_THE_IMAGE) + 3 * (FORWARD + TO_THE_WEIGHTS),
}
"""Multiply-adds of a training step of K attack steps, for an image, counted by hand."""


@pytest.mark.usefixtures("store", "one_block")
@pytest.mark.parametrize("method", A_STEP)
def test_the_work_of_a_step_is_what_was_counted_by_hand(method):
    spec = tiny_spec(method, attack_steps=K)
    line = next(line for line in planned(asked_of(Train(spec))).trainings if f" {method} " in line.name)
    epochs, steps, batch = 2, 2, 64
    assert line.work == epochs * steps * batch * 2 * A_STEP[method]


@pytest.mark.usefixtures("store", "one_block")
def test_the_work_of_measuring_is_what_was_counted_by_hand():
    run, images = Run(tiny_spec("PeerAiD"), None), Images("digits", n=40)
    student, peer, places = run.snapshot(), run.snapshot("peer"), tuple((offset,) for offset in (-1.0, 0.0, 1.0))
    asked = asked_of(
        CorrectPredictions(images=images, judges=(student, peer), attack=attacks.PGD(0.1, 0.05, 5)),
        CorrectPredictions(images=images, judges=(student,)),
        LossesAround(
            images=images.first(8), snapshot=student, draws=(0,), places=places, attack=attacks.PGD(0.1, 0.05, 2)
        ),
    )
    lines = planned(asked).measurements
    assert [(line.name.partition(" on ")[0], line.amount, line.work) for line in lines] == [
        ("PGD-5", "1 x 40 images", 40 * 2 * (5 * (FORWARD + TO_THE_IMAGE) + 2 * FORWARD)),
        ("natural images", "1 x 40 images", 40 * 2 * FORWARD),
        ("PGD-2", "3 x 8 images", 3 * 8 * 2 * (2 * (FORWARD + TO_THE_IMAGE) + FORWARD)),
    ]


class Clock:
    """A clock that stands still but for passes: a second an image forward, and two backward."""

    def __init__(self):
        self.now = 0.0

    def __call__(self):
        return self.now

    def forward(self, module, inputs, answers):
        if isinstance(module, models.Classifier):
            self.now += len(inputs[0])
            if answers.requires_grad:
                answers.register_hook(self.backward)

    def backward(self, gradient):
        self.now += 2 * len(gradient)


@pytest.mark.usefixtures("store", "one_block")
def test_the_time_of_steps_and_measurements_is_that_of_their_passes(monkeypatch):
    monkeypatch.setattr(cost, "FEWEST", 8)
    monkeypatch.setattr(cost, "LARGEST", 1)  # so that 8 images are timed, not 64
    natural, spec, images = tiny_spec("Natural"), tiny_spec("TRADES", attack_steps=K), Images("digits", n=40)
    peers = Run(tiny_spec("PeerAiD", attack_steps=K), None)
    by_pgd = CorrectPredictions(
        images=images, judges=(peers.snapshot(), peers.snapshot("peer")), attack=attacks.PGD(0.1, 0.05, 5)
    )
    clock = Clock()
    asked = asked_of(
        Train(natural), Train(spec), by_pgd, CorrectPredictions(images=images, judges=(Snapshot(natural),))
    )
    hook = register_module_forward_hook(clock.forward)
    counted = planned(asked, calibrated=True, clock=clock)
    hook.remove()
    images_of_epochs = 2 * 2 * 64
    assert [line.seconds for line in counted.trainings] == pytest.approx(
        [images_of_epochs * 3, images_of_epochs * (1 + 3 * K + 2 * 3), images_of_epochs * (1 + 3 * K + 3 * 3)]
    )
    # five passes forward and backward, and two judges
    assert [line.seconds for line in counted.measurements] == pytest.approx([40 * (5 * 3 + 2), 40 * 1])


def test_memory_is_what_is_alive_at_once():
    with cost.Memory() as memory:
        held = [torch.zeros(1000) for _ in range(3)]
        view = held[0][:10]
        held.clear()
        assert view.shape == (10,)
        torch.zeros(1000)
    assert memory.peak == 3 * 4000


class Wide(models.Classifier):
    """Two linear layers, of which the first has nearly all the weights."""

    def __init__(self, num_classes, mean, std):
        super().__init__(4, num_classes, mean, std)
        self.first, self.second = nn.Linear(64, 20_000, bias=False), nn.Linear(20_000, 4, bias=False)

    def trunk(self, x):
        return self.second(self.first(x.flatten(1)).relu())


@pytest.mark.parametrize("batch", [4, 400])
def test_the_memory_of_a_step_is_what_was_counted_by_hand(monkeypatch, batch):
    monkeypatch.setitem(models.ARCHITECTURES, "resnet18", lambda _, **shape: Wide(**shape))
    weights = 64 * 20_000 + 20_000 * 4
    counted = cost.Costs().count_step(cost.Costs().kind(tiny_spec("Natural", n_train=800, batch_size=batch)))
    # weights, gradients and momentum; the decayed gradient of the layer whose turn it is
    updating = 3 * weights + 64 * 20_000
    # what the ReLU gives, and on the way back the gradients behind and before it
    passing = weights + 3 * batch * 20_000
    assert counted.memory == pytest.approx(4 * max(updating, passing), rel=0.03)


@pytest.mark.usefixtures("store")
@pytest.mark.parametrize("method", ["PGD-AT", "CAT"])
def test_what_is_counted_without_computing_is_what_computing_takes(monkeypatch, method):
    monkeypatch.setenv("RKDKIT_COMPILE", "off")  # as a plan has it: else the networks' cost is looked at meanwhile
    costs = cost.Costs()
    kind = costs.kind(tiny_spec(method))
    dataset = costs.noise(kind.dataset, 2 * kind.batch_size)
    assert dataset.channel_statistics
    with cost.Work() as work, cost.Memory() as memory:
        networks = fresh_networks(kind, dataset)
        cost.take_steps(kind, dataset, CPU, networks, [], lambda: True)
    assert costs.count_step(kind) == cost.Step(work.get_total_flops(), memory.peak)


@pytest.mark.parametrize(
    ("attack", "forward", "gradient"),
    [
        (None, 0, 0),
        (attacks.FGSM(0.01), 0, 1),
        (attacks.FFGSM(0.01), 0, 1),
        (attacks.PGD(0.01, 0.002, 7), 0, 7),
        (attacks.PGD(0.01, 0.002, 5, restarts=3), 2, 15),
        (attacks.PGD(0.01, 0.002, 7, iterate="any"), 0, 7),
        (attacks.MIFGSM(0.01, 0.002, 6), 0, 6),
        (autoattack.Square(0.001, queries=40), 41, 0),
        (autoattack.AutoAttack(0.001), 5901, 1910),
    ],
    ids=str,
)
def test_an_attack_asks_a_network_that_withstands_it_as_often_as_planned(digits, attack, forward, gradient):
    assert cost.passes(attack, 10)[:2] == (forward, gradient)
    network = OneBlock(10, (0.3,), (0.3,)).eval()
    with torch.no_grad():
        network.head.weight.mul_(100)
        answers = network(data.to_float(digits.test.images)).sort(descending=True)
    surest = (answers.values[:, 0] - answers.values[:, 1]).argmax()
    image, label = digits.test.images[surest][None], answers.indices[surest][:1]
    asked, back = [], []

    def count(module, inputs, logits):
        if module is network:
            asked.append(len(inputs[0]))
            if logits.requires_grad:
                logits.register_hook(lambda gradient: back.append(len(gradient)))

    hook = register_module_forward_hook(count)
    correct = evaluation.correct_predictions([network], image, label, attack)
    hook.remove()
    assert correct.all(), "it withstands the attack"
    # the package looks once more at what each of its parts found
    packaged = isinstance(attack, autoattack.Packaged)
    assert sum(back) == pytest.approx(gradient, rel=0.01 if packaged else 0, abs=0)
    assert sum(asked) == pytest.approx(forward + gradient + 1, rel=0.01 if packaged else 0, abs=5 if packaged else 0)


def test_a_calibrated_plan_says_how_long(store, monkeypatch):
    monkeypatch.delenv("RKDKIT_COMPILE", raising=False)
    monkeypatch.setattr(cost, "SECONDS", 0.01)
    monkeypatch.setattr(cost, "LARGEST", 1e7)  # so that a part of a batch is timed
    asked, _ = asked_for("fig1_peer_vs_teacher", **TINY)
    counted = planned(asked, calibrated=True)
    assert all(line.seconds > 0 for line in (*counted.trainings, *counted.measurements))
    assert runtime.current().compile != "off", "that was the calibration's own setting"
    text = counted.text(plan.Rates(0.001))
    assert "at 0.001 TFLOP/s" in text
    assert "RKDKIT_COMPILE is auto" in text
    assert "cpu" in text or torch.cuda.is_available()
    assert not store.root.exists()


def test_float32_has_a_rate_of_its_own():
    in_bfloat16 = report.Line("Training", "1 PGD-AT", "", 6e15)
    in_float32 = report.Line("Measuring", "PGD-20", "", 2e15, float32=2e15)
    counted = report.Plan([in_bfloat16], [in_float32], [], "", "")

    def hours(*rates):
        return re.search(r"In all (\S+) GPU-hours .* of training, (\S+) of", counted.text(plan.Rates(*rates)), re.S)

    assert hours(1).groups() == ("2.2", "0.56")
    assert hours(2, 0.5).groups() == ("1.9", "1.1")
    assert "at 2 / 0.5 TFLOP/s" in counted.text(plan.Rates(2, 0.5))


def test_a_plan_knows_what_is_done_in_float32():
    asked, _ = asked_for("fig1_peer_vs_teacher", **PARAMETERS, more={**MORE, "precision": "bfloat16"})
    counted = planned(asked)
    assert all(line.float32 == 0 < line.work for line in counted.trainings)
    assert all(line.float32 == line.work for line in counted.measurements)
    asked, _ = asked_for("fig1_peer_vs_teacher", **TINY)
    assert all(line.float32 == line.work for line in planned(asked).trainings)


@pytest.mark.parametrize(
    ("seconds", "text"),
    [(0.2, "0 s"), (99.4, "99 s"), (99.6, "2 min"), (5900, "98 min"), (6000, "1.7 h"), (4.32e6, "1,200 h")],
)
def test_durations_are_told_in_their_unit(seconds, text):
    assert report.duration(seconds) == text


def test_the_command_line_plans(store):
    done = rkdkit("plan", "fig1", "--profile", "smoke", "--no-calibration", "--tflops", "2")
    assert done.exit_code == 0, done.output
    table = done.stdout
    for line in ("Training on digits, seed 0 ", "1 PGD-AT resnet18/16 ", "3 epochs of 4 steps", "7 x 128 images"):
        assert line in table
    assert re.search(r"training +2 runs, 0 in the store +\d", table)
    assert re.search(r"In all \S+ GPU-hours at 2 TFLOP/s: \S+ of training, \S+ of measuring", table)
    assert "time here" not in table
    assert "\x1b" not in table
    assert not store.root.exists()


@pytest.mark.usefixtures("store")
@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["fig0"], "Unknown exhibit 'fig0'"),
        (["--profile", "quik"], "Unknown profile 'quik'. Did you mean 'quick'?"),
        (["-p", "eps"], "takes NAME=VALUE, not 'eps'"),
        (
            ["fig1_peer_vs_teacher", "-p", "epss=0.1"],
            "fig1_peer_vs_teacher: Unknown parameter 'epss'. Did you mean 'eps'?",
        ),
        (["fig1_peer_vs_teacher", "-p", "n_train=2000"], "digits has 1,300 training images"),
        (["fig1_peer_vs_teacher", "--tflops", "0"], "tflops must be"),
        (["fig1", "--tflops", "3", "--tflops-float32", "-1"], "tflops_float32 must be"),
        (["fig1", "--tflops-float32", "3"], "goes with --tflops"),
    ],
)
def test_the_command_line_names_what_is_wrong(arguments, message):
    done = rkdkit("plan", *arguments)
    assert done.exit_code == 1
    assert message in str(done.exception.code if isinstance(done.exception, SystemExit) else "") + done.output


def test_a_name_short_for_two_notebooks_is_none():
    both = dict.fromkeys(["fig1_peer_vs_teacher", "fig11_entropy"], "")
    assert [cli.in_full(name, both) for name in ("fig1", "fig11", "fig11_entropy")] == [*both, "fig11_entropy"]
    assert cli.in_full("fig1", {**both, "fig1_peer_vs_teacher-Copy1": ""}) == "fig1"


@pytest.mark.parametrize(
    ("asked", "name"),
    [
        ("PeerAiD Figure 1", "fig1_peer_vs_teacher"),
        ("peeraid, fig. 1", "fig1_peer_vs_teacher"),
        ("ARD Figure 1", "fig2_method_overview"),
        ("ARD Fig. 2", "fig7_decision_boundaries"),
        ("RKD Fig. 5", "fig11_entropy"),
        ("PeerAiD Figure 5", "fig5_tsne"),
        ("peeraid table 6", "tab5_transfer_attacks"),
        ("RKD figure 12", "fig12_trajectories"),
        ("PeerAiD Table 5", "tab4_teacher_architecture"),
        ("PeerAiD, Tables 4 and 5", "tab4_teacher_architecture"),
        ("PeerAiD, Figure 2; ARD, Figure 1", "fig2_method_overview"),
        ("PeerAiD Tables 5 and 6", "PeerAiD Tables 5 and 6"),
        ("PeerAiD Tables 5 and 9", "PeerAiD Tables 5 and 9"),
        ("RKD Figure 18", "RKD Figure 18"),
        ("Figure 1", "Figure 1"),
        ("fig99", "fig99"),
        ("transfer", "tab5_transfer_attacks"),
        ("weight averaging", "tab3_weight_averaging"),
        ("ARD section 6", "tab11_model_cost"),
        ("a", "a"),
    ],
)
def test_an_exhibit_may_be_asked_for_by_the_papers_number(asked, name):
    papers = {name: exhibits.get(name).paper for name in exhibits.NAMES}
    assert cli.in_full(asked, papers) == name


def test_the_list_names_the_papers_exhibits():
    listed = rkdkit("list").stdout
    for name in exhibits.NAMES:
        assert re.search(rf"^{name} +{re.escape(exhibits.get(name).paper)}  ", listed, re.MULTILINE)


def test_parameters_that_a_notebook_does_not_name_go_into_more():
    given = {"profile": "smoke", "eps": 0.1, "lr": 0.05, "n_test": 100}
    taken = cli.parameters_for(NOTEBOOKS["fig1_peer_vs_teacher"], given)
    assert taken == {"profile": "smoke", "eps": 0.1, "more": {"lr": 0.05, "n_test": 100}}
    taken = cli.parameters_for(NOTEBOOKS["fig1_peer_vs_teacher"], {"more": {"lr": 0.1, "momentum": 0.9}, "lr": 0.05})
    assert taken == {"more": {"lr": 0.05, "momentum": 0.9}}
    with pytest.raises(ValueError, match=r"Unknown parameter 'epss'. Did you mean 'eps'"):
        cli.parameters_for(NOTEBOOKS["fig1_peer_vs_teacher"], {"epss": 0.1})


@pytest.mark.usefixtures("store")
def test_the_command_line_refuses_what_the_environment_says_wrongly(monkeypatch):
    monkeypatch.setenv("RKDKIT_COMPILE", "yes")
    done = rkdkit("plan", "fig1")
    assert (done.exit_code, str(done.exception)) == (1, "Unknown RKDKIT_COMPILE 'yes'. Known: auto, on, off.")


def test_a_real_exhibit_trains_the_runs_that_were_planned(store):
    before, _ = asked_for("fig1_peer_vs_teacher", **TINY)

    class HereUpToTheDrawing(executors.Here, plan.Planner):
        before_drawing = plan.Planner.before_drawing

    asked_for("fig1_peer_vs_teacher", HereUpToTheDrawing(), **TINY)
    made = {path.name.rpartition("-")[2] for path in (store.root / "runs").iterdir()}
    assert made == {spec.id for spec in specs_of(before)}
    after, _ = asked_for("fig1_peer_vs_teacher", **TINY)
    assert set(after.trainings.values()) == {2}
    assert after.measurements == []
