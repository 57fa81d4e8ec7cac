"""Hand tasks to workers, wait for them, show what they are at, and say what failed."""

import contextlib
import itertools
import math
import queue
import time
from collections import Counter
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import replace
from typing import Any

from rkdkit import runtime
from rkdkit.cluster import job
from rkdkit.cluster.connection import local_client, remote_client
from rkdkit.cluster.failures import SchedulerLostError, TasksFailedError, closure, explained, gone, why_wrong
from rkdkit.plan import estimate
from rkdkit.progress import say, track
from rkdkit.shares_of_batches import Joined, Share
from rkdkit.tasks import Context, Task
from rkdkit.trainings import Train
from rkdkit.workforce import Workforce

LONG = 10.0
"""Seconds from which on a finished measurement is told with a line of its own; a training always is."""

MOST_SENT = 10
"""How often a task is handed out at most, if workers always die before they begin it, or must not do it."""

EVERY = 0.3
"""Seconds after which progress is shown anew."""

SHOWN = 6
"""How many workers the progress bar names at most."""


@contextmanager
def opened(workforce: Workforce, workers: int, context: Context, device: str = "") -> "Iterator[Cluster]":
    """Start workers or connect to a cluster, for as long as the ``with`` block lasts.

    Parameters
    ----------
    workforce : where the workers are.
    workers : how many to start, if they are started here.
    context : the caller's: its store is the workers' store.
    device : the device on which workers do tasks; "": each worker's default.

    Raises
    ------
    NoClusterError
        As `connection.remote_client`.
    StoreError
        If the store cannot be written to.
    """
    client_of = remote_client(workforce) if workforce.remote else local_client(workers, context.store.root)
    with context.store.mark() as mark, client_of as client:
        cluster = Cluster(client, context, mark, device)
        try:
            yield cluster
        finally:
            cluster.close()


