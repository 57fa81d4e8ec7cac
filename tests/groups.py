"""Trainings by groups of 1, 2 and 4 processes, for `test_group`: `python groups.py FOLDER` writes what they end with.

The processes are forked from one that has imported everything; each group trains all cases, one after the other.
"""

import importlib
import json
import os
import signal
import sys
import traceback
from collections.abc import Callable, Iterator
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass, field, replace
from itertools import product
from pathlib import Path
from typing import Any

import torch
from conftest import OneBlock, tiny_spec
from PIL import Image
from safetensors.torch import load_file, save_file
from torch import Tensor, nn
from torch.distributed import TCPStore
from tqdm import tqdm

from rkdkit import data, endings, executors, methods, models, paths, runs, splits, trainings
from rkdkit.cluster import job
from rkdkit.group.executor import among_processes
from rkdkit.group.processes import joined
from rkdkit.group.shares import ALONE, Shares
from rkdkit.spec import RunSpec, Teacher
from rkdkit.store import StoreError
from rkdkit.training import DivergedError, Training

SIZES = (1, 2, 4)
CLASSES = 10
BATCH = 19
"""So that neither 2 nor 4 processes have equal shares."""

DIGITS = 5
"""Of a port, in which the starter of a group tells it to each process."""

tqdm.monitor_interval = 0  # no thread of the starter's may hold a lock while it forks


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
            if shares.size == 2:  # four cost most
                resumed = training_of(case, shares)
                resumed.load_state(load_file(folder / f"{i}-1-first"), 1)
                states["resumed"] = after(resumed, resumed.run_epoch().loss)
        for what, state in states.items() if not shares.rank else ():
            save_file(state, folder / f"{i}-{shares.size}-{what}")


def member(folder: Path, size: int) -> None:
    """Be a process of a group."""
    if size == 1:
        train_all(folder, ALONE)
        return
    with joined(torch.device("cpu")) as processes:
        train_all(folder, processes)


def place(rank: int, size: int, port: int) -> dict[str, str]:
    """Return what a launcher tells a process by its environment."""
    numbers = {"RANK": rank, "WORLD_SIZE": size, "LOCAL_RANK": rank, "LOCAL_WORLD_SIZE": size, "MASTER_PORT": port}
    return {
        "MASTER_ADDR": "127.0.0.1",
        "TORCHELASTIC_USE_AGENT_STORE": "True",
        **{name: str(value) for name, value in numbers.items()},
    }


def run_group(size: int, what: Callable[[int], object], log: Path | None = None) -> list[int]:
    """Let forked processes do something as a group; return their exit codes.

    Parameters
    ----------
    what : called with the rank.
    log : what rank 0 prints goes to `log`-0, and so on; None: to where this process prints.
    """
    (port, told), pids = os.pipe(), []
    for rank in range(size):
        pids.append(os.fork())
        if pids[-1] == 0:
            os.close(told)
            os.environ.update(place(rank, size, int(os.read(port, DIGITS))))
            if log is not None:
                to = os.open(f"{log}-{rank}", os.O_CREAT | os.O_WRONLY)
                os.dup2(to, 1)
                os.dup2(to, 2)
            status = 1
            try:
                what(rank)
                status = 0
            except SystemExit as end:
                status = end.code if isinstance(end.code, int) else int(end.code is not None)
                if isinstance(end.code, str):
                    print(end.code, file=sys.stderr)
            except BaseException:
                traceback.print_exc()
            finally:
                sys.stdout.flush()
                sys.stderr.flush()
                os._exit(status)
    # As torchrun does, the starter keeps the store by which the processes find each other. It starts after the last
    # fork: its thread may hold a lock of the C library, for which a process forked then would wait for ever.
    store = TCPStore("127.0.0.1", 0, is_master=True, wait_for_workers=False)
    os.write(told, f"{store.port:0{DIGITS}}".encode() * size)
    os.close(told)
    os.close(port)
    return [os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) for pid in pids]


def tiny(method: str = "PGD-AT", **changes: Any) -> RunSpec:
    """A training of a network of one block, of two steps an epoch."""
    return tiny_spec(method, **{"epochs": 3, "attack_steps": 1, "n_val": 0, **changes})


def ensure(*specs: RunSpec) -> None:
    """Train runs as `rkdkit train` does, in each process of a group."""
    with among_processes() as together, executors.using(together):
        for spec in specs:
            runs.ensure(spec)


def at_epoch(epoch: int, happens: Callable[[], object]) -> None:
    """Let something happen in this process in the middle of an epoch."""
    step = Training._update

    def stepping(self: Training, *given: Any) -> Tensor:
        if self.epoch + 1 == epoch:
            happens()
        return step(self, *given)

    Training._update = stepping  # type: ignore[method-assign]


