"""The store believes nothing that is not what was asked: any file is damaged, swapped, replaced or deleted."""

import errno
import json
import os
import shutil
import signal
from dataclasses import dataclass
from pathlib import Path

import pytest
import torch
from conftest import interrupted_after, tiny_spec
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from rkdkit import attacks, executors, files, runs
from rkdkit.forms import has_form_of
from rkdkit.references import Images
from rkdkit.spec import Teacher
from rkdkit.store import DamagedFileError, Store, StoreError, read_json, write_json
from rkdkit.training import Training
from rkdkit.trainings import Train

TEACHER = tiny_spec("TRADES", epochs=1, n_train=64, attack_steps=1)
STUDENT = tiny_spec("ARD", n_train=64, attack_steps=1, teachers=(Teacher(run=TEACHER),))
BEGUN = tiny_spec(epochs=4, n_train=64, attack_steps=1)
SOME = Images("digits", n=20)
ATTACK = attacks.FGSM(0.1)


def counted(monkeypatch):
    """Return a list of the epochs that are trained from now on."""
    run_epoch, trained = Training.run_epoch, []

    def counting(self, *a):
        report = run_epoch(self, *a)
        trained.append(report.epoch)
        return report

    monkeypatch.setattr(Training, "run_epoch", counting)
    return trained


def tensors_of(snapshot, store):
    return store.run_folder(snapshot.spec).read_tensors(snapshot.file, snapshot.digest() or "")


def found(root, begun=True):
    """Return what a store answers, with or without the unfinished run: it trains and measures what is missing."""
    with executors.using(executors.Here(Store(root))):
        asked = [runs.ensure(spec) for spec in (TEACHER, STUDENT, *([BEGUN] if begun else []))]
        snapshots = [snapshot for run in asked for snapshot in run.snapshots()]
        weights = {str(each): tensors_of(each, Store(root)) for each in snapshots}
        answers = [runs.correct_predictions(snapshots[:2], SOME, attack) for attack in (None, ATTACK)]
        losses = {run.spec.id: [epoch["loss"] for epoch in run.record["history"]] for run in asked}
    return weights, answers, losses


def same(one, other):
    """Return whether all answers are those of a store where nothing was done to any file."""
    return (
        all(torch.equal(other[0][network][name], t) for network in one[0] for name, t in one[0][network].items())
        and all(map(torch.equal, one[1], other[1]))
        and one[2].items() <= other[2].items()
    )


@dataclass(frozen=True)
class Filled:
    """A store with finished and unfinished runs, and all that it answers."""

    root: Path
    answers: tuple


@pytest.fixture(scope="module")
def filled(tmp_path_factory):
    root = tmp_path_factory.mktemp("filled")
    with executors.using(executors.Here(Store(root / "store"))):
        student = runs.ensure(STUDENT)
        judges = [runs.ensure(TEACHER).snapshot(), student.snapshot(epoch=1)]
        for attack in (None, ATTACK):
            runs.correct_predictions(judges, SOME, attack)
        interrupted_after(BEGUN, 3)
    shutil.copytree(root / "store", root / "copy")
    answers = found(root / "copy")
    shutil.rmtree(root / "copy")
    return Filled(root / "store", answers)


def kind(path):
    name = path.name
    return next(k for k in ("run.json", ".json", "state", ".safetensors", ".lock") if k in name)


def flipped(content, place, bit):
    at = place % max(len(content), 1)
    return content[:at] + bytes([content[at] ^ (1 << bit)]) + content[at + 1 :] if content else b"\0"


def mistreat(path, how, place, bit, others):
    """Do something to a file of a store."""
    content = path.read_bytes()
    other = others[place % len(others)] if others else None
    if how == "swapped" and other is not None:
        path.write_bytes(other.read_bytes())
        other.write_bytes(content)
        return
    if how in ("truncated", "flipped", "emptied"):
        path.write_bytes(
            {"truncated": content[: place % max(len(content), 1)], "emptied": b""}.get(
                how, flipped(content, place, bit)
            )
        )
        return
    path.unlink()
    if how == "folder":
        path.mkdir()
    elif how == "pipe":
        os.mkfifo(path)
    elif how == "loop":
        path.symlink_to(path)
    elif how == "link" and other is not None:
        path.symlink_to(other)
    elif how == "dangling":
        path.symlink_to(path.with_name("nothing"))


