"""One training step of the kit against the same step in plain PyTorch, and against the machine's ceiling.

python benchmarks/training_step.py --methods PeerAiD --networks resnet18 --repetitions 2

The plain step is measured in float32 and, where the kit's bfloat16 is asked for, by autocast and channels-last, too.
"Times faster" is over the plain step in float32.
"""

import argparse
import itertools
from collections.abc import Callable, Iterator

import torch
from measuring import alternately, arguments, dataset, device, images, matrix_products, peak_memory, rate, table
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
    runtime.use(runtime.Settings(compiled))
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
    return Training(spec, dataset(TOGETHER * batch_size), device(), teachers)


def work(method: str, name: str, batch_size: int) -> float:
    """Return the floating-point operations of the kit's step: a backward pass to the parameters counts as two more."""
    return 2 * models.cost(network(name), (3, 32, 32)).multiply_adds * batch_size * (2 * STEPS + WORK[method])


def measured(given: argparse.Namespace) -> Iterator[list[object]]:
    """Yield a row a step, those of one network and method measured in turn."""
    batch = images(given.batch_size)
    x, y = data.to_float(batch.images.to(device())), batch.labels.to(device())
    for name, method in itertools.product(given.networks, given.methods):
        candidates: dict[tuple[str, str, str], Callable[[], object]] = {}
        for precision in dict.fromkeys(["float32", *given.precisions]):
            step = Step(method, network(name), network(name, seed=1), bfloat16=precision == "bfloat16")
            candidates["plain", precision, ""] = lambda step=step: [step(x, y) for _ in range(TOGETHER)]
        for precision in given.precisions:
            candidates["matrix products", precision, ""] = matrix_products(getattr(torch, precision))
            for compiled in given.compile:
                key = ("kit", precision, "compiled" if compiled == "on" else "")
                candidates[key] = kit(method, name, given.batch_size, precision, compiled).run_epoch
        taken = alternately(candidates, given.repetitions)
        usual, flops = taken["plain", "float32", ""], TOGETHER * work(method, name, given.batch_size)
        for key, spent in taken.items():
            if key[0] == "matrix products":
                continue
            share = flops / spent / rate(taken["matrix products", key[1], ""]) if key[0] == "kit" else ""
            memory = peak_memory(candidates[key])
            yield [name, method, *key, spent / TOGETHER, usual / spent, share, "" if memory is None else memory]


def main() -> None:
    """Measure and print."""
    given = arguments(
        __doc__,
        methods=(list(WORK), "whose steps", *WORK),
        networks=(["resnet18/4"], "any of the kit's: resnet18, wrn-34-10, with /2 to /16 behind them"),
        precisions=(["float32", "bfloat16"], "of the kit's step; bfloat16 adds a plain one", "float32", "bfloat16"),
        compile=(["off"], "whether the kit's networks are compiled", "off", "on"),
        batch_size=(128, "random images of CIFAR's size"),
        repetitions=(3, "rounds that count, after one that does not"),
    )
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
    table(header, measured(given))


if __name__ == "__main__":
    main()
