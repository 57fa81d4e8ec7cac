"""Where workers are: a cluster of this machine's own, or one that is already there."""

import json
import logging
import signal
import socket
import warnings
from collections.abc import Iterable, Iterator
from contextlib import contextmanager, suppress
from multiprocessing import resource_tracker
from pathlib import Path
from typing import Any

import psutil

from rkdkit import paths
from rkdkit.workforce import SCHEDULER, SCHEDULER_FILE, WORKERS, Workforce

PATIENCE = 10.0
"""Seconds after which a scheduler that does not answer is given up."""

LOGGERS = ("distributed", "distributed.client")
"""Dask's loggers that would tell what the kit says itself; each has a level of its own."""


class NoClusterError(RuntimeError):
    """There is no cluster that can be used; the message says why and what to do."""


@contextmanager
def local_client(workers: int, store: Path) -> Iterator[Any]:
    """Start workers of one thread each on this machine, and stop them at the end of the ``with`` block.

    Scheduler and workers listen on the loopback alone, and on it accept only who has the certificate that was made for
    this occasion: a Dask scheduler runs whatever it is sent, and a machine may have other users.

    Parameters
    ----------
    workers : how many.
    store : the folder of their store.

    Yields
    ------
    The `distributed.Client`.

    Raises
    ------
    NoClusterError
        If the workers do not start.
    """
    from distributed import Client, LocalCluster
    from distributed.security import Security

    variables = {
        "RKDKIT_STORE": str(store.resolve()),
        "RKDKIT_DATA": str(paths.data_folder().resolve()),
        **dict.fromkeys(("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS"), "1"),
        **dict.fromkeys((WORKERS, SCHEDULER, SCHEDULER_FILE), ""),
    }
    security = Security.temporary()  # type: ignore[no-untyped-call]
    _let_workers_keep_memory()
    # for good: what was on its way when the workers were stopped is told of after their end
    logging.getLogger("distributed.batched").setLevel(logging.CRITICAL)
    try:
        with _without_interrupts():
            starting = LocalCluster(  # type: ignore[no-untyped-call]
                n_workers=workers,
                threads_per_worker=1,
                processes=True,
                host="127.0.0.1",
                dashboard_address="127.0.0.1:0",
                memory_limit=0,
                silence_logs=logging.CRITICAL,
                security=security,
                env=variables,
                asynchronous=False,
            )
    except (RuntimeError, OSError) as error:
        raise NoClusterError(
            f"Workers could not be started: {_first_line(error)}. A script must do its work under "
            '`if __name__ == "__main__":`, since each worker imports it first; else try fewer workers.'
        ) from error
    with starting as local, Client(local, security=security, set_as_default=False) as client:  # type: ignore[no-untyped-call]
        try:
            yield client
        finally:
            _kill(local.workers.values())


def _kill(nannies: Iterable[Any]) -> None:
    """End workers at once: the store holds all that is done, and a worker asked to close may wait for its training.

    One that is left alone on its way out, because this process had to end first, may never end.
    """
    for nanny in nannies:
        nanny.close_gracefully()  # else it starts another
        if pid := nanny.pid:
            with suppress(psutil.Error):  # it has just ended
                psutil.Process(pid).kill()


def _let_workers_keep_memory() -> None:
    """Leave the C library's rule when memory goes back to the system; Dask has workers give back all above 64 KiB.

    Each step of a training would then get its pages from the kernel anew, which takes a tenth to a third of its time.
    It is set for this process as long as it lives, because workers are also started later, in place of others.
    """
    import dask

    place = "distributed.nanny.pre-spawn-environ"
    variables = dask.config.get(place)
    dask.config.set({place: {name: value for name, value in variables.items() if name != "MALLOC_TRIM_THRESHOLD_"}})


