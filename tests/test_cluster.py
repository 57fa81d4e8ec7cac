"""Work done by workers: the same bits whoever does it, what travels with a task, what fails alone, what is refused."""

import io
import re
import shutil
import threading
from dataclasses import replace

import psutil
import pytest
import torch
from clusters import Noted, files_of, outside, records_of, wait_until
from conftest import OneBlock, tiny_spec

from rkdkit import attacks, determinism, executors, methods, runs
from rkdkit.cluster import TasksFailedError, Workers
from rkdkit.measurements import CorrectPredictions, PerImage
from rkdkit.references import Images, Snapshot
from rkdkit.store import Store, StoreError
from rkdkit.training import DivergedError
from rkdkit.trainings import Run, Train
from rkdkit.workforce import Workforce

SOME, FGSM = Images("digits", n=40), attacks.FGSM(0.1)


def some_work():
    """Trainings of which one rests on another, and measurements of both."""
    teacher = tiny_spec("TRADES", epochs=1)
    specs = [tiny_spec(), tiny_spec("PeerAiD", swa_start=1), tiny_spec("ARD"), tiny_spec("RSLAD", seed=1)]
    snapshots = [Run(spec, None).snapshot() for spec in (teacher, *specs)]
    judged = [CorrectPredictions(images=SOME, judges=(each,), attack=FGSM) for each in snapshots]
    return [*map(Train, specs), *judged, PerImage(images=SOME, quantity="entropy", snapshot=snapshots[0])]


def done_by(executor, tasks):
    """Let an executor do tasks; return the answers that are no runs."""
    with executors.using(executor):
        return [answer for answer in runs.gather(tasks) if not isinstance(answer, Run)]


@pytest.fixture
def one_thread():
    with determinism.one_thread():
        yield


@pytest.fixture(scope="module")
def there(tmp_path_factory):
    """A scheduler and two workers that nobody of ours started; one death of a worker over a task is too many."""
    root = tmp_path_factory.mktemp("there")
    few = {"DASK_DISTRIBUTED__SCHEDULER__ALLOWED_FAILURES": "0"}
    with outside(root / "dask", root / "store", 2, **few) as found:
        yield found


@pytest.fixture
def theirs(there, monkeypatch):
    """An executor whose workers are those."""
    monkeypatch.setenv("RKDKIT_STORE", str(there.store))
    executor = Workers(Workforce(scheduler_file=str(there.file)), Store(there.store))
    yield executor
    executor.close()


@pytest.fixture(scope="module")
def undisturbed(tmp_path_factory):
    """What one process with one thread makes of the work: its answers and files."""
    root = tmp_path_factory.mktemp("undisturbed")
    with determinism.one_thread():
        answers = done_by(executors.Here(Store(root)), some_work())
    return answers, files_of(root)


def holds_the_same(store, undisturbed):
    assert files_of(store) == undisturbed[1]
    assert {each["device"] for record in records_of(store) for each in record["environments"]} == {"cpu, 1 threads"}
    assert not list((store / "marks").iterdir()), "no caller's mark is left"


def test_workers_of_a_scheduler_that_is_there_make_the_same_bits(theirs, there, undisturbed):
    for mine, before in zip(done_by(theirs, some_work()), undisturbed[0], strict=True):
        assert torch.equal(mine, before)
    theirs.close()
    holds_the_same(there.store, undisturbed)


def test_a_row_that_only_the_caller_knows_travels_with_its_task(theirs, monkeypatch):
    monkeypatch.setitem(methods.METHODS, "travelling", replace(methods.get("PGD-AT"), title="Mine"))
    teacher = replace(tiny_spec(), method="travelling")
    student = tiny_spec("ARD", teachers=(Snapshot(teacher).as_teacher(),))
    with executors.using(theirs):
        (trained,) = runs.ensure_all([student])
    assert trained[0].record["finished"] == 2
    monkeypatch.setitem(methods.METHODS, "travelling", replace(methods.get("PGD-AT"), title="Mine", eps_factor=0.5))
    with pytest.raises(TasksFailedError, match="'travelling' here differs from the one this task was made with"):
        done_by(theirs, [Train(replace(teacher, seed=1))])


