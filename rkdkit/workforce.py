"""Who does tasks: this process, workers on this machine, or a cluster; and how many workers this machine can hold.

This module imports neither torch nor Dask, so that a command which starts no workers need not wait for them.
"""

import math
import os
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import psutil

from rkdkit import checks

WORKERS = "RKDKIT_WORKERS"
SCHEDULER = "RKDKIT_SCHEDULER"
SCHEDULER_FILE = "RKDKIT_SCHEDULER_FILE"
"""The variables that say who does tasks: see :class:`Workforce`."""

AUTO = "auto"

BYTES_OF_A_WORKER = 700 * 2**20
"""Memory of a worker that has imported everything and computes nothing yet: 560 MB were measured."""


@dataclass(frozen=True)
class Workforce:
    """Who does tasks.

    Attributes
    ----------
    workers : how many worker processes this machine has, of one thread each; 1: none, this process does everything
        itself, with all its threads; "auto": as many as there are physical cores and as fit in memory, or none where
        this process is as fast alone; "": not given, which is 1 without a scheduler.
    scheduler : the address of a Dask scheduler that is already there, as "tcp://10.0.0.1:8786"; "": none.
    scheduler_file : the file in which a Dask scheduler wrote its address; "": none.

    Raises
    ------
    ValueError
        If `workers` is neither a whole number of at least 1 nor "auto", there is no room for so many, more than one of
        the three is given, or there is no such file.
    """

    workers: int | str = ""
    scheduler: str = ""
    scheduler_file: str = ""

    def __post_init__(self) -> None:
        if self.scheduler and self.scheduler_file:
            raise ValueError("Give the scheduler's address or its file, not both.")
        if self.remote:
            self._check_scheduler()
        else:
            self._check_workers()

    def _check_scheduler(self) -> None:
        if self.workers != "":
            raise ValueError(
                "Give either workers, which are started here, or a scheduler, which has its own: not both."
            )
        if not self.scheduler_file:
            return
        try:
            there = Path(self.scheduler_file).is_file()
        except OSError:  # a name that is too long for any file
            there = False
        if not there:
            raise ValueError(
                f"There is no scheduler file {self.scheduler_file}: `dask scheduler --scheduler-file FILE` writes it."
            )
        # a notebook may have another working folder
        object.__setattr__(self, "scheduler_file", str(Path(self.scheduler_file).resolve()))

    def _check_workers(self) -> None:
        given = 1 if self.workers == "" else self.workers
        if isinstance(given, str) and given.isascii() and given.isdecimal():
            given = int(given)
        whole = isinstance(given, int) and not isinstance(given, bool)
        if given != AUTO and not (whole and int(given) >= 1):
            what = checks.shown(self.workers)
            raise ValueError(f"workers must be a whole number of at least 1, or auto, not {what}.")
        if isinstance(given, int) and given > 1 and given > (room := most_workers()):
            raise ValueError(f"workers={given} do not fit in this machine's memory: there is room for {room}.")
        object.__setattr__(self, "workers", given)

    @property
    def remote(self) -> bool:
        """Whether the cluster is already there."""
        return bool(self.scheduler or self.scheduler_file)

    @property
    def alone(self) -> bool:
        """Whether this process does everything itself."""
        return not self.remote and self.workers == 1

    @property
    def variables(self) -> dict[str, str]:
        """The environment variables that say so to a notebook; "" where something is not given."""
        return {WORKERS: str(self.workers), SCHEDULER: self.scheduler, SCHEDULER_FILE: self.scheduler_file}


def workforce_of_environment(otherwise: int | str = 1) -> Workforce:
    """Return who does tasks, as the environment variables say.

    Parameters
    ----------
    otherwise : how many workers, if they say nothing.

    Raises
    ------
    ValueError
        As :class:`Workforce`; the message names the variable.
    """
    workers, address, file = (os.environ.get(name, "") for name in (WORKERS, SCHEDULER, SCHEDULER_FILE))
    try:
        return Workforce(workers or ("" if address or file else otherwise), address, file)
    except ValueError as error:
        raise ValueError(f"{WORKERS}, {SCHEDULER} or {SCHEDULER_FILE} is set wrongly: {error}") from error


def cores() -> int:
    """Return how many physical cores this process may use."""
    from dask.system import CPU_COUNT  # goes by affinity and control groups

    return max(1, min(psutil.cpu_count(logical=False) or CPU_COUNT, CPU_COUNT))


def most_workers(memory: int = 0) -> int:
    """Return how many workers fit in memory, at least 1.

    Parameters
    ----------
    memory : bytes that a worker needs beside what it needs to do nothing.
    """
    from distributed.system import MEMORY_LIMIT  # goes by control groups

    return max(1, math.floor(MEMORY_LIMIT / (BYTES_OF_A_WORKER + memory)))


@contextmanager
def set_in_environment(variables: Mapping[str, str]) -> Iterator[None]:
    """Set environment variables within a ``with`` block, for the processes that it starts."""
    before = {name: os.environ.get(name) for name in variables}
    os.environ |= variables
    try:
        yield
    finally:
        for name, value in before.items():
            if value is None:
                del os.environ[name]
            else:
                os.environ[name] = value
