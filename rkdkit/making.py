"""Make several exhibits: do what all of them need on workers, each task once, then run their notebooks side by side.

Nobody but a notebook knows what its exhibit needs. So all are asked; what is certain is handed out; while workers do it
the notebooks are asked again, since more is certain then; until nothing is missing.
"""

import contextlib
import io
import os
import sys
import tempfile
import time
from collections.abc import Iterable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor, as_completed
from dataclasses import dataclass, field
from pathlib import Path
from typing import TextIO

import psutil
from traitlets.config import Config

from rkdkit import paths, progress
from rkdkit.cluster.connection import cores, most_workers
from rkdkit.cluster.failures import TasksFailedError
from rkdkit.cluster.tasking import shown
from rkdkit.cluster.workers import Workers, costs_of, how_many, without_modules
from rkdkit.plan import Planner, ask
from rkdkit.tasks import Task


@dataclass(frozen=True)
class Notebook:
    """An exhibit to make.

    Attributes
    ----------
    path : its notebook; the file's stem is its name.
    parameters : as papermill sets them.
    """

    path: Path
    parameters: Mapping[str, object]

    @property
    def name(self) -> str:
        """The exhibit's name."""
        return self.path.stem

    @property
    def output(self) -> Path:
        """Where the executed notebook goes."""
        return paths.project_root() / "executed" / str(self.parameters["profile"]) / self.path.name


PATIENCE = 5.0
"""Seconds after which notebooks are asked again what they need, once something is done; asking takes half a second."""


class NotebookError(RuntimeError):
    """A notebook cannot be asked what it needs; the message names it."""


@dataclass
class Needs:
    """What exhibits still need.

    Attributes
    ----------
    certain : the tasks that are needed as they are, what is needed first.
    deciding : the measurements that are only needed to choose epochs.
    all : those, and placeholders of what will be needed once they are done.
    of : the exhibits that need something.
    """

    certain: list[Task] = field(default_factory=list)
    deciding: set[Task] = field(default_factory=set)
    all: list[Task] = field(default_factory=list)
    of: dict[str, list[Task]] = field(default_factory=dict)


def needs_of(notebooks: Iterable[Notebook]) -> Needs:
    """Ask notebooks what they need and is not in the store.

    Raises
    ------
    Exception
        Whatever a notebook raises: bad parameters are refused as when it is made.
    """
    needs = Needs()
    certain, every = dict[Task, None](), dict[Task, None]()
    for notebook in notebooks:
        planner = Planner()
        asked = planner.listen()
        try:
            ask(planner, notebook.path, notebook.parameters)
        except Exception as error:
            raise NotebookError(f"{notebook.name}: {type(error).__name__}: {error}") from error
        missing = planner.missing
        every.update(dict.fromkeys(missing))
        certain.update(dict.fromkeys(task for task in missing if planner.certain(task)))
        needs.deciding |= asked.deciding
        if missing:
            needs.of[notebook.name] = missing
    needs.certain, needs.all = list(certain), list(every)
    return needs


@dataclass(frozen=True)
class Done:
    """What came of the work for several exhibits.

    Attributes
    ----------
    missing : how many tasks were not in the store at first.
    failure : what failed, if anything did.
    unfinished : the exhibits that something is missing for.
    """

    missing: int
    failure: TasksFailedError | None = None
    unfinished: tuple[str, ...] = ()