def no_memory() -> None:
    raise MemoryError


def not_finite() -> None:
    raise DivergedError("The loss became nan.")


class Scenario:
    """What is wrong with the process of rank 1, by name; each is tried by a group of two."""

    @staticmethod
    def code(rank: int) -> None:
        job.CODE = "other" if rank else job.CODE
        ensure(tiny())

    @staticmethod
    def command(rank: int) -> None:
        sys.argv = ["rkdkit", "train", "tab9" if rank else "tab1"]
        ensure(tiny())

    @staticmethod
    def data(rank: int) -> None:
        os.environ["RKDKIT_DATA"] = str(paths.data_folder() / str(rank))
        ensure(tiny(dataset="folder:squares", n_train=None))

    @staticmethod
    def no_data(rank: int) -> None:
        os.environ["RKDKIT_DATA"] = str(paths.data_folder() / ("nowhere" if rank else "0"))
        ensure(tiny(dataset="folder:squares", n_train=None))

    @staticmethod
    def method(rank: int) -> None:
        row = methods.METHODS["TRADES"]
        methods.METHODS["mine"] = replace(row, minimises=row.minimises[::-1]) if rank else row
        ensure(tiny(method="mine"))

    @staticmethod
    def workers(_: int) -> None:
        with among_processes("4", "", "") as together, executors.using(together):
            runs.ensure(tiny())

    @staticmethod
    def few_images(_: int) -> None:
        ensure(tiny(batch_size=2, n_train=20))

    @staticmethod
    def memory(rank: int) -> None:
        if rank:
            at_epoch(2, no_memory)
        ensure(tiny())

    @staticmethod
    def memory_of_the_first(rank: int) -> None:
        if not rank:
            at_epoch(2, no_memory)
        ensure(tiny())

    @staticmethod
    def told_to_end(rank: int) -> None:
        """While it is about to say why it ends: a launcher ends all as soon as one is lost."""
        in_words = endings.in_words

        def told(*given: str) -> str:
            os.kill(os.getpid(), signal.SIGTERM)
            return in_words(*given)

        endings.in_words = told
        Scenario.memory(rank)

    @staticmethod
    def interrupted(rank: int) -> None:
        signal.signal(signal.SIGINT, signal.default_int_handler)  # whoever started the tests may ignore it
        at_epoch(2, lambda: os.kill(os.getpid(), signal.SIGINT))
        with endings.one_line_at_the_end(endings.KEPT) if not rank else nullcontext():
            ensure(tiny())

    @staticmethod
    def disk(rank: int) -> None:
        if not rank:
            trainings._keep = lambda *_: (_ for _ in ()).throw(StoreError("The disk is full."))
        ensure(tiny())

    @staticmethod
    def diverged(_: int) -> None:
        at_epoch(2, not_finite)
        with among_processes() as together, executors.using(together):
            for spec in (tiny(), tiny(epochs=1)):
                try:
                    runs.ensure(spec)
                except DivergedError:
                    print("diverged")

    @staticmethod
    def nothing(_: int) -> None:
        with endings.one_line_at_the_end(endings.KEPT):
            ensure(tiny())


SCENARIOS = [name for name in vars(Scenario) if not name.startswith("_")]


def squares(folder: Path) -> None:
    """Write two folders of data, 0 and 1, whose images of the dataset "folder:squares" differ."""
    for number, part, label, i in product((0, 1), ("train", "test"), ("a", "b"), range(20)):
        path = folder / str(number) / "squares" / part / label / f"{i}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.new("L", (8, 8), 10 * i + 5 * (label == "b") + number).save(path)


def main(folder: Path) -> None:
    """Let groups of all sizes train, one after the other; then try what may be wrong."""
    torch.set_num_threads(1)
    data.load("digits")  # once for all that are forked, as what is imported late
    importlib.import_module("torch.utils.flop_counter")
    for size in SIZES:
        if any(ended := run_group(size, lambda _, size=size: member(folder, size))):
            sys.exit(f"A group of {size} ended with {ended}.")
    models.ARCHITECTURES["resnet18"] = lambda _, **shape: OneBlock(**shape)
    squares(folder / "data")
    os.environ["RKDKIT_DATA"] = str(folder / "data")
    ended = {}
    for name in SCENARIOS:
        os.environ["RKDKIT_STORE"] = str(folder / f"store-{name}")
        size = 3 if name == "few_images" else 2
        ended[name] = run_group(size, getattr(Scenario, name), folder / f"log-{name}")
    (folder / "ended.json").write_text(json.dumps(ended))


if __name__ == "__main__":
    main(Path(sys.argv[1]))
