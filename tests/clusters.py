"""What tests of workers share: Dask's own commands as processes, and what those leave behind."""

import json
import os
import signal
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar

import psutil
from conftest import ROOT, tiny_spec

from rkdkit.store import Store
from rkdkit.tasks import Task

LONGEST = 300.0
"""Seconds after which something that should happen has not."""


def wait_until(happened: Callable[[], object], what: str) -> None:
    """Wait for something."""
    deadline = time.monotonic() + LONGEST
    while not happened():
        assert time.monotonic() < deadline, f"it never came to this: {what}"
        time.sleep(0.02)


@dataclass(frozen=True)
class Noted(Task):
    """A task that writes its name into the store, or does what its name says; workers import it from here."""

    what: str
    needs: tuple["Noted", ...] = ()
    troubles: ClassVar[dict[str, Callable[[], object]]] = {
        "memory": lambda: (_ for _ in ()).throw(MemoryError()),
        "allocator": lambda: (_ for _ in ()).throw(RuntimeError("DefaultCPUAllocator: not enough memory: tried\nx")),
        "deadly": lambda: (time.sleep(1), os.kill(os.getpid(), signal.SIGKILL)),  # first the scheduler hears of it
        "wrong": lambda: (_ for _ in ()).throw(ValueError("it cannot be")),
    }

    name, specs = property(lambda self: f"noted-{self.what}"), (tiny_spec(),)

    def __str__(self):
        return f"note {self.what!r}"

    def inputs(self):
        return self.needs

    def find(self, context):
        path = context.store.root / self.name
        return path.read_text() if path.exists() else None

    def do(self, context):
        assert all(task.find(context) for task in self.needs), "its inputs are there"
        self.troubles.get(self.what.partition(" ")[0], lambda: None)()
        with (context.store.root / self.name).open("a") as file:
            file.write(f"{os.getpid()} ")
        if self.what.startswith("last"):
            time.sleep(1)  # the scheduler hears of its beginning
            os.kill(os.getpid(), signal.SIGKILL)

    def placeholder(self):
        return "?"


def environment(store: Path, **more: str) -> dict[str, str]:
    """Return the environment of a process whose runs are kept in `store`, with one thread."""
    path = f"{ROOT / 'tests'}{os.pathsep}{ROOT}"
    own = {"RKDKIT_STORE": str(store), "PYTHONPATH": path, "OMP_NUM_THREADS": "1", "TQDM_DISABLE": "1"}
    own["PYTHONFAULTHANDLER"] = "1"  # one that hangs can be asked where
    left_out = ("RKDKIT_WORKERS", "RKDKIT_SCHEDULER", "RKDKIT_SCHEDULER_FILE")
    return {**{k: v for k, v in os.environ.items() if k not in left_out}, **own, **more}


def written_by(program: str, folder: Path) -> Path:
    """Let a program of the tests write into a folder, and return the folder; one that hangs says where."""
    started = subprocess.Popen(
        [sys.executable, str(ROOT / "tests" / program), str(folder)],
        env=environment(folder / "store"), stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True,
        start_new_session=True,
    )  # fmt: skip
    try:
        _, said = started.communicate(timeout=2 * LONGEST)
    except subprocess.TimeoutExpired:
        os.killpg(started.pid, signal.SIGABRT)
        _, said = started.communicate()
    assert not started.returncode, said[-10_000:]
    return folder