@contextmanager
def _without_interrupts() -> Iterator[None]:
    """Start threads and processes that no Ctrl-C reaches within a ``with`` block; one that comes meanwhile waits.

    A terminal interrupts workers, too, and each would print where it was. The caller is the one to end them.
    """
    if not hasattr(signal, "pthread_sigmask"):  # as on Windows
        yield
        return
    resource_tracker.ensure_running()  # else the first process starts it, and it lets interrupts through again
    before = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)


@contextmanager
def remote_client(workforce: Workforce) -> Iterator[Any]:
    """Connect to a cluster that is already there; it goes on running after the ``with`` block.

    Its TLS is as Dask's own configuration says (`distributed.comm.tls`).

    Yields
    ------
    The `distributed.Client`.

    Raises
    ------
    NoClusterError
        If nobody answers within `PATIENCE` seconds, or it is a scheduler of another version of Dask.
    """
    from distributed import Client

    where = workforce.scheduler or workforce.scheduler_file
    given: dict[str, Any] = {"address": workforce.scheduler}
    if workforce.scheduler_file:
        given = {"scheduler_file": workforce.scheduler_file}
    before = {name: logging.getLogger(name).level for name in LOGGERS}
    for name in LOGGERS:
        logging.getLogger(name).setLevel(logging.CRITICAL)
    # a client that could not be made must be closed: Dask does so when it is collected, and then may wait for itself
    client = Client.__new__(Client)
    try:
        _greeted(workforce)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # versions are compared below
            client.__init__(**given, timeout=PATIENCE, set_as_default=False)  # type: ignore[misc]
    except Exception as error:  # whatever Dask makes of an address, a port of something else, or a lack of TLS
        with suppress(Exception):
            client.close(timeout=2)  # type: ignore[no-untyped-call]
        raise NoClusterError(
            f"No Dask scheduler answers at {where}: {_first_line(error)}. Start one there (`dask scheduler`), or give "
            "the address that it prints; docs/scaling.md says how, also with TLS."
        ) from error
    try:
        _check_versions(client, where)
        yield client
    finally:
        gone = client.status != "running"
        with suppress(Exception):  # a scheduler that is gone cannot be taken leave of
            client.close(timeout=2)  # type: ignore[no-untyped-call]
        for name in () if gone else LOGGERS:  # a lost scheduler is looked for until later, and that would be told
            logging.getLogger(name).setLevel(before[name])


def _greeted(workforce: Workforce) -> None:
    """Wait for a scheduler's first words: for those of something else Dask would wait without end."""
    from distributed.comm.addressing import parse_address, parse_host_port

    address = workforce.scheduler
    if workforce.scheduler_file:
        address = json.loads(Path(workforce.scheduler_file).read_text(encoding="utf-8"))["address"]
    protocol, place = parse_address(address)
    if protocol != "tcp":  # TLS makes sure of it
        return
    with socket.create_connection(parse_host_port(place), PATIENCE) as connection:
        if not connection.recv(1):
            raise ConnectionError("What listens there is no Dask scheduler")


def _check_versions(client: Any, where: str) -> None:
    """Refuse a scheduler or workers of another version of Dask, or without the kit."""
    found = client.get_versions(packages=["rkdkit"])
    ours = found["client"]["packages"]
    everybody = {f"The scheduler at {where}": found["scheduler"]}
    everybody |= {f"The worker at {address}": each for address, each in found["workers"].items()}
    for who, theirs in everybody.items():
        for name in ("dask", "distributed"):
            if theirs["packages"][name] != ours[name]:
                raise NoClusterError(
                    f"{who} has {name} {theirs['packages'][name]}, and this process has {ours[name]}. Install the "
                    "same version on both sides: requirements.lock names it."
                )
        if theirs["packages"].get("rkdkit") is None:
            raise NoClusterError(
                f"{who} runs in an environment without rkdkit. Install the kit there as the README says."
            )


def _first_line(error: BaseException) -> str:
    return (str(error).strip().splitlines() or [type(error).__name__])[0].rstrip(".")