MISTREATMENTS = ("truncated", "flipped", "emptied", "swapped", "folder", "pipe", "loop", "link", "dangling", "deleted")


@settings(max_examples=500, deadline=None, suppress_health_check=list(HealthCheck))
@given(
    which=st.integers(0, 999), how=st.sampled_from(MISTREATMENTS), place=st.integers(0, 10**6), bit=st.integers(0, 7)
)
def test_a_file_that_was_mistreated_is_named_or_harmless_and_never_believed(
    filled, tmp_path_factory, which, how, place, bit
):
    root = tmp_path_factory.mktemp("mistreated") / "store"
    shutil.copytree(filled.root, root)
    listed = sorted(path for path in root.rglob("*") if path.is_file())
    path = listed[which % len(listed)]
    others = [each for each in listed if each != path and kind(each) == kind(path)]
    mistreat(path, how, place, bit, others)
    signal.alarm(60)  # what hangs is killed
    refused = ""
    try:
        answers = found(root, begun=BEGUN.id in str(path) or how == "swapped")
    except StoreError as error:
        refused = str(error)
    finally:
        signal.alarm(0)
        shutil.rmtree(root)
    if not refused:
        assert same(answers, filled.answers)
        return
    named = [path, *(others if how == "swapped" else ())]
    assert any(str(each) in refused or str(each.parent) in refused for each in named), refused
    assert "elete" in refused or "writable" in refused, f"it says what to do: {refused}"


@pytest.fixture
def copied(filled, store):
    shutil.copytree(filled.root, store.root)
    return store


def test_the_answer_to_another_question_is_not_taken_for_this_one(copied):
    one, other = sorted((copied.root / "answers").iterdir())[:2]
    other.write_bytes(one.read_bytes())
    with pytest.raises(DamagedFileError, match=f"{other.name} holds the answer to another question.*measured again"):
        found(copied.root)
    other.unlink()
    found(copied.root)


@pytest.mark.parametrize("answer", ["ff", "ffffffff", "", 5, None, [1], {"a": 1}, "zz", "fffff1", 1e9])
def test_an_answer_of_another_length_or_type_is_refused(copied, answer):
    path = sorted((copied.root / "answers").iterdir())[0]
    stored = read_json(path, "")
    if answer is not None:  # None says that it was not answered
        assert stored["answer"] != answer
    write_json(path, {**stored, "answer": answer})
    if answer is None:
        found(copied.root)
        return
    with pytest.raises(DamagedFileError, match=f"{path.name} holds no answer to its question.*measured again"):
        found(copied.root)


def test_forms_are_told_apart():
    zeros = torch.zeros(2)
    for value in (zeros, (zeros, 1.0), {"a": [zeros]}, None, 1, "text", True):
        assert has_form_of(value, value)
    pairs = [
        (zeros, torch.zeros(3)),
        (zeros, zeros.double()),
        (zeros, None),
        (1, True),
        (True, 1.0),
        ({"a": 1}, {"b": 1}),
    ]
    for one, other in [*pairs, ([1], [1, 2]), ([1], (1,)), ({"a": zeros}, {"a": [0]})]:
        assert not has_form_of(one, other)
        assert not has_form_of(other, one)


