"""Measurements by groups of 1, 2 and 4 processes, for `test_group_measuring`: `python measuring_groups.py FOLDER`.

As in `groups`, processes are forked from one that has imported everything. Only the first has a store, and settings.
"""

import importlib
import json
import os
import shutil
import signal
import sys
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from conftest import tiny_spec
from groups import SIZES, no_memory, run_group, squares

from rkdkit import attacks, autoattack, autoattack_shares, data, endings, executors, runs, runtime
from rkdkit.computations import WholeBatches
from rkdkit.group import measuring
from rkdkit.group.executor import among_processes
from rkdkit.measurements import CorrectPredictions, Measurement, PerImage
from rkdkit.references import Images
from rkdkit.store import Store, StoreError
from rkdkit.trainings import Run

SPEC = tiny_spec(n_train=256, epochs=4, eps=0.1, step_size=0.05)
LAST, BEFORE = Run(SPEC, None).snapshot(), Run(SPEC, None).snapshot(epoch=3)
PGD = attacks.PGD(0.05, 0.01, 20)
SOME = Images("digits", n=45)
BATCH = 8
"""So that 45 images are six batches, which 4 processes cannot share evenly."""

ATTACKED = CorrectPredictions(images=SOME, judges=(LAST, BEFORE), attack=PGD)
AUTO = CorrectPredictions(images=SOME, judges=(LAST,), attack=autoattack.AutoAttack(0.03, seed=1, batch_size=30))
TOGETHER: dict[str, Measurement] = {
    "PGD, two judges": ATTACKED,
    "PGD on another": CorrectPredictions(
        images=SOME, judges=(LAST,), attack=replace(PGD, start="gaussian", iterate="any"), attacked=BEFORE
    ),
    "natural": CorrectPredictions(images=SOME, judges=(BEFORE,)),
    "entropy": PerImage(images=SOME, quantity="entropy", snapshot=LAST, attack=attacks.FFGSM(0.05)),
    "AutoAttack": AUTO,
    "Square": CorrectPredictions(
        images=Images("digits", n=93), judges=(LAST,), attack=autoattack.Square(0.05, queries=40, batch_size=40)
    ),
}
"""What all processes measure."""

ALONE: dict[str, Measurement] = {
    "restarts": CorrectPredictions(images=SOME, judges=(LAST,), attack=replace(PGD, steps=2, restarts=2)),
    "one batch": CorrectPredictions(images=SOME.first(BATCH), judges=(LAST,), attack=PGD),
}
"""What the first measures alone."""


class Mine(autoattack.Square):
    """An attack of a notebook's own."""


def shorter() -> None:
    """Give AutoAttack fewer iterations, and let it be cut into parts of few images."""
    stages_of = autoattack.AutoAttack.stages

    def stages(self: autoattack.AutoAttack, package: Any, num_classes: int) -> list[autoattack.Stage]:
        for part in (package.apgd, package.apgd_targeted):
            part.n_iter = 6
        package.fab.n_iter, package.square.n_queries = 3, 30
        return stages_of(self, package, num_classes)

    autoattack.AutoAttack.stages = stages  # type: ignore[method-assign]
    autoattack_shares.FEWEST = 4
    measuring.LEAST_SECONDS = 0.0


def measure(tasks: Sequence[Measurement], store: Path, rank: int, *, alone: bool = False) -> None:
    """Measure as `rkdkit train` does, in each process of a group."""
    os.environ["RKDKIT_STORE"] = str(store if not rank else f"{store}-{rank}")
    with ExitStack() as held:
        if not rank:
            held.enter_context(runtime.using(runtime.Settings("off", BATCH)))
        executor = executors.Here() if alone else held.enter_context(among_processes())
        assert executor is not None
        with executors.using(executor):
            executor.gather(tasks)


def noted(file: Path) -> None:
    """Write into a file what this process computes, and by which settings."""
    computed = measuring._computed

    def noting(processes: Any, computation: Any, networks: Any, split: Any, parts: Any, *more: Any) -> Any:
        mine = parts[processes.rank] if processes.rank < len(parts) else []
        with file.open("a") as lines:
            lines.write(json.dumps([runtime.current().compile, mine]) + "\n")
        return computed(processes, computation, networks, split, parts, *more)

    measuring._computed = noting


def at_round(number: int, happens: Callable[[], object]) -> None:
    """Let something happen in this process when it begins its part of a round, counted from 1."""
    computed, rounds = measuring._computed, [0]

    def computing(*given: Any) -> Any:
        rounds[0] += 1
        if rounds[0] == number:
            happens()
        return computed(*given)

    measuring._computed = computing


def killed() -> None:
    os.kill(os.getpid(), signal.SIGKILL)


def interrupted() -> None:
    os.kill(os.getpid(), signal.SIGINT)


def refused(*_: Any) -> Iterator[Any]:
    raise ValueError("It returned NaN logits.")


