"""How long an update of a method's weights takes: measured in turn with other methods, and counted in passes."""

import itertools
import os
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass

import pandas as pd
import psutil
import torch
from torch import Tensor, nn

from rkdkit import checks, executors, methods, models, progress, runtime, statistics
from rkdkit.plan.cost import Costs, Work
from rkdkit.provenance import environment, processor
from rkdkit.spec import RunSpec
from rkdkit.training import Training, fresh_networks

FEWEST_ROUNDS = 6
"""Rounds that a 95 % interval of a median needs at least."""

BATCHES = 1
"""Batches that a method trains on in a round. One more, before them, is not timed."""

METRIC = "training time"
"""The name of the measurement in tables."""


@dataclass(frozen=True)
class Counted:
    """What one update of the student's weights takes, as it was counted.

    Attributes
    ----------
    student, teacher : passes of a batch through the network; a forward and a backward pass count as one each.
    work : floating-point operations of convolutions and linear layers, of all networks.
    """

    student: float
    teacher: float
    work: float


@dataclass(frozen=True)
class TrainingTimes:
    """What an update of several methods' weights takes.

    Attributes
    ----------
    seconds : by method, (rounds,) float64: seconds of an update in each round.
    counted : by method.
    measured_on : the machine, the number of threads, and how busy the machine was before.
    """

    seconds: Mapping[str, Tensor]
    counted: Mapping[str, Counted]
    measured_on: str

    def ratio(self, method: str, reference: str) -> statistics.Measure:
        """Return how many times as long as another's a method's update takes: the median of the rounds' ratios."""
        return statistics.median(self.seconds[method] / self.seconds[reference])

    def table(self, reference: str) -> pd.DataFrame:
        """Return a line per method.

        Parameters
        ----------
        reference : the method whose time is 1.

        Returns
        -------
        method, metric (:data:`METRIC`), ratio, ratio_low and ratio_high, n (rounds), seconds_per_update (the median),
        student_passes and teacher_passes (of an update), ratio_of_passes (of the student alone), ratio_of_work (of all
        networks) and measured_on.
        """
        base = self.counted[reference]
        return pd.DataFrame(
            {
                "method": method,
                "metric": METRIC,
                **_ratio(self.ratio(method, reference)),
                "seconds_per_update": float(taken.median()),
                "student_passes": self.counted[method].student,
                "teacher_passes": self.counted[method].teacher,
                "ratio_of_passes": self.counted[method].student / base.student,
                "ratio_of_work": self.counted[method].work / base.work,
                "measured_on": self.measured_on,
            }
            for method, taken in self.seconds.items()
        )


def _ratio(found: statistics.Measure) -> dict[str, float]:
    """Return a ratio as columns; its limits are named after it, because columns of other numbers stand beside them."""
    named = {"low": "ratio_low", "high": "ratio_high"}
    return {named.get(column, column): value for column, value in found.columns("ratio").items()}


def check_rounds(rounds: int) -> int:
    """Return a number of rounds as a whole number.

    Raises
    ------
    ValueError
        If it is not a whole number, or is below :data:`FEWEST_ROUNDS`.
    """
    return checks.whole("rounds", rounds, FEWEST_ROUNDS, checks.MOST_STEPS)