def test_what_a_module_from_elsewhere_teaches_is_trained_here_and_what_rests_on_it_by_workers(theirs, monkeypatch):
    do, here = Train.do, []
    monkeypatch.setattr(Train, "do", lambda task, context: (here.append(task.spec), do(task, context)))
    torch.manual_seed(0)
    with executors.using(theirs):
        module = OneBlock(10, (0.5,), (0.25,))
        taught = tiny_spec("RSLAD", teachers=(runs.foreign_teacher(module, "mine"),), epochs=1)
        after = tiny_spec("ARD", teachers=(Snapshot(taught).as_teacher(),), epochs=1)
        beside = tiny_spec(seed=7, epochs=1)
        (found,) = runs.ensure_all([taught, after, beside])
        hits = runs.correct_predictions([each.snapshot() for each in found], SOME)
    assert here == [taught]
    assert [each.record["finished"] for each in found] == [1, 1, 1]
    assert hits.shape == (3, 40)


def test_a_task_fails_alone(theirs):
    """All that does not rest on it is done; the message says what it was and what it prevents."""
    bad = tiny_spec("Natural", lr=1e18, n_train=256, seed=8)
    student = tiny_spec("ARD", teachers=(Snapshot(bad).as_teacher(),), epochs=1)
    lost = [CorrectPredictions(images=SOME, judges=(Snapshot(each),)) for each in (bad, student)]
    fine = [
        Train(tiny_spec(seed=8, epochs=1)),
        CorrectPredictions(images=SOME, judges=(Run(tiny_spec(seed=8, epochs=1), None).snapshot(),)),
    ]
    with pytest.raises(TasksFailedError) as raised:
        done_by(theirs, [*lost, Train(student), *fine])
    assert list(raised.value.failed) == [Train(bad)]
    assert isinstance(raised.value.failed[Train(bad)], DivergedError)
    assert set(raised.value.prevented) == {*lost, Train(student)}
    said = str(raised.value)
    assert re.search(
        r"^The training of Natural resnet18/16 on digits, seed 8 failed: DivergedError: The .* in epoch 1", said
    )
    (without,) = re.findall(r"^  Without it there is no (.*)\.$", said, re.MULTILINE)
    assert set(without.split("; no ")) == set(map(str, raised.value.prevented))
    assert said.endswith("Everything else is done and kept in the store.")
    context = theirs.context
    assert all(task.find(context) is not None for task in fine)
    with pytest.raises(TasksFailedError):
        done_by(theirs, [lost[0]])
    assert len(done_by(theirs, fine)) == 1, "and it goes on with the same workers"


def test_what_went_wrong_is_said_so_that_one_knows_what_to_do(theirs, capfd):
    tasks = {name: Noted(name) for name in ("memory", "allocator", "wrong", "fine")}
    with pytest.raises(TasksFailedError) as raised:
        done_by(theirs, tasks.values())
    lines = {task.what: line for task, line in zip(raised.value.failed, str(raised.value).splitlines(), strict=False)}
    assert set(lines) == {"memory", "allocator", "wrong"}
    for what in ("memory", "allocator"):
        assert lines[what].startswith(f"The note '{what}' failed: a worker ran out of memory. Give fewer workers.")
    assert "DefaultCPUAllocator" in lines["allocator"]
    assert lines["wrong"] == "The note 'wrong' failed: ValueError: it cannot be"
    shown = capfd.readouterr().err
    assert "failed: note 'wrong': ValueError: it cannot be" in shown
    assert "Traceback" not in shown


def test_each_task_is_done_once_and_after_what_it_needs(theirs, there):
    first = [Noted(f"first {i}") for i in range(20)]
    second = [Noted(f"second {i}", (first[i], first[i - 1])) for i in range(20)]
    answers = done_by(theirs, [*second, *first, *second])
    assert len(answers) == 60
    assert all(len(answer.split()) == 1 for answer in answers), "some were done twice"
    workers = {there.processes[name].pid for name in ("0", "1")}
    assert {int(pid) for answer in answers for pid in answer.split()} == workers


