"""One training by 1, 2 and 4 processes of one thread, beside one process with as many threads; what 8 GPUs would do.

python benchmarks/devices.py --networks resnet18 --networks resnet18/4 --processes 1 --processes 2 --processes 4

Every row is a process or a group of its own, started one after the other, round by round. "In exchange" is the share of
the time in which the first process sends, receives, or waits for the others. The last table is argued, not measured.
"""

import json
import os
import socket
import statistics
import subprocess
import sys
import time
from collections.abc import Iterable
from typing import Annotated, Any

import torch
import typer
from measuring import BatchSize, Method, Repetitions, table, training
from torch import Tensor
from training_step import WORK

from rkdkit import models
from rkdkit.group.processes import Processes, joined, started_together
from rkdkit.group.shares import ALONE, Shares

GPUS = 8
LINKS = {"NVLink": 300e9, "PCIe 4": 25e9, "Ethernet, 25 Gbit/s": 3e9}
"""Bytes a second that a GPU sends and receives at once, in round numbers."""

LATENCY = 25e-6
"""Seconds of a message that carries next to nothing between 8 GPUs of one machine: a round number, not measured."""

RATE = 150e12
"""Floating-point operations a second of one GPU in such a training, bfloat16: a guess, of which half is not rare."""


class Counting(Processes):
    """A group that counts the messages of its steps, their bytes, and the seconds that they take.

    What is sent once per epoch (`send_first`: weights and momentum, made equal) is not counted.
    """

    messages, sent, seconds = 0, 0, 0.0

    def gather(self, tensor: Tensor) -> list[Tensor]:
        """As :meth:`Shares.gather`."""
        return self._counted(super().gather, tensor)  # type: ignore[no-any-return]

    def add(self, tensor: Tensor) -> Tensor:
        """As :meth:`Shares.add`."""
        return self._counted(super().add, tensor)  # type: ignore[no-any-return]

    def _counted(self, exchange: Any, tensor: Tensor) -> Any:
        began = time.perf_counter()
        result = exchange(tensor)
        self.seconds += time.perf_counter() - began
        self.messages, self.sent = self.messages + 1, self.sent + tensor.nbytes
        return result


def member(given: dict[str, Any]) -> None:
    """Be the process that trains alone, or one of a group; the first prints what it measured."""
    if not started_together():
        print(json.dumps(measured(ALONE, **given)))
        return
    with joined() as processes:
        processes.__class__ = Counting
        found = measured(processes, **given)
        if not processes.rank:
            print(json.dumps(found))


def measured(shares: Shares, **given: Any) -> dict[str, float]:
    """Return seconds, seconds in exchange, messages and bytes of a step, after an epoch that does not count."""
    loop = training(**given, shares=shares)
    loop.run_epoch()
    if isinstance(shares, Counting):
        shares.messages, shares.sent, shares.seconds = 0, 0, 0.0
    began = time.perf_counter()
    loop.run_epoch()
    taken = {
        "seconds": time.perf_counter() - began,
        "exchange": getattr(shares, "seconds", 0.0),
        "messages": getattr(shares, "messages", 0),
        "bytes": getattr(shares, "sent", 0),
    }
    return {name: value / loop.batches_per_epoch for name, value in taken.items()}


def run(processes: int, threads: int, given: dict[str, Any]) -> dict[str, float]:
    """Let a group, or one process, train; return what the first process measured."""
    with socket.socket() as listening:
        listening.bind(("127.0.0.1", 0))
        port = listening.getsockname()[1]
    place = {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port), "WORLD_SIZE": str(processes)}
    place |= {"OMP_NUM_THREADS": str(threads), "MKL_NUM_THREADS": str(threads), "LOCAL_WORLD_SIZE": str(processes)}
    started = [
        subprocess.Popen(
            [sys.executable, __file__, "--member", json.dumps(given)],
            env={**os.environ, **place, "RANK": str(rank), "LOCAL_RANK": str(rank)},
            stdout=subprocess.PIPE,
            text=True,
        )
        for rank in range(processes)
    ]
    said = [each.communicate()[0] for each in started]
    if any(each.returncode for each in started):
        sys.exit(f"{processes} processes of {threads} threads did not end well.")
    found: dict[str, float] = json.loads(said[0].splitlines()[-1])
    return found


