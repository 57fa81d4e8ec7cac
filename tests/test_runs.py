"""The store: nothing is trained twice, nothing is lost, nothing damaged is used. Processes are really killed."""

import json
import os
import re
import signal
import time
from dataclasses import replace

import numpy as np
import pytest
import torch
from conftest import ROOT, interrupted_after, run_python, tiny_spec

from rkdkit import attacks, autoattack, data, evaluation, executors, models, runs, trainings
from rkdkit import store as stores
from rkdkit.checks import UnknownNameError
from rkdkit.measurements import CorrectPredictions
from rkdkit.references import Images, Snapshot
from rkdkit.store import DamagedFileError, Store, StoreError
from rkdkit.tasks import Answer
from rkdkit.training import Training

pytestmark = pytest.mark.usefixtures("store")

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


def ensure_in(folder, spec):
    """Train a run in a store of its own."""
    with executors.using(executors.Here(Store(folder))):
        return runs.ensure(spec)


def folder_of(run):
    return Store().run_folder(run.spec).path


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
    for epoch in (1, 2, 3):
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
    ("method", "changes"),
    [
        ("PeerAiD", {"swa_start": 0, "schedule": "onecycle"}),
        ("PeerAiD", {"precision": "bfloat16", "schedule": "multistep", "milestones": (1,)}),
        ("PeerAiD", {"schedule": "exponential", "snapshot_every": 2}),
        ("Free-AT", {"schedule": "onecycle", "ema_decay": 0.9, "settings": (("m", 2),)}),
        ("AdaAD", {"precision": "bfloat16", "ema_decay": 0.9, "augmentation": "crop-flip-cutout"}),
    ],
    ids=["swa", "bfloat16", "exponential", "free", "teacher"],
)
def test_stopped_before_or_after_any_write_it_ends_in_the_same_bits(tmp_path, monkeypatch, method, changes):
    spec = tiny_spec(method, n_train=64, attack_steps=1, **changes)
    write, writes, stop = stores.write_atomically, [], ("", 0)

    def stopping(path, content):
        writes.append(path.name)
        if stop == ("before", len(writes)):
            raise KilledError
        write(path, content)
        if stop == ("after", len(writes)):
            raise KilledError

    monkeypatch.setattr(stores, "write_atomically", stopping)
    whole = ensure_in(tmp_path / "whole", spec).record
    assert writes[0] == writes[-1] == "run.json"
    total = len(writes)
    for when, nth in [(when, nth) for when in ("before", "after") for nth in range(1, total + 1)]:
        interrupted, stop = Store(tmp_path / f"{when}-{nth}"), (when, nth)
        writes.clear()
        with pytest.raises(KilledError):
            ensure_in(interrupted.root, spec)
        writes.clear()
        stop = ("", 0)
        record = ensure_in(interrupted.root, spec).record
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
        ensure_in(tmp_path / "file" / "store", tiny_spec())
    folder = tmp_path / "read-only"
    folder.mkdir()
    folder.chmod(0o555)
    if not os.access(folder, os.W_OK):  # the superuser may write anywhere
        with pytest.raises(StoreError, match="cannot be written to"):
            ensure_in(folder, tiny_spec())


@pytest.fixture
def finished():
    spec = tiny_spec("PeerAiD")
    return runs.ensure(spec)


def test_a_finished_run_is_not_trained_again(finished, monkeypatch):
    monkeypatch.setattr(Training, "__init__", lambda *_: pytest.fail("trained again"))
    again = runs.ensure(finished.spec)
    assert again.record == finished.record
    assert again.epochs == (1, 2)
    pairs = runs.ensure_all([finished.spec], [finished.spec] * 2)
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


def test_snapshots_are_kept_at_every_kth_epoch_and_at_the_last():
    run = runs.ensure(tiny_spec(epochs=5, snapshot_every=2, n_train=64))
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
    path = folder_of(finished) / "student-0002.safetensors"
    damaged(path, how)
    with pytest.raises(DamagedFileError, match=rf"{path.name} is (damaged|missing).*Delete the folder .*trained again"):
        finished.snapshot().load()
    finished.snapshot(epoch=1).load()


