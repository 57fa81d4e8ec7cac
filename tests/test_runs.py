"""The store: nothing is trained twice, nothing is lost, nothing damaged is used. Processes are really killed."""

import json
import os
import signal
import subprocess
import time

import pytest
import torch
from conftest import ROOT, run_python, tiny_spec

from rkdkit import attacks, data, models, runs
from rkdkit import store as stores
from rkdkit.checks import UnknownNameError
from rkdkit.store import DamagedFileError, Store, StoreError
from rkdkit.training import Training

EPOCHS = 8
SPEC = f"tiny_spec('PeerAiD', epochs={EPOCHS}, n_train=512, swa_start=2, schedule='onecycle', augmentation='crop-flip')"
COUNTING = f"""
import sys
from conftest import tiny_spec
from rkdkit import runs, training
trained, run_epoch = [], training.Training.run_epoch
def counting(self, *a):
    report = run_epoch(self, *a)
    trained.append(report.epoch)
    return report
training.Training.run_epoch = counting
runs.ensure({SPEC})
print(*trained)
"""


def spec_of_the_processes():
    return eval(SPEC, {"tiny_spec": tiny_spec})


def finished_epochs(store):
    record = store.run_folder(spec_of_the_processes()).path / "run.json"
    return json.loads(record.read_text())["content"]["finished"] if record.exists() else 0


def wait_for_epoch(store, epoch, process):
    deadline = time.time() + 120
    while finished_epochs(store) < epoch:
        assert process.poll() is None, process.communicate()
        assert time.time() < deadline, "the training does not get on"
        time.sleep(0.01)


@pytest.fixture(scope="module")
def uninterrupted(tmp_path_factory):
    """The record of the run that the processes train, trained in one go by a process of its own."""
    store = Store(tmp_path_factory.mktemp("uninterrupted"))
    process = run_python(COUNTING, store.root)
    out, err = process.communicate(timeout=300)
    assert process.returncode == 0, err
    assert out.split() == [str(e) for e in range(1, EPOCHS + 1)]
    return store.run_folder(spec_of_the_processes()).read_record()


def test_a_run_killed_again_and_again_ends_in_the_same_bits(store, uninterrupted):
    for epoch in (1, 3, 5):
        process = run_python(COUNTING, store.root)
        wait_for_epoch(store, epoch, process)
        time.sleep(0.03 * epoch)  # somewhere within the next epoch or the writing of it
        process.send_signal(signal.SIGKILL)
        process.communicate()
        assert process.returncode == -signal.SIGKILL
        assert epoch <= finished_epochs(store) < EPOCHS
    before = finished_epochs(store)
    process = run_python(COUNTING, store.root)
    out, err = process.communicate(timeout=300)
    assert process.returncode == 0, err
    assert out.split() == [str(e) for e in range(before + 1, EPOCHS + 1)], "it went on where it was"
    record = store.run_folder(spec_of_the_processes()).read_record()
    assert record["snapshots"] == uninterrupted["snapshots"]
    assert set(record["snapshots"]) == {"student", "peer", "student_averaged"}
    assert [e["loss"] for e in record["history"]] == [e["loss"] for e in uninterrupted["history"]]
    left = {p.name for p in store.run_folder(spec_of_the_processes()).path.iterdir()}
    assert not [name for name in left if name.endswith(".tmp") or name.startswith("state-")]


class KilledError(BaseException):
    """Stands for a kill: nothing of the kit catches it."""