class Scenario:
    """What is wrong with a process, by name; each is tried by a group of two on a store with the networks."""

    @staticmethod
    def data(rank: int, store: Path) -> None:
        os.environ["RKDKIT_DATA"] = str(store.parent / "data" / str(rank))
        measure([replace(ATTACKED, images=Images("folder:squares"))], store, rank)

    @staticmethod
    def no_data(rank: int, store: Path) -> None:
        os.environ["RKDKIT_DATA"] = str(store.parent / "data" / ("nowhere" if rank else "0"))
        measure([replace(ATTACKED, images=Images("folder:squares"))], store, rank)

    @staticmethod
    def package(rank: int, store: Path) -> None:
        autoattack.version = lambda _: str(rank)  # type: ignore[assignment]
        measure([AUTO], store, rank)

    @staticmethod
    def memory(rank: int, store: Path) -> None:
        if rank:
            at_round(2, no_memory)
        measure([ATTACKED], store, rank)

    @staticmethod
    def memory_of_the_first(rank: int, store: Path) -> None:
        if not rank:
            at_round(2, no_memory)
        measure([ATTACKED], store, rank)

    @staticmethod
    def interrupted(rank: int, store: Path) -> None:
        """While the first waits for the other, which is at work for long."""

        def write(what: str) -> None:
            (store.parent / what).write_text(str(time.time()))

        if rank:
            at_round(2, lambda: (time.sleep(8), write("awake")))
            measure([ATTACKED], store, rank)
            return
        signal.signal(signal.SIGINT, signal.default_int_handler)  # whoever started the tests may ignore it
        at_round(2, lambda: threading.Timer(1, interrupted).start())
        try:
            with endings.one_line_at_the_end(endings.KEPT):
                measure([ATTACKED], store, rank)
        finally:
            write("stopped")

    @staticmethod
    def disk(rank: int, store: Path) -> None:
        write, keep = Store.write_answer, [None] * 3

        def full(*given: Any) -> None:
            keep.pop() if keep else (_ for _ in ()).throw(StoreError("The disk is full."))
            write(*given)

        Store.write_answer = full  # type: ignore[method-assign]
        measure([ATTACKED], store, rank)

    @staticmethod
    def refused(rank: int, store: Path) -> None:
        """A measurement that fails in one process; the next one is made by both."""
        with ExitStack() as held:
            if rank:
                answers = WholeBatches.answers
                WholeBatches.answers = refused  # type: ignore[method-assign]
                at_round(2, lambda: setattr(WholeBatches, "answers", answers))
            else:
                held.enter_context(runtime.using(runtime.Settings("off", BATCH)))
                os.environ["RKDKIT_STORE"] = str(store)
            executor = held.enter_context(among_processes())
            assert executor is not None
            for task in (ATTACKED, TOGETHER["entropy"]):
                try:
                    executor.gather([task])
                except ValueError as error:
                    print(error)

    @staticmethod
    def own_attack(rank: int, store: Path) -> None:
        measure([replace(AUTO, attack=Mine(0.05, queries=5))], store, rank)


SCENARIOS = [name for name in vars(Scenario) if not name.startswith("_")]
KILLED = {"PGD, two judges": 2, "AutoAttack": 6}
"""The measurements in which the third of four processes is killed, and the round."""


def store_of(folder: Path, name: str) -> Path:
    """Return a new store with the networks."""
    shutil.copytree(folder / "trained" / "runs", folder / name / "runs")
    return folder / name


def main(folder: Path) -> None:
    """Let groups of all sizes measure; then kill one of four and go on by two; then try what may be wrong."""
    torch.set_num_threads(1)
    data.load("digits")  # once for all that are forked, as what is imported late
    importlib.import_module("pyautoattack")
    shorter()
    os.environ["RKDKIT_STORE"] = str(folder / "trained")
    with executors.using(executors.Here()):
        runs.ensure(SPEC)
    every = [*TOGETHER.values(), *ALONE.values()]
    for size in SIZES:
        store = store_of(folder, f"store-{size}")

        def member(rank: int, store: Path = store, size: int = size) -> None:
            noted(folder / f"computed-{size}-{rank}")
            measure(every, store, rank, alone=size == 1)

        if any(ended := run_group(size, member)):
            sys.exit(f"A group of {size} ended with {ended}.")
    ended: dict[str, list[int]] = {}
    for i, (name, number) in enumerate(KILLED.items()):
        store = store_of(folder, f"killed-{i}")

        def begins(rank: int, store: Path = store, number: int = number, name: str = name) -> None:
            if rank == 2:
                at_round(number, killed)
            measure([TOGETHER[name]], store, rank)

        def goes_on(rank: int, store: Path = store, name: str = name) -> None:
            noted(Path(f"{store}-computed-{rank}"))
            measure([TOGETHER[name]], store, rank)

        ended[f"killed-{i}"] = run_group(4, begins, folder / f"log-killed-{i}")
        shutil.copytree(store, f"{store}-before")
        ended[f"goes-on-{i}"] = run_group(2, goes_on, folder / f"log-goes-on-{i}")
    squares(folder / "data")
    for name in SCENARIOS:
        store = store_of(folder, f"scenario-{name}")
        ended[name] = run_group(
            2, lambda rank, name=name, store=store: getattr(Scenario, name)(rank, store), folder / f"log-{name}"
        )
    (folder / "ended.json").write_text(json.dumps(ended))


if __name__ == "__main__":
    main(Path(sys.argv[1]))
