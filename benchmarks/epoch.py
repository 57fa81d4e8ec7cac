"""A whole epoch as `runs.ensure` trains it, data and bookkeeping included, against DataLoader and a plain step.

python benchmarks/epoch.py --method PGD-AT --network resnet18/4 --n 2560
"""

import copy
import functools
import statistics
import tempfile
from pathlib import Path

import torchvision
from measuring import alternately, arguments, dataset, device, table
from straightforward import Step
from torch import Tensor
from torch.utils.data import DataLoader, Dataset

from rkdkit import data, models, runs, runtime
from rkdkit.spec import RunSpec
from rkdkit.store import Store


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


def plain(step: Step, loader: DataLoader) -> None:
    """Train an epoch as one would write it down."""
    for x, y in loader:
        step(x.to(device()), y.to(device()))


def main() -> None:
    """Measure and print."""
    given = arguments(
        __doc__,
        method=("PGD-AT", "whose epoch", "PGD-AT", "TRADES", "PeerAiD"),
        network=("resnet18/4", "any of the kit's"),
        precision=("float32", "of the kit's epoch; bfloat16 adds a plain one", "float32", "bfloat16"),
        compile=("off", "whether the kit's networks are compiled", "off", "on"),
        n=(1280, "random images of CIFAR's size"),
        batch_size=(128, "images of them a step"),
        workers=(0, "processes of the DataLoader"),
        repetitions=(3, "rounds that count, after one that does not"),
    )
    train = dataset(given.n)
    networks = [models.build(given.network, 10, [0.5] * 3, [0.25] * 3, seed=seed).to(device()) for seed in (0, 1)]
    loader = DataLoader(Images(train.train), given.batch_size, shuffle=True, drop_last=True, num_workers=given.workers)
    runtime.use(runtime.Settings(given.compile))
    data.load = lambda *_: train  # the store's runs are of named datasets
    seeds = iter(range(given.repetitions + 1))
    spec = {
        **{"method": given.method, "dataset": "cifar10", "student": given.network, "augmentation": "crop-flip"},
        **{"batch_size": given.batch_size, "precision": given.precision},
        "peer": given.network if given.method == "PeerAiD" else "",
    }
    with tempfile.TemporaryDirectory() as folder:
        store = Store(Path(folder))
        done: list[runs.Run] = []
        candidates = {
            **{
                f"plain, {precision}": functools.partial(
                    plain, Step(given.method, *copy.deepcopy(networks), bfloat16=precision == "bfloat16"), loader
                )
                for precision in dict.fromkeys(["float32", given.precision])
            },
            f"kit, {given.precision}": lambda: done.append(runs.ensure(RunSpec(**spec, seed=next(seeds)), store)),
        }
        taken = alternately(candidates, given.repetitions)
    rows = [[name, spent, taken["plain, float32"] / spent] for name, spent in taken.items()]
    table([f"an epoch of {given.n} images", "s", "times faster"], rows)
    within = statistics.median(run.training_seconds for run in done[1:])
    print(f"The kit's epoch itself took {within:.3g} s of it; the rest is start, snapshot and record.")


if __name__ == "__main__":
    main()
