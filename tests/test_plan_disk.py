"""`rkdkit plan` says the disk that an exhibit will take, before anything is written."""

import pytest
import torch
from conftest import tiny_spec
from safetensors.torch import save

from rkdkit import executors, plan, profiles, runs
from rkdkit.inventory import stored
from rkdkit.measurements import CorrectPredictions
from rkdkit.plan import disk
from rkdkit.plan.cost import Costs
from rkdkit.references import Images, Snapshot, epochs_of
from rkdkit.spec import Teacher
from rkdkit.training import Training
from rkdkit.trainings import Train


@pytest.mark.parametrize(
    "spec",
    [
        tiny_spec("PeerAiD", epochs=3, swa_start=1, n_train=64),
        tiny_spec("Natural", epochs=5, snapshot_every=2, n_train=64, student="mobilenetv2/16"),
        tiny_spec("KD", teachers=(Teacher(run=tiny_spec("TRADES", n_train=64), epoch=1),), n_train=64),
    ],
    ids=["average", "every second", "teacher"],
)
def test_a_plan_says_the_disk_that_runs_then_take(store, spec):
    asked = plan.Planner(store, "cpu")
    judges = tuple(Snapshot(spec, "student", epoch) for epoch in epochs_of(spec))
    question = CorrectPredictions(images=Images("digits", n=40), judges=judges)
    with executors.using(asked):
        asked.gather([question])
    counted = plan.count(asked, calibrated=False)
    with executors.using(executors.Here(store, "cpu")):
        runs.gather([question])
    files = list((store.root / "runs").rglob("*.safetensors"))
    taken = sum(path.stat().st_size for path in files)
    assert counted.disk.number == len(files)
    assert counted.disk.snapshots == pytest.approx(taken, rel=1e-3)
    folders = sum(path.stat().st_size for path in (store.root / "runs").rglob("*") if path.is_file())
    assert counted.disk.snapshots == pytest.approx(folders, rel=0.05)
    answers = sum(path.stat().st_size for path in (store.root / "answers").iterdir())
    assert 0.5 < counted.disk.answers / answers < 2
    assert f"Disk: {stored.as_size(counted.disk.snapshots)} for {len(files)} snapshots and about" in counted.text()
    after = plan.Planner(store, "cpu")
    with executors.using(after):
        after.gather([question])
    assert plan.count(after, calibrated=False).disk == disk.Disk(0, 0, 0, 0)
    assert "Disk: nothing more." in plan.count(after, calibrated=False).text()


@pytest.mark.parametrize("method", ["PeerAiD", "Free-AT", "Natural"])
def test_a_plan_says_the_size_of_a_state(store, digits, method):
    spec = tiny_spec(method, n_train=64, epochs=2, **_CHANGES.get(method, {"swa_start": 0, "schedule": "onecycle"}))
    asked = plan.Planner(store, "cpu")
    with executors.using(asked):
        asked.gather([Train(spec)])
    training = Training(spec, digits, torch.device("cpu"))
    training.run_epoch()
    state = save({name: tensor.contiguous() for name, tensor in training.state().items()})
    assert plan.count(asked, calibrated=False).disk.states == pytest.approx(disk.STATES * len(state), rel=0.1)


_CHANGES = {"Natural": {"momentum": 0.0}}


def test_a_plan_counts_only_the_epochs_that_are_left(store):
    asked = plan.Planner(store, "cpu")
    spec = tiny_spec(epochs=3)
    with executors.using(asked):
        asked.gather([Train(spec)])
        whole = disk.disk_of(asked, Costs(asked.context.load))
        asked.trainings[Train(spec)] = 2
        left = disk.disk_of(asked, Costs(asked.context.load))
    assert (whole.number, left.number) == (3, 1)
    assert whole.snapshots == 3 * left.snapshots


def test_at_the_papers_scale_the_disk_is_gigabytes(store):
    asked, spec = plan.Planner(store, "cpu"), profiles.PROFILES["paper"].spec("PeerAiD")
    with executors.using(asked):
        asked.gather([Train(spec)])
        needed = disk.disk_of(asked, Costs(asked.context.load))
    assert needed.number == sum(len(epochs_of(spec, role)) for role in ("student", "peer", "student_averaged"))
    # ResNet-18 has 11.17 million parameters, and its batch norms 9,600 numbers besides
    assert needed.snapshots / needed.number == pytest.approx(4 * 11.18e6, rel=0.005)
    assert str(needed).startswith(f"{needed.snapshots / 1e9:.3g} GB for {needed.number} snapshots; up to ")