def test_after_a_failure_what_a_module_teaches_is_done_all_the_same(theirs):
    bad = tiny_spec("Natural", lr=1e18, n_train=256, seed=41)
    torch.manual_seed(0)
    with executors.using(theirs):
        half = runs.foreign_teacher(OneBlock(10, (0.5,), (0.25,)), "half", weight=0.5)
        mine = replace(half, weight=1.0)
    resting = tiny_spec("RSLAD", teachers=(half, Snapshot(bad).as_teacher(weight=0.5)), epochs=1, seed=41)
    after = tiny_spec("ARD", teachers=(Snapshot(resting).as_teacher(),), epochs=1, seed=41)
    free = tiny_spec("RSLAD", teachers=(mine,), epochs=1, seed=41)
    with pytest.raises(TasksFailedError) as error:
        done_by(theirs, [Train(spec) for spec in (bad, resting, after, free)])
    assert [task.spec for task in error.value.failed] == [bad]
    assert {task.spec for task in error.value.prevented} == {resting, after}
    assert theirs.context.record(free)["finished"] == 1


def test_a_run_whose_folder_was_deleted_is_trained_again(theirs, there):
    """Workers know it as finished, and so did the caller."""
    task = Train(tiny_spec(seed=40, epochs=1))
    measured = PerImage(images=Images("digits", n=4), quantity="entropy", snapshot=Snapshot(task.spec))
    (before,) = done_by(theirs, [measured])
    shutil.rmtree(theirs.context.store.run_folder(task.spec).path)
    for answer in there.store.glob("answers/*.json"):
        answer.unlink()
    assert torch.equal(done_by(theirs, [measured])[0], before)


def test_a_result_that_went_with_its_worker_is_in_the_store_all_the_same(theirs, monkeypatch):
    """A future is "lost" if its worker dies after the task."""
    from distributed import Future

    finished = Future.status.fget
    monkeypatch.setattr(
        Future, "status", property(lambda future: "lost" if (found := finished(future)) == "finished" else found)
    )
    first, second = Noted("lost first"), Noted("lost second", (Noted("lost first"),))
    assert len(done_by(theirs, [first, second])) == 2


def test_an_answer_that_is_never_seen_is_named(theirs, monkeypatch):
    monkeypatch.setattr("rkdkit.cluster.workers.await_answer", lambda *_: False)
    with pytest.raises(StoreError, match=r"A worker did the .*, but .* does not show it here"):
        done_by(theirs, [Noted("unseen first"), Noted("unseen second")])


def test_one_bar_shows_all_work_and_what_each_worker_is_at(theirs, monkeypatch):
    from tqdm import tqdm

    shown = []

    class Noting(tqdm):
        def refresh(self, *_, **__):
            shown.append((self.n, self.total, self.postfix))

    monkeypatch.setattr(
        "rkdkit.cluster.tasking.track",
        lambda **settings: Noting(**{**settings, "disable": False, "file": io.StringIO()}),
    )
    specs = [tiny_spec(seed=20 + i, n_train=512, epochs=4) for i in range(3)]
    done_by(theirs, [Train(spec) for spec in specs])
    shares = [n / total for n, total, _ in shown]
    assert shares == sorted(shares)
    assert shares[-1] == pytest.approx(1.0)
    assert any(0 < share < 1 for share in shares)
    assert {total for _, total, _ in shown} == {shown[0][1]}
    said = [postfix for _, _, postfix in shown if postfix]
    assert any(re.fullmatch(r"PGD-AT resnet18/16 \d+% \| PGD-AT resnet18/16 \d+%", each) for each in said), said
    assert all(len(each.split(" | ")) <= 2 for each in said), "there are two workers"


def test_four_workers_that_are_started_here_make_the_same_bits_though_two_are_killed(tmp_path, undisturbed):
    """A local worker that dies is started again. None is told to give memory back at once, as Dask's are by default."""
    executor = Workers(Workforce(4), Store(tmp_path / "store"))
    killed, told, before = [], [], psutil.Process().children()

    def kill():
        wait_until(lambda: list((tmp_path / "store").glob("runs/*/run.json")), "a training has begun")
        started = [
            each
            for each in psutil.Process().children()
            if each not in before and re.search("spawn_main|dask worker", " ".join(each.cmdline()))
        ]
        told.extend("MALLOC_TRIM_THRESHOLD_" in each.environ() for each in started)
        killed.extend(started[:2])
        for worker in killed:
            worker.kill()

    thread = threading.Thread(target=kill)
    thread.start()
    done_by(executor, some_work())
    thread.join()
    executor.close()
    assert len(killed) == 2
    assert told
    assert not any(told)
    holds_the_same(tmp_path / "store", undisturbed)