class Outside:
    """A scheduler and workers started by Dask's commands, as on a cluster.

    Parameters
    ----------
    folder : for the scheduler's file and for what the processes print.
    store : of the workers.
    options : for the scheduler's command, and for each worker's.
    variables : added to the environment of all.
    """

    def __init__(self, folder: Path, store: Path, options: Iterable[str] = (), **variables: str) -> None:
        self.folder, self.store, self.options, self.variables = folder, store, list(options), variables
        self.file = folder / "scheduler.json"
        self.processes: dict[str, subprocess.Popen] = {}
        folder.mkdir(parents=True, exist_ok=True)

    def start_scheduler(self) -> None:
        self.file.unlink(missing_ok=True)
        listening = ["--host", "127.0.0.1", "--port", "0", "--no-dashboard", "--scheduler-file", str(self.file)]
        self._start("scheduler", ["scheduler", *listening, *self.options])
        wait_until(self.file.exists, "the scheduler writes its file")

    @property
    def address(self) -> str:
        return json.loads(self.file.read_text())["address"]

    def start_worker(self, name: str, *options: str, nthreads: int = 1, **variables: str) -> subprocess.Popen:
        """Start a worker without a nanny: a killed one stays dead."""
        given = ["--name", name, "--nthreads", str(nthreads), "--no-nanny", "--no-dashboard", "--memory-limit", "0"]
        local = ["--local-directory", str(self.folder), "--host", "127.0.0.1", "--scheduler-file", str(self.file)]
        return self._start(name, ["worker", *given, *local, *self.options, *options], **variables)

    def _start(self, name: str, command: list[str], **variables: str) -> subprocess.Popen:
        with (self.folder / f"{name}.log").open("w") as log:
            self.processes[name] = subprocess.Popen(
                [sys.executable, "-m", "dask", *command],
                env=environment(self.store, **{**self.variables, **variables}),
                cwd=self.folder,
                stdout=log,
                stderr=log,
                start_new_session=True,
            )
        return self.processes[name]

    def log(self, name: str) -> str:
        path = self.folder / f"{name}.log"
        return path.read_text() if path.exists() else ""

    def registered(self, *names: str) -> bool:
        """Return whether these workers have found the scheduler."""
        return all("Registered to" in self.log(name) for name in names)

    def kill(self, name: str) -> None:
        process = self.processes.pop(name)
        process.kill()
        process.wait()

    def stop(self) -> None:
        for name in list(self.processes):
            self.kill(name)


HELD = """
from pathlib import Path
from rkdkit import training
gate, unheld = Path(os.environ["RKDKIT_TEST_GATE"]), training.Training.run_epoch

def run_epoch(loop, on_step=lambda: None):
    def step():
        if loop.epoch == 1 and not (gate / "open").exists():
            (gate / f"held-{loop.spec.id}").touch()
            while not (gate / "open").exists():
                time.sleep(0.02)
        on_step()
    with (gate / "epochs").open("a") as file:
        file.write(f"{loop.spec.id} {loop.epoch + 1}\\n")
    return unheld(loop, step)

training.Training.run_epoch = run_epoch
"""
"""What a worker runs first so that a :class:`Gate` holds it."""


class Gate:
    """Holds trainings in the middle of their second epoch until it is opened, and notes every epoch that is begun.

    Parameters
    ----------
    folder : where it is; it is made.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        folder.mkdir()

    @property
    def given(self) -> dict[str, str]:
        """What `Nursery.start` needs for a worker that it holds."""
        return {"before": HELD, "RKDKIT_TEST_GATE": str(self.folder)}

    @property
    def held(self) -> list[str]:
        """The ids of the runs that were or are held."""
        return [path.name.removeprefix("held-") for path in self.folder.glob("held-*")]

    @property
    def epochs(self) -> Counter[str]:
        """How often each epoch of each run was begun, by "<id> <epoch>"."""
        path = self.folder / "epochs"
        return Counter(path.read_text().splitlines() if path.exists() else ())

    def open(self) -> None:
        """Let all go on."""
        (self.folder / "open").touch()


class Nursery:
    """Forks workers that start at once, as they import nothing."""

    def __init__(self) -> None:
        self.workers: dict[str, psutil.Process] = {}
        self._process = subprocess.Popen(
            [sys.executable, str(ROOT / "tests" / "nursery.py")],
            env=environment(Path("nowhere")),
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )

    def start(
        self, outside: Outside, name: str, nthreads: int = 1, before: str = "", **variables: str
    ) -> psutil.Process:
        """Start a worker of a scheduler; `before` is code that it runs first, `variables` are its environment's."""
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        (outside.folder / f"{name}.log").unlink(missing_ok=True)
        given = {"scheduler_file": str(outside.file), "name": name, "nthreads": nthreads, "before": before}
        folder = {"folder": str(outside.folder), "log": str(outside.folder / f"{name}.log")}
        variables = {"RKDKIT_STORE": str(outside.store), **variables}
        self._process.stdin.write(json.dumps({**given, **folder, "variables": variables}) + "\n")
        self._process.stdin.flush()
        self.workers[name] = psutil.Process(int(self._process.stdout.readline()))
        return self.workers[name]

    def end(self) -> None:
        """End all workers."""
        kill(self.workers.values())
        self.workers.clear()

    def stop(self) -> None:
        """End all workers, and what forks them."""
        self.end()
        self._process.kill()
        self._process.wait()


