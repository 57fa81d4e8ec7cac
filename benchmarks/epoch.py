"""A whole epoch as `runs.ensure` trains it, data and bookkeeping included, against DataLoader and a plain step.

python benchmarks/epoch.py --method PGD-AT --network resnet18/4 --n 2560
"""

import copy
import dataclasses
import functools
import math
import statistics
import tempfile
from pathlib import Path
from typing import Annotated, Literal

import torchvision
import typer
from measuring import BatchSize, Compile, Csv, Network, Precision, Repetitions, alternately, dataset, device, table
from straightforward import Step
from torch import Tensor
from torch.utils.data import DataLoader, Dataset

from rkdkit import data, executors, models, runs, runtime
from rkdkit.spec import RunSpec
from rkdkit.store import Store
from rkdkit.tasks import Context
from rkdkit.trainings import Run


class Images(Dataset):
    """Images one by one, augmented on the way."""

    def __init__(self, split: data.Split) -> None:
        self.pixels, self.labels = split.images, split.labels
        augment = torchvision.transforms
        self.augment = augment.Compose([augment.RandomCrop(32, 4), augment.RandomHorizontalFlip()])

    def __len__(self) -> int:
        return len(self.labels)

    def __getitem__(self, i: int) -> tuple[Tensor, Tensor]:
        """Return an image, (3, 32, 32) in [0, 1], and its label."""
        return self.augment(self.pixels[i].float() / 255), self.labels[i]


class OnNoise(executors.Here):
    """Trains runs on random images, whatever dataset they name."""

    def __init__(self, store: Store, images: data.Dataset) -> None:
        super().__init__(store)
        self.images = images

    @property
    def context(self) -> Context:
        """The usual one, with the random images in it."""
        return dataclasses.replace(super().context, load=lambda _: self.images)


def plain(step: Step, loader: DataLoader) -> None:
    """Train an epoch as one would write it down."""
    for x, y in loader:
        step(x.to(device()), y.to(device()))


def main(
    method: Annotated[Literal["PGD-AT", "TRADES", "PeerAiD"], typer.Option(help="Whose epoch.")] = "PGD-AT",
    network: Network = "resnet18/4",
    precision: Annotated[Precision, typer.Option(help="Of the kit's epoch; bfloat16 adds a plain one.")] = "float32",
    compile: Annotated[Compile, typer.Option(help="Whether the kit's networks are compiled.")] = "off",
    n: Annotated[int, typer.Option(help="Random images of CIFAR's size.")] = 1280,
    batch_size: BatchSize = 128,
    workers: Annotated[int, typer.Option(help="Processes of the DataLoader.")] = 0,
    repetitions: Repetitions = 3,
    graphs: Annotated[Compile, typer.Option(help="Whether the kit's attack is captured as one graph.")] = "off",
    beside: Annotated[bool, typer.Option(help="Measure the plain step, too.")] = True,
    csv: Csv = None,
) -> None:
    """Measure an epoch as `runs.ensure` trains it, bookkeeping included, against DataLoader and a plain step."""
    train = dataset(n)
    networks = [models.build(network, 10, [0.5] * 3, [0.25] * 3, seed=seed).to(device()) for seed in (0, 1)]
    loader = DataLoader(Images(train.train), batch_size, shuffle=True, drop_last=True, num_workers=workers)
    seeds = iter(range(repetitions + 1))
    spec = {
        **{"method": method, "dataset": "cifar10", "student": network, "augmentation": "crop-flip"},
        **{"batch_size": batch_size, "precision": precision},
        "peer": network if method == "PeerAiD" else "",
    }
    with (
        tempfile.TemporaryDirectory() as folder,
        runtime.using(runtime.Settings(compile, graphs=graphs)),
        executors.using(OnNoise(Store(Path(folder)), train)),
    ):
        done: list[Run] = []
        candidates = {
            **{
                f"plain, {bits}": functools.partial(
                    plain, Step(method, *copy.deepcopy(networks), bfloat16=bits == "bfloat16"), loader
                )
                for bits in dict.fromkeys(["float32", precision] if beside else [])
            },
            f"kit, {precision}": lambda: done.append(runs.ensure(RunSpec(**spec, seed=next(seeds)))),
        }
        taken = alternately(candidates, repetitions)
    usual = taken.get("plain, float32", math.nan)
    rows = [[name, spent, usual / spent] for name, spent in taken.items()]
    table([f"an epoch of {n} images", "s", "times faster"], rows, csv)
    within = statistics.median(run.training_seconds for run in done[1:])
    print(f"The kit's epoch itself took {within:.3g} s of it; the rest is start, snapshot and record.")


if __name__ == "__main__":
    typer.run(main)
