"""How near `rkdkit plan`'s estimate of a training step's memory is to what the step takes.

python benchmarks/memory.py --methods PeerAiD --networks resnet18 --batch-size 32

What the networks, their momentum and their last gradients take is held before a step and not in either number. On a CPU
the peak is the process's, what the libraries hold for themselves included; on a GPU it is what torch allocates.
"""

import dataclasses
import gc
import itertools
from collections.abc import Iterator, Sequence
from typing import Annotated

import typer
from measuring import BatchSize, Method, Precision, dataset, device, peak_memory, table
from training_step import training_of

from rkdkit.plan.cost import Costs


def measured(
    methods: Sequence[str], networks: Sequence[str], precisions: Sequence[str], batch_size: int
) -> Iterator[list[object]]:
    """Yield a row a step."""
    costs = Costs(lambda _: dataset(2 * batch_size))
    for network, method, precision in itertools.product(networks, methods, precisions):
        training = training_of(method, network, batch_size, precision)
        kind = dataclasses.replace(costs.kind(training.spec), attack_steps=1)
        training.run_epoch()  # momentum and gradients are there from now on
        parameters = [p for each in training.networks.values() for p in each.parameters()]
        held = sum(p.nbytes for each in training.networks.values() for p in each.state_dict().values())
        held += 2 * sum(p.nbytes for p in parameters)
        estimate = (costs.memory_of_step(kind) - held) / 2**20
        peak = peak_memory(training.run_epoch)
        said = ("", "") if peak is None else (f"{peak:,.0f}", peak / estimate)
        yield [network, method, precision, batch_size, f"{estimate:,.0f}", *said]
        del training, parameters
        gc.collect()


def main(
    methods: Annotated[list[Method], typer.Option(help="Whose steps; repeatable.")] = ("PGD-AT", "TRADES", "PeerAiD"),
    networks: Annotated[list[str], typer.Option(help="Any of the kit's; repeatable.")] = ("resnet18/4",),
    precisions: Annotated[list[Precision], typer.Option(help="Repeatable.")] = ("float32", "bfloat16"),
    batch_size: BatchSize = 128,
) -> None:
    """Compare the estimated memory of a training step with what it takes."""
    header = ["network", "method", "precision", "batch", "estimated MiB", f"peak MiB, {device()}", "peak / estimate"]
    table(header, measured(methods, networks, precisions, batch_size))


if __name__ == "__main__":
    typer.run(main)
