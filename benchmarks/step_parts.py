"""Where the time of the kit's own training step goes, compared with what matrix products would take for it.

OMP_NUM_THREADS=2 python benchmarks/step_parts.py --network resnet18 --precision bfloat16 --repetitions 3

torch's profiler times each operation of a step. A convolution's backward pass that gives both gradients is done as two,
one for each, so that they are timed apart; the first line tells what that costs. "Lost" is the time beyond what the
multiply-adds would take at the rate of matrix products, measured in the same rounds. The losses of all parts sum to
what the step lacks of that rate.
"""

import collections
import itertools
import statistics
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Annotated, Any

import torch
import typer
from measuring import BatchSize, Csv, Method, Network, Precision, device, in_turn, matrix_products, rate, table
from torch.profiler import ProfilerActivity, profile, record_function
from torch.utils._python_dispatch import TorchDispatchMode
from training_step import TOGETHER, kit

from rkdkit import attacks

aten = torch.ops.aten

FORWARD, TO_INPUT, TO_WEIGHTS = "convolutions, forward", "convolutions, input gradient", "convolutions, weight gradient"

Label = tuple[str, str, str]
"""Attack or update, the kind of operation, and the shape of a convolution."""


class Timed(TorchDispatchMode):
    """Labels operations for the profiler, and counts the multiply-adds of convolutions and linear layers.

    Attributes
    ----------
    phase : "attack" or "update".
    multiply_adds : by label.
    """

    def __init__(self) -> None:
        super().__init__()
        self.phase = "update"
        self.multiply_adds: dict[Label, float] = collections.defaultdict(float)

    def __torch_dispatch__(self, func: Any, types: Any, args: Sequence[Any] = (), kwargs: Any = None) -> Any:
        kwargs, kind = kwargs or {}, func.overloadpacket
        if kind is aten.convolution_backward:
            return self._backward(func, args)
        if kind is aten.convolution:
            x, weight, _, stride = args[:4]
            with self._labelled(FORWARD, _shape(x, weight, stride)) as label:
                out = func(*args, **kwargs)
            self.multiply_adds[label] += _multiply_adds(weight, out)
            return out
        with self._labelled(_kind(kind), "") as label:
            out = func(*args, **kwargs)
        if kind in (aten.mm, aten.addmm):
            self.multiply_adds[label] += out.numel() * args[-1 if kind is aten.mm else 2].shape[0]
        return out

    def _backward(self, func: Any, args: Sequence[Any]) -> Any:
        gradient, x, weight, _, stride = args[:5]
        mask, found = args[10], [None, None, None]
        # a bias' gradient goes with the weights'
        for kind, part in ((TO_INPUT, [mask[0], False, False]), (TO_WEIGHTS, [False, mask[1], mask[2]])):
            if any(part):
                with self._labelled(kind, _shape(x, weight, stride)) as label:
                    out = func(*args[:10], part)
                self.multiply_adds[label] += _multiply_adds(weight, gradient)
                found = [new if wanted else old for old, new, wanted in zip(found, out, part, strict=True)]
        return tuple(found)

    @contextmanager
    def _labelled(self, kind: str, shape: str) -> Iterator[Label]:
        label = (self.phase, kind, shape)
        with record_function("|".join(label)):
            yield label


def _multiply_adds(weight: torch.Tensor, out: torch.Tensor) -> float:
    return out.numel() * weight[0].numel()


def _shape(x: torch.Tensor, weight: torch.Tensor, stride: Sequence[int]) -> str:
    size = f"{weight.shape[1]} to {weight.shape[0]} channels, {weight.shape[2]}x{weight.shape[3]}"
    return f"{size} on {x.shape[2]}x{x.shape[3]}" + (f", stride {stride[0]}" if stride[0] > 1 else "")


def _kind(kind: Any) -> str:
    name = str(kind).removeprefix("aten.")
    if "batch_norm" in name:
        return "batch norms"
    if name in ("mm", "addmm"):
        return "linear layers"
    if name.startswith("_foreach"):
        return "optimiser"
    if name in ("_to_copy", "copy_", "clone"):
        return "casts and copies"
    if name in ("relu", "relu_", "clamp_min", "threshold_backward"):
        return "ReLUs"
    if name in ("add", "add_"):
        return "additions"
    return "all other operations"


@contextmanager
def _attack_known(timed: Timed) -> Iterator[None]:
    """Tell the operations of an attack's steps from those of the update."""
    ascended = attacks._ascended

    def known(*args: Any, **how: Any) -> torch.Tensor:
        timed.phase = "attack"
        try:
            return ascended(*args, **how)
        finally:
            timed.phase = "update"

    attacks._ascended = known
    try:
        yield
    finally:
        attacks._ascended = ascended