@pytest.mark.parametrize("how", ["truncated", "altered"])
def test_a_damaged_record_is_named_and_not_used(finished, how):
    path = folder_of(finished) / "run.json"
    damaged(path, how)
    with pytest.raises(DamagedFileError, match=r"run.json is damaged.*Delete the folder"):
        runs.ensure(finished.spec)


def test_a_specification_edited_by_hand_is_noticed(finished):
    path = folder_of(finished) / "run.json"
    text = path.read_text()
    assert '"epochs": 2' in text
    path.write_text(text.replace('"epochs": 2', '"epochs": 3'))
    with pytest.raises(DamagedFileError):
        runs.ensure(finished.spec)


def test_a_run_on_other_data_is_not_taken_for_this_one(finished, digits):
    other = data.Dataset("digits", digits.test, digits.train, digits.classes, "swapped")
    here = executors.Here()
    swapped = replace(here.context, load=lambda _: other)
    with pytest.raises(StoreError, match=r"trained on other data than are found now.*swapped"):
        trainings.Train(finished.spec).find(swapped)


def test_a_folder_that_holds_another_run_is_not_taken_for_this_one(store, finished):
    other = tiny_spec("PeerAiD", seed=1)
    store.run_folder(finished.spec).path.rename(store.run_folder(other).path)
    with pytest.raises(StoreError, match="holds another run than its name says"):
        runs.ensure(other)


def test_a_resume_elsewhere_is_recorded(monkeypatch):
    spec = tiny_spec(epochs=2)
    interrupted_after(spec, 1)
    elsewhere = {**trainings.environment(torch.device("cpu")), "device": "another"}
    monkeypatch.setattr(trainings, "environment", lambda _: elsewhere)
    environments = runs.ensure(spec).record["environments"]
    assert [e["device"] == "another" for e in environments] == [False, True]


def test_a_diverged_epoch_is_not_kept(store):
    spec = tiny_spec("Natural", lr=1e18, n_train=256)
    with pytest.raises(FloatingPointError, match="epoch 1"):
        runs.ensure(spec)
    assert store.run_folder(spec).read_record()["finished"] == 0


def test_correct_predictions_are_measured_once_and_kept(store, finished, monkeypatch):
    student, peer = finished.snapshot("student"), finished.snapshot("peer")
    attack, some = attacks.PGD(0.1, 0.05, 2), Images("digits", n=60)
    first = runs.correct_predictions([student], some, attack)
    assert first.shape == (1, 60)
    both = runs.correct_predictions([student, peer], some, attack, student)
    assert torch.equal(both[:1], first)
    loads = []
    monkeypatch.setattr(Snapshot, "read", lambda *a: loads.append(a))
    assert torch.equal(runs.correct_predictions([student, peer], some, attack, student), both)
    assert not loads
    answer = next((store.root / "answers").iterdir())
    damaged(answer, "altered")
    with pytest.raises(DamagedFileError, match=f"{answer.name} is damaged.*measured again"):
        runs.correct_predictions([student, peer], some, attack, student)


def test_answers_agree_with_the_networks_asked_directly(finished, digits):
    student, peer = finished.snapshot("student"), finished.snapshot("peer")
    for attack in (None, attacks.FGSM(0.1), attacks.PGD(0.1, 0.05, 2)):
        kept = runs.correct_predictions([student, peer], Images("digits"), attack, student)
        direct = evaluation.correct_predictions(
            [student.load(), peer.load()], digits.test.images, digits.test.labels, attack
        )
        assert torch.equal(kept, direct)


def test_the_epoch_is_chosen_on_what_is_asked(digits):
    run = runs.ensure(tiny_spec(epochs=4, n_train=512))
    attack = attacks.PGD(0.05, 0.025, 2)
    assert runs.select(run, "last", attack).epoch == 4
    held_out = digits.split_validation(512, 32)[1]
    chosen = {}
    for on, split in (("val", held_out), ("test", digits.test)):
        networks = [run.snapshot("student", epoch).load() for epoch in run.epochs]
        hits = [int(evaluation.correct_predictions([n], split.images, split.labels, attack).sum()) for n in networks]
        chosen[on] = runs.select(run, on, attack)
        assert len(set(hits)) > 1, "or any epoch would do"
        assert (chosen[on].epoch, chosen[on].certain) == (1 + hits.index(max(hits)), True)
    with pytest.raises(UnknownNameError, match="Unknown selection 'best'"):
        runs.select(run, "best", attack)
    nothing_held_out = runs.ensure(tiny_spec(n_val=0, epochs=1))
    with pytest.raises(ValueError, match="held out no images"):
        runs.select(nothing_held_out, "val", attack)


