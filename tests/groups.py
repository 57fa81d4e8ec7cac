"""Trainings by groups of 1, 2 and 4 processes, for `test_group`: `python groups.py FOLDER` writes what they end with.

The processes are forked from one that has imported everything; each group trains all cases, one after the other.
"""

import os
import socket
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from rkdkit import data, methods, models, splits
from rkdkit.group.shares import ALONE, Shares
from rkdkit.spec import RunSpec, Teacher
from rkdkit.training import Training

SIZES = (1, 2, 4)
CLASSES = 10
BATCH = 19
"""So that neither 2 nor 4 processes have equal shares."""


class TwoBlocks(models.Classifier):
    """Two convolutions with batch norm, the second beside a shortcut."""

    def __init__(self, num_classes: int, mean: tuple[float, ...], std: tuple[float, ...]) -> None:
        super().__init__(6, num_classes, mean, std)
        self.conv1 = nn.Conv2d(len(mean), 6, 3, 1, 1, bias=False)
        self.norm1 = nn.BatchNorm2d(6)
        self.conv2 = nn.Conv2d(6, 6, 3, 1, 1, bias=False)
        self.norm2 = nn.BatchNorm2d(6)

    def trunk(self, x: Tensor) -> Tensor:
        first = self.norm1(self.conv1(x)).relu()
        return (self.norm2(self.conv2(first)) + first).relu().mean((2, 3))


@dataclass(frozen=True)
class Case:
    """A training of two epochs, of two batches each."""

    method: str
    reading: str = "paper"
    dtype: torch.dtype = torch.float64
    changes: dict[str, Any] = field(default_factory=dict)

    @property
    def name(self) -> str:
        changed = "".join(f" {name}={value}" for name, value in self.changes.items())
        return f"{self.method} ({self.reading}, {str(self.dtype).partition('.')[2]}{changed})"

    @property
    def spec(self) -> RunSpec:
        row = methods.get(self.method, self.reading)
        slots = [slot for guide in row.guides for slot in (guide, guide)]  # two teachers in each
        values: dict[str, Any] = {
            "method": self.method,
            "reading": self.reading,
            "dataset": "cifar10",
            "student": "resnet18/16",
            "peer": "resnet18/16" if "peer" in row.roles else "",
            "teachers": tuple(Teacher(module=f"{s}{i}", slot=s, weight=0.5) for i, s in enumerate(slots)),
            **{"batch_size": BATCH, "epochs": 2, "eps": 8 / 255, "step_size": 2 / 255, "attack_steps": 2},
            **{"lr": 0.05, "augmentation": "crop-flip", "seed": 3, "weight_decay": 1e-3},
        }
        return RunSpec(**{**values, **self.changes})


_EXTRA = {"extra": "gaussian-mixture:50", "extra_fraction": 0.3}
CASES = [
    *(Case(name) for name in methods.METHODS),
    *(Case(name, "code") for name, row in methods.METHODS.items() if row.code),
    *(Case("ARD", "code", changes=changes) for changes in ({"swa_start": 0}, {"ema_decay": 0.9})),
    Case("PeerAiD", changes={"swa_start": 1, "schedule": "onecycle", **_EXTRA}),
    Case("IAD", changes={"settings": (("warmup", 0.0),)}),
    Case("Free-AT", changes={"batch_size": 64, "ema_decay": 0.5}),  # all 40 images in one batch
    *(Case(name, reading, torch.float32) for name in ("PeerAiD", "IAD") for reading in ("paper", "code")),
    Case("ARD", "code", torch.float32, {"precision": "bfloat16"}),
]


def dataset(n: int = 40, seed: int = 4) -> data.Dataset:
    """Random images of 3 x 6 x 6."""
    random = torch.Generator().manual_seed(seed)
    images = torch.randint(0, 256, (n, 3, 6, 6), generator=random).to(torch.uint8)
    split = data.Split(images, torch.randint(0, CLASSES, (n,), generator=random))
    return data.Dataset("cifar10", split, split, tuple(map(str, range(CLASSES))), "made up")


