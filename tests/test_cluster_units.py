"""What is decided without any worker: how many there are, which tasks come first, how much work each is."""

from dataclasses import replace

import pytest
import torch
from clusters import Noted
from conftest import tiny_spec

from rkdkit import attacks, data, executors, methods, progress, runs, runtime
from rkdkit.cluster import workers
from rkdkit.cluster.workers import how_many, in_turn, without_modules
from rkdkit.measurements import CorrectPredictions
from rkdkit.modes import folded_for_inference
from rkdkit.plan import estimate
from rkdkit.plan.cost import Costs, Memory
from rkdkit.references import Images, Snapshot
from rkdkit.shares_of_batches import BatchesShare, Joined
from rkdkit.spec import Teacher
from rkdkit.store import Store
from rkdkit.tasks import Context
from rkdkit.trainings import Train
from rkdkit.workforce import Workforce, workforce_of_environment

AUTO, MUCH = Workforce("auto"), 1000 * estimate.A_SECOND


@pytest.fixture
def context(tmp_path):
    return Context(store=Store(tmp_path), device=torch.device("cpu"))


@pytest.fixture(autouse=True)
def eight_cores(monkeypatch):
    monkeypatch.setattr(workers, "cores", lambda: 8)
    monkeypatch.setattr(workers, "most_workers", lambda _=0: 100)


def independent(n, cost=MUCH):
    return {Noted(f"{i}"): cost for i in range(n)}


def chain(n):
    tasks = [Noted("0")]
    for i in range(1, n):
        tasks.append(Noted(f"{i}", (tasks[-1],)))
    return dict.fromkeys(tasks, MUCH)


@pytest.mark.parametrize(
    ("costs", "expected"),
    [
        ({}, 1),
        (independent(1), 1),
        (independent(2), 1),
        (independent(4), 4),
        (independent(30), 8),
        (chain(30), 1),
        (independent(30, 0.01 * estimate.A_SECOND), 1),
        ({**independent(30, MUCH), Noted("long"): 300 * MUCH}, 1),
        ({**independent(30, MUCH), Noted("long"): 9 * MUCH}, 8),
    ],
    ids=["nothing", "one", "two of eight cores", "four", "many", "chain", "little", "one very long", "one long"],
)
def test_auto_starts_workers_where_they_are_kept_busy(context, costs, expected):
    assert how_many(AUTO, costs, context) == expected


def test_auto_goes_by_cores_memory_and_device(context, monkeypatch):
    costs = independent(30)
    monkeypatch.setattr(workers, "most_workers", lambda _=0: 3)
    assert how_many(AUTO, costs, context) == 3
    monkeypatch.setattr(workers, "most_workers", lambda _=0: 2)
    assert how_many(AUTO, costs, context) == 1, "two workers are no faster than eight threads"
    assert how_many(AUTO, costs, Context(store=context.store, device=torch.device("cuda"))) == 1
    monkeypatch.setattr(workers, "cores", lambda: 1)
    assert how_many(AUTO, costs, context) == 1


def test_a_number_is_taken_at_its_word_but_no_more_than_there_are_tasks(context):
    assert [how_many(Workforce(3), independent(n), context) for n in (0, 1, 2, 3, 9)] == [1, 1, 2, 3, 3]
    assert how_many(Workforce(1), independent(9), context) == 1
    assert how_many(Workforce(scheduler="tcp://x:1"), independent(9), context) == 0


def test_a_worker_needs_the_memory_of_the_heaviest_training(context):
    small, large = Train(tiny_spec()), Train(tiny_spec(student="wrn-34-10"))
    of_small, of_both = workers.memory_of({small: 1.0}, context), workers.memory_of({small: 1.0, large: 1.0}, context)
    assert 0 < 20 * of_small < of_both
    assert workers.memory_of({}, context) == 0
    digits = workers.memory_of(independent(2), context)
    assert digits == 1797 * 64, "no training: the images are all it needs"


