"""Tasks: what an earlier store holds is found again, every part of a question counts, and one gather does each once."""

import base64
import pickle
import shutil
from dataclasses import dataclass, replace
from typing import ClassVar

import pytest
import torch
from conftest import ROOT, run_python, tiny_spec

from rkdkit import attacks, data, evaluation, executors, methods, runs
from rkdkit.analysis.features import Similarities
from rkdkit.analysis.landscape import LossesAround
from rkdkit.measurements import CorrectPredictions, Measurement, PerImage
from rkdkit.references import Images, Snapshot
from rkdkit.spec import digest_of
from rkdkit.store import RunFolder, Store, StoreError
from rkdkit.tasks import Task
from rkdkit.trainings import Run, Train

SOME, PGD = Images("digits", n=40), attacks.PGD(0.1, 0.05, 2)


@pytest.fixture
def earlier_store(tmp_path, monkeypatch, one_block):
    """Runs and answers made by the kit as it was before there were tasks; nothing may be trained or measured."""
    del one_block
    shutil.copytree(ROOT / "tests" / "earlier_store", tmp_path / "store")
    monkeypatch.setenv("RKDKIT_STORE", str(tmp_path / "store"))
    for kind in (Train, Measurement, CorrectPredictions):
        monkeypatch.setattr(kind, "do", lambda task, _: pytest.fail(f"done again: {task}"))


@pytest.mark.usefixtures("earlier_store")
def test_what_an_earlier_store_holds_is_found_again():
    teacher = runs.ensure(tiny_spec("TRADES"))
    run = runs.ensure(tiny_spec("PeerAiD", swa_start=0))
    early = runs.ensure(tiny_spec("KD", epochs=1, teachers=(teacher.snapshot(epoch=1).as_teacher(),)))
    assert [r.spec.id for r in (teacher, run, early)] == ["409e7a7c2924011d", "af991ac1ba14ed72", "f5d314cf677ff030"]
    student, peer = run.snapshot(), run.snapshot("peer")
    assert student.load("cpu").num_classes == 10
    assert runs.correct_predictions([student, peer], SOME, PGD, student).sum(1).tolist() == [6, 3]
    assert runs.correct_predictions([early.snapshot()], SOME).sum() == 6
    assert runs.select(run, "val", PGD).epoch == 1
    assert float(runs.per_image("cross entropy", student, SOME, PGD).double().sum()) == 93.30116140842438
    assert float(runs.per_image("entropy", student, SOME).double().sum()) == 90.68833494186401
    (cosines,) = runs.gather([Similarities(images=SOME, guide=peer, student=student, attack=PGD)])
    assert cosines.double().sum(1).tolist() == [39.97555512189865, 39.88580912351608, 39.8768829703331]
    line = tuple((offset,) for offset in (-0.75, 0.0, 0.75))
    around = LossesAround(images=SOME.first(4), snapshot=student, draws=(0,), places=line, attack=PGD)
    assert float(runs.gather([around])[0].double().sum()) == pytest.approx(27.079826831817627, abs=1e-12)


def snapshots():
    run, other = Run(tiny_spec("PeerAiD"), None), Run(tiny_spec("PeerAiD", seed=1), None)
    return run.snapshot(), run.snapshot(epoch=1), run.snapshot("peer"), other.snapshot()


def other_attacks():
    """Attacks that differ from `PGD` in one thing each."""
    changes = ({"eps": 0.2}, {"step_size": 0.01}, {"steps": 3}, {"start": "none"}, {"restarts": 2})
    yield from (replace(PGD, **change) for change in (*changes, {"loss": "margin"}, {"iterate": "any"}))
    yield attacks.FGSM(0.1)


OTHER_IMAGES = (
    SOME.first(39),
    Images("digits", "train", n=40),
    Images("digits", "train", n=40, n_train=64, n_val=32),
    Images("digits", "val", n=38, n_val=64),
    Images("digits", n=40, classes=("3", "8")),
    Images("digits:3,8", n=40),
)