def test_a_student_is_not_set_beside_a_teacher_that_did_not_teach_it(copied, monkeypatch):
    shutil.rmtree(copied.run_folder(TEACHER).path)
    assert runs.ensure(STUDENT).epochs == (1, 2), "a teacher that is not there does not contradict it"
    run_epoch = Training.run_epoch

    def rounding_otherwise(self, *a):
        report = run_epoch(self, *a)
        with torch.no_grad():
            next(self.networks["student"].parameters()).mul_(1 + 1e-6)
        return report

    monkeypatch.setattr(Training, "run_epoch", rounding_otherwise)
    runs.ensure(TEACHER)
    monkeypatch.undo()
    monkeypatch.setenv("RKDKIT_STORE", str(copied.root))
    folder = copied.run_folder(STUDENT).path
    with pytest.raises(StoreError, match=rf"{folder.name} was taught by other weights of TRADES.*Delete that folder"):
        runs.ensure(STUDENT)
    shutil.rmtree(folder)
    assert runs.ensure(STUDENT).record["guided_by"] == [runs.ensure(TEACHER).snapshot().digest()]


def test_a_folder_that_is_deleted_while_it_is_trained_ends_the_training_and_nothing_wrong_is_kept(copied):
    spec, run_epoch = tiny_spec(seed=7, epochs=3, n_train=64), Training.run_epoch
    folder = copied.run_folder(spec).path

    def deleting(self, *a):
        report = run_epoch(self, *a)
        if report.epoch == 2:
            shutil.rmtree(folder)
        return report

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Training, "run_epoch", deleting)
        with pytest.raises(
            StoreError, match=rf"{folder.name} was deleted or changed while the run was trained.*Repeat"
        ):
            runs.ensure(spec)
    assert not folder.exists()
    assert runs.ensure(spec).epochs == (1, 2, 3)


def test_two_that_train_one_run_because_somebody_deleted_the_lock_do_not_mix(copied):
    spec, run_epoch = tiny_spec(seed=7, epochs=3, n_train=64), Training.run_epoch
    begun = []

    def another_finishes_it_first(self, *a):
        if self.spec == spec and self.epoch == 1 and not begun:
            begun.append(True)
            shutil.rmtree(copied.root / "locks")
            runs.ensure(spec)
        return run_epoch(self, *a)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Training, "run_epoch", another_finishes_it_first)
        with pytest.raises(StoreError, match="was deleted or changed while the run was trained"):
            runs.ensure(spec)
    assert len(runs.ensure(spec).record["history"]) == 3


def test_deleting_a_runs_folder_does_not_free_its_lock(store):
    spec, waiting = tiny_spec(), []
    one, other = store.run_folder(spec), store.run_folder(spec)
    with one.lock(lambda: None):
        shutil.rmtree(one.path)

        def waited():
            waiting.append(True)
            raise InterruptedError("it would wait")

        with pytest.raises(StoreError, match=r"it would wait|cannot be written"), other.lock(waited):
            pass
    assert waiting


@pytest.mark.parametrize(
    ("damaged", "trained"),
    [
        ((), [4]),
        (("state-0003",), [3, 4]),
        (("state-0002",), [4]),
        (("student-0003",), [3, 4]),
        (("student-0002",), [1, 2, 3, 4]),  # the state of the first epoch is gone
        (("state-0002", "state-0003"), [1, 2, 3, 4]),
    ],
)
def test_a_training_goes_on_after_the_last_epoch_whose_files_are_whole(copied, filled, monkeypatch, damaged, trained):
    folder = copied.run_folder(BEGUN).path
    assert {path.stem for path in folder.glob("state-*")} == {"state-0002", "state-0003"}
    for name in damaged:
        path = folder / f"{name}.safetensors"
        path.write_bytes(flipped(path.read_bytes(), 1000, 3))
    epochs = counted(monkeypatch)
    assert same(found(copied.root), filled.answers)
    assert epochs == trained
    assert not list(folder.glob("state-*"))


@pytest.mark.parametrize("name", ["state-0003.safetensors", "student-0001.safetensors"])
def test_what_cannot_be_read_for_a_moment_costs_no_epoch(copied, filled, monkeypatch, name):
    read, before = files.read, copied.run_folder(BEGUN).read_record()

    def too_many_open(path):
        if path.name == name and BEGUN.id in str(path):
            raise OSError(errno.EMFILE, "Too many open files", str(path))
        return read(path)

    with monkeypatch.context() as patch:
        patch.setattr(files, "read", too_many_open)
        with pytest.raises(StoreError, match=rf"{name} cannot be read now: Too many open files.*Repeat"):
            runs.ensure(BEGUN)
    assert copied.run_folder(BEGUN).read_record() == before
    assert same(found(copied.root), filled.answers)


