"""One training step of the kit against the same step in plain PyTorch, and against the machine's ceiling.

python benchmarks/training_step.py --methods PeerAiD --networks resnet18 --repetitions 2

The plain step is that of the released loops; with one more command line it is PeerAiD's released loop beside the kit:

OMP_NUM_THREADS=2 python benchmarks/training_step.py --methods PeerAiD --networks resnet18 --repetitions 5

It is measured in float32 and, where the kit's bfloat16 is asked for, by autocast and channels-last, too. "Times faster"
is over the plain step in float32: the ratio of the medians, and the least and the most of the rounds' ratios. On a GPU,
`--compile reduce-overhead` and `--graphs on` are candidates. A candidate that fails is named with its error.
"""

import functools
import itertools
import math
import statistics
from collections.abc import Callable, Iterator, Sequence
from enum import StrEnum
from typing import Annotated

import torch
import typer
from measuring import (
    BatchSize,
    Compile,
    Csv,
    Method,
    Precision,
    Repetitions,
    device,
    images,
    in_turn,
    matrix_products,
    peak_memory,
    rate,
    ratios,
    seconds,
    table,
    training,
)
from straightforward import STEPS, Step
from torch import Tensor

from rkdkit import data, models, runtime
from rkdkit.training import Training

TOGETHER = 8 if torch.cuda.is_available() else 1
"""Steps that are timed together: on a GPU, what the kit does once an epoch would weigh on a single one."""

WORK = {"PGD-AT": 3, "TRADES": 1 + 2 * 3, "ARD": 1 + 3, "PeerAiD": 1 + 3 * 3}
"""What the kit's update needs, in forward passes: a network that is trained counts as three."""


REDUCE = "reduce-overhead"
"""Compiled with CUDA graphs of each pass, as torch.compile's mode of this name."""

CompileOrReduce = StrEnum("CompileOrReduce", {name: name for name in (*Compile, REDUCE)})


def network(name: str, seed: int = 0) -> models.Classifier:
    """Return fresh weights, in the usual memory format."""
    return models.build(name, 10, [0.5] * 3, [0.25] * 3, seed=seed).to(device())


def training_of(
    method: str, name: str, batch_size: int, precision: str, compiled: str = "off", graphs: str = "off"
) -> Training:
    """Return a training whose epochs have `TOGETHER` steps."""
    options, reduces = runtime.OPTIONS, compiled == REDUCE
    runtime.OPTIONS = {**options, "triton.cudagraphs": True} if reduces else options
    try:
        with runtime.using(runtime.Settings("on" if reduces else compiled, graphs=graphs)):
            return training(method, name, batch_size, steps=TOGETHER, attack_steps=STEPS, precision=precision)
    finally:
        runtime.OPTIONS = options


def kit(
    method: str, name: str, batch_size: int, precision: str, compiled: str = "off", graphs: str = "off"
) -> Callable[[], object]:
    """Return the epochs of :func:`training_of`."""
    loop, reduces = training_of(method, name, batch_size, precision, compiled, graphs), compiled == REDUCE
    # the results of a pass may be overwritten in the next step
    return lambda: loop.run_epoch(torch.compiler.cudagraph_mark_step_begin if reduces else lambda: None)


def work(method: str, name: str, batch_size: int) -> float:
    """Return the floating-point operations of the kit's step: a backward pass to the parameters counts as two more."""
    return 2 * models.cost(network(name), (3, 32, 32)).multiply_adds * batch_size * (2 * STEPS + WORK[method])


def measured(
    methods: Sequence[str],
    networks: Sequence[str],
    precisions: Sequence[str],
    compiled: Sequence[str],
    graphs: Sequence[str],
    batch_size: int,
    repetitions: int,
) -> Iterator[list[object]]:
    """Yield a row a step, those of one network and method measured in turn."""
    batch = images(batch_size)
    x, y = data.to_float(batch.images.to(device())), batch.labels.to(device())
    for name, method in itertools.product(networks, methods):
        makers: dict[tuple[str, str, str], Callable[[], Callable[[], object]]] = {}
        for precision in dict.fromkeys(["float32", *precisions]):
            makers["plain", precision, ""] = functools.partial(plain, method, name, x, y, precision)
        for precision in precisions:
            makers["matrix products", precision, ""] = functools.partial(matrix_products, getattr(torch, precision))
            for mode, captured in itertools.product(compiled, graphs):
                if mode == REDUCE and captured == "on":
                    continue  # it captures by itself
                words = {"on": "compiled", REDUCE: REDUCE}.get(mode, ""), "graphs" if captured == "on" else ""
                how = ", ".join(filter(None, words))
                makers["kit", precision, how] = functools.partial(
                    kit, method, name, batch_size, precision, mode, captured
                )
        candidates: dict[tuple[str, str, str], Callable[[], object]] = {}
        for key, make in makers.items():
            try:
                candidates[key] = make()
                seconds(candidates[key])  # this round warms up
                if key[0] == "kit" and key[2]:
                    seconds(candidates[key])  # what is captured is captured late
            except Exception as error:
                candidates.pop(key, None)
                said = " ".join(f"{type(error).__name__}: {error}".split())[:300]
                yield [name, method, *key, "failed", "", said, "", ""]
        rounds = in_turn(candidates, repetitions, warm_up=0)
        flops = TOGETHER * work(method, name, batch_size)
        usual = rounds.get(("plain", "float32", ""), [math.nan] * repetitions)
        for key, times in rounds.items():
            spent = statistics.median(times)
            if key[0] == "matrix products":
                yield [name, "", *key, spent, "", "", f"{rate(spent) / 1e12:.3g} TFLOP/s", ""]
                continue
            products = rounds.get(("matrix products", key[1], ""))
            share = flops / spent / rate(statistics.median(products)) if key[0] == "kit" and products else ""
            memory = peak_memory(candidates[key])
            faster = statistics.median(usual) / spent
            row = [name, method, *key, spent / TOGETHER, faster, ratios(usual, times), share]
            yield [*row, "" if memory is None else memory]


def plain(method: str, name: str, x: Tensor, y: Tensor, precision: str) -> Callable[[], object]:
    """Return `TOGETHER` steps as the released loops take them."""
    step = Step(method, network(name), network(name, seed=1), bfloat16=precision == "bfloat16")
    return lambda: [step(x, y) for _ in range(TOGETHER)]


def main(
    methods: Annotated[list[Method], typer.Option(help="Whose steps; repeatable.")] = list(WORK),  # noqa: B006
    networks: Annotated[list[str], typer.Option(help="Any of the kit's; repeatable.")] = ("resnet18/4",),
    precisions: Annotated[
        list[Precision], typer.Option(help="Of the kit's step; bfloat16 adds a plain one; repeatable.")
    ] = ("float32", "bfloat16"),
    compile: Annotated[
        list[CompileOrReduce], typer.Option(help="Whether the kit's networks are compiled; repeatable.")
    ] = ("off",),
    graphs: Annotated[
        list[Compile], typer.Option(help="Whether the kit's attack is captured as one graph; repeatable.")
    ] = ("off",),
    batch_size: BatchSize = 128,
    repetitions: Repetitions = 3,
    csv: Csv = None,
) -> None:
    """Measure one training step of the kit against the same step in plain PyTorch, and the machine's ceiling."""
    header = [
        "network",
        "method",
        "step",
        "precision",
        "how",
        "s",
        "times faster",
        "in the rounds",
        "share of ceiling",
        "peak MiB beyond what is held",
    ]
    table(header, measured(methods, networks, precisions, compile, graphs, batch_size, repetitions), csv)


if __name__ == "__main__":
    typer.run(main)
