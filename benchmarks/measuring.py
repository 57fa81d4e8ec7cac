"""What the benchmarks share: options, measuring alternately, the machine's ceiling, peak memory, tables, images."""

import csv
import ctypes
import gc
import itertools
import os
import platform
import statistics
import sys
import time
from collections.abc import Callable, Hashable, Iterable, Mapping, Sequence
from enum import StrEnum
from pathlib import Path
from typing import Annotated, Literal, TypeVar

import torch
import typer

from rkdkit import data, models
from rkdkit.analysis.white_box import white_box
from rkdkit.determinism import exact_arithmetic
from rkdkit.group.shares import ALONE, Shares
from rkdkit.references import Snapshot
from rkdkit.setup import Exhibit, Setup, prepare
from rkdkit.spec import RunSpec, Teacher
from rkdkit.training import Training

SIZE = 8192 if torch.cuda.is_available() else 2048
"""Rows and columns of the ceiling's matrices: smaller ones leave most of a GPU idle."""

NARROWEST = 10
"""Columns of a table's cell at least: what is in it is not known when its header is printed."""

Key = TypeVar("Key", bound=Hashable)


Repetitions = Annotated[int, typer.Option(help="Rounds that count, after one that does not.")]
Network = Annotated[str, typer.Option(help="Any of the kit's: resnet18, wrn-34-10, with /2 to /16 behind it.")]
BatchSize = Annotated[int, typer.Option(help="Images a step.")]
Profile = Annotated[Literal["smoke", "quick", "small", "paper"], typer.Option(help="The scale.")]
Epochs = Annotated[int | None, typer.Option(help="Of a training; none: the profile's.")]
Precision = StrEnum("Precision", {name: name for name in ("float32", "bfloat16")})
Compile = StrEnum("Compile", {name: name for name in ("off", "on")})
Csv = Annotated[Path | None, typer.Option("--csv", help="A file for the rows, too, each as soon as it is there.")]
Method = StrEnum("Method", {name: name for name in ("PGD-AT", "TRADES", "ARD", "PeerAiD")})


def setup(profile: str, trains: Sequence[str], **parameters: object) -> Setup:
    """Return a profile's scale for methods that a benchmark trains; `parameters` as `setup.prepare` takes them."""
    return prepare("benchmark", Exhibit(paper="none", trains=tuple(trains)), profile, **parameters)  # type: ignore[arg-type]


def paired(
    scale: Setup, pairs: Mapping[str, tuple[Sequence[Snapshot], Sequence[Snapshot]]], sides: tuple[str, str]
) -> None:
    """Print accuracies of networks in pairs, and their differences, paired by image and by seed.

    Parameters
    ----------
    scale : whose test images and attack are used.
    pairs : by a pair's name, one snapshot per seed on either side.
    sides : what the two sides are.
    """
    by = {"clean": None, str(scale.profile.test_attack): scale.profile.test_attack}
    named = {f"{name} {side}": of for name, both in pairs.items() for side, of in zip(sides, both, strict=True)}
    measured = white_box(named, scale.images, by, n=scale.n_of(by))
    rows = []
    for name, metric in itertools.product(pairs, by):
        first, second = (f"{name} {side}" for side in sides)
        by_seed = [
            f"{100 * (a.correct[metric].float().mean() - b.correct[metric].float().mean()):+.1f}"
            for a, b in zip(measured.evaluations[first], measured.evaluations[second], strict=True)
        ]
        accuracies = [measured.accuracy(side, metric) for side in (first, second)]
        rows.append([name, metric, *accuracies, measured.minus(first, second, metric), " ".join(by_seed)])
    print(scale)
    table(["method", "accuracy", *sides, "difference", "by seed"], rows)


def device() -> torch.device:
    """Return the GPU if there is one, else the CPU."""
    return torch.device("cuda" if torch.cuda.is_available() else "cpu")


def seconds(work: Callable[[], object]) -> float:
    """Return the wall time of one call, what it started on a GPU included."""
    gc.collect()
    with exact_arithmetic():  # or a GPU's TF32 would be compared with the kit's float32
        _synchronise()
        start = time.perf_counter()
        work()
        _synchronise()
        return time.perf_counter() - start


def alternately(candidates: Mapping[Key, Callable[[], object]], repetitions: int, warm_up: int = 1) -> dict[Key, float]:
    """Return each candidate's median time in seconds, all taken in turn; rounds that warm up do not count."""
    return {name: statistics.median(times) for name, times in in_turn(candidates, repetitions, warm_up).items()}


