"""Workers that are killed or wrong, schedulers that go away, interrupted callers: nothing is lost, nothing is left."""

import random
import re
import threading
import time
from dataclasses import dataclass

import pytest
import torch
from clusters import Noted, Nursery, alive, files_of, outside, records_of, wait_until
from conftest import tiny_spec
from PIL import Image

from rkdkit import attacks, executors, runs
from rkdkit.cluster import NoClusterError, SchedulerLostError, TasksFailedError, Workers
from rkdkit.cluster.connection import remote_client
from rkdkit.cluster.job import WrongWorkerError
from rkdkit.determinism import one_thread
from rkdkit.measurements import CorrectPredictions
from rkdkit.references import Images, Snapshot
from rkdkit.store import Store
from rkdkit.trainings import Run, Train
from rkdkit.workforce import Workforce

SOME = Images("digits", n=40)
LONG = {"epochs": 6, "n_train": 1024}


def training(method="PGD-AT", **changes):
    return Train(tiny_spec(method, **{**LONG, **changes}))


@pytest.fixture(scope="module")
def here(tmp_path_factory):
    """What one process with one thread makes of trainings that share a teacher, and of their measurements."""
    root = tmp_path_factory.mktemp("undisturbed")
    with one_thread(), executors.using(executors.Here(Store(root))):
        answers = runs.gather(shared_work())
    return files_of(root), answers[3:]


def shared_work():
    teacher = tiny_spec("TRADES", **{**LONG, "epochs": 2})
    given = {"teachers": (Snapshot(teacher).as_teacher(),), **LONG}
    specs = [tiny_spec("PGD-AT", **LONG), tiny_spec("ARD", **given), tiny_spec("ARD", **given, seed=1)]
    judged = [
        CorrectPredictions(images=SOME, judges=(each,), attack=attacks.PGD(0.1, 0.02, 20))
        for spec in specs
        for each in Run(spec, None).snapshots()
    ]
    return [*map(Train, specs), *judged]


@pytest.fixture(scope="module")
def forking():
    """What starts workers at once."""
    nursery = Nursery()
    yield nursery
    nursery.stop()


@pytest.fixture(scope="module")
def there(tmp_path_factory):
    """A scheduler for which one death of a worker over a task is too many."""
    root = tmp_path_factory.mktemp("there")
    few = {"DASK_DISTRIBUTED__SCHEDULER__ALLOWED_FAILURES": "0"}
    with outside(root / "dask", root / "store", 0, **few) as found:
        yield found


@pytest.fixture
def theirs(there, forking, monkeypatch):
    """An executor whose workers are those of that scheduler; it has none yet."""
    monkeypatch.setenv("RKDKIT_STORE", str(there.store))
    executor = Workers(Workforce(scheduler_file=str(there.file)), Store(there.store))
    yield executor
    executor.close()
    forking.end()


@dataclass
class Asking:
    """A gather in a thread of its own, so that meanwhile things can happen to its workers."""

    executor: Workers
    tasks: list

    def __enter__(self):
        self.answers, self.error = None, None
        self.thread = threading.Thread(target=self._ask)
        self.thread.start()
        return self

    def _ask(self):
        try:
            with executors.using(self.executor):
                self.answers = runs.gather(self.tasks)
        except BaseException as error:
            self.error = error

    def __exit__(self, *_):
        self.thread.join(120)
        assert not self.thread.is_alive(), "it hangs"

    @property
    def going_on(self):
        return self.thread.is_alive()


def finished_epochs(store):
    return [record["finished"] for record in records_of(store)]


def test_another_worker_goes_on_from_the_last_finished_epoch(there, forking, theirs, here):
    """Though the scheduler gives the task up: its training got on."""
    task = shared_work()[0]
    first = forking.start(there, "first")
    with Asking(theirs, [task]) as asking:
        wait_until(lambda: 2 in finished_epochs(there.store), "two epochs are trained")
        first.kill()
        files = [*there.store.glob("runs/*/student-0001.*"), *there.store.glob("runs/*/student-0002.*")]
        begun = {path: path.stat().st_mtime_ns for path in files}
        assert max(finished_epochs(there.store)) < LONG["epochs"], "it was over before"
        forking.start(there, "second")
    assert asking.error is None
    assert len(begun) == 2
    assert {path: path.stat().st_mtime_ns for path in begun} == begun, "they were trained again"
    mine = files_of(there.store)
    assert len(mine) == LONG["epochs"]
    assert mine.items() <= here[0].items()
    assert [each["epoch"] for each in records_of(there.store)[0]["history"]] == [1, 2, 3, 4, 5, 6]


def kept(store):
    """How many epochs and answers are in a store."""
    return sum(finished_epochs(store)) + len(list(store.glob("answers/*.json")))


