"""How long the explorer takes to answer when something is moved, on the runs of a store.

RKDKIT_STORE=store python benchmarks/exploring.py --run PeerAiD --beside RSLAD

Nothing is trained: the store must have runs, as after `make fig1`. A movement waits at most for one epoch of the curves
over the epochs, too, if that was begun before; `an epoch of a curve` says how long this is.
"""

import statistics
import time
from collections.abc import Callable, Iterator
from typing import Annotated, Any

import torch
import typer
from measuring import table

from rkdkit import explore
from rkdkit.explore.column import NONE
from rkdkit.explore.view import Explorer

LIMIT = 0.3
"""Seconds within which every movement is to be answered on the digits."""


def moves(explorer: Explorer) -> Iterator[tuple[str, Callable[[], object]]]:
    """Yield everything that can be moved, one movement after the other: what it is, and what moves it."""
    first, second = explorer.columns

    def setting(widget: Any, value: object) -> Callable[[], object]:
        def move() -> None:
            widget.value = value

        return move

    for button in explorer.buttons:
        yield "another image", button.click
    for step in range(explorer.step.max + 1):
        yield "another step", setting(explorer.step, step)
    for part in range(11):
        yield "another eps", setting(explorer.eps, explorer.eps.max * part / 10)
    for _, epoch in zip(range(20), first.epoch.options, strict=False):
        yield "another epoch", setting(first.epoch, epoch)
    for name in first.who.options:
        yield "another attacked network", setting(first.who, name)
    for quantity in ("loss", "probability"):
        yield "another quantity", setting(explorer.quantity, quantity)
    for page in range(2, min(explorer.page.max, 12)):
        yield "another page", setting(explorer.page, page)
    for column in (second, first):
        for method in column.method.options:
            yield "another method", setting(column.method, method)
            for run in column.run.options[:3] if method != NONE else ():
                yield "another run", setting(column.run, run[1])
    for dataset in (*explorer.dataset.options, explorer.dataset.options[0]):
        yield "another dataset", setting(explorer.dataset, dataset)


def epochs_of_curves(explorer: Explorer) -> Iterator[tuple[str, Callable[[], object]]]:
    """Yield the epochs of a curve that is not in memory, one after the other."""
    explorer.eps.value = explorer.eps.max * 0.77
    trajectory = explorer.columns[0].trajectory
    while trajectory is not None and trajectory.missing:
        yield "an epoch of a curve", trajectory.go_on


def main(
    run: Annotated[str, typer.Option(help="The run to begin with: a method, or the beginning of an id.")] = "PeerAiD",
    beside: Annotated[str, typer.Option(help="The run beside it.")] = "RSLAD",
    threads: Annotated[int, typer.Option(help="Threads of torch.")] = 1,
) -> None:
    """Move everything in the explorer, and measure each answer."""
    torch.set_num_threads(threads)
    begin = time.perf_counter()
    found = explore.look_through()
    print(f"{len(found.runs)} runs looked through in {time.perf_counter() - begin:.2f} s")
    begin = time.perf_counter()
    explorer = explore.explorer(found, run, beside)
    print(f"shown for the first time after {time.perf_counter() - begin:.2f} s")
    taken: dict[str, list[tuple[float, float]]] = {}
    for source in (moves, epochs_of_curves):
        for what, move in source(explorer):
            began = time.perf_counter(), time.process_time()
            move()
            spent = time.perf_counter() - began[0], time.process_time() - began[1]
            taken.setdefault(what, []).append(spent)
    rows = []
    for what, times in taken.items():
        waited, computed = zip(*times, strict=True)
        over = sum(each > LIMIT for each in waited)
        spent = statistics.median(waited), max(waited), over, statistics.median(computed), max(computed)
        rows.append([what, len(times), *spent])
    table(["what is moved", "times", "median s", "worst s", f"over {LIMIT} s", "median CPU s", "worst CPU s"], rows)


if __name__ == "__main__":
    typer.run(main)