def argued(given: dict[str, Any], found: dict[str, float]) -> Iterable[list[object]]:
    """Yield what the messages of a step would take on `GPUS` GPUs, by link, and how much faster they would be.

    Left out: GPUs synchronise batch norm by torch's SyncBatchNorm, which makes the host wait for the GPU in every
    forward pass of every such layer (it selects ``count_all[mask]``, whose shape the host must know). So the host
    cannot run ahead, and 8 GPUs gain less than this says.
    """
    network = given["network"]
    passes = given["batch_size"] * (2 * given["attack_steps"] + WORK[given["method"]])
    costs = models.cost(models.build(network, 10, [0.5] * 3, [0.25] * 3), (3, 32, 32))
    alone = 2 * costs.multiply_adds * passes / RATE
    for link, rate in LINKS.items():
        # a ring sends and receives each byte of a sum nearly twice
        exchange = found["messages"] * LATENCY + 2 * (GPUS - 1) / GPUS * found["bytes"] / rate
        together = alone / GPUS + exchange
        times = f"{alone / together:.1f}"
        yield [network, link, f"{found['bytes'] / 1e6:.1f}", round(found["messages"]), f"{1e3 * alone:.1f}",
               f"{1e3 * exchange:.2f}", f"{exchange / together:.0%}", times]  # fmt: skip


def main(
    networks: Annotated[list[str], typer.Option(help="Any of the kit's; repeatable.")] = ["resnet18", "resnet18/4"],  # noqa: B006
    processes: Annotated[list[int], typer.Option(help="How many; repeatable.")] = [1, 2, 4],  # noqa: B006
    method: Method = Method["PeerAiD"],
    batch_size: BatchSize = 128,
    attack_steps: Annotated[int, typer.Option(help="Of the training's attack.")] = 10,
    steps: Annotated[int, typer.Option(help="Training steps that are timed together.")] = 2,
    repetitions: Repetitions = 3,
    member_of: Annotated[str, typer.Option("--member", hidden=True)] = "",
) -> None:
    """Measure and print two tables; `--member` is for the processes that it starts."""
    if member_of:
        member(json.loads(member_of))
        return
    rows, at_eight = [], []
    for network in networks:
        given = {
            "method": str(method), "network": network, "batch_size": batch_size, "steps": steps,
            "attack_steps": attack_steps,
        }  # fmt: skip
        settings = dict.fromkeys(place for n in processes for place in ((1, n), (n, 1)))
        taken: dict[tuple[int, int], list[dict[str, float]]] = {place: [] for place in settings}
        for _ in range(repetitions):
            for place, found in taken.items():
                found.append(run(*place, given))
        median = {
            place: {name: statistics.median(each[name] for each in found) for name in found[0]}
            for place, found in taken.items()
        }
        for (n, threads), found in median.items():
            with_threads = median[1, max(n, threads)]["seconds"]
            rows.append([network, n, threads, f"{batch_size / found['seconds']:.1f}",
                         f"{with_threads / found['seconds']:.2f}", f"{found['exchange'] / found['seconds']:.0%}",
                         round(found["messages"]), f"{found['bytes'] / 1e6:.1f}"])  # fmt: skip
        at_eight += argued(given, median[max(n for n, _ in median), 1])
    print(
        f"{method}, {attack_steps} steps of the attack, batches of {batch_size}, float32, torch {torch.__version__}\n"
    )
    heading = ["network", "processes", "threads each", "images/s", "of one process with as many threads"]
    table([*heading, "in exchange", "messages a step", "MB a step"], rows)
    print(f"\nArgued for {GPUS} GPUs of {RATE / 1e12:g} TFLOP/s in bfloat16, {1e6 * LATENCY:g} us a message:\n")
    heading = ["network", "link", "MB a step", "messages a step", "one GPU, ms a step", "exchange, ms"]
    table([*heading, "share in exchange", "times one GPU"], at_eight)


if __name__ == "__main__":
    typer.run(main)