def in_turn(
    candidates: Mapping[Key, Callable[[], object]], repetitions: int, warm_up: int = 1
) -> dict[Key, list[float]]:
    """Return each candidate's times in seconds, round by round; rounds that warm up do not count."""
    taken: dict[Key, list[float]] = {name: [] for name in candidates}
    for repetition in range(warm_up + repetitions):
        for name, work in candidates.items():
            spent = seconds(work)
            if repetition >= warm_up:
                taken[name].append(spent)
    return taken


def ratios(these: Sequence[float], those: Sequence[float]) -> str:
    """Return how many times longer these took than those, round by round: the least and the most, "1.40 to 1.59"."""
    found = [one / other for one, other in zip(these, those, strict=True)]
    return f"{min(found):.2f} to {max(found):.2f}"


def matrix_products(dtype: torch.dtype, times: int = 16) -> Callable[[], object]:
    """Return work of `2 * SIZE**3 * times` floating-point operations: the ceiling of what the machine can do."""
    a, b = (torch.rand(SIZE, SIZE, device=device()).to(dtype) for _ in range(2))
    return lambda: [a @ b for _ in range(times)]


def rate(taken: float, times: int = 16) -> float:
    """Return floating-point operations a second, from the time that :func:`matrix_products` took."""
    return 2 * SIZE**3 * times / taken


def peak_memory(work: Callable[[], object]) -> float | None:
    """Return by how many MiB a call's memory peaks above what is held before it; None where that cannot be told."""
    gc.collect()
    if torch.cuda.is_available():
        torch.cuda.reset_peak_memory_stats()
        before = torch.cuda.memory_allocated()
        work()
        return (torch.cuda.max_memory_allocated() - before) / 2**20
    if not sys.platform.startswith("linux"):
        return None
    ctypes.CDLL(None).malloc_trim(0)
    Path("/proc/self/clear_refs").write_text("5")  # the peak starts anew from here
    before = _resident("VmRSS")
    work()
    return (_resident("VmHWM") - before) / 2**10


def images(n: int, size: int = 32, seed: int = 0) -> data.Split:
    """Return random images of CIFAR's shape, uint8, with random labels of ten classes."""
    noise = torch.Generator().manual_seed(seed)
    pixels = torch.randint(0, 256, (n, 3, size, size), dtype=torch.uint8, generator=noise)
    return data.Split(pixels, torch.randint(0, 10, (n,), generator=noise))


def dataset(n: int) -> data.Dataset:
    """Return random images as a dataset of CIFAR-10's shape."""
    return data.Dataset("cifar10", images(n), images(10, seed=1), data.CIFAR10_CLASSES, "random")


def training(
    method: str,
    network: str,
    batch_size: int,
    *,
    steps: int,
    attack_steps: int,
    precision: str = "float32",
    shares: Shares = ALONE,
) -> Training:
    """Return a training on random images of CIFAR's shape whose epochs have a number of steps."""
    spec = RunSpec(
        method=method,
        dataset="cifar10",
        student=network,
        peer=network if method == "PeerAiD" else "",
        teachers=(Teacher(module="teacher"),) if method == "ARD" else (),
        precision=precision,
        batch_size=batch_size,
        attack_steps=attack_steps,
        epochs=1000,
    )
    where = getattr(shares, "device", device())  # a process alone has no device of its own
    teachers = [models.build(network, 10, [0.5] * 3, [0.25] * 3, seed=1).on(where)] if method == "ARD" else []
    return Training(spec, dataset(steps * batch_size), where, teachers, shares=shares)


def table(header: Sequence[str], rows: Iterable[Sequence[object]], kept: Path | None = None) -> None:
    """Print rows below a header, each as soon as it is there, and first what they are measured on.

    Parameters
    ----------
    header, rows : the cells.
    kept : a CSV file for them, too; rows of an earlier call stay in it. None: there is none.
    """
    where = torch.cuda.get_device_name() if torch.cuda.is_available() else f"CPU, {torch.get_num_threads()} threads"
    print(f"\n{where}; torch {torch.__version__}, Python {platform.python_version()}, load {os.getloadavg()[0]:.1f}\n")
    widths = [max(len(name), NARROWEST) for name in header]
    for row in itertools.chain([header, ["-" * width for width in widths]], rows):
        texts = [f"{cell:.3g}" if isinstance(cell, float) else str(cell) for cell in row]
        cells = (text.ljust(width) for text, width in zip(texts, widths, strict=True))
        print(f"| {' | '.join(cells)} |", flush=True)
        if kept is not None and not str(row[0]).startswith("---") and (row is not header or not kept.exists()):
            with kept.open("a", newline="", encoding="utf-8") as file:
                csv.writer(file).writerow(row)


def _resident(field: str) -> int:
    """Return a figure of this process's memory in KiB."""
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(int(line.split()[1]) for line in lines if line.startswith(field))


def _synchronise() -> None:
    if torch.cuda.is_available():
        torch.cuda.synchronize()