class MadeUp(executors.Here):
    """Answers each question of an epoch with so many correct predictions."""

    def __init__(self, hits):
        super().__init__()
        self.hits, self.calls = hits, 0

    def answer_all(self, tasks, what):
        del what
        self.calls += 1
        return {task: Answer(torch.arange(9)[None] < self.hits[task.judges[0].epoch]) for task in tasks}


def test_of_equally_robust_epochs_the_earliest_is_chosen_and_all_are_asked_about_at_once():
    spec = tiny_spec(epochs=4)
    for hits, expected in (({1: 3, 2: 7, 3: 7, 4: 5}, 2), ({1: 0, 2: 0, 3: 0, 4: 1}, 4), ({1: 2, 2: 1, 3: 2, 4: 2}, 1)):
        with executors.using(MadeUp(hits)) as executor:
            choices = [runs.Choice(trainings.Run(spec, None), on, None) for on in ("val", "test", "last")]
            assert [snapshot.epoch for snapshot in runs.select_all(choices)] == [expected, expected, 4]
            assert executor.calls == 1


def test_weights_are_safetensors_and_never_pickle(finished):
    for path in folder_of(finished).glob("*.safetensors"):
        header = int.from_bytes(path.read_bytes()[:8], "little")
        json.loads(path.read_bytes()[8 : 8 + header])


def test_nothing_that_is_read_can_run_code():
    suspect = re.compile(r"torch\.load\(|np\.load\(|pickle\.|import pickle|eval\(|exec\(")
    sources = [path.read_text(encoding="utf-8") for path in sorted((ROOT / "rkdkit").rglob("*.py"))]
    every = [line.strip() for source in sources for line in source.splitlines()]
    lines = [line for line in every if suspect.search(line) and "safetensors.torch" not in line]
    reading = [line for line in lines if "torch.load(" in line or "np.load(" in line]
    assert reading
    assert all("weights_only=True" in line or "allow_pickle=False" in line for line in reading), reading
    assert not [line for line in lines if "pickle." in line or "import pickle" in line], lines
    executed = [line for line in lines if re.search(r"(?<![.\w])(eval|exec)\(", line)]
    of_own_methods = 'exec(compile(content, str(file), "exec", dont_inherit=True), vars(module))'
    of_notebooks = 'exec(compile(source, notebook.name, "exec"), namespace)'
    assert executed == [of_own_methods, of_notebooks], "the files that a user names to be run, and nothing else"


def test_a_teacher_is_trained_first_and_once(monkeypatch):
    trained = []
    begin = Training.__init__

    def noting(self, spec, *a):
        trained.append(spec.method)
        begin(self, spec, *a)

    monkeypatch.setattr(Training, "__init__", noting)
    students = [tiny_spec("ARD"), tiny_spec("RSLAD"), tiny_spec("TRADES", epochs=1)]
    groups = runs.ensure_all(students)
    assert trained == ["TRADES", "ARD", "RSLAD"]
    assert [run.spec for run in groups[0]] == students


def test_an_early_stopped_teacher_is_the_snapshot_of_its_epoch(digits):
    teacher = runs.ensure(tiny_spec("TRADES", epochs=3))
    spec = tiny_spec("KD", teachers=(teacher.snapshot(epoch=1).as_teacher(),), epochs=1)
    run = runs.ensure(spec)
    assert run.record["guided_by"] == [teacher.snapshot(epoch=1).digest()]
    training = Training(spec, digits, torch.device("cpu"), [teacher.snapshot(epoch=1).load()])
    training.run_epoch()
    assert torch.equal(run.snapshot().load().head.weight, training.networks["student"].head.weight)
    late = tiny_spec("KD", teachers=(teacher.snapshot(epoch=3).as_teacher(),), epochs=1)
    assert runs.ensure(late).record["history"] != run.record["history"]


class Plain(torch.nn.Module):
    """A user's own network, which knows nothing of the kit."""

    def __init__(self, classes=10):
        super().__init__()
        self.layer = torch.nn.Linear(64, classes)

    def forward(self, x):
        return self.layer(x.flatten(1))