def test_a_worker_needs_the_memory_of_the_heaviest_attack(context):
    fgsm = attacks.FGSM(0.1)

    def attacked(n, student="resnet18", attack=fgsm):
        images, judges = Images("digits", n=n), (Snapshot(tiny_spec(student=student)),)
        return CorrectPredictions(images=images, judges=judges, attack=attack)

    def memory(*tasks):
        return workers.memory_of(dict.fromkeys(tasks, 1.0), context) - 1797 * 64

    assert memory(attacked(200, attack=None)) == 0
    few, more, many = (memory(attacked(n)) for n in (50, 100, 200))
    assert many - more == pytest.approx(2 * (more - few), rel=0.3), "activations, beside the network itself"
    assert memory(attacked(100, "resnet18/16"), attacked(200)) == memory(attacked(200))
    assert memory(attacked(400)) == memory(attacked(300)), "a batch has 256 images"
    with runtime.using(runtime.Settings(evaluation_batch_size=100)):
        assert memory(attacked(400)) == memory(attacked(100))
    trained = Train(tiny_spec())
    assert memory(trained, attacked(200)) == memory(attacked(200)) > memory(trained)


def test_the_memory_of_an_attack_is_that_of_real_tensors():
    with Memory() as real:
        network = Costs().fresh("resnet18/4", "digits")
        x, y = torch.rand(64, 1, 8, 8), torch.zeros(64, dtype=torch.long)
        with folded_for_inference(network):
            attacks.FGSM(0.1).examples(network, x, y, torch.Generator())
    assert Costs().memory_of_attack("resnet18/4", "digits", 64) == pytest.approx(real.peak, rel=0.05)


def test_what_rests_on_a_module_is_told_from_what_does_not():
    taught = Train(tiny_spec("RSLAD", teachers=(Teacher(module="mine", digest="0" * 64, slot="T"),)))
    after = Train(tiny_spec("ARD", teachers=(Snapshot(taught.spec).as_teacher(),)))
    measured = CorrectPredictions(images=Images("digits", n=4), judges=(Snapshot(after.spec),))
    free = Train(tiny_spec())
    tasks = [taught, free, after, measured]
    assert without_modules(tasks) == [free]
    assert list(in_turn(tasks)) == [([free], False), ([taught], True), ([after, measured], False)]
    assert list(in_turn([])) == []


def test_the_longest_way_goes_first():
    teacher, lonely = Noted("teacher"), Noted("lonely")
    student = Noted("student", (teacher,))
    costs = {teacher: 1.0, lonely: 5.0, student: 6.0}
    assert estimate.urgency(costs) == {teacher: 7.0, lonely: 5.0, student: 6.0}
    assert estimate.path_lengths(costs) == {teacher: 1.0, lonely: 5.0, student: 7.0}


def test_what_chooses_an_epoch_goes_before_what_waits_for_the_choice():
    teacher, other = Train(tiny_spec("TRADES")), Train(tiny_spec("PGD-AT"))
    chosen = Snapshot(teacher.spec, chosen=False).as_teacher()
    student = Train(tiny_spec("RSLAD", teachers=(chosen,)))
    choosing, measuring = (
        CorrectPredictions(images=Images("digits", n=n), judges=(Snapshot(teacher.spec),)) for n in (4, 8)
    )
    costs = {teacher: 3.0, other: 3.0, student: 5.0, choosing: 1.0, measuring: 1.0}
    assert not student.certain
    found = estimate.urgency(costs, {choosing})
    assert found == {teacher: 9.0, other: 3.0, student: 5.0, choosing: 6.0, measuring: 1.0}
    assert estimate.urgency(costs)[choosing] == 1.0


def test_shares_of_what_chooses_an_epoch_and_what_is_left_of_it_are_as_urgent():
    teacher = Train(tiny_spec("TRADES", epochs=2))
    student = Train(tiny_spec("RSLAD", teachers=(Snapshot(teacher.spec, chosen=False).as_teacher(),)))
    first, last = (Snapshot(teacher.spec, "student", epoch) for epoch in (1, 2))
    asked = CorrectPredictions(images=Images("digits", n=8), judges=(first, last), attack=attacks.FGSM(0.1))
    left = replace(asked, judges=(last,), attacked=first)
    shares = [BatchesShare(whole=left, share=i, shares=2, batch_size=4) for i in range(2)]
    joined = Joined(whole=left, share=shares[0])
    costs = {student: 5.0, left: 1.0, **dict.fromkeys(shares, 0.5), joined: 1.0}
    urgent = {student: 5.0, left: 6.0, **dict.fromkeys(shares, 6.5), joined: 6.0}
    assert estimate.urgency(costs, {asked}) == urgent
    assert estimate.urgency(costs, {replace(asked, attack=None)}) == {**costs, **dict.fromkeys(shares, 1.5)}