def do_all(notebooks: Iterable[Notebook], workers: Workers, *, alone: bool = True) -> Done:
    """Do what exhibits need, on as many workers as that takes.

    Parameters
    ----------
    notebooks : the exhibits.
    workers : who does it.
    alone : whether this process does it where that takes no workers; if not, it is left to the notebooks.

    Raises
    ------
    NoClusterError, StoreError, NotebookError
        If there is no cluster, the store cannot be used, or a notebook cannot be asked.
    """
    asked = list(notebooks)
    needs, context = needs_of(asked), workers.context
    costs, missing = costs_of(needs.all, context), len(needs.all)
    count = how_many(workers.workforce, costs, context)
    if count == 1:
        while alone and (certain := without_modules(needs.certain)):
            workers.do_here(certain, context)
            needs = needs_of([each for each in asked if each.name in needs.of])
        return Done(missing, None, tuple(needs.of))
    cluster = workers.cluster(count, context)
    handed_out = set[Task]()
    with shown(cluster, lambda: sum(costs[task] for task in {*handed_out, *needs.all})) as draw:
        while True:
            new = [task for task in without_modules(needs.certain) if task not in handed_out]
            if not new and not cluster.pending:
                break
            cluster.submit(new, {task: costs[task] for task in needs.all}, needs.deciding)
            handed_out |= set(new)
            # more may be certain: looked up now and then, and at once if a worker would have nothing to do
            cluster.wait(max(cluster.workers - 1, 0), PATIENCE, draw)
            needs = needs_of([each for each in asked if each.name in needs.of])
            costs |= costs_of([task for task in needs.all if task not in costs], context)
    return Done(missing, cluster.failure, tuple(needs.of))


@dataclass(frozen=True)
class Drawn:
    """A notebook that was run.

    Attributes
    ----------
    notebook : which.
    seconds : how long it took.
    error : why it failed; "": it did not.
    """

    notebook: Notebook
    seconds: float
    error: str = ""


def draw_all(notebooks: Iterable[Notebook], side_by_side: int = 1) -> Iterator[Drawn]:
    """Run notebooks; yield each when it is done or has failed.

    Parameters
    ----------
    notebooks : the exhibits; executed notebooks are kept under executed/.
    side_by_side : how many are run at once. More than one: each shows what it printed when it is done.

    Raises
    ------
    KeyboardInterrupt
        If the user interrupts; no kernel is left.
    """
    if side_by_side < 2:
        for notebook in notebooks:
            yield _execute(notebook, sys.stdout, sys.stderr)
        return
    pool = ThreadPoolExecutor(side_by_side)
    try:
        for future in as_completed([pool.submit(_aside, notebook) for notebook in notebooks]):
            yield future.result()
    except BaseException:  # an interruption, or nobody wants the rest: threads cannot be stopped, but kernels can
        for process in psutil.Process().children(recursive=True):
            with contextlib.suppress(psutil.NoSuchProcess):
                process.terminate()
        raise
    finally:
        pool.shutdown(wait=False, cancel_futures=True)


def most_side_by_side() -> int:
    """Return how many notebooks are run at once: as many as there are physical cores, and as fit in memory."""
    return min(cores(), most_workers())


def _aside(notebook: Notebook) -> Drawn:
    """Run a notebook beside others; what it printed is shown at the end, in one piece."""
    output = io.StringIO()
    try:
        return _execute(notebook, output, output)
    finally:
        progress.say(f"{notebook.name}:\n{output.getvalue().rstrip()}")


def _execute(notebook: Notebook, out: TextIO, err: TextIO) -> Drawn:
    import papermill
    from papermill.exceptions import PapermillExecutionError

    notebook.output.parent.mkdir(parents=True, exist_ok=True)
    started, said = time.perf_counter(), ""
    try:
        with tempfile.TemporaryDirectory() as folder:
            papermill.execute_notebook(
                notebook.path,
                notebook.output,
                dict(notebook.parameters),
                cwd=paths.project_root(),
                kernel_name="python3",
                progress_bar=False,
                stdout_file=out,
                stderr_file=err,
                config=_kernel_in(folder),
            )
    except PapermillExecutionError as error:
        said = f"{notebook.name}: {error.ename}: {error.evalue}\n(the notebook as far as it ran: {notebook.output})"
    except Exception as error:  # a kernel that died, a full disk: the other notebooks are run all the same
        said = f"{notebook.name}: {type(error).__name__}: {error}"
    return Drawn(notebook, time.perf_counter() - started, said)


def _kernel_in(folder: str) -> Config:
    """Let a kernel listen on sockets in a folder of its own rather than on TCP ports, where the system has such.

    Then nobody else on the machine can listen in, and kernels that start at once do not take each other's.
    """
    return Config({"KernelManager": {"transport": "ipc", "ip": f"{folder}/kernel"}} if os.name == "posix" else {})