class Cluster:
    """Workers that do tasks.

    Parameters
    ----------
    client : a `distributed.Client`.
    context : the caller's.
    mark : the name of the caller's mark in its store.
    device : as :func:`opened`.

    Attributes
    ----------
    failed : the tasks that failed, and with what.
    prevented : the tasks that could not be done because another failed.
    """

    def __init__(self, client: Any, context: Context, mark: str, device: str = "") -> None:
        self.client, self.context = client, context
        self.failed: dict[Task, BaseException] = {}
        self.prevented: list[Task] = []
        self._expected = job.Expected(job.CODE, mark, str(context.store.root.resolve()), device=device)
        self._checked: set[str] = set()
        self._futures: dict[Task, Any] = {}
        self._finished: queue.SimpleQueue[tuple[Task, Any]] = queue.SimpleQueue()
        self._reports: queue.SimpleQueue[dict[str, Any]] = queue.SimpleQueue()
        self._costs: dict[Task, float] = {}
        self._epochs: dict[Task, int] = {}
        self._urgency: dict[Task, float] = {}
        self._sent: Counter[Task] = Counter()
        self._numbers = itertools.count()  # what is handed out again is another task to Dask
        self._work_done = 0.0
        self._begun: Counter[str] = Counter()  # by a task's name
        self._by_name: dict[str, Task] = {}
        self._at: dict[str, tuple[str, float]] = {}  # a worker's name -> its task's name, and the share that is done
        client.subscribe_topic(self._expected.topic, lambda event: self._reports.put(event[1]))

    @property
    def workers(self) -> int:
        """How many workers there are now."""
        return len(self.client.scheduler_info(n_workers=-1)["workers"])

    @property
    def alive(self) -> bool:
        """Whether its scheduler still answers."""
        return bool(self.client.status == "running")

    @property
    def dashboard(self) -> str:
        """The address of Dask's dashboard; "": there is none."""
        return str(self.client.dashboard_link or "")

    def grow(self, workers: int) -> None:
        """Start more workers on this machine, until there are so many."""
        self.client.cluster.scale(workers)
        self.client.wait_for_workers(workers)

    @property
    def pending(self) -> list[Task]:
        """The tasks that were handed out and are not finished."""
        return list(self._futures)

    def submit(self, tasks: Iterable[Task], costs: Mapping[Task, float], deciding: Collection[Task] = ()) -> None:
        """Hand out tasks; what a task needs must be handed out before it, or be in the store.

        Parameters
        ----------
        tasks : those that were handed out before are left out.
        costs : how much work each is, and each that will be handed out later, as far as it is known. What takes
            longest, with all that waits for it, is begun first.
        deciding : those that choose epochs: tasks that are not certain wait for them.

        Raises
        ------
        WrongWorkerError
            If a worker sees another store, other data or other code than the caller; the message names each of them.
        SchedulerLostError
            If the scheduler went away.
        DamagedFileError
            If what is kept of a measurement in shares is damaged.
        """
        self._check_scheduler()
        new = [task for task in dict.fromkeys(tasks) if task not in self._costs]
        self._check_workers(new)
        self._costs.update((task, costs[task]) for task in new)
        self._urgency.update(estimate.urgency(costs, deciding))
        for task in new:
            if isinstance(task, Joined):
                task.share.forget(self.context, of_others=True)
        for task in new:
            self._by_name[task.name] = task
            self._epochs[task] = self._finished_epochs(task)
            broken = [needed for needed in task.inputs() if needed in self.failed or needed in self.prevented]
            if broken:
                self._work_done += costs[task]
                self.prevented.append(task)
            else:
                self._send(task)

    def wait(
        self, most: int = 0, seconds: float = math.inf, on_progress: Callable[[], object] = lambda: None
    ) -> list[Task]:
        """Wait until at least one more task is finished, and then for more; return those that are done.

        Parameters
        ----------
        most : wait until no more than so many tasks are left,
        seconds : or so much time is over.
        on_progress : called every `EVERY` seconds or more seldom.

        Raises
        ------
        SchedulerLostError
            If the scheduler goes away.
        WrongWorkerError
            If no worker is left that sees the caller's store, data and code.
        """
        began, drawn = time.monotonic(), 0.0
        before, any_finished = list(self._futures), False
        while self._futures:
            with contextlib.suppress(queue.Empty):
                self._finish(*self._finished.get(timeout=EVERY))
                any_finished = True
            if time.monotonic() - drawn > EVERY:
                self._hear()
                on_progress()
                self._check_scheduler()
                drawn = time.monotonic()
            enough = len(self._futures) <= most or time.monotonic() - began > seconds
            if any_finished and enough and self._finished.empty():
                break
        self._hear()
        return [task for task in before if not (task in self._futures or task in self.failed or task in self.prevented)]

    def work_done(self) -> float:
        """Return how much of the work that was handed out is done, in the unit of its costs."""
        running = {self._by_name[name]: share for name, share in self._at.values() if name in self._by_name}
        return self._work_done + sum(
            self._costs[task] * share for task, share in running.items() if task in self._futures
        )

    @property
    def work(self) -> float:
        """How much work was handed out, in the unit of its costs."""
        return sum(self._costs.values())

    def described(self) -> str:
        """Say what each worker is at."""
        at = [
            f"{self._short(self._by_name[name])} {share:.0%}"
            for name, share in self._at.values()
            if self._by_name.get(name) in self._futures
        ]
        more = f" and {len(at) - SHOWN} more" if len(at) > SHOWN else ""
        return " | ".join(at[:SHOWN]) + more if at else "waiting for workers" if not self.workers else ""

    def trained_now(self) -> list[Train]:
        """Return the trainings that workers are at."""
        self._hear()
        tasks = [self._by_name.get(name) for name, _ in self._at.values()]
        return [task for task in tasks if isinstance(task, Train) and task in self._futures]

    def begin(self, context: Context) -> None:
        """Forget the tasks that are finished or failed: what is handed out again is done again.

        Parameters
        ----------
        context : the caller's, from now on: an older one remembers runs that may be deleted meanwhile.
        """
        self.context, self._work_done = context, 0.0
        known = (self._costs, self._urgency, self._by_name, self._at, self._epochs, self._begun, self._sent)
        for each in (self.failed, self.prevented, *known):
            each.clear()

    def close(self) -> None:
        """Take back what is not finished."""
        futures, self._futures = list(self._futures.values()), {}
        if futures and self.alive:
            self.client.cancel(futures, force=True)

    @property
    def failure(self) -> TasksFailedError | None:
        """What failed, if anything did."""
        return TasksFailedError(dict(self.failed), list(self.prevented)) if self.failed else None

    def _check_workers(self, tasks: Sequence[Task]) -> None:
        """Let every worker check itself before anything is done; one that comes later does so before its first task."""
        new = {name for task in tasks for name in task.datasets} - self._checked
        if new or not self._checked:
            self._checked |= new
            if wrong := self._wrong_workers():
                raise job.WrongWorkerError("\n".join(why_wrong(*each) for each in wrong.items()))

    def _wrong_workers(self) -> dict[str, Exception]:
        """Return what those workers say that must not do the caller's tasks, by address."""
        try:
            said = self.client.run(job.check, self._expecting(sorted(self._checked)), on_error="return")
        except OSError as error:
            raise SchedulerLostError() from error
        # a worker that dies meanwhile is no longer asked
        return {at: error for at, error in said.items() if isinstance(error, Exception) and not gone(error)}

    def _expecting(self, names: Sequence[str]) -> job.Expected:
        return replace(self._expected, data={name: self.context.load(name).digest for name in names})

    def _send(self, task: Task) -> None:
        from distributed.protocol.pickle import dumps

        self._sent[task] += 1
        needed = [self._futures[each] for each in task.inputs() if each in self._futures]
        future = self.client.submit(
            job.do,
            dumps(task),  # type: ignore[no-untyped-call]
            self._expecting(task.datasets),
            runtime.current(),
            *needed,
            key=f"{task.name}-{self._expected.mark[:8]}-{next(self._numbers)}",
            priority=round(self._urgency[task] / estimate.LEAST),
            pure=False,
        )
        self._futures[task] = future
        future.add_done_callback(lambda done: self._finished.put((task, done)))

    def _send_again(self, task: Task) -> None:
        """Hand out a task once more, and with it the tasks that wait for it: they failed with it."""
        waiting = [other for other in self._futures if task in closure(other.inputs())]
        for each in (task, *waiting):
            self._send(each)

    def _awaits(self, task: Task, future: Any) -> bool:
        """Return whether a task is not finished yet and was not handed out again since."""
        return self._futures.get(task) is future

    def _finish(self, task: Task, future: Any) -> None:
        """Note how a task ended."""
        if not self._awaits(task, future):
            return
        # "lost": its worker died after it, and Dask would do it again, but what it did is in the store
        if future.status in ("finished", "lost"):
            self._end(task)
            return
        if future.status != "error":  # the scheduler is gone, or somebody else cancelled the task
            self._check_scheduler()
            raise SchedulerLostError(f"The {task} was cancelled at the scheduler.")
        for needed in task.inputs():  # a task also fails with what it needs, which is looked at first
            before = self._futures.get(needed)
            if before is not None and before.done():
                self._finish(needed, before)
        if not self._awaits(task, future):
            return
        if any(needed in self.failed or needed in self.prevented for needed in task.inputs()):
            self._end(task)
            self.prevented.append(task)
        else:
            self._fail(task, future.exception())

    def _end(self, task: Task) -> None:
        del self._futures[task]
        self._work_done += self._costs[task]

    def _fail(self, task: Task, error: BaseException) -> None:
        """Note a failure, unless the task's worker died right after it, or another worker may do better."""
        from distributed import KilledWorker

        if isinstance(error, KilledWorker) and task.find(self.context) is not None:
            self._end(task)
            return
        if self._may_succeed(task, error):
            self._send_again(task)
            return
        self._end(task)
        self.failed[task] = error
        say(f"failed: {task}: {explained(error)}")

    def _may_succeed(self, task: Task, error: BaseException) -> bool:
        """Return whether a failed task is tried again: its training got on, or another task or its worker is to blame.

        Raises
        ------
        WrongWorkerError
            As :meth:`_send_away`.
        """
        from distributed import KilledWorker

        if isinstance(error, job.WrongWorkerError):
            self._send_away(error)
            return self._sent[task] < MOST_SENT
        if not isinstance(error, KilledWorker):
            return False
        self._hear()
        finished = self._finished_epochs(task)
        if finished > self._epochs[task]:
            self._epochs[task], self._begun[task.name] = finished, 0
            say(f"Several workers died over the {task}; another goes on after epoch {finished}.")
            return True
        # where it was not begun on all workers that died, it waited behind another task, which is to blame
        return self._begun[task.name] <= error.allowed_failures and self._sent[task] < MOST_SENT

    def _send_away(self, error: job.WrongWorkerError) -> None:
        """Send away the workers that must not do the caller's tasks, which joined late.

        Raises
        ------
        WrongWorkerError
            If no other worker is left.
        """
        wrong = self._wrong_workers()
        for address, why in wrong.items():
            say(f"Sent away: {why_wrong(address, why)}")
        if wrong:
            self.client.retire_workers(list(wrong))
        if not self.workers:
            raise job.WrongWorkerError(f"There is no worker left that can do the work. {error}")

    def _finished_epochs(self, task: Task) -> int:
        return task.finished_epochs(self.context) if isinstance(task, Train) else 0

    def _hear(self) -> None:
        """Note what the workers reported."""
        while True:
            try:
                report = self._reports.get_nowait()
            except queue.Empty:
                return
            if "message" in report:
                say(report["message"])
            elif "seconds" in report and report["task"] in self._by_name:
                task = self._by_name[report["task"]]
                if isinstance(task, Train) or (report["seconds"] >= LONG and not isinstance(task, Share)):
                    say(f"done in {report['seconds']:.0f} s: {task}")
            elif report["task"] in self._by_name:
                self._begun[report["task"]] += report.get("begun", 0)
                # a worker that died over the task reports it no longer
                self._at = {worker: at for worker, at in self._at.items() if at[0] != report["task"]}
                self._at[report["worker"]] = (report["task"], float(report["share"]))

    def _check_scheduler(self) -> None:
        if not self.alive:
            raise SchedulerLostError()

    def _short(self, task: Task) -> str:
        return " and ".join(f"{spec.label} {spec.student}" for spec in task.specs[:1]) or task.name


@contextmanager
def shown(cluster: Cluster, total: Callable[[], float], what: str = "") -> Iterator[Callable[[], None]]:
    """Show one progress bar for all work, within a ``with`` block; yield what draws it again.

    Parameters
    ----------
    cluster : the workers.
    what : a description of the work.
    total : how much work there is in all, in the unit of its costs; it may become more.
    """
    with track(total=total() or 1.0, desc=what or "Training and measuring", smoothing=0.0, mininterval=0.5) as bar:

        def draw() -> None:
            bar.total = max(total(), 1e-9)
            # a worker may report its next task before it is known here that the last one is done: the bar waits
            bar.n = min(max(bar.n, cluster.work_done()), bar.total)
            bar.set_postfix_str(cluster.described(), refresh=False)
            bar.refresh()

        yield draw
        draw()
