"""Make exhibits by running their notebooks, one after the other or side by side.

This module does not import torch: the notebooks' own processes do.
"""

import contextlib
import io
import logging
import os
import signal
import sys
import tempfile
import threading
import time
from asyncio import CancelledError
from collections.abc import Iterable, Iterator, Mapping
from concurrent.futures import Future, ThreadPoolExecutor, as_completed
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TextIO

import psutil
from traitlets.config import Config

from rkdkit import endings, paths, progress
from rkdkit.workforce import cores, most_workers, workforce_of_environment

STARTS_WITHIN = 60
"""Seconds after which a kernel that does not answer is given up."""

LAST_WORDS = 10.0
"""Seconds that an interrupted kernel has to end its workers."""


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
    def more(self) -> Mapping[str, object]:
        """The fields of a profile that are given in its parameter `more`."""
        given = self.parameters.get("more")
        return given if isinstance(given, dict) else {}

    @property
    def output(self) -> Path:
        """Where the executed notebook goes."""
        return paths.project_root() / "executed" / str(self.parameters["profile"]) / self.path.name


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
    run = _aside if side_by_side > 1 else _in_front
    with contextlib.chdir(paths.project_root()):  # papermill would change it for each, and so for all of them
        others = _started()
        # papermill, interrupted itself, prints much and leaves the order in which things end to chance
        pool = ThreadPoolExecutor(max(side_by_side, 1))
        futures = [pool.submit(run, notebook) for notebook in notebooks]
        try:
            for future in as_completed(futures):
                yield future.result()
        except BaseException:  # an interruption, or nobody wants the rest: threads cannot be stopped, but kernels can
            pool.shutdown(wait=False, cancel_futures=True)
            _end_kernels(futures, others)
            raise
        finally:
            pool.shutdown()


def _end_kernels(futures: Iterable[Future[Drawn]], others: set[psutil.Process]) -> None:
    """End the kernels that this process started; those that may have workers get some seconds to end them.

    Parameters
    ----------
    futures : the notebooks.
    others : the processes that this one started and that are no kernels. A kernel cannot be told by its command: as
        Dask's scheduler, it may go by another.
    """
    until, everybody = time.monotonic(), psutil.Process().children(recursive=True)
    if not workforce_of_environment().alone:
        until += LAST_WORDS
        for kernel in _started() - others:
            with contextlib.suppress(psutil.Error, ValueError):  # ValueError: Windows has no such signal
                kernel.send_signal(signal.SIGINT)
    logging.getLogger("papermill").setLevel(logging.CRITICAL)  # else it says that they died
    while not all(future.done() for future in futures):
        for kernel in _started() - others if time.monotonic() >= until else ():
            with contextlib.suppress(psutil.Error):
                kernel.kill()
        time.sleep(0.1)
    for process in set(everybody) - others:  # a kernel's, that it could not end: they keep this one's output open
        with contextlib.suppress(psutil.Error):
            process.kill()


def _started() -> set[psutil.Process]:
    """Return the processes that this one started, as far as they are there."""
    return set(psutil.Process().children())


def most_side_by_side() -> int:
    """Return how many notebooks are run at once: as many as there are physical cores, and as fit in memory."""
    return min(cores(), most_workers())


def _aside(notebook: Notebook) -> Drawn:
    """Run a notebook beside others; what it printed is shown at the end, in one piece."""
    output = io.StringIO()
    try:
        return _execute(notebook, output, output)
    finally:
        if output.getvalue():
            progress.say(f"{notebook.name}:\n{output.getvalue().rstrip()}")


def _in_front(notebook: Notebook) -> Drawn:
    """Run a notebook while no other is run; what it prints is shown at once."""
    return _execute(notebook, sys.stdout, sys.stderr)


def _execute(notebook: Notebook, out: TextIO, err: TextIO) -> Drawn:
    import papermill
    from papermill.exceptions import PapermillExecutionError

    started, said = time.perf_counter(), ""
    logging.getLogger("papermill").setLevel(logging.CRITICAL)  # what went wrong is said below
    try:
        notebook.output.parent.mkdir(parents=True, exist_ok=True)
        with kernel_place() as place:
            papermill.execute_notebook(
                notebook.path,
                notebook.output,
                dict(notebook.parameters),
                kernel_name="python3",
                progress_bar=False,
                stdout_file=out,
                stderr_file=err,
                start_timeout=STARTS_WITHIN,
                **_ended_quietly(),
                config=place,
            )
    except PapermillExecutionError as error:
        kept = f" {endings.KEPT}" if endings.for_memory(error.ename, error.evalue) else ""
        so_far = f"(the notebook as far as it ran: {notebook.output})"
        said = f"{notebook.name}: {endings.in_words(error.ename, error.evalue)}{kept} {so_far}"
    except (Exception, CancelledError) as error:  # a kernel that died, a full disk: the other notebooks are run
        said = f"{notebook.name}: {_why(error)}"
    return Drawn(notebook, time.perf_counter() - started, said)


def _ended_quietly() -> dict[str, Any]:
    """Return options for papermill with which a kernel is interrupted, before it is ended, only if it computes.

    Jupyter interrupts every kernel first. One that does nothing may say so in its log, and one that is only starting
    prints a traceback.
    """
    from jupyter_client.manager import AsyncKernelManager

    computing = threading.Event()

    class Manager(AsyncKernelManager):
        async def shutdown_kernel(self, now: bool = False, restart: bool = False) -> None:  # type: ignore[override]
            if now or restart or computing.is_set():
                await super().shutdown_kernel(now, restart)
                return
            self.shutting_down = True
            self.stop_restarter()
            await self.request_shutdown()
            await self.finish_shutdown()
            await self.cleanup_resources()

    return {
        "kernel_manager_class": Manager,
        "on_cell_execute": lambda **_: computing.set(),
        "on_cell_executed": lambda **_: computing.clear(),
    }


def _why(error: BaseException) -> str:
    """Return why a notebook could not be run, for the user."""
    words = str(error)
    if "Kernel didn't respond" in words:
        late = f"its kernel did not start within {STARTS_WITHIN} s, as where a machine is busy"
        return f"{late}: repeat the command. {endings.KEPT}"
    if "Kernel died" in words:
        died = "its kernel died, as where the system ends it because there is too little memory"
        return f"{died}: fewer images, a smaller network or batch_size need less. {endings.KEPT}"
    return endings.in_words(type(error).__name__, words)


@contextlib.contextmanager
def kernel_place() -> Iterator[Config]:
    """Let a kernel listen on sockets in a folder of its own rather than on TCP ports, where the system has such.

    Then nobody else on the machine can listen in, and kernels that start at once do not take each other's.

    Yields
    ------
    what papermill, or a kernel's manager, takes as its ``config``.
    """
    with contextlib.ExitStack() as held:
        prefix = _socket_prefix(held) if os.name == "posix" else ""
        yield Config({"KernelManager": {"transport": "ipc", "ip": prefix}} if prefix else {})


def _socket_prefix(held: contextlib.ExitStack) -> str:
    """Return the beginning of sockets' paths, in a folder that is there until `held` is closed; "": none will do.

    A socket's path must be short: where that of the user's temporary files is not, /tmp takes its place.
    """
    from zmq import IPC_PATH_MAX_LEN

    for parent in (None, "/tmp"):
        with contextlib.suppress(OSError):
            prefix = f"{held.enter_context(tempfile.TemporaryDirectory(dir=parent))}/kernel"
            if len(os.fsencode(f"{prefix}-99")) <= IPC_PATH_MAX_LEN:  # a kernel's five sockets are numbered
                return prefix
    return ""