def questions():
    """Each kind of measurement, and the same with one thing changed in each way."""
    student, early, peer, other = snapshots()
    correct = CorrectPredictions(images=SOME, judges=(peer,), attack=PGD, attacked=student)
    yield (
        "correct",
        correct,
        [
            *(replace(correct, judges=(judge,)) for judge in (student, early, other)),
            *(replace(correct, attacked=attacked) for attacked in (early, peer, other)),
            *(replace(correct, attack=attack) for attack in (None, *other_attacks())),
        ],
    )
    entropy = PerImage(images=SOME, quantity="entropy", snapshot=student, attack=PGD)
    yield (
        "per image",
        entropy,
        [
            replace(entropy, quantity="cross entropy"),
            *(replace(entropy, snapshot=snapshot) for snapshot in (early, peer, other)),
            *(replace(entropy, attack=attack) for attack in (None, *other_attacks())),
        ],
    )
    alike = Similarities(images=SOME, guide=peer, student=student, attack=PGD)
    yield (
        "similarities",
        alike,
        [
            *(replace(alike, guide=guide) for guide in (student, early, other)),
            *(replace(alike, student=snapshot) for snapshot in (peer, early, other)),
            *(replace(alike, attack=attack) for attack in other_attacks()),
        ],
    )
    around = LossesAround(images=SOME, snapshot=student, draws=(0,), places=((0.0,), (0.5,)), attack=PGD)
    yield (
        "losses around",
        around,
        [
            *(replace(around, snapshot=snapshot) for snapshot in (early, peer, other)),
            replace(around, draws=(1,)),
            replace(around, places=((0.0,), (0.25,))),
            *(replace(around, attack=attack) for attack in other_attacks()),
        ],
    )


@pytest.mark.parametrize(("task", "others"), [p[1:] for p in questions()], ids=[p[0] for p in questions()])
def test_whatever_is_part_of_a_question_makes_it_another(task, others):
    """In the name, which is made of specifications, and in the key, which is made of digests."""

    def key(asked):
        return digest_of(asked.question(lambda s: f"{s.role} {s.epoch} {s.spec.seed}", asked.images.split()))

    every = [task, *others, *(replace(task, images=images) for images in OTHER_IMAGES)]
    assert len({asked.name for asked in every}) == len({key(asked) for asked in every}) == len(every)
    assert (task.name, key(task)) == (replace(task).name, key(replace(task)))


@pytest.mark.usefixtures("store")
def test_answers_on_other_images_of_the_same_number_are_others(digits):
    """A question that did not say which images would be answered by what was measured before."""
    run = runs.ensure(tiny_spec("PeerAiD", n_train=512))
    student, attack = run.snapshot(), attacks.FGSM(0.05)
    train, val = digits.split_validation(512, 32)
    for split, images in (
        (digits.test, Images("digits", n=32)),
        (train, Images("digits", "train", n=32, n_train=512, n_val=32)),
        (val, Images("digits", "val", n_train=512, n_val=32)),
    ):
        network, first = student.load(), split.take(slice(0, 32))
        expected = evaluation.correct_predictions([network], first.images, first.labels, attack)
        assert torch.equal(runs.correct_predictions([student], images, attack), expected)
        by_hand = evaluation.per_image("cross entropy", network, first.images, first.labels, attack)
        assert torch.equal(runs.per_image("cross entropy", student, images, attack), by_hand)


def test_images_are_those_that_their_reference_says(digits):
    train, val = digits.split_validation(500, 100)
    for images, expected in (
        (Images("digits", n=20), digits.test.take(slice(0, 20))),
        (Images("digits", "train", n_train=500, n_val=100), train),
        (Images("digits", "train", n=7, n_train=500, n_val=100), train.take(slice(0, 7))),
        (Images("digits", "val", n_train=500, n_val=100), val),
    ):
        assert torch.equal(images.split().images, expected.images)
        assert torch.equal(images.split().labels, expected.labels)
    some = Images("digits", n=50, classes=("3", "8")).split()
    kept = [i for i, label in enumerate(digits.test.labels[:50].tolist()) if label in (3, 8)]
    assert torch.equal(some.images, digits.test.images[kept])
    assert set(some.labels.tolist()) == {3, 8}
    assert Images("digits", n=50).first(10) == Images("digits", n=10) == Images("digits", n=10).first(50)
    assert Images("digits").first(None) == Images("digits")


