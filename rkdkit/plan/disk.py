"""The disk that missing runs and answers will take."""

import dataclasses
import json
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor

from rkdkit.inventory.stored import as_size
from rkdkit.measurements import Measurement
from rkdkit.plan.ask import Planner, parts_of
from rkdkit.plan.cost import Costs
from rkdkit.spec import AVERAGED, RunSpec

BESIDE = 900
"""Bytes of an answer's file besides the answer: its question, and versions and device."""

STATES = 3
"""States of a run that are on the disk at once at most: those of the last two epochs, and one that is being written."""


@dataclass(frozen=True)
class Disk:
    """What missing runs and answers will take, in bytes.

    Attributes
    ----------
    number : how many snapshots.
    snapshots : the size of their files.
    states : what the largest of the runs takes in addition while it is trained.
    answers : roughly, the size of the answers' files.
    """

    number: int
    snapshots: int
    states: int
    answers: int

    def __str__(self) -> str:
        kept = []
        if self.number:
            kept.append(f"{as_size(self.snapshots)} for {self.number:,} snapshots")
        if self.answers:
            kept.append(f"about {as_size(self.answers)} for answers")
        trained = f"; up to {as_size(self.states)} more for the state of each run that is being trained"
        return f"{' and '.join(kept) or 'nothing more'}{trained if self.number else ''}"


def disk_of(planner: Planner, costs: Costs) -> Disk:
    """Return the disk that all that was noted will take; the planner must be the current executor.

    Parameters
    ----------
    planner : what one or several notebooks asked for.
    costs : builds the networks, without content.
    """
    networks = _Networks(costs)
    number = snapshots = states = 0
    for task, finished in planner.trainings.items():
        sizes = [
            networks.size(spec.peer if role == "peer" else spec.student, spec.dataset)
            for spec in [task.spec]
            for epoch in range(finished + 1, spec.epochs + 1)
            if spec.has_snapshot(epoch)
            for role in spec.roles_at(epoch)
        ]
        number, snapshots = number + len(sizes), snapshots + sum(sizes)
        if sizes:
            states = max(states, STATES * networks.state_size(task.spec))
    return Disk(number, snapshots, states, sum(map(_of_answers, planner.measurements)))


def file_size(tensors: Mapping[str, Tensor]) -> int:
    """Return the bytes that tensors take as a safetensors file, which says name, type, shape and place of each."""
    header: dict[str, Any] = {}
    end = 0
    for name, tensor in sorted(tensors.items(), key=lambda item: (-item[1].itemsize, item[0])):
        begin, end = end, end + tensor.numel() * tensor.itemsize
        header[name] = {"dtype": "F32", "shape": list(tensor.shape), "data_offsets": [begin, end]}
    said = len(json.dumps(header, separators=(",", ":")))
    return 8 + -(-said // 8) * 8 + end


class _Networks:
    """The sizes of networks, each built once, without content."""

    def __init__(self, costs: Costs) -> None:
        self._costs = costs
        self._known: dict[tuple[str, str], tuple[int, int]] = {}

    def size(self, architecture: str, dataset: str) -> int:
        """Return the bytes of a snapshot."""
        return self._sizes(architecture, dataset)[0]

    def state_size(self, spec: RunSpec) -> int:
        """Return the bytes of a state: networks, their momentum, the average."""
        trained = [self._sizes(name, spec.dataset) for name in (spec.student, spec.peer) if name]
        size = sum(network for network, _ in trained)
        if spec.momentum is None or spec.momentum > 0:
            size += sum(parameters for _, parameters in trained)
        if AVERAGED in spec.roles_at(spec.epochs):
            size += trained[0][0]
        return size

    def _sizes(self, architecture: str, dataset: str) -> tuple[int, int]:
        from torch._subclasses.fake_tensor import FakeTensorMode

        if (architecture, dataset) not in self._known:
            with FakeTensorMode():
                network = self._costs.fresh(architecture, dataset)
                parameters = sum(each.numel() * each.itemsize for each in network.parameters())
                self._known[architecture, dataset] = file_size(network.state_dict()), parameters
        return self._known[architecture, dataset]


def _of_answers(task: Measurement) -> int:
    return BESIDE * len(parts_of(task)) + _written(task.placeholder())


def _written(value: object) -> int:
    """Return about how many characters a value takes in JSON: bits and numbers as hexadecimal text."""
    if isinstance(value, Tensor):
        return value.numel() // 4 if value.dtype == torch.bool else 2 * value.itemsize * value.numel()
    if isinstance(value, np.ndarray):
        return value.size // 4 if value.dtype == bool else 2 * value.nbytes
    parts: Iterable[object] = ()
    if isinstance(value, Mapping):
        parts = value.values()
    elif isinstance(value, list | tuple):
        parts = value
    elif dataclasses.is_dataclass(value):
        parts = [getattr(value, field.name) for field in dataclasses.fields(value)]
    else:
        return 8
    return sum(map(_written, parts))