def training_of(case: Case, shares: Shares) -> Training:
    """Make a case's training, with networks of its dtype."""
    spec = case.spec
    teachers = []
    for i in range(len(spec.teachers)):
        teacher = models.build("resnet18/16", CLASSES, (0.4,) * 3, (0.3,) * 3, seed=20 + i).to(case.dtype)
        with torch.no_grad():
            teacher.head.weight.mul_(6)
        teachers.append(teacher.eval().requires_grad_(False))
    extra = dataset(50, 5).train if spec.extra else None
    networks = {
        role: models.build("resnet18/16", CLASSES, (0.5,) * 3, (0.25,) * 3, seed=i).to(case.dtype)
        for i, role in enumerate(methods.get(spec.method, spec.reading).roles)
    }
    return Training(spec, dataset(), torch.device("cpu"), teachers, extra, networks, shares)


@contextmanager
def precise(dtype: torch.dtype) -> Iterator[None]:
    """Let images be of a dtype, and "resnet18/16" be a network of two blocks."""
    before = splits.to_float, data.to_float, models.ARCHITECTURES["resnet18"]
    splits.to_float = data.to_float = lambda images: images.to(dtype) / 255
    models.ARCHITECTURES["resnet18"] = lambda _, **shape: TwoBlocks(**shape)
    try:
        yield
    finally:
        splits.to_float, data.to_float, models.ARCHITECTURES["resnet18"] = before


def after(training: Training, loss: float) -> dict[str, Tensor]:
    """Return what a training is: its state, the weights that it keeps, and the loss of its last epoch."""
    kept = {f"kept.{role}.{n}": v for role, weights in training.weights().items() for n, v in weights.items()}
    loss_of = {"loss": torch.tensor(loss, dtype=torch.float64)}
    return {name: value.clone().contiguous() for name, value in {**training.state(), **kept, **loss_of}.items()}


def train_all(folder: Path, shares: Shares) -> None:
    """Train all cases; the first process writes what each ends with, and the same resumed from one process's state."""
    for i, case in enumerate(CASES):
        with precise(case.dtype):
            training = training_of(case, shares)
            first = after(training, training.run_epoch().loss)
            states = {"first": first, "last": after(training, training.run_epoch().loss)}
            if shares.size > 1:
                resumed = training_of(case, shares)
                resumed.load_state(load_file(folder / f"{i}-1-first"), 1)
                states["resumed"] = after(resumed, resumed.run_epoch().loss)
        for what, state in states.items() if not shares.rank else ():
            save_file(state, folder / f"{i}-{shares.size}-{what}")


def member(folder: Path, size: int) -> None:
    """Be a process of a group."""
    from rkdkit.group.processes import joined

    if size == 1:
        train_all(folder, ALONE)
        return
    with joined(torch.device("cpu")) as processes:
        train_all(folder, processes)


def free_port() -> int:
    with socket.socket() as listening:
        listening.bind(("127.0.0.1", 0))
        return int(listening.getsockname()[1])


def place(rank: int, size: int, port: int) -> dict[str, str]:
    """Return what a launcher tells a process by its environment."""
    numbers = {"RANK": rank, "WORLD_SIZE": size, "LOCAL_RANK": rank, "LOCAL_WORLD_SIZE": size, "MASTER_PORT": port}
    return {"MASTER_ADDR": "127.0.0.1", **{name: str(value) for name, value in numbers.items()}}


def main(folder: Path) -> None:
    """Let groups of all sizes train, one after the other."""
    torch.set_num_threads(1)
    for size in SIZES:
        port, pids = free_port(), []
        for rank in range(size):
            pids.append(os.fork())
            if pids[-1] == 0:
                os.environ.update(place(rank, size, port))
                status = 1
                try:
                    member(folder, size)
                    status = 0
                except BaseException:
                    import traceback

                    traceback.print_exc()
                finally:
                    sys.stderr.flush()
                    os._exit(status)
        ended = [os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) for pid in pids]
        if any(ended):
            sys.exit(f"A group of {size} ended with {ended}.")


if __name__ == "__main__":
    main(Path(sys.argv[1]))
