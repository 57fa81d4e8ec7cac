"""One training step of the kit against the same step in plain PyTorch, and against the machine's ceiling.

python benchmarks/training_step.py --methods PeerAiD --networks resnet18 --repetitions 2

The plain step is measured in float32 and, where the kit's bfloat16 is asked for, by autocast and channels-last, too.
"Times faster" is over the plain step in float32.
"""

import itertools
from collections.abc import Callable, Iterator, Sequence
from typing import Annotated

import torch
import typer
from measuring import (
    BatchSize,
    Compile,
    Method,
    Precision,
    Repetitions,
    alternately,
    dataset,
    device,
    images,
    matrix_products,
    peak_memory,
    rate,
    table,
)
from straightforward import STEPS, Step

from rkdkit import data, models, runtime
from rkdkit.spec import RunSpec, Teacher
from rkdkit.training import Training

TOGETHER = 8 if torch.cuda.is_available() else 1
"""Steps that are timed together: on a GPU, what the kit does once an epoch would weigh on a single one."""

WORK = {"PGD-AT": 3, "TRADES": 1 + 2 * 3, "ARD": 1 + 3, "PeerAiD": 1 + 3 * 3}
"""What the kit's update needs, in forward passes: a network that is trained counts as three."""


def network(name: str, seed: int = 0) -> models.Classifier:
    """Return fresh weights, in the usual memory format."""
    return models.build(name, 10, [0.5] * 3, [0.25] * 3, seed=seed).to(device())


def kit(method: str, name: str, batch_size: int, precision: str, compiled: str) -> Training:
    """Return a training whose epochs have `TOGETHER` steps."""
    spec = RunSpec(
        method=method,
        dataset="cifar10",
        student=name,
        peer=name if method == "PeerAiD" else "",
        teachers=(Teacher(module="teacher"),) if method == "ARD" else (),
        precision=precision,
        batch_size=batch_size,
        attack_steps=STEPS,
        epochs=1000,
    )
    teachers = [network(name, seed=1).on(device())] if method == "ARD" else []
    with runtime.using(runtime.Settings(compiled)):
        return Training(spec, dataset(TOGETHER * batch_size), device(), teachers)


def work(method: str, name: str, batch_size: int) -> float:
    """Return the floating-point operations of the kit's step: a backward pass to the parameters counts as two more."""
    return 2 * models.cost(network(name), (3, 32, 32)).multiply_adds * batch_size * (2 * STEPS + WORK[method])


def measured(
    methods: Sequence[str],
    networks: Sequence[str],
    precisions: Sequence[str],
    compiled: Sequence[str],
    batch_size: int,
    repetitions: int,
) -> Iterator[list[object]]:
    """Yield a row a step, those of one network and method measured in turn."""
    batch = images(batch_size)
    x, y = data.to_float(batch.images.to(device())), batch.labels.to(device())
    for name, method in itertools.product(networks, methods):
        candidates: dict[tuple[str, str, str], Callable[[], object]] = {}
        for precision in dict.fromkeys(["float32", *precisions]):
            step = Step(method, network(name), network(name, seed=1), bfloat16=precision == "bfloat16")
            candidates["plain", precision, ""] = lambda step=step: [step(x, y) for _ in range(TOGETHER)]
        for precision in precisions:
            candidates["matrix products", precision, ""] = matrix_products(getattr(torch, precision))
            for mode in compiled:
                key = ("kit", precision, "compiled" if mode == "on" else "")
                candidates[key] = kit(method, name, batch_size, precision, mode).run_epoch
        taken = alternately(candidates, repetitions)
        usual, flops = taken["plain", "float32", ""], TOGETHER * work(method, name, batch_size)
        for key, spent in taken.items():
            if key[0] == "matrix products":
                continue
            share = flops / spent / rate(taken["matrix products", key[1], ""]) if key[0] == "kit" else ""
            memory = peak_memory(candidates[key])
            yield [name, method, *key, spent / TOGETHER, usual / spent, share, "" if memory is None else memory]


def main(
    methods: Annotated[list[Method], typer.Option(help="Whose steps; repeatable.")] = list(WORK),  # noqa: B006
    networks: Annotated[list[str], typer.Option(help="Any of the kit's; repeatable.")] = ("resnet18/4",),
    precisions: Annotated[
        list[Precision], typer.Option(help="Of the kit's step; bfloat16 adds a plain one; repeatable.")
    ] = ("float32", "bfloat16"),
    compile: Annotated[list[Compile], typer.Option(help="Whether the kit's networks are compiled.")] = ("off",),
    batch_size: BatchSize = 128,
    repetitions: Repetitions = 3,
) -> None:
    """Measure one training step of the kit against the same step in plain PyTorch, and the machine's ceiling."""
    header = [
        "network",
        "method",
        "step",
        "precision",
        "compiled",
        "s",
        "times faster",
        "share of ceiling",
        "peak MiB beyond what is held",
    ]
    table(header, measured(methods, networks, precisions, compile, batch_size, repetitions))


if __name__ == "__main__":
    typer.run(main)
