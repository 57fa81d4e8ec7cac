"""What exhibits need: exactly what they then ask for, with the work that arithmetic says, and nothing written."""

import re

import pytest
import torch
from conftest import ROOT, tiny_spec
from torch import nn
from typer.testing import CliRunner

from rkdkit import attacks, autoattack, cli, comparisons, data, models, planning, profiles, runs, runtime
from rkdkit.analysis import features, landscape
from rkdkit.papers import peeraid
from rkdkit.runs import Asked, Measurement
from rkdkit.spec import Teacher
from rkdkit.store import Store

NOTEBOOKS = {path.stem: path for path in sorted((ROOT / "notebooks").glob("*.ipynb"))}
TINY = {"profile": "smoke", "n_train": 64, "n_val": 32, "n_test": 40, "attack_steps": 1, "epochs": 2, "swa_start": 1}


def asked_for(name, **parameters):
    with planning.planning() as asked:
        notes = planning.ask(NOTEBOOKS[name], parameters)
    return asked, notes


def planned(asked, calibrated=False):
    with planning.planning():
        return planning.plan(asked, calibrated=calibrated)


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
        setup = profiles.setup(TINY, teacher_method="TRADES")
        assert not any(setup.store.root.iterdir())
        yield asked, setup, comparisons.train(setup, peeraid.TABLE_1)


def test_figure_1_needs_a_teacher_and_peeraid(store):
    asked, notes = asked_for("fig1_peer_vs_teacher", profile="smoke")
    smoke = profiles.PROFILES["smoke"]
    assert list(asked.runs) == [smoke.spec("PGD-AT"), smoke.spec("PeerAiD")]
    assert set(asked.runs.values()) == {0}
    of_epochs = [m for m in asked.measurements if m.attack == smoke.test_attack]
    # the teacher on its own examples; at each of 3 epochs both guides on the student's, and the peer on its own
    assert sorted(len(m.judges) for m in of_epochs) == [1] * 4 + [2] * 3
    assert {m.n for m in of_epochs} == {128}
    chosen_by = Measurement(smoke.selection_attack, "resnet18/16", ("resnet18/16",), "digits", 64)
    assert [m for m in asked.measurements if m not in of_epochs] == [chosen_by] * 3
    assert notes == []
    assert not store.root.exists()


def test_table_1_needs_what_it_then_trains(table_1):
    before, setup, trained = table_1
    assert [spec.method for spec in before.runs] == [run.spec.method for run in trained.all_runs]
    alone = {run.spec for run in trained.all_runs if not run.spec.teachers}
    assert alone == {spec for spec in before.runs if not spec.teachers}
    assert {t.epoch for spec in before.runs for t in spec.teachers} == {2}, "the last, as long as none is chosen"
    was = files_below(setup.store.root)
    after, _ = asked_for("tab1_white_box", **TINY)
    assert after.runs == {run.spec: 2 for run in trained.all_runs}
    assert files_below(setup.store.root) == was
    metrics = {str(m.attack) for m in after.measurements}
    assert metrics == {"None", "FGSM", "PGD-20", "AutoAttack"}, "epochs are chosen already"
    assert len(after.measurements) == 4 * 9


@pytest.mark.usefixtures("table_1")
def test_a_plan_says_what_is_in_the_store_and_counts_no_work_for_it():
    after, _ = asked_for("tab1_white_box", **TINY)
    plan = planned(after)
    assert {line.amount for line in plan.trainings} == {"in the store"}
    assert sum(line.work for line in plan.trainings) == 0
    assert "in the store" in plan.report()
    (bound,) = (line for line in plan.measurements if line.at_most)
    assert (bound.name, bound.amount) == ("AutoAttack on resnet18/16", "9 x 4 images")
    assert re.search(r"  all +<= \d", plan.report())


@pytest.mark.usefixtures("store")
def test_a_measurement_that_two_exhibits_need_is_counted_once():
    with planning.planning() as asked:
        planning.ask(NOTEBOOKS["fig1_peer_vs_teacher"], {"profile": "smoke"})
        once = len(asked.measurements)
        planning.ask(NOTEBOOKS["fig1_peer_vs_teacher"], {"profile": "smoke"})
    assert len(asked.measurements) == once
    assert len(asked.runs) == 2


@pytest.mark.parametrize("name", NOTEBOOKS)
def test_every_exhibit_can_be_asked(store, name):
    asked, notes = asked_for(name, profile="smoke", output_dir="nowhere")
    assert bool(asked.runs) == (name != "fig2_method_overview")
    assert asked.measurements or notes or not asked.runs
    assert asked.cut_short == (name in ("fig5_tsne", "fig6_semantic_gradients"))
    assert not store.root.exists()
    assert not (ROOT / "nowhere").exists()