def test_workers_killed_at_random_moments_leave_the_same_bits(forking, tmp_path, here, monkeypatch):
    """Trainings that share a teacher, and measurements, while workers die and others come."""
    monkeypatch.setenv("RKDKIT_STORE", str(tmp_path / "store"))
    chance, kills = random.Random(0), 0
    many = {"DASK_DISTRIBUTED__SCHEDULER__ALLOWED_FAILURES": "5"}
    with outside(tmp_path / "dask", tmp_path / "store", 0, **many) as found:
        for name in ("0", "1", "2"):
            forking.start(found, name)
        executor = Workers(Workforce(scheduler_file=str(found.file)), Store(tmp_path / "store"))
        with Asking(executor, shared_work()) as asking:
            wait_until(lambda: list(found.store.glob("runs/*/run.json")), "a training has begun")
            while asking.going_on and kills < 12:
                time.sleep(chance.uniform(0, 0.3))
                forking.workers.pop(chance.choice(sorted(forking.workers))).kill()
                kills += 1
                forking.start(found, f"after {kills}")
                before = kept(found.store)
                # however slow the machine is, the work gets on between two kills
                wait_until(lambda: kept(found.store) > before or not asking.going_on, "it gets on")  # noqa: B023
        executor.close()
    assert asking.error is None
    assert kills >= 10, "it was over before"
    assert files_of(found.store) == here[0]
    assert all(torch.equal(*pair) for pair in zip(asking.answers[3:], here[1], strict=True))


def test_a_task_that_kills_every_worker_fails_and_those_that_waited_behind_it_do_not(there, forking, theirs):
    fine = [Noted(f"fine {i}") for i in range(4)]
    with Asking(theirs, [Noted("deadly"), *fine]) as asking:
        for i in range(2):
            worker = forking.start(there, f"doomed {i}")
            wait_until(lambda: not asking.going_on or not alive([worker]), "it dies, or all is over")  # noqa: B023
    assert isinstance(asking.error, TasksFailedError)
    assert [task.what for task in asking.error.failed] == ["deadly"]
    assert "The note 'deadly' failed: every worker that did it died, most often for lack of memory." in str(
        asking.error
    )
    assert all(task.find(theirs.context) for task in fine)


@pytest.fixture
def folders(tmp_path):
    """Two folders of data, in which the dataset folder:mine has other images, and one in which it is not at all."""
    made = [tmp_path / name for name in ("callers", "others", "empty")]
    for i, folder in enumerate(made[:2]):
        for part in ("train", "test"):
            for label in ("a", "b"):
                (folder / "mine" / part / label).mkdir(parents=True)
                for n in range(4):
                    image = Image.new("L", (8, 8), 10 * n + i)
                    image.save(folder / "mine" / part / label / f"{n}.png")
    made[2].mkdir()
    return made


def test_workers_that_must_not_do_the_work_are_named_before_any_is_done(there, forking, theirs, folders, monkeypatch):
    callers, others, empty = map(str, folders)
    monkeypatch.setenv("RKDKIT_DATA", callers)
    wrong = {
        "other store": {"RKDKIT_STORE": empty},
        "other data": {"RKDKIT_DATA": others},
        "no data": {"RKDKIT_DATA": empty},
        "other code": {"before": "job.CODE = 'other'"},
        "two threads": {"nthreads": 2},
        "right": {},
    }
    for name, given in wrong.items():
        forking.start(there, name, **{"RKDKIT_DATA": callers, **given})
    wait_until(lambda: there.registered(*wrong), "all have come")
    task = training(dataset="folder:mine", n_train=4, n_val=2, batch_size=2, epochs=1)
    with Asking(theirs, [task, Noted("refused")]) as asking:
        pass
    assert isinstance(asking.error, WrongWorkerError)
    said = {re.match(r"The worker (.*?) at tcp://", line)[1]: line for line in str(asking.error).splitlines()}
    for name, words in {
        "other store": f"keeps its runs in {empty}, which is not the caller's store, {there.store}. Start it with RKDK",
        "other data": r"finds other data as folder:mine \(digest \w+\) than the caller \(digest \w+\). Copy the caller",
        "no data": "cannot read the data folder:mine: folder:mine was looked for in .*or set RKDKIT_DATA",
        "other code": "has another version of rkdkit's code than the caller. Start it from the same checkout, or upda",
        "two threads": "would do 2 tasks at once in one process. Start it with --nthreads 1",
    }.items():
        assert re.search(words, said.pop(name)), words
    assert not said, "each is one line"
    assert Noted("refused").find(theirs.context) is None
    assert task.find(theirs.context) is None


WITHOUT_KIT = """
from distributed import versions
found = versions._version_cached
versions._version_cached = lambda name: None if name == "rkdkit" else found(name)
for name in [name for name in sys.modules if name.startswith("rkdkit")]:
    sys.modules[name] = None
"""
OTHER_DASK = """
from distributed import versions
found = versions._version_cached
versions._version_cached = lambda name: "2020.1.0" if name == "distributed" else found(name)
"""


