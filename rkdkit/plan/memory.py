"""Where a device's memory ends: the peak of a training step in both precisions, and the largest batch that fits."""

import dataclasses
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

import torch

from rkdkit import checks, data, runtime
from rkdkit.plan.cost import Costs, network_of
from rkdkit.progress import track
from rkdkit.spec import PRECISIONS, RunSpec

SMALLEST_MEMORY, LARGEST_MEMORY = 1e-3, 1e6
"""In GiB, what a device may be said to have."""

LARGER = 8
"""So many times the batch is counted, too."""

SMALLEST = 4
"""Images of the smallest batch that is counted."""


@dataclass(frozen=True)
class Need:
    """The memory that trainings of one method, with the same networks, batch and data, take of their device.

    Attributes
    ----------
    name : what is trained.
    batch_size : images of a step.
    n_train : how many images it is trained on; no batch is larger.
    images : bytes of the training and extra images that are on the device; 0: they stay on the host.
    peaks : by precision, the most bytes that are allocated at once in a step, images and averaged weights included.
    largest : by precision, the largest batch that fits, `n_train` at most; 0: none.
    """

    name: str
    batch_size: int
    n_train: int
    images: int
    peaks: Mapping[str, int]
    largest: Mapping[str, int]


@dataclass(frozen=True)
class Memory:
    """What a device has, and what trainings need of it.

    Attributes
    ----------
    size : bytes of the device's memory.
    needs : one for each kind of training.
    """

    size: int
    needs: Sequence[Need]


def device_memory(gib: float | None) -> int | None:
    """Return the bytes of a device that is said to have so many GiB; None: nothing is said.

    Raises
    ------
    ValueError
        If it is not between `SMALLEST_MEMORY` and `LARGEST_MEMORY`.
    """
    if gib is None:
        return None
    checks.number("memory", gib, SMALLEST_MEMORY, LARGEST_MEMORY)
    return int(2**30 * gib)


def of_device(device: torch.device) -> int | None:
    """Return the bytes of a GPU's memory; None: it is no GPU."""
    return torch.cuda.get_device_properties(device).total_memory if device.type == "cuda" else None


def memory(costs: Costs, specs: Iterable[RunSpec], size: int) -> Memory:
    """Count what trainings need of a device.

    A step is taken on tensors without content, so every tensor that is alive counts: weights, gradients, momentum, the
    averaged weights, and what the update's forward passes keep for the way back, of all points of the loss and all
    networks. Two batches are counted: the training's and one of eight times as many images, or, where the training's
    does not fit, one of four images. Between them and beyond, memory is taken to grow in proportion. It is the largest
    of several sums that do, so between them this is rather too much.

    Parameters
    ----------
    costs : counts the steps.
    specs : the runs. Extra images from a file that is not on this machine are not counted.
    size : bytes of the device's memory.
    """
    kinds: dict[tuple[RunSpec, tuple[int, int], bool], RunSpec] = {}
    for spec in specs:
        held = (costs.n_train(spec), data.number_of_extra(spec.extra))
        kinds.setdefault((_kind(costs, spec), held, _averages(spec)), spec)
    needs = []
    for (kind, held, averages), spec in track(list(kinds.items()), desc="Counting memory", unit="kind"):
        of_one = costs.load(kind.dataset).train.take(slice(1)).nbytes
        images = sum(n * of_one for n in held if not runtime.stays_on_host(n * of_one, size))
        beside = images + (4 * costs.of(kind.student, kind.dataset).parameters if averages else 0)
        peaks, largest = {}, {}
        for precision in PRECISIONS:
            points = _points(costs, dataclasses.replace(kind, precision=precision), size - beside)
            peaks[precision] = beside + points[kind.batch_size]
            largest[precision] = min(_largest(points, size - beside), costs.n_train(spec))
        needs.append(Need(_name(spec), kind.batch_size, costs.n_train(spec), images, peaks, largest))
    return Memory(size, needs)


def _averages(spec: RunSpec) -> bool:
    return spec.swa_start is not None or spec.ema_decay is not None


def _kind(costs: Costs, spec: RunSpec) -> RunSpec:
    """Return what decides the memory of a run's step."""
    kind = costs.kind(spec)
    # a second step of the attack takes no more than the first
    kind = dataclasses.replace(kind, attack_steps=min(kind.attack_steps, 1))
    return dataclasses.replace(kind, precision="float32", eps=0.0, step_size=0.0)


def _name(spec: RunSpec) -> str:
    teachers = [network_of(teacher) or "a network from elsewhere" for teacher in spec.teachers]
    guides = [spec.peer] * bool(spec.peer) + teachers
    reading = " (code)" if spec.reading == "code" else ""
    return f"{spec.method}{reading} {spec.student}" + (f" with {', '.join(dict.fromkeys(guides))}" if guides else "")


def _points(costs: Costs, kind: RunSpec, size: int) -> dict[int, int]:
    """Return the peak memory of a step of some batches, in bytes, without the dataset: where memory may end at `size`.

    The batches are in order.
    """

    def peak(batch: int) -> int:
        return costs.memory_of_step(dataclasses.replace(kind, batch_size=batch))

    usual = {kind.batch_size: peak(kind.batch_size)}
    if usual[kind.batch_size] > size and kind.batch_size > SMALLEST:
        return {SMALLEST: peak(SMALLEST), **usual}
    return {**usual, LARGER * kind.batch_size: peak(LARGER * kind.batch_size)}


def _largest(points: Mapping[int, int], size: int) -> int:
    """Return the largest batch whose memory is `size` at most, on a straight line through two points; 0: none."""
    low, high = points
    if size < points[low]:
        return 0
    of_one = (points[high] - points[low]) / (high - low)
    return int(low + (size - points[low]) / max(of_one, 1.0))