@pytest.mark.usefixtures("store")
def test_what_needs_trained_networks_is_said_not_to_be_counted():
    asked, notes = asked_for("fig6_semantic_gradients", profile="smoke")
    (note,) = notes
    assert "`measured = gradients.semantic_gradients(" in note
    assert asked.cut_short
    report = planned(asked).report()
    assert re.findall(r"^  (training|measuring|all) .*>= \d", report, re.MULTILINE) == ["training", "measuring", "all"]
    assert "At least (>=)" in report


def test_totals_are_marked_by_what_they_are():
    def total(at_most, cut_short):
        line = planning.Line("Measuring on digits", "AutoAttack", "", 7.2e15, at_most=at_most)
        report = planning.Plan([], [line], [], "", "", cut_short).report(planning.Rates(1))
        return re.search(r"all +(\S* ?7.2 PFLOP)", report)[1], re.search("In all (.*? GPU-hours)", report)[1]

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
    assert list(planning.named(specs).values()) == [
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
    line = planning.Line("Training", name, "123 epochs of 1,234 steps (45 done)", 1e18, 1e17, 2**30, 1e5, True, True)
    plan = planning.Plan([line], [line], ["A note. " * 40], "a device", "counted", True)
    report = plan.report(planning.Rates(300, 30))
    assert max(map(len, report.splitlines())) <= planning.WIDTH
    assert {f"word{i}" for i in range(40)} <= set(report.split())


def test_features_and_landscapes_ask_networks_as_often_as_planned(table_1, digits, tmp_path, monkeypatch):
    _, _, trained = table_1
    guide, student = trained.chosen["PGD-AT"], trained.chosen["TRADES"]
    attack, store, images = attacks.PGD(0.1, 0.05, 2), Store(tmp_path), []
    original = models.Classifier.features

    def counting(network, x):
        images.append(len(x))
        return original(network, x)

    def measure():
        features.guidance({"guide": guide}, {"guide": student}, digits, attack, n=20, store=store)
        sizes = {"n": 10, "n_surface": 4, "points": 3, "directions": 2, "grid": 3}
        landscape.landscapes({"guide": guide}, digits, attack, **sizes, store=store)

    monkeypatch.setattr(models.Classifier, "features", counting)
    with planning.planning() as before:
        measure()
    assert not before.cut_short
    assert images == []
    measure()
    assert sum(images) == sum(
        m.n * (sum(planning.passes(m.attack, 10)[:2]) + len(m.judges)) for m in before.measurements
    )
    with planning.planning() as after:
        measure()
    assert after.measurements == []


@pytest.mark.usefixtures("store")
def test_table_1_at_paper_scale_is_planned_without_data(tmp_path, monkeypatch):
    monkeypatch.setenv("RKDKIT_DATA", str(tmp_path))
    asked, notes = asked_for("tab1_white_box", profile="paper", n_test=500)
    epochs = {spec.method: spec.epochs for spec in asked.runs}
    assert set(epochs) == set(peeraid.TABLE_1)
    assert (epochs["PeerAiD"], epochs["IAD"]) == (300, 200)
    assert {m.n for m in asked.measurements if isinstance(m.attack, autoattack.AutoAttack)} == {500}
    assert any("The data cifar10 are not on this machine" in note for note in notes)
    with pytest.raises(data.DataNotFoundError):
        data.load("cifar10")


def test_without_data_a_run_in_the_store_counts_as_done_and_a_measurement_does_not(store, tmp_path, monkeypatch):
    monkeypatch.setenv("RKDKIT_DATA", str(tmp_path))
    spec = tiny_spec(dataset="cifar10")
    of_other_data = {"digest": "of the data", "source": "their files", "extra": None}
    record = {"spec": spec.to_json(), "finished": 2, "data": of_other_data, "snapshots": {"student": {2: "digest"}}}
    store.run_folder(spec).write_record({**record, "history": []})
    with planning.planning() as asked:
        runs.correct_predictions([runs.ensure(spec).snapshot()], data.load("cifar10").test)
    assert asked.runs == {spec: 2}
    assert [m.n for m in asked.measurements] == [10_000]


@pytest.mark.parametrize("name", ["cifar10", "cifar100", "tiny_imagenet", "cifar10:cat,dog"])
def test_absent_data_have_their_published_sizes(tmp_path, name):
    with data.blank_where_absent():
        blank = data.load(name, tmp_path)
        n = {"cifar10": 50_000, "cifar100": 50_000, "tiny_imagenet": 100_000, "cifar10:cat,dog": 10_000}[name]
        assert (len(blank.train), blank.source) == (n, data.BLANK)
        assert len(set(blank.test.labels.tolist())) == len(blank.classes)
        with pytest.raises(data.DataNotFoundError):
            data.load("folder:mine", tmp_path)


def test_a_half_trained_run_counts_what_is_left(store):
    spec = tiny_spec("PGD-AT", epochs=4)
    run = runs.ensure(spec)
    folder = store.run_folder(spec)
    with planning.planning() as asked:
        runs.ensure(spec)
    folder.write_record({**folder.read_record(), "finished": 1})
    with planning.planning() as half:
        again = runs.ensure(spec)
        assert again.snapshot(epoch=1).digest == run.snapshot(epoch=1).digest
        with pytest.raises(runs.NeedsNetworkError):
            again.snapshot().load()
    with planning.planning() as none:
        runs.ensure(tiny_spec("PGD-AT", epochs=4, seed=1))
    assert [list(a.runs.values()) for a in (asked, half, none)] == [[4], [1], [0]]
    (finished,), (some,), (whole,) = (planned(a).trainings for a in (asked, half, none))
    assert finished.work == 0
    assert some.work == pytest.approx(whole.work * 3 / 4)
    assert some.amount == "3 epochs of 2 steps (1 done)"


def test_of_a_half_trained_run_only_the_averages_to_come_are_counted():
    spec = tiny_spec(epochs=4, swa_start=1)
    forward = planning._forward(spec.student, spec.dataset)
    of = {finished: planned(Asked({spec: finished})).trainings[0].work for finished in (0, 2)}
    of_a_step = (of[0] - 3 * 128 * forward) / 8  # an average at the end of the last three epochs
    assert of[2] == pytest.approx(2 * 2 * of_a_step + 2 * 128 * forward)


@pytest.mark.usefixtures("store")
def test_the_work_of_a_step_is_what_arithmetic_says():
    forward = 2 * models.cost(models.build("resnet18/16", 10, (0.5,), (0.5,)), (1, 8, 8)).multiply_adds
    into_the_image = 2 * 64 * 9 * 4  # of the first convolution, which an update does not ask for
    with planning.planning() as asked:
        for spec in (tiny_spec("Natural"), tiny_spec("PGD-AT"), tiny_spec("PGD-AT", swa_start=1, seed=1)):
            runs.ensure(spec)
    natural, adversarial, averaged = planned(asked).trainings
    images = 2 * 2 * 64
    assert natural.work == images * (3 * forward - into_the_image)
    assert adversarial.work == images * ((2 * 2 + 3) * forward - into_the_image)
    assert averaged.work == adversarial.work + 2 * 64 * forward, "one pass more, for the norms of the average"
    assert averaged.memory > adversarial.memory > natural.memory * 0.9


def test_memory_is_what_is_alive_at_once():
    with planning._Meter() as meter:
        held = [torch.zeros(1000) for _ in range(3)]
        view = held[0][:10]
        held.clear()
        assert view.shape == (10,)
        torch.zeros(1000)
    assert meter.peak == 3 * 4000


@pytest.mark.usefixtures("store")
@pytest.mark.parametrize("method", ["PGD-AT", "CAT"])
def test_what_is_counted_without_computing_is_what_computing_takes(monkeypatch, method):
    monkeypatch.setenv("RKDKIT_COMPILE", "off")  # as a plan has it: else the networks' cost is looked at meanwhile
    kind, meter = planning._of_one_step(tiny_spec(method)), planning._Meter()
    planning._run_steps(kind, torch.device("cpu"), lambda: True, meter)
    counted = planning._step(kind, torch.device("cpu"), False)
    assert (counted.work, counted.memory) == (meter.work, meter.peak)


class Counting(nn.Module):
    """Answers with the true class of every image of zeros or nearly so, and counts the images it is asked about."""

    def __init__(self):
        super().__init__()
        self.linear = nn.Linear(4, 4)
        self.asked = 0

    def forward(self, x):
        self.asked += len(x)
        return 1e-3 * self.linear(x.flatten(1)) + torch.tensor([9.0, 0.0, 1.0, 2.0])


@pytest.mark.parametrize(
    "attack",
    [
        None,
        attacks.FGSM(0.1),
        attacks.PGD(0.1, 0.02, 7),
        attacks.PGD(0.1, 0.02, 5, restarts=3),
        attacks.PGD(0.1, 0.02, 7, iterate="any"),
        attacks.MIFGSM(0.1, 0.02, 6),
        autoattack.Square(0.1, queries=40),
        autoattack.AutoAttack(0.1),
    ],
    ids=str,
)
def test_an_attack_asks_a_network_that_withstands_it_as_often_as_planned(attack):
    from rkdkit import evaluation

    network, images = Counting(), torch.full((2, 1, 2, 2), 0.5)
    evaluation.correct_predictions([network], images, torch.zeros(2, dtype=torch.int64), attack)
    forward, gradient, _ = planning.passes(attack, 4)
    # the package looks once more at what each of its parts found
    assert 2 * (forward + gradient + 1) == pytest.approx(network.asked, rel=0.01, abs=10)


def test_a_calibrated_plan_says_how_long(store, monkeypatch):
    monkeypatch.delenv("RKDKIT_COMPILE", raising=False)
    monkeypatch.setattr(planning, "SECONDS", 0.01)
    monkeypatch.setattr(planning, "LARGEST", 1e7)  # so that a part of a batch is timed
    asked, _ = asked_for("fig1_peer_vs_teacher", **TINY)
    plan = planned(asked, calibrated=True)
    assert all(line.seconds > 0 for line in (*plan.trainings, *plan.measurements))
    assert runtime.current().compile != "off", "that was the calibration's own setting"
    report = plan.report(planning.Rates(0.001))
    assert "at 0.001 TFLOP/s" in report
    assert "RKDKIT_COMPILE is auto" in report
    assert "cpu" in report or torch.cuda.is_available()
    assert not store.root.exists()


def test_float32_has_a_rate_of_its_own():
    in_bfloat16 = planning.Line("Training", "1 PGD-AT", "", 6e15)
    in_float32 = planning.Line("Measuring", "PGD-20", "", 2e15, float32=2e15)
    plan = planning.Plan([in_bfloat16], [in_float32], [], "", "")

    def hours(*rates):
        return re.search(r"In all (\S+) GPU-hours .* of training, (\S+) of", plan.report(planning.Rates(*rates)), re.S)

    assert hours(1).groups() == ("2.2", "0.56")
    assert hours(2, 0.5).groups() == ("1.9", "1.1")
    assert "at 2 / 0.5 TFLOP/s" in plan.report(planning.Rates(2, 0.5))


def test_a_plan_knows_what_is_done_in_float32():
    asked, _ = asked_for("fig1_peer_vs_teacher", **TINY, precision="bfloat16")
    plan = planned(asked)
    assert all(line.float32 == 0 < line.work for line in plan.trainings)
    assert all(line.float32 == line.work for line in plan.measurements)
    asked, _ = asked_for("fig1_peer_vs_teacher", **TINY)
    assert all(line.float32 == line.work for line in planned(asked).trainings)


@pytest.mark.parametrize(
    ("seconds", "text"),
    [(0.2, "0 s"), (99.4, "99 s"), (99.6, "2 min"), (5900, "98 min"), (6000, "1.7 h"), (4.32e6, "1,200 h")],
)
def test_durations_are_told_in_their_unit(seconds, text):
    assert planning.duration(seconds) == text


def test_the_command_line_plans(store):
    done = rkdkit("plan", "fig1", "--profile", "smoke", "--no-calibration", "--tflops", "2")
    assert done.exit_code == 0, done.output
    table = done.stdout
    for line in ("Training on digits, seed 0\n", "1 PGD-AT resnet18/16 ", "3 epochs of 4 steps", "7 x 128 images"):
        assert line in table
    assert re.search(r"training +2 runs, 0 in the store +\d", table)
    assert re.search(r"In all \S+ GPU-hours at 2 TFLOP/s: \S+ of training, \S+ of measuring", table)
    assert "time here" not in table
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
            "fig1_peer_vs_teacher: UnknownNameError: Unknown parameter",
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
    both = ["fig1_peer_vs_teacher", "fig11_entropy"]
    assert [cli._in_full(name, both) for name in ("fig1", "fig11", "fig11_entropy")] == [both[0], both[1], both[1]]
    assert cli._in_full("fig1", [*both, "fig1_peer_vs_teacher-Copy1"]) == "fig1"


@pytest.mark.usefixtures("store")
def test_the_command_line_refuses_what_the_environment_says_wrongly(monkeypatch):
    monkeypatch.setenv("RKDKIT_COMPILE", "yes")
    done = rkdkit("plan", "fig1")
    assert (done.exit_code, str(done.exception)) == (1, "Unknown RKDKIT_COMPILE 'yes'. Known: auto, on, off.")


def test_a_real_exhibit_trains_the_runs_that_were_planned(store):
    before, _ = asked_for("fig1_peer_vs_teacher", **TINY)
    planning.ask(NOTEBOOKS["fig1_peer_vs_teacher"], TINY)  # not only asked: the notebook as it is, up to the drawing
    made = {path.name.rpartition("-")[2] for path in (store.root / "runs").iterdir()}
    assert made == {spec.id for spec in before.runs}
    after, _ = asked_for("fig1_peer_vs_teacher", **TINY)
    assert set(after.runs.values()) == {2}
    assert after.measurements == []