@pytest.mark.parametrize(
    ("before", "words"),
    [
        (WITHOUT_KIT, r"^The worker at tcp://\S+ runs in an environment without rkdkit. Install the kit there as"),
        (OTHER_DASK, r"^The worker at tcp://\S+ has distributed 2020.1.0, and this process has .*requirements.lock"),
    ],
    ids=["without the kit", "other dask"],
)
def test_workers_of_another_environment_are_refused(there, forking, theirs, before, words):
    forking.start(there, "strange", before=before)
    wait_until(lambda: there.registered("strange"), "it has come")
    with Asking(theirs, [Noted("refused"), Noted("this too")]) as asking:
        pass
    assert isinstance(asking.error, NoClusterError)
    assert re.search(words, str(asking.error))
    assert len(str(asking.error).splitlines()) == 1
    assert Noted("refused").find(theirs.context) is None


def test_so_is_a_scheduler_of_another_version(there, monkeypatch):
    found = {"client": {"packages": {"dask": "2", "distributed": "2"}}, "workers": {}}
    for name in ("dask", "distributed"):
        theirs = {"dask": "2", "distributed": "2", "rkdkit": "0", name: "1"}
        monkeypatch.setattr(
            "distributed.Client.get_versions",
            lambda *_, **__: {**found, "scheduler": {"packages": theirs}},  # noqa: B023
        )
        where = re.escape(there.address)
        with (
            pytest.raises(NoClusterError, match=f"^The scheduler at {where} has {name} 1, and this process has 2. Ins"),
            remote_client(Workforce(scheduler=there.address)),
        ):
            pass


LATE = {
    "another store": {"RKDKIT_STORE": "/nowhere"},
    "without the kit": {"before": WITHOUT_KIT},  # Dask ends it, when it cannot read its first task
}


@pytest.mark.parametrize("what", LATE)
def test_a_wrong_worker_that_joins_late_is_sent_away_and_the_others_do_the_work(there, forking, theirs, what, capfd):
    name = f"right beside one {what}"  # a scheduler may still know a killed worker by its name
    forking.start(there, name)
    wait_until(lambda: there.registered(name), "it has come")
    before = len(records_of(there.store))
    tasks = [training(seed=len(what)), *(Noted(f"beside {what} {i}") for i in range(8))]
    with Asking(theirs, tasks) as asking:
        wait_until(lambda: len(records_of(there.store)) > before, "the work has begun")
        late = forking.start(there, "late", **LATE[what])
        wait_until(lambda: not alive([late]), "it is sent away")
        assert asking.going_on, "the others went on meanwhile"
    assert asking.error is None
    said = [line for line in capfd.readouterr().err.splitlines() if "Sent away" in line]
    if what == "another store":
        assert len(said) == 1
        assert re.search(
            r"Sent away: The worker late at tcp://.* in /nowhere, which is not the caller's store", said[0]
        )


def test_if_only_wrong_workers_are_left_that_is_said_and_nothing_hangs(there, forking, theirs, tmp_path):
    right = forking.start(there, "right one")
    wait_until(lambda: there.registered("right one"), "it has come")
    with Asking(theirs, [training(seed=4), Noted("never done")]) as asking:
        wait_until(lambda: 1 in finished_epochs(there.store), "the work has begun")
        forking.start(there, "late one", RKDKIT_STORE=str(tmp_path))
        wait_until(lambda: there.registered("late one"), "it has come")
        right.kill()
    assert isinstance(asking.error, WrongWorkerError)
    assert str(asking.error).startswith("There is no worker left that can do the work. The worker late one at tcp://")


def test_a_lost_scheduler_is_said_in_one_line_and_with_another_the_work_goes_on(forking, tmp_path, monkeypatch, capfd):
    monkeypatch.setenv("RKDKIT_STORE", str(tmp_path / "store"))
    task = training()
    for _ in range(2):
        with outside(tmp_path / "dask", tmp_path / "store", 0) as found:
            forking.start(found, "only")
            executor = Workers(Workforce(scheduler=found.address), Store(tmp_path / "store"))
            with Asking(executor, [task, Noted("at the same time")]) as asking:
                if not finished_epochs(found.store):
                    wait_until(lambda: 1 in finished_epochs(found.store), "an epoch is trained")
                    found.kill("scheduler")
                    lost = time.monotonic()
            if not asking.error:
                break
            assert isinstance(asking.error, SchedulerLostError)
            assert str(asking.error).startswith("The Dask scheduler went away. What is trained is kept")
            assert len(str(asking.error).splitlines()) == 1
            assert time.monotonic() - lost < 20
            begun = max(finished_epochs(found.store))
            assert 1 <= begun < LONG["epochs"]
            first = {path: path.stat().st_mtime_ns for path in found.store.glob("runs/*/student-0001.*")}
        executor.close()
    executor.close()
    assert asking.error is None
    assert asking.answers[0].record["finished"] == LONG["epochs"]
    assert {path: path.stat().st_mtime_ns for path in first} == first, "it went on where it was"
    assert "Traceback" not in capfd.readouterr().err