def profiled(work: Callable[[], object]) -> tuple[Timed, dict[Label, float]]:
    """Return what was counted in one call, and the seconds of each label."""
    timed, gpu = Timed(), device().type == "cuda"
    activities = [ProfilerActivity.CPU, *([ProfilerActivity.CUDA] if gpu else [])]
    with profile(activities=activities) as found, _attack_known(timed), timed:
        work()
        if gpu:
            torch.cuda.synchronize()
    spent: dict[Label, float] = collections.defaultdict(float)
    for event in found.key_averages():
        parts = event.key.split("|")
        if len(parts) == 3 and event.device_type == torch.autograd.DeviceType.CPU:
            phase, kind, shape = parts
            spent[phase, kind, shape] += (event.device_time_total if gpu else event.cpu_time_total) / 1e6
    return timed, spent


def rows_of(
    spent: Mapping[Label, float], counted: Mapping[Label, float], step: float, speed: float, fields: slice
) -> list[list[object]]:
    """Return a row for each value of some of a label's fields, the longest first."""
    seconds: dict[tuple[str, ...], float] = collections.defaultdict(float)
    flops: dict[tuple[str, ...], float] = collections.defaultdict(float)
    for label, taken in spent.items():
        seconds[label[fields]] += taken
        flops[label[fields]] += 2 * counted.get(label, 0)
    rows: list[list[object]] = []
    for name in sorted(seconds, key=lambda name: -seconds[name]):
        taken, ideal = seconds[name], flops[name] / speed
        share = ideal / taken if ideal and taken else ""
        rows.append(
            [": ".join(filter(None, name)), taken, 100 * taken / step, flops[name] / 1e12, share, taken - ideal]
        )
    return rows


def main(
    method: Annotated[Method, typer.Option(help="Whose step.")] = "PeerAiD",
    network: Network = "resnet18",
    precision: Annotated[Precision, typer.Option(help="Of the step.")] = "bfloat16",
    batch_size: BatchSize = 128,
    repetitions: Annotated[int, typer.Option(help="Steps that are timed; the median of each part is taken.")] = 3,
    shapes: Annotated[bool, typer.Option(help="A second table, of the convolutions by their shape.")] = True,
    csv: Csv = None,
) -> None:
    """Print where the time of a step goes."""
    epoch = kit(method, network, batch_size, precision)
    products = "matrix products"
    candidates = {"step": epoch, products: matrix_products(getattr(torch, precision))}
    in_turn(candidates, 0, warm_up=1)
    plain: dict[str, list[float]] = {"step": [], products: []}
    traces: list[tuple[Timed, dict[Label, float]]] = []
    for _ in range(repetitions):
        for name, times in in_turn(candidates, 1, warm_up=0).items():
            plain[name] += times
        traces.append(profiled(epoch))
    step, speed = statistics.median(plain["step"]) / TOGETHER, rate(statistics.median(plain[products]))
    labels = set(itertools.chain.from_iterable(spent for _, spent in traces))
    spent = {label: statistics.median(one.get(label, 0.0) for _, one in traces) / TOGETHER for label in labels}
    counted = {label: count / TOGETHER for label, count in traces[0][0].multiply_adds.items()}
    timed = sum(spent.values())
    flops = 2 * sum(counted.values())
    print(
        f"{method}, {network}, {precision}, {batch_size} images: a step takes {step:.4g} s "
        f"({min(plain['step']) / TOGETHER:.4g} to {max(plain['step']) / TOGETHER:.4g}), and {timed:.4g} s where its "
        f"operations are timed one by one.\n{flops / 1e12:.3g} TFLOP at {speed / 1e12:.3g} TFLOP/s of matrix products "
        f"would take {flops / speed:.4g} s: {100 * flops / speed / step:.0f} % of the step."
    )
    header = ["part", "s", "% of the step", "TFLOP", "of the matrix rate", "s lost"]
    rows = rows_of(spent, counted, step, speed, slice(0, 2))
    rows.append(
        ["the host, between operations; below 0: timing", step - timed, 100 * (1 - timed / step), "", "", step - timed]
    )
    rows.append(["all", step, 100.0, flops / 1e12, flops / speed / step, step - flops / speed])
    table(header, rows, csv)
    if shapes:
        convolutions = {label: taken for label, taken in spent.items() if label[2]}
        table(header, rows_of(convolutions, counted, step, speed, slice(1, 3)), csv)


if __name__ == "__main__":
    typer.run(main)