def test_any_module_can_teach():
    torch.manual_seed(0)
    module = Plain()
    spec = tiny_spec("RSLAD", teachers=(runs.foreign_teacher(module, "mine"),), epochs=1)
    assert runs.ensure(spec).record["finished"] == 1
    with torch.no_grad():
        module.layer.weight.add_(1)
    assert tiny_spec("RSLAD", teachers=(runs.foreign_teacher(module, "mine"),), epochs=1).id != spec.id
    with executors.using(executors.Here()):  # as in a process of its own
        assert runs.ensure(spec).record["finished"] == 1, "a finished run needs its teacher no more"
        with pytest.raises(ValueError, match=r"'mine' is a foreign module, .* call runs.foreign_teacher"):
            runs.ensure(tiny_spec("AKD", teachers=spec.teachers))


def test_modules_that_nothing_tells_apart_cannot_teach():
    with pytest.raises(ValueError, match="Flatten has no weights"):
        runs.foreign_teacher(torch.nn.Flatten(), "nothing to know it by")
    torch.manual_seed(0)
    plain, rectified = (torch.nn.Sequential(Plain(), layer) for layer in (torch.nn.Identity(), torch.nn.ReLU()))
    rectified.load_state_dict(plain.state_dict())
    assert runs.foreign_teacher(plain, "mine") != runs.foreign_teacher(rectified, "mine"), "another forward pass"


def test_a_module_that_does_not_fit_is_refused_before_training(store):
    spec = tiny_spec("ARD", teachers=(runs.foreign_teacher(Plain(classes=100), "hundred"),))
    with pytest.raises(ValueError, match=r"The teacher hundred answers two images with logits of shape .2, 100."):
        runs.ensure(spec)
    assert store.run_folder(spec).read_record() is None


def test_a_run_is_not_gone_on_with_by_another_teacher(monkeypatch):
    spec = tiny_spec("ARD", epochs=3)
    run_epoch = Training.run_epoch

    def stopping(self, *a):
        if self.spec == spec and self.epoch == 1:
            raise KilledError
        return run_epoch(self, *a)

    monkeypatch.setattr(Training, "run_epoch", stopping)
    with pytest.raises(KilledError):
        runs.ensure(spec)
    monkeypatch.setattr(Training, "run_epoch", run_epoch)
    monkeypatch.setattr(trainings, "_digest", lambda *_: "another digest")
    with pytest.raises(StoreError, match="was taught by other weights of TRADES"):
        runs.ensure(spec)


def test_extra_images_are_part_of_a_runs_record(digits, monkeypatch, tmp_path):
    monkeypatch.setenv("RKDKIT_DATA", str(tmp_path))
    random = np.random.RandomState(0)
    np.savez(tmp_path / "more.npz", image=random.randint(0, 256, (64, 8, 8, 1), np.uint8), label=np.arange(64) % 10)
    run = runs.ensure(tiny_spec("PGD-AT", extra="more.npz", extra_fraction=0.5))
    assert run.record["data"]["extra"] == data.load_extra("more.npz", digits).digest
    np.savez(tmp_path / "more.npz", image=random.randint(0, 256, (64, 8, 8, 1), np.uint8), label=np.arange(64) % 10)
    data._archive.cache_clear()
    with pytest.raises(StoreError, match=r"trained with other extra images than more\.npz holds now"):
        runs.ensure(run.spec)


@pytest.mark.parametrize("damage", ["wrong keys", "label out of range"])
def test_bad_extra_images_are_refused_before_training(store, monkeypatch, tmp_path, damage):
    monkeypatch.setenv("RKDKIT_DATA", str(tmp_path))
    images, labels = np.zeros((4, 8, 8, 1), np.uint8), np.array([0, 1, 2, 99 if damage.startswith("label") else 3])
    np.savez(tmp_path / "more.npz", **{"images" if damage == "wrong keys" else "image": images, "label": labels})
    spec = tiny_spec("Natural", extra="more.npz", extra_fraction=0.5)
    with pytest.raises(ValueError, match=r"more\.npz"):
        runs.ensure(spec)
    assert store.run_folder(spec).read_record() is None