def measure_training_times(
    specs: Mapping[str, RunSpec], rounds: int, clock: Callable[[], float] = time.perf_counter
) -> TrainingTimes:
    """Train by several methods in turn, in this process, and measure how long an update takes.

    In each round every method trains on :data:`BATCHES` batches; the method that begins changes from round to round. So
    whatever else slows the machine down slows all methods down alike, and the ratios of a round's times can be trusted
    more than the times. The networks are fresh and the images are noise, because neither changes how long a step
    takes. The training loop is the kit's own, not compiled. The time of a fixed teacher's own training is not included.

    Nothing is kept in the store: times belong to a machine and a moment. While an exhibit is only planned, the asking
    ends here.

    Parameters
    ----------
    specs : the runs by method.
    rounds : how many rounds count; one before them warms up.
    clock : tells the time in seconds.

    Raises
    ------
    ValueError
        As :func:`check_rounds`.
    """
    rounds = check_rounds(rounds)
    executors.current().before_drawing()
    device, costs = executors.current().context.device, Costs(executors.current().context.load)
    measured_on = _machine(device)
    with runtime.using(runtime.Settings("off")):
        loops = {name: _Loop(spec, costs, device, clock) for name, spec in specs.items()}
        counted = {name: loop.count() for name, loop in loops.items()}
        seconds: dict[str, list[float]] = {name: [] for name in loops}
        names = itertools.cycle(loops)
        for _ in progress.track(range(rounds), desc="Timing training", unit="round"):
            for name in itertools.islice(names, len(loops)):
                seconds[name].append(loops[name].seconds())
            next(names)
    taken = {name: torch.tensor(of_rounds, dtype=torch.float64) for name, of_rounds in seconds.items()}
    return TrainingTimes(taken, counted, measured_on)


class _Loop:
    """The training loop of one run, on a few batches of noise."""

    def __init__(self, spec: RunSpec, costs: Costs, device: torch.device, clock: Callable[[], float]) -> None:
        kind = costs.kind(spec)
        self.kind, self.device, self.clock = kind, device, clock
        row = methods.get(kind.method, kind.reading)
        self.updates = int(dict(kind.settings)["m"]) if row.free else 1
        dataset = costs.noise(kind.dataset, kind.batch_size * (1 + BATCHES))
        networks = {role: network.on(device) for role, network in fresh_networks(kind, dataset).items()}
        self.teachers: list[models.Classifier] = [
            costs.fresh(teacher.module, kind.dataset).on(device) for teacher in kind.teachers
        ]
        self.training = Training(kind, dataset, device, self.teachers, networks=networks)

    def count(self) -> Counted:
        """Count the passes of an update in a turn, which also warms up."""
        with Work() as work, ExitStack() as held:
            student = held.enter_context(_passes(self.training.networks["student"]))
            teachers = [held.enter_context(_passes(teacher)) for teacher in self.teachers]
            self._turn()
        updates = (1 + BATCHES) * self.updates
        return Counted(len(student) / updates, sum(map(len, teachers)) / updates, work.get_total_flops() / updates)

    def seconds(self) -> float:
        """Return the seconds of an update, the mean of a turn without its first batch."""
        moments = self._turn()
        return (moments[-1] - moments[0]) / (len(moments) - 1) / self.updates

    def _turn(self) -> list[float]:
        """Train on the batches; return the moments after each."""
        moments: list[float] = []

        def note() -> None:
            if self.device.type == "cuda":
                torch.cuda.synchronize()
            moments.append(self.clock())

        self.training.epoch = self.kind.epochs - 1  # a method that changes on the way costs most at the end
        self.training.run_epoch(note)
        return moments


@contextmanager
def _passes(network: nn.Module) -> Iterator[list[str]]:
    """Note every forward and backward pass through a network within a ``with`` block."""
    passes: list[str] = []

    def note(module: nn.Module, inputs: object, logits: Tensor) -> None:
        del module, inputs
        passes.append("forward")
        if logits.requires_grad:
            logits.register_hook(lambda _: passes.append("backward"))  # type: ignore[no-untyped-call]

    hook = network.register_forward_hook(note)
    try:
        yield passes
    finally:
        hook.remove()


def _machine(device: torch.device) -> str:
    """Return device, threads and load in words."""
    load = f"load {psutil.getloadavg()[0]:.1f} on {os.cpu_count()} cores before"
    if device.type == "cuda":
        return f"{environment(device)['device']}, {load}"
    threads = torch.get_num_threads()
    return f"{processor()}, {threads} thread{'s' * (threads > 1)}, {load}"