def test_images_are_hashed_once():
    """CIFAR-10's test images take 17 ms to hash, and there are thousands of questions."""
    for images in (Images("digits"), Images("digits", n=30), Images("digits", "val", n_val=30)):
        assert images.split() is images.split()
    test = data.load("digits").test
    assert test.take(slice(0, None)) is test is Images("digits").split()


@dataclass(frozen=True)
class Noted(Task):
    """A task that notes when it is done, after those it needs."""

    what: str
    needs: tuple["Noted", ...] = ()
    done: ClassVar[list[str]] = []

    name, specs = property(lambda self: self.what), ()

    def inputs(self):
        return self.needs

    def find(self, context):
        path = context.store.root / self.what
        return path.read_text() if path.exists() else None

    def do(self, context):
        assert all(task.find(context) for task in self.needs), "its inputs are there"
        self.done.append(self.what)
        context.store.root.mkdir(exist_ok=True)
        (context.store.root / self.what).write_text(self.what.upper())

    def placeholder(self):
        return "?"


def test_what_is_missing_is_done_once_after_what_it_needs(tmp_path):
    Noted.done.clear()
    teacher = Noted("teacher")
    first, second = Noted("first", (teacher,)), Noted("second", (teacher, Noted("first", (teacher,))))
    with executors.using(executors.Here(Store(tmp_path / "store"))):
        assert runs.gather([second, first, second]) == ["SECOND", "FIRST", "SECOND"]
        assert Noted.done == ["teacher", "first", "second"]
        assert runs.answers({"a": first, "b": second}) == {"a": "FIRST", "b": "SECOND"}
        assert len(Noted.done) == 3, "what is found is not done"


def test_an_exhibit_rests_on_what_was_asked_for(tmp_path):
    chosen, measured, both = Noted("chosen"), Noted("measured"), Noted("both")
    with executors.using(executors.Here(Store(tmp_path / "store"))) as executor:
        executor.gather([Noted("before")])
        asked = executor.listen()
        executor.gather([chosen, both], deciding=True)
        executor.gather([measured, both])
        executor.gather([measured], deciding=True)
    assert list(asked.tasks) == [chosen, both, measured]
    assert asked.deciding == {chosen}


def test_the_executor_is_one_for_a_context():
    outer = executors.current()
    with executors.using(executors.Here()) as inner:
        assert executors.current() is inner is not outer
    assert executors.current() is outer


class Unknown(executors.Here):
    """Knows no answer."""

    def answer_all(self, tasks, what):
        del what
        return {task: executors.Answer(task.placeholder(), known=False) for task in tasks}


def test_a_choice_that_rests_on_a_placeholder_is_not_certain_nor_is_what_rests_on_it():
    teacher = Run(tiny_spec("TRADES", epochs=3), None)
    with executors.using(Unknown()):
        chosen = runs.select(teacher, "val", PGD)
        simply_the_last = runs.select(teacher, "last", PGD)
    assert (chosen, chosen.certain, simply_the_last.certain) == (teacher.snapshot(epoch=3), False, True)
    student = tiny_spec("ARD", teachers=(chosen.as_teacher(),))
    of_student = tiny_spec("KD", teachers=(Snapshot(student).as_teacher(),))
    certain = tiny_spec("ARD", teachers=(simply_the_last.as_teacher(),))
    assert not any((student.certain, of_student.certain, Train(student).certain, Snapshot(of_student).certain))
    assert not PerImage(images=SOME, quantity="entropy", snapshot=Snapshot(of_student)).certain
    assert certain.certain
    assert (certain, certain.id, certain.to_json()) == (student, student.id, student.to_json()), "and nobody else sees"


UNPICKLED = """
import base64, pickle, sys
from rkdkit import methods
assert "mine" not in methods.METHODS
for task in pickle.loads(base64.b64decode(sys.argv[1])):
    print(task.name, [spec.id for spec in task.specs], len(task.inputs()))
"""