@pytest.mark.parametrize(
    "changes",
    [
        {"swa_start": 0, "schedule": "onecycle"},
        {"precision": "bfloat16", "schedule": "multistep", "milestones": (1,)},
        {"schedule": "exponential", "snapshot_every": 2},
    ],
    ids=lambda changes: changes["schedule"],
)
def test_stopped_before_or_after_any_write_it_ends_in_the_same_bits(tmp_path, monkeypatch, changes):
    spec = tiny_spec("PeerAiD", n_train=64, attack_steps=1, **changes)
    write, writes, stop = stores.write_atomically, [], ("", 0)

    def stopping(path, content):
        writes.append(path.name)
        if stop == ("before", len(writes)):
            raise KilledError
        write(path, content)
        if stop == ("after", len(writes)):
            raise KilledError

    monkeypatch.setattr(stores, "write_atomically", stopping)
    whole = runs.ensure(spec, Store(tmp_path / "whole")).record
    assert writes[0] == writes[-1] == "run.json"
    total = len(writes)
    for when, nth in [(when, nth) for when in ("before", "after") for nth in range(1, total + 1)]:
        interrupted, stop = Store(tmp_path / f"{when}-{nth}"), (when, nth)
        writes.clear()
        with pytest.raises(KilledError):
            runs.ensure(spec, interrupted)
        writes.clear()
        stop = ("", 0)
        record = runs.ensure(spec, interrupted).record
        assert record["snapshots"] == whole["snapshots"]
        assert [(e["loss"], e["lr"]) for e in record["history"]] == [(e["loss"], e["lr"]) for e in whole["history"]]
        # a kill right after the very last write leaves the last state lying about, which nothing reads
        states = list(interrupted.run_folder(spec).path.glob("state-*"))
        assert len(states) == ((when, nth) == ("after", total))


def test_two_processes_train_one_run_once(store, uninterrupted):
    processes = [run_python(COUNTING, store.root) for _ in range(2)]
    outputs = [p.communicate(timeout=300) for p in processes]
    assert [p.returncode for p in processes] == [0, 0], outputs
    assert sorted(len(out.split()) for out, _ in outputs) == [0, EPOCHS]
    assert sum("waiting for it to finish" in err for _, err in outputs) == 1
    assert store.run_folder(spec_of_the_processes()).read_record()["snapshots"] == uninterrupted["snapshots"]


LIMITED = """
import resource, signal
from rkdkit import training
signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
run_epoch_before = training.Training.run_epoch
def limiting(self, *a):
    if self.epoch == 3:  # from here on no file may grow beyond 100 kB: the operating system refuses the write
        resource.setrlimit(resource.RLIMIT_FSIZE, (100_000, 100_000))
    return run_epoch_before(self, *a)
training.Training.run_epoch = limiting
"""


def test_a_full_disk_is_a_clear_error_and_loses_nothing(store, uninterrupted):
    process = run_python(LIMITED + COUNTING, store.root)
    _, err = process.communicate(timeout=300)
    assert process.returncode == 1
    assert "StoreError: Could not write" in err
    assert "Whatever was finished before is intact" in err
    assert finished_epochs(store) == 3
    folder = store.run_folder(spec_of_the_processes())
    assert not list(folder.path.glob(".*.tmp"))
    for role, by_epoch in folder.read_record()["snapshots"].items():
        for epoch, digest in by_epoch.items():
            folder.read_tensors(f"{role}-{int(epoch):04d}.safetensors", digest)
    process = run_python(COUNTING, store.root)
    out, err = process.communicate(timeout=300)
    assert process.returncode == 0, err
    assert out.split() == [str(e) for e in range(4, EPOCHS + 1)]
    assert folder.read_record()["snapshots"] == uninterrupted["snapshots"]


def test_a_store_that_cannot_be_written_is_a_clear_error_before_training(tmp_path, monkeypatch):
    monkeypatch.setattr(Training, "run_epoch", lambda *_: pytest.fail("trained before it looked"))
    (tmp_path / "file").write_text("not a folder")
    with pytest.raises(StoreError, match=r"cannot be written to.*RKDKIT_STORE"):
        runs.ensure(tiny_spec(), Store(tmp_path / "file" / "store"))
    folder = tmp_path / "read-only"
    folder.mkdir()
    folder.chmod(0o555)
    if not os.access(folder, os.W_OK):  # the superuser may write anywhere
        with pytest.raises(StoreError, match="cannot be written to"):
            runs.ensure(tiny_spec(), Store(folder))


@pytest.fixture
def finished(store):
    spec = tiny_spec("PeerAiD")
    return runs.ensure(spec, store)