@pytest.mark.parametrize("method", methods.METHODS)
def test_the_estimate_of_a_training_is_near_what_is_counted(method, monkeypatch):
    monkeypatch.setattr(estimate, "LEAST", 0.0)
    spec, known = tiny_spec(method, attack_steps=3), Costs()
    steps = spec.epochs * data.batches_per_epoch(known.n_train(spec), spec.batch_size)
    counted = known.count_step(known.kind(spec)).work * steps
    assert counted / 2.5 < estimate.training(spec, known) < counted * 2.5


def test_estimates_add_up(monkeypatch):
    monkeypatch.setattr(estimate, "LEAST", 0.0)
    known, spec = Costs(), tiny_spec(epochs=4)
    whole = estimate.work(Train(spec), known)
    assert estimate.work(Train(spec), known, finished=3) == pytest.approx(whole / 4)
    assert estimate.work(Train(tiny_spec(epochs=8)), known) == pytest.approx(2 * whole)
    one, two = (Snapshot(tiny_spec(seed=i)) for i in (0, 1))

    def judged(*judges, n=256, attack=None):
        return estimate.work(CorrectPredictions(images=Images("digits", n=n), judges=judges, attack=attack), known)

    assert judged(one, two) == pytest.approx(2 * judged(one))
    assert judged(one, n=128) == pytest.approx(judged(one) / 2)
    assert judged(one, attack=attacks.PGD(0.1, 0.1, 10)) == pytest.approx(21 * judged(one))
    assert estimate.work(Noted("unknown"), known) == estimate.A_SECOND


class Heard:
    def __init__(self):
        self.shares, self.messages = [], []

    def moved(self, share):
        self.shares.append(share)

    def said(self, message):
        self.messages.append(message)


def test_a_listener_hears_what_the_screen_would_show(context, capfd):
    heard = Heard()
    with progress.heard_by(heard):
        Train(tiny_spec(epochs=2)).do(context)
        with progress.track([1, 2], desc="two") as bar:
            assert list(bar) == [1, 2]
        progress.say("a line")
    captured = capfd.readouterr()
    assert (captured.out, captured.err) == ("", "")
    assert heard.shares == [0, 0.25, 0.5, 0.75, 1.0, 0, 0.5, 1.0]
    assert heard.messages == ["a line"]
    progress.say("on the screen")
    assert "on the screen" in capfd.readouterr().err


def test_who_answers_is_what_the_environment_says_unless_somebody_chose(monkeypatch):
    closed = []
    monkeypatch.setattr(workers.Workers, "close", lambda self: closed.append(self.workforce.workers))
    monkeypatch.setattr(runs, "_standing", None)
    assert type(runs.executor()) is executors.Here
    monkeypatch.setenv("RKDKIT_WORKERS", "2")
    found = runs.executor()
    assert isinstance(found, workers.Workers)
    assert found is runs.executor()
    assert found.workforce == Workforce(2)
    assert found.modules is executors.DEFAULT.modules, "runs.foreign_teacher puts modules there"
    with executors.using(executors.Here()) as chosen:
        assert runs.executor() is chosen
    assert closed == []
    monkeypatch.setenv("RKDKIT_WORKERS", "3")
    assert runs.executor().workforce == Workforce(3)
    assert closed == [2], "nobody would ask those workers any more"
    monkeypatch.delenv("RKDKIT_WORKERS")
    assert runs.executor() is executors.DEFAULT
    assert closed == [2, 3]


@pytest.mark.parametrize("given", [Workforce(), Workforce("3"), AUTO, Workforce(scheduler="tcp://x:1")])
def test_the_environment_of_a_notebook_says_what_the_caller_was_told(monkeypatch, given):
    for name, value in given.variables.items():
        monkeypatch.setenv(name, value)
    assert workforce_of_environment() == given
