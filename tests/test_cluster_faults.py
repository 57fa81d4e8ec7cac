"""Workers that are killed, wrong, or of another environment: nothing is lost, and what is wrong is said."""

import re
import threading
from dataclasses import dataclass

import pytest
from clusters import Noted, alive, files_of, outside, wait_until
from conftest import tiny_spec
from PIL import Image

from rkdkit import executors, runs
from rkdkit.cluster import NoClusterError, TasksFailedError, Workers
from rkdkit.cluster.connection import remote_client
from rkdkit.cluster.job import WrongWorkerError
from rkdkit.cluster.tasking import MOST_SENT
from rkdkit.determinism import one_thread
from rkdkit.store import Store
from rkdkit.trainings import Train
from rkdkit.workforce import Workforce


def training(**changes):
    return Train(tiny_spec(**{"epochs": 3, **changes}))


@pytest.fixture(scope="module")
def there(tmp_path_factory):
    """A scheduler for which one death of a worker over a task is too many."""
    root = tmp_path_factory.mktemp("there")
    few = {"DASK_DISTRIBUTED__SCHEDULER__ALLOWED_FAILURES": "0"}
    with outside(root / "dask", root / "store", 0, **few) as found:
        yield found


@pytest.fixture
def theirs(there, monkeypatch):
    """An executor whose workers are those of that scheduler; it has none yet."""
    monkeypatch.setenv("RKDKIT_STORE", str(there.store))
    executor = Workers(Workforce(scheduler_file=str(there.file)), Store(there.store))
    yield executor
    executor.close()


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


def test_another_worker_goes_on_from_the_last_finished_epoch(there, forking, theirs, gate, tmp_path):
    """Though the scheduler gives the task up: its training got on."""
    task = training(n_train=256)
    with one_thread(), executors.using(executors.Here(Store(tmp_path / "undisturbed"))):
        runs.gather([task])
    first, folder = forking.start(there, "first", **gate.given), theirs.context.store.run_folder(task.spec)
    with Asking(theirs, [task]) as asking:
        wait_until(lambda: gate.held, "it is in its second epoch")
        first.kill()
        (begun,) = folder.path.glob("student-0001.*")
        written = begun.stat().st_mtime_ns
        forking.start(there, "second")
    assert asking.error is None
    assert begun.stat().st_mtime_ns == written, "it was trained again"
    undisturbed = files_of(tmp_path / "undisturbed")
    assert {name: content for name, content in files_of(there.store).items() if name in undisturbed} == undisturbed
    assert [each["epoch"] for each in folder.read_record()["history"]] == [1, 2, 3]


def test_a_task_that_kills_every_worker_fails_and_those_that_waited_behind_it_do_not(there, forking, theirs):
    fine = [Noted(f"fine {i}") for i in range(4)]
    with Asking(theirs, [Noted("deadly"), *fine]) as asking:
        for i in range(MOST_SENT):  # mostly two are enough, if the scheduler hears that they began it
            worker = forking.start(there, f"doomed {i}")
            wait_until(lambda: not asking.going_on or not alive([worker]), "it dies, or all is over")  # noqa: B023
            if not asking.going_on:
                break
    assert isinstance(asking.error, TasksFailedError)
    assert [task.what for task in asking.error.failed] == ["deadly"]
    assert "The note 'deadly' failed: every worker that did it died, most often for lack of memory." in str(
        asking.error
    )
    assert all(task.find(theirs.context) for task in fine)


def test_a_task_whose_worker_died_right_after_it_is_done(there, forking, theirs):
    """One death is too many for this scheduler, but the answer is in the store."""
    forking.start(there, "dies late")
    with Asking(theirs, [Noted("last")]) as asking:
        pass
    assert asking.error is None
    assert len(asking.answers[0].split()) == 1


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
    ("name", "before", "words"),  # the scheduler may not know yet that the last of a name has gone
    [
        (
            "bare",
            WITHOUT_KIT,
            r"runs in an environment without rkdkit. Install the kit there as",
        ),
        (
            "other",
            OTHER_DASK,
            r"has distributed 2020.1.0, and this process has .*requirements.lock",
        ),
    ],
    ids=["without the kit", "other dask"],
)
def test_workers_of_another_environment_are_refused(there, forking, theirs, name, before, words):
    forking.start(there, name, before=before)
    wait_until(lambda: there.registered(name), "it has come")
    with Asking(theirs, [Noted("refused"), Noted("this too")]) as asking:
        pass
    assert isinstance(asking.error, NoClusterError)
    assert re.search(rf"^The worker at tcp://\S+ {words}", str(asking.error))
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
def test_a_wrong_worker_that_joins_late_is_sent_away_and_the_others_do_the_work(
    there, forking, theirs, gate, what, capfd
):
    forking.start(there, f"right beside one {what}", **gate.given)  # a scheduler may still know a name it heard before
    # of names that are a word Dask knows no duration: it takes them for long enough to be moved to an idle worker
    tasks = [training(seed=len(what)), *(Noted(f"beside{what.replace(' ', '')}{letter}") for letter in "abcdefgh")]
    with Asking(theirs, tasks) as asking:
        wait_until(lambda: gate.held, "the work has begun")
        late = forking.start(there, "late", **LATE[what])
        wait_until(lambda: not alive([late]), "it is sent away")
        assert asking.going_on
        gate.open()
    assert asking.error is None
    said = [line for line in capfd.readouterr().err.splitlines() if "Sent away" in line]
    if what == "another store":
        assert len(said) == 1
        assert re.search(
            r"Sent away: The worker late at tcp://.* in /nowhere, which is not the caller's store", said[0]
        )


def test_if_only_wrong_workers_are_left_that_is_said_and_nothing_hangs(there, forking, theirs, gate, tmp_path):
    right = forking.start(there, "right one", **gate.given)
    with Asking(theirs, [training(seed=4)]) as asking:
        wait_until(lambda: gate.held, "the work has begun")
        forking.start(there, "late one", RKDKIT_STORE=str(tmp_path))
        wait_until(lambda: there.registered("late one"), "it has come")
        right.kill()
    assert isinstance(asking.error, WrongWorkerError)
    assert str(asking.error).startswith("There is no worker left that can do the work. The worker late one at tcp://")