def test_a_finished_run_is_not_trained_again(store, finished, monkeypatch):
    monkeypatch.setattr(Training, "__init__", lambda *_: pytest.fail("trained again"))
    again = runs.ensure(finished.spec, store)
    assert again.record == finished.record
    assert again.epochs == (1, 2)
    pairs = runs.ensure_all([finished.spec], [finished.spec] * 2, store=store)
    assert [[run.spec for run in group] for group in pairs] == [[finished.spec], [finished.spec] * 2]


def test_a_snapshot_is_the_network_at_the_end_of_its_epoch(finished, digits):
    training = Training(finished.spec, digits, torch.device("cpu"))
    for epoch in (1, 2):
        training.run_epoch()
        for role in ("student", "peer"):
            saved = finished.snapshot(role, epoch).load("cpu")
            assert isinstance(saved, models.Classifier)
            for name, value in training.networks[role].state_dict().items():
                assert torch.equal(saved.state_dict()[name], value), (role, epoch, name)


def test_snapshots_are_kept_at_every_kth_epoch_and_at_the_last(store):
    run = runs.ensure(tiny_spec(epochs=5, snapshot_every=2, n_train=64), store)
    assert run.epochs == (2, 4, 5)
    with pytest.raises(ValueError, match=r"no snapshot of its student at epoch 3; it has them at 2, 4, 5"):
        run.snapshot("student", 3)
    with pytest.raises(UnknownNameError, match=r"Unknown network of PGD-AT.*'peer'.*Known: student"):
        run.snapshot("peer")