def test_tasks_can_be_pickled_and_take_their_methods_along(store, monkeypatch):
    monkeypatch.setitem(methods.METHODS, "mine", replace(methods.get("PGD-AT"), title="Mine"))
    teacher = replace(tiny_spec("PGD-AT"), method="mine")
    student = tiny_spec("ARD", teachers=(Snapshot(teacher).as_teacher(),))
    snapshot = Snapshot(student)
    tasks = [Train(student), CorrectPredictions(images=SOME, judges=(snapshot, Snapshot(teacher)), attack=PGD)]
    tasks += [each for _, each, _ in questions()]
    assert pickle.loads(pickle.dumps(tasks)) == tasks
    text = base64.b64encode(pickle.dumps(tasks)).decode()
    process = run_python(UNPICKLED.replace("sys.argv[1]", repr(text)), store.root)
    out, err = process.communicate(timeout=300)
    assert process.returncode == 0, err
    expected = [f"{t.name} {[spec.id for spec in t.specs]} {len(t.inputs())}" for t in tasks]
    assert out.splitlines() == expected
    monkeypatch.setitem(methods.METHODS, "mine", replace(methods.get("TRADES"), title="Mine"))
    with pytest.raises(ValueError, match="method 'mine' here differs from the one this task was made with"):
        pickle.loads(base64.b64decode(text))


def test_a_snapshot_that_a_run_does_not_keep_is_refused():
    spec = tiny_spec("PGD-AT", epochs=5, snapshot_every=2)
    with pytest.raises(ValueError, match="no snapshot of its student at epoch 3; it has them at 2, 4, 5"):
        Snapshot(spec, epoch=3)
    with pytest.raises(ValueError, match="Unknown network of PGD-AT"):
        Snapshot(spec, "peer")
    with pytest.raises(ValueError, match=r"Unknown part of the data 'tset'. Did you mean 'test'"):
        Images("digits", "tset")
    with pytest.raises(ValueError, match="Unknown class of digits 'ten'"):
        Images("digits", classes=("ten",)).split()
    assert data.PARTS == ("test", "train", "val")


def test_sizes_that_do_not_fit_are_refused_before_a_teacher_is_trained(store):
    teacher = tiny_spec("TRADES")
    student = tiny_spec("ARD", n_train=10**6, teachers=(Snapshot(teacher).as_teacher(),))
    for task in (Train(student), PerImage(images=SOME, quantity="entropy", snapshot=Snapshot(student))):
        with pytest.raises(ValueError, match="digits has 1,300 training images"):
            runs.gather([task])
    assert not store.root.exists()


def test_a_network_that_is_not_trained_is_said_to_be_so(store):
    snapshot = Snapshot(tiny_spec())
    with pytest.raises(StoreError, match=r"not trained yet: call runs\.ensure"):
        snapshot.load()
    with pytest.raises(StoreError, match=r"is not trained: call runs\.ensure"):
        _ = Run(tiny_spec(), None).record
    assert not store.root.exists()


def test_a_finished_runs_record_is_read_once_for_all_its_epochs(store, monkeypatch):
    run = runs.ensure(tiny_spec(epochs=3, n_train=64))
    reads, read = [], RunFolder.read_record
    monkeypatch.setattr(RunFolder, "read_record", lambda folder: (reads.append(folder.path), read(folder))[1])
    attack = attacks.FGSM(0.1)
    tasks = [CorrectPredictions(images=SOME, judges=(each,), attack=attack) for each in run.snapshots()]
    runs.gather(tasks)
    assert reads == [store.run_folder(run.spec).path]


def test_of_equal_runs_each_stays_as_certain_as_it_was():
    teacher = tiny_spec("TRADES", epochs=3)
    sure, unsure = (
        tiny_spec("ARD", teachers=(Snapshot(teacher, chosen=chosen).as_teacher(),)) for chosen in (True, False)
    )
    with executors.using(Unknown()):
        for first, second in ((sure, unsure), (unsure, sure)):
            groups = runs.ensure_all([first], [second])
            assert [run.spec.certain for (run,) in groups] == [first.certain, second.certain]
