"""What a worker does with a task: it makes sure that it sees the caller's store, data and code, and does the task.

A caller who opens a cluster leaves a mark in its store. A worker looks for the mark in its own store before it does
anything, so an answer cannot get into a store where nobody looks for it.
"""

import asyncio
import hashlib
import time
from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import lru_cache
from pathlib import Path
from typing import Any

import torch

from rkdkit import progress, runtime
from rkdkit.determinism import one_thread
from rkdkit.store import Store
from rkdkit.tasks import Context, Task, default_device

EVERY = 0.5
"""Seconds between two reports of a task's progress."""


SEEN = 60.0
"""Seconds after which a machine sees, at the latest, what another one wrote to a shared file system."""


class WrongWorkerError(RuntimeError):
    """A worker that sees another store, other data or other code than the caller, or does several tasks at once."""


class CancelledError(BaseException):
    """The caller no longer wants the task; no `Exception`, so that nothing on the way takes it for a failure."""


def _code_digest() -> str:
    package = Path(__file__).resolve().parent.parent
    sha = hashlib.sha256()
    for file in sorted(package.rglob("*.py")):
        sha.update(f"{file.relative_to(package)}\0".encode() + file.read_bytes())
    return sha.hexdigest()[:16]


CODE = _code_digest()
"""A digest of the package's source code when it was loaded: callers and workers must have the same."""


@dataclass(frozen=True)
class Expected:
    """What a worker must see before it does a caller's task.

    Attributes
    ----------
    code : the caller's `CODE`.
    mark : the name of the caller's mark in its store, see `store.Store.mark`.
    store : the folder of the caller's store, for messages.
    data : the digests of the datasets that the task needs, by name.
    device : the device that the caller asks for; "": the worker's default.
    """

    code: str
    mark: str
    store: str
    data: Mapping[str, str] = field(default_factory=dict)
    device: str = ""

    def context(self, worker: Any) -> Context:
        """Return the context for tasks on a worker.

        Parameters
        ----------
        worker : the `distributed.Worker` of this process.

        Raises
        ------
        WrongWorkerError
            If this worker does not see what it must; the message says what to do.
        """
        _check_worker(worker, self.code, self.mark, self.store)
        # a new one for each task: it remembers finished runs, and somebody may delete their folders meanwhile
        context = Context(device=torch.device(self.device) if self.device else default_device())
        for name, digest in self.data.items():
            _check_data(worker, context, name, digest)
        return context

    @property
    def topic(self) -> str:
        """The topic of Dask's events under which workers report to this caller alone."""
        return f"rkdkit-{self.mark}"


@lru_cache(maxsize=8)
def _check_worker(worker: Any, code: str, mark: str, callers: str) -> None:
    if code != CODE:
        _refuse(
            worker,
            "has another version of rkdkit's code than the caller. Start it from the same checkout, or update it",
        )
    threads = worker.state.nthreads
    if threads > 1:
        _refuse(
            worker, f"would do {threads} tasks at once in one process. Start it with --nthreads 1 (--nworkers for more)"
        )
    store = Store()
    if not store.has_mark(mark):
        _refuse(
            worker,
            f"keeps its runs in {store.root}, which is not the caller's store, {callers}. Start it with RKDKIT_STORE "
            "set to the folder where that store is mounted there",
        )


def _check_data(worker: Any, context: Context, name: str, digest: str) -> None:
    try:
        found = context.load(name).digest
    except (OSError, ValueError) as error:
        _refuse(worker, f"cannot read the data {name}: {error} For a worker, that is set where it is started")
    if found != digest:
        _refuse(
            worker,
            f"finds other data as {name} (digest {found}) than the caller (digest {digest}). Copy the caller's data "
            "there, or start it with RKDKIT_DATA set to the folder that holds them",
        )


def _refuse(worker: Any, why: str) -> None:
    raise WrongWorkerError(f"The worker {worker.name} at {worker.address} {why}.")


async def check(expected: Expected, dask_worker: Any) -> None:
    """Check a worker before it does anything; `dask_worker` is given by Dask. Errors as :meth:`Expected.context`."""
    # reading data takes time, in which the worker goes on to answer the scheduler
    await asyncio.to_thread(expected.context, dask_worker)


def do(sent: bytes, expected: Expected, settings: runtime.Settings, *inputs: object) -> None:
    """Do a task with one thread, if its answer is not in the store yet.

    Parameters
    ----------
    sent : what to do, pickled: a scheduler, which reads all that it passes on, has no use for it.
    expected : checked first.
    settings : the caller's settings that change the speed.
    inputs : the results of the tasks that must be done before; the store holds their answers.

    Raises
    ------
    WrongWorkerError
        As :meth:`Expected.context`.
    Exception
        Whatever the task raises.
    """
    from distributed import get_worker
    from distributed.protocol.pickle import loads

    del inputs
    started = time.perf_counter()
    worker = get_worker()
    task: Task = loads(sent)  # type: ignore[no-untyped-call]
    reporter = Reporter(task, worker, expected.topic)
    context = expected.context(worker)
    with progress.heard_by(reporter), runtime.using(settings), one_thread():
        if task.find(context) is None:
            for needed in task.inputs():
                await_answer(needed, context)
            task.do(context)
    reporter.finished(time.perf_counter() - started)


def await_answer(task: Task, context: Context) -> bool:
    """Return whether a task's answer is in the store, where a shared file system may take some time to show it.

    Parameters
    ----------
    task : what was done; after `SEEN` seconds it is given up.
    context : its store is looked in.
    """
    until = time.monotonic() + SEEN
    while task.find(context) is None:
        if time.monotonic() > until:
            return False
        time.sleep(1)
    return True


class Reporter:
    """Reports a task's progress to the caller by Dask's events; ends the task if the caller gave it up.

    Parameters
    ----------
    task : the task that the worker is doing.
    worker : the `distributed.Worker` of this process.
    topic : under which the caller listens.
    """

    def __init__(self, task: Task, worker: Any, topic: str) -> None:
        self.worker, self.topic = worker, topic
        self.key, self.name, self.last = self.worker.get_current_task(), task.name, 0.0
        self._send(share=0.0, begun=1)

    def moved(self, share: float) -> None:
        """As :meth:`progress.Listener.moved`.

        Raises
        ------
        CancelledError
            If the caller no longer wants the task.
        """
        now = time.monotonic()
        if now - self.last < EVERY:
            return
        self.last = now
        state = self.worker.state.tasks.get(self.key)
        if state is None or state.state == "cancelled" or self.worker.status.name in ("closing", "closed", "failed"):
            raise CancelledError(f"{self.name} is no longer wanted")
        self._send(share=share)

    def said(self, message: str) -> None:
        """As :meth:`progress.Listener.said`."""
        self._send(message=message)

    def finished(self, seconds: float) -> None:
        """Report that the task is done, and how long it took."""
        self._send(share=1.0, seconds=seconds)

    def _send(self, **report: object) -> None:
        self.worker.log_event(self.topic, {"task": self.name, "worker": str(self.worker.name), **report})