def test_the_averaged_network_can_be_chosen():
    run = runs.ensure(tiny_spec("Natural", epochs=4, swa_start=2))
    chosen = runs.select(run, "val", None, role="student_averaged")
    assert (chosen.role, chosen.epoch in (3, 4)) == ("student_averaged", True)
    assert run.epochs_of("student_averaged") == (3, 4)


def test_one_call_measures_by_every_attack(finished):
    snapshot = finished.snapshot()
    by = {"clean": None, "fgsm": attacks.FGSM(0.1), "pgd-2": attacks.PGD(0.1, 0.05, 2)}
    measured = runs.evaluate(snapshot, Images("digits"), by, n={"pgd-2": 40})
    assert [measured[metric].n for metric in by] == [497, 497, 40]
    (expected,) = runs.correct_predictions([snapshot], Images("digits", n=40), by["pgd-2"])
    assert torch.equal(measured.correct["pgd-2"], expected)
    assert str(measured).splitlines()[2] == f"pgd-2: {measured['pgd-2']} of 40"
    with pytest.raises(UnknownNameError, match=r"Unknown metric 'fgm'. Did you mean 'fgsm'"):
        runs.evaluate(snapshot, Images("digits"), by, n={"fgm": 3})
    for n in (0, -1, 498):
        with pytest.raises(ValueError, match="n of clean must be between 1 and 497"):
            runs.evaluate(snapshot, Images("digits"), by, n=n)
    with pytest.raises(UnknownNameError, match=r"Unknown metric 'pgd-20'. Did you mean 'pgd-2'"):
        measured["pgd-20"]


@pytest.mark.parametrize("elsewhere", [False, True], ids=["here", "other versions"])
def test_a_costly_attack_goes_on_where_it_was_stopped_in_the_same_environment(store, finished, monkeypatch, elsewhere):
    some = Images("digits", n=24)
    attack = autoattack.Square(0.05, queries=30, batch_size=8)
    whole = attack.correct(finished.snapshot().load(), data.to_float(some.split().images), some.split().labels)
    write, written = Store.write_answer, []

    def stopping(self, question, answer, here):
        write(self, question, answer, {**here, "torch": "2.0.1"} if elsewhere else {**here, "git_commit": "another"})
        written.append(answer)
        if len(written) == 4:  # three batches of natural images, and one attacked
            raise KilledError

    monkeypatch.setattr(Store, "write_answer", stopping)
    with pytest.raises(KilledError):
        runs.correct_predictions([finished.snapshot()], some, attack)
    begun = []
    monkeypatch.setattr(Store, "write_answer", write)
    correct = autoattack.Square.correct
    monkeypatch.setattr(autoattack.Square, "correct", lambda *a: (begun.append(a[4]), correct(*a))[1])
    (verdict,) = runs.correct_predictions([finished.snapshot()], some, attack)
    assert begun == [None if elsewhere else written[-1]], "an answer is measured with one version"
    assert torch.equal(verdict, whole)
    assert len(list((store.root / "answers").iterdir())) == 1, "the half-finished answer is gone"


def test_a_costly_attack_killed_at_its_very_end_is_not_done_again(finished, monkeypatch):
    some, attack = Images("digits", n=8), autoattack.Square(0.05, queries=5)
    monkeypatch.setattr(Store, "forget_answer", lambda *_: (_ for _ in ()).throw(KilledError))
    with pytest.raises(KilledError):
        runs.correct_predictions([finished.snapshot()], some, attack)
    monkeypatch.setattr(autoattack.Square, "correct", lambda *_: pytest.fail("attacked again"))
    runs.correct_predictions([finished.snapshot()], some, attack)


def test_a_costly_attacks_examples_transfer_and_its_own_verdict_stays(finished):
    student, peer = finished.snapshot("student"), finished.snapshot("peer")
    some, attack = Images("digits", n=24), autoattack.Square(0.1, queries=30, batch_size=8)
    own, transferred = runs.correct_predictions([student, peer], some, attack, student)
    alone = CorrectPredictions(images=some, judges=(student,), attack=attack)
    measured = alone.measured(Snapshot.load, some.split())
    assert torch.equal(alone.value(measured, some.split())[0], own)
    images = data.to_float(some.split().images)
    examples = attack(student.load(), images, some.split().labels)
    with torch.no_grad():
        expected = peer.load()(examples).argmax(1) == some.split().labels
    assert torch.equal(transferred, expected)