def test_leftovers_are_cleared(copied):
    young, old = (copied.root / "answers" / f".{name}.json.{'0' * 32}.tmp" for name in ("young", "old"))
    for path in (young, old):
        path.write_text("half")
    os.utime(old, (0, 0))
    files.clear_leftovers.cache_clear()
    copied.write_answer({"question": "new"}, 1, {})
    assert (young.exists(), old.exists()) == (True, False)
    state = copied.run_folder(STUDENT).path / "state-0001.safetensors"
    state.write_text("left by a kill at the very end")
    Train(STUDENT).do(executors.current().context)
    assert not state.exists()


def wrong_records():
    whole = {"spec": {}, "id": "x", "finished": 1, "guided_by": [], "environments": [], "states": {}, "history": []}
    yield from ([], 5, "text", {}, whole, {**whole, "data": {"digest": 1, "source": "", "extra": None}})
    good = {**whole, "data": {"digest": "d", "source": "s", "extra": None}, "snapshots": {"student": {}}, "finished": 0}
    yield {**good, "snapshots": {"student": {"1": "0" * 64}}}
    yield {**good, "snapshots": {"../student": {}}}
    yield {**good, "states": {"1": {"name": "../../x.safetensors", "digest": "0" * 64}}}
    yield {**good, "finished": True}
    yield {**good, "finished": 2}
    yield {**good, "environments": [5]}


@pytest.mark.parametrize("content", list(wrong_records()))
def test_a_record_that_is_none_is_named_though_its_digest_is_right(copied, content):
    folder = copied.run_folder(STUDENT)
    write_json(folder.path / "run.json", content)
    with pytest.raises(DamagedFileError, match=r"run.json is no record of a run.*Delete the folder"):
        folder.read_record()
    with pytest.raises(DamagedFileError):
        runs.ensure(STUDENT)


def test_a_record_that_lacks_a_snapshot_is_named(copied):
    folder = copied.run_folder(STUDENT)
    record = folder.read_record()
    del record["snapshots"]["student"]["1"]
    folder.write_record(record)
    with pytest.raises(StoreError, match="names other snapshots than ARD"):
        runs.ensure(STUDENT)


def test_json_that_nests_too_deeply_is_damaged(tmp_path):
    path = tmp_path / "x.json"
    path.write_text('{"digest": "0", "content": ' + "[" * 100_000 + "]" * 100_000 + "}")
    with pytest.raises(DamagedFileError, match="is damaged"):
        read_json(path, "")


def test_only_regular_files_are_read(tmp_path):
    os.mkfifo(tmp_path / "pipe")
    (tmp_path / "file").write_bytes(b"content")
    (tmp_path / "link").symlink_to(tmp_path / "file")
    assert files.read(tmp_path / "link") == b"content"
    for path in (tmp_path / "pipe", tmp_path, tmp_path / "none", Path(os.devnull)):
        with pytest.raises(OSError, match=r"regular|directory|No such"):
            files.read(path)


def test_folders_are_synced_after_a_rename(tmp_path, monkeypatch):
    synced = []
    fsync = os.fsync
    monkeypatch.setattr(os, "fsync", lambda d: synced.append(os.fstat(d).st_ino) or fsync(d))
    files.write_atomically(tmp_path / "new" / "file", b"content")
    assert synced[-1] == (tmp_path / "new").stat().st_ino


def test_the_record_of_an_earlier_version_is_read_in_todays_form(copied):
    folder = copied.run_folder(BEGUN)
    record = folder.read_record()
    last = record["states"]["3"]
    earlier = {**{name: value for name, value in record.items() if name != "states"}, "state": last}
    write_json(folder.path / "run.json", earlier)
    assert folder.read_record() == {**record, "states": {"3": last}}
    assert json.loads((folder.path / "run.json").read_text())["content"]["state"] == last
