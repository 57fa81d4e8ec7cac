"""Trainings and measurements by 1, 2, ... workers of one thread, beside one process with all its threads.

python benchmarks/scaling.py --profile quick --epochs 3
"""

import contextlib
import dataclasses
import os
import tempfile
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Annotated

import torch
import typer
from measuring import Profile, setup, table

from rkdkit import cluster, executors, runs, spec
from rkdkit.measurements import CorrectPredictions
from rkdkit.references import Snapshot
from rkdkit.store import Store
from rkdkit.tasks import Context, Task
from rkdkit.trainings import Train
from rkdkit.workforce import Workforce, cores

METHODS = ("PeerAiD", "TRADES", "PGD-AT")


@dataclasses.dataclass(frozen=True)
class Trivial(Task):
    """Writes one answer to the store: what it takes beyond that is what handing out a task costs."""

    number: int

    @property
    def name(self) -> str:
        """As :attr:`Task.name`."""
        return f"trivial-{self.number}"

    @property
    def specs(self) -> tuple[spec.RunSpec, ...]:
        """As :attr:`Task.specs`."""
        return ()

    def inputs(self) -> Sequence[Task]:
        """As :meth:`Task.inputs`."""
        return ()

    def find(self, context: Context) -> object:
        """As :meth:`Task.find`."""
        return context.store.read_answer({"trivial": self.number})

    def do(self, context: Context) -> None:
        """As :meth:`Task.do`."""
        context.store.write_answer({"trivial": self.number}, self.number, {})

    def placeholder(self) -> int:
        """As :meth:`Task.placeholder`."""
        return 0


def timed(executor: executors.Here, work: Callable[[], object]) -> float:
    """Return the seconds that work takes; progress is not shown."""
    nowhere = open(os.devnull, "w")  # noqa: PTH123, SIM115 - a device
    with nowhere, contextlib.redirect_stderr(nowhere), executors.using(executor):
        began = time.perf_counter()
        work()
        return time.perf_counter() - began


def main(
    profile: Profile = "quick",
    epochs: Annotated[int, typer.Option(help="Of each training.")] = 3,
    tasks: Annotated[int, typer.Option(help="Trainings, and as many measurements.")] = 8,
    most: Annotated[int, typer.Option(help="Workers at most; 0: as many as there are physical cores.")] = 0,
    trivial: Annotated[str, typer.Option(help="How many trivial tasks, one number after another.")] = "10,100,1000",
) -> None:
    """Print how much faster workers are, and what a task costs beyond its work."""
    scale = setup(profile, METHODS, epochs=epochs)
    specs = [scale.profile.spec(METHODS[i % len(METHODS)], seed=i) for i in range(tasks)]
    attack = scale.profile.test_attack
    measurements = [CorrectPredictions(images=scale.images, judges=(Snapshot(each),), attack=attack) for each in specs]
    counts = [n for n in (1, 2, 4, 8, 16, 32, 64) if n < (most or cores())] + [most or cores()]
    with tempfile.TemporaryDirectory() as folder:
        taken: dict[str, tuple[float, float]] = {}
        rows = []
        threads = torch.get_num_threads()
        names = {0: f"one process, {threads} threads", 1: "one process, 1 thread"}
        for count in (0, *counts):
            name = names.get(count, f"{count} workers")
            store = Store(Path(folder) / str(count))
            executor = cluster.Workers(Workforce(count), store) if count > 1 else executors.Here(store)
            if count == 1:
                torch.set_num_threads(1)
            # whatever is loaded or made ready once in a process is so before anything is timed
            warm = [Train(dataclasses.replace(specs[0], seed=1000 + i)) for i in range(2 * max(count, 1))]
            started = timed(executor, lambda warm=warm: runs.gather(warm))
            training = timed(executor, lambda: runs.gather(map(Train, specs)))
            measuring = timed(executor, lambda: runs.gather(measurements))
            if isinstance(executor, cluster.Workers):
                executor.close()
            torch.set_num_threads(threads)
            taken[name] = (training, measuring)
            first = next(iter(taken.values()))
            rows.append((name, started, training, first[0] / training, measuring, first[1] / measuring))
        header = ("", "start and warm up, s", f"{tasks} trainings, s", "as fast", f"{tasks} measurements, s", "as fast")
        table(header, rows)
        executor = cluster.Workers(Workforce(max(2, most or cores())), Store(Path(folder) / "trivial"))
        timed(executor, lambda: runs.gather(map(Trivial, range(-8, 0))))
        costs, began_at = [], 0
        for n in map(int, trivial.split(",")):
            here = timed(
                executors.Here(Store(Path(folder) / f"here{n}")), lambda n=n: runs.gather(map(Trivial, range(n)))
            )
            numbers = range(began_at, began_at + n)
            by_workers = timed(executor, lambda numbers=numbers: runs.gather(map(Trivial, numbers)))
            costs.append((n, by_workers, 1000 * by_workers / n, 1000 * here / n))
            began_at += n
        executor.close()
        table(("trivial tasks", "all, s", "a task, ms", "here, ms"), costs)


if __name__ == "__main__":
    typer.run(main)