@contextmanager
def outside(
    folder: Path, store: Path, workers: int, options: Iterable[str] = (), **variables: str
) -> Iterator[Outside]:
    """Start a scheduler and workers named "0", "1", ...; end them after the ``with`` block."""
    cluster = Outside(folder, store, options, **variables)
    try:
        cluster.start_scheduler()
        for i in range(workers):
            cluster.start_worker(str(i))
        yield cluster
    finally:
        cluster.stop()


class Command(subprocess.Popen):
    """The kit's command, or other code, in a process group of its own, as a terminal starts it.

    Parameters
    ----------
    project : the checkout, and the folder of the store.
    arguments : of the command.
    code : what is run.
    variables : added to the environment.
    """

    def __init__(
        self, project: Path, *arguments: str, code: str = "from rkdkit.cli import app; app()", **variables: str
    ) -> None:
        self.project = project
        # whoever runs the tests in the background of a shell lets all that they start ignore Ctrl-C
        heeding = "import signal; signal.signal(signal.SIGINT, signal.default_int_handler)"
        super().__init__(
            [sys.executable, "-c", f"{heeding}\n{code}", *arguments],
            cwd=project,
            env=environment(project / "store", **variables),
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            start_new_session=True,
        )

    @property
    def everybody(self) -> list[psutil.Process]:
        """Itself and then all that it started, as far as they are alive, whoever their parents are by now.

        They are known by their working folder: Dask's workers change their titles, which hides their environment.
        """
        found = []
        for process in psutil.process_iter():
            with suppress(psutil.Error):  # it has just ended, or is another user's
                if process.pid != os.getpid() and process.cwd() == str(self.project):
                    found.append(process)
        return sorted(alive(found), key=lambda process: process.pid != self.pid)

    def where_all_are(self) -> str:
        """End all that is left; return what was printed, and what each process was doing in which thread."""
        left, known = self.everybody, []
        for process in left:
            with suppress(psutil.Error):
                known.append(f"{process.pid}, child of {process.ppid()}: {' '.join(process.cmdline())}")
                process.send_signal(signal.SIGABRT)
                process.wait(LONGEST)
        said, _ = self.communicate(timeout=LONGEST)
        return "\n".join([*known, said])


@contextmanager
def started(project: Path, *arguments: str, **given: str) -> Iterator[Command]:
    """Start a :class:`Command`; nothing of it is left after the ``with`` block."""
    process = Command(project, *arguments, **given)
    try:
        yield process
    finally:
        kill(process.everybody)
        process.wait()


def kill(processes: Iterable[psutil.Process]) -> None:
    """Kill those that still run."""
    for each in alive(processes):
        with suppress(psutil.NoSuchProcess):  # it has just ended
            each.kill()


def alive(processes: Iterable[psutil.Process]) -> list[psutil.Process]:
    """Return those that still run; one that merely nobody has waited for does not."""
    found = []
    for each in processes:
        with suppress(psutil.NoSuchProcess):  # it has just ended
            if each.is_running() and each.status() != psutil.STATUS_ZOMBIE:
                found.append(each)
    return found


def files_of(store: Store | Path) -> dict[str, bytes]:
    """Return all tensors of a store, byte by byte."""
    root = store if isinstance(store, Path) else store.root
    return {str(path.relative_to(root)): path.read_bytes() for path in sorted(root.glob("runs/*/*.safetensors"))}


def records_of(store: Path) -> list[dict]:
    """Return the records of all runs of a store."""
    return [json.loads(path.read_text())["content"] for path in sorted(store.glob("runs/*/run.json"))]