def damaged(path, how):
    content = path.read_bytes()
    if how == "truncated":
        path.write_bytes(content[: len(content) // 2])
    elif how == "altered":
        middle = len(content) // 2
        path.write_bytes(content[:middle] + bytes([content[middle] ^ 1]) + content[middle + 1 :])
    else:
        path.unlink()


@pytest.mark.parametrize("how", ["truncated", "altered", "missing"])
def test_a_damaged_snapshot_is_named_and_not_used(finished, how):
    path = finished._folder.path / "student-0002.safetensors"
    damaged(path, how)
    with pytest.raises(DamagedFileError, match=rf"{path.name} is (damaged|missing).*Delete the folder .*trained anew"):
        finished.snapshot().load()
    finished.snapshot(epoch=1).load()


@pytest.mark.parametrize("how", ["truncated", "altered"])
def test_a_damaged_record_is_named_and_not_used(store, finished, how):
    path = finished._folder.path / "run.json"
    damaged(path, how)
    with pytest.raises(DamagedFileError, match=r"run.json is damaged.*Delete the folder"):
        runs.ensure(finished.spec, store)


def test_a_specification_edited_by_hand_is_noticed(store, finished):
    path = finished._folder.path / "run.json"
    text = path.read_text()
    assert '"epochs": 2' in text
    path.write_text(text.replace('"epochs": 2', '"epochs": 3'))
    with pytest.raises(DamagedFileError):
        runs.ensure(finished.spec, store)


def interrupted_after_an_epoch(spec, store):
    """Leave a run in the store as Ctrl-C in its second epoch does."""
    run_epoch = Training.run_epoch

    def interrupted(self, *a):
        if self.epoch == 1:
            raise KeyboardInterrupt
        return run_epoch(self, *a)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Training, "run_epoch", interrupted)
        with pytest.raises(KeyboardInterrupt):
            runs.ensure(spec, store)
    return spec


def test_a_damaged_state_stops_a_resume(store):
    spec = interrupted_after_an_epoch(tiny_spec(epochs=3), store)
    damaged(store.run_folder(spec).path / "state-0001.safetensors", "altered")
    with pytest.raises(DamagedFileError, match=r"state-0001.safetensors is damaged"):
        runs.ensure(spec, store)


def test_a_run_on_other_data_is_not_taken_for_this_one(store, finished, digits, monkeypatch):
    other = data.Dataset("digits", digits.test, digits.train, digits.classes, "swapped")
    monkeypatch.setattr(data, "load", lambda _: other)
    with pytest.raises(StoreError, match=r"trained on other data than are found now.*swapped"):
        runs.ensure(finished.spec, store)


def test_a_folder_that_holds_another_run_is_not_taken_for_this_one(store, finished):
    other = tiny_spec("PeerAiD", seed=1)
    store.run_folder(finished.spec).path.rename(store.run_folder(other).path)
    with pytest.raises(StoreError, match="holds another run than its name says"):
        runs.ensure(other, store)


def test_a_resume_elsewhere_is_recorded(store, monkeypatch):
    spec = interrupted_after_an_epoch(tiny_spec(epochs=2), store)
    elsewhere = {**runs.environment(torch.device("cpu")), "device": "another"}
    monkeypatch.setattr(runs, "environment", lambda _: elsewhere)
    environments = runs.ensure(spec, store).record["environments"]
    assert [e["device"] == "another" for e in environments] == [False, True]


def test_a_diverged_epoch_is_not_kept(store):
    spec = tiny_spec("Natural", lr=1e18, n_train=256)
    with pytest.raises(FloatingPointError, match="epoch 1"):
        runs.ensure(spec, store)
    assert store.run_folder(spec).read_record()["finished"] == 0


def test_correct_predictions_are_measured_once_and_kept(store, finished, digits, monkeypatch):
    student, peer = finished.snapshot("student"), finished.snapshot("peer")
    attack, some = attacks.PGD(0.1, 0.05, 2), digits.test.take(slice(0, 60))
    first = runs.correct_predictions([student], some, attack, store=store)
    assert first.shape == (1, 60)
    both = runs.correct_predictions([student, peer], some, attack, student, store=store)
    assert torch.equal(both[:1], first)
    loads = []
    monkeypatch.setattr(runs.Snapshot, "load", lambda *a: loads.append(a))
    assert torch.equal(runs.correct_predictions([student, peer], some, attack, student, store=store), both)
    assert not loads
    answer = next((store.root / "answers").iterdir())
    damaged(answer, "altered")
    with pytest.raises(DamagedFileError, match=f"{answer.name} is damaged.*measured anew"):
        runs.correct_predictions([student, peer], some, attack, student, store=store)


def test_answers_agree_with_the_networks_asked_directly(store, finished, digits):
    from rkdkit import evaluation

    student, peer = finished.snapshot("student"), finished.snapshot("peer")
    for attack in (None, attacks.FGSM(0.1), attacks.PGD(0.1, 0.05, 2)):
        kept = runs.correct_predictions([student, peer], digits.test, attack, student, store=store)
        direct = evaluation.correct_predictions(
            [student.load(), peer.load()], digits.test.images, digits.test.labels, attack
        )
        assert torch.equal(kept, direct)


def test_the_epoch_is_chosen_on_what_is_asked(store, digits):
    run = runs.ensure(tiny_spec(epochs=4, n_train=512), store)
    attack = attacks.PGD(0.05, 0.025, 2)
    assert runs.select(run, "last", attack, store=store).epoch == 4
    for on, split in (("val", digits.split_validation(512, 32)[1]), ("test", digits.test)):
        snapshots = [run.snapshot("student", e) for e in run.epochs]
        hits = [int(runs.correct_predictions([s], split, attack, store=store).sum()) for s in snapshots]
        chosen = runs.select(run, on, attack, store=store)
        assert hits[chosen.epoch - 1] == max(hits)
        assert chosen.epoch == 1 + hits.index(max(hits))
    with pytest.raises(UnknownNameError, match="Unknown selection 'best'"):
        runs.select(run, "best", attack, store=store)
    nothing_held_out = runs.ensure(tiny_spec(n_val=0, epochs=1), store)
    with pytest.raises(ValueError, match="held out no images"):
        runs.select(nothing_held_out, "val", attack, store=store)


def test_weights_are_safetensors_and_never_pickle(finished):
    for path in finished._folder.path.glob("*.safetensors"):
        header = int.from_bytes(path.read_bytes()[:8], "little")
        json.loads(path.read_bytes()[8 : 8 + header])
    pickling = subprocess.run(
        ["git", "grep", "-nE", r"(^|[^.])torch\.load|pickle\.load|allow_pickle|weights_only", "--", "rkdkit"],
        cwd=ROOT, capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert (pickling.returncode, pickling.stdout) == (1, ""), "git grep found something, or could not look"
