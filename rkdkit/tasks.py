"""Whatever an exhibit needs is a task: a training, or a question about snapshots and images. Anybody may do it.

The store is the contract: whoever does a task, its answer lies there under its key, the same bits. `executors` decide
what happens to a task that is not in the store yet; `trainings` and `measurements` are the tasks there are.
"""

from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import nn

from rkdkit import data, methods
from rkdkit.spec import RunSpec
from rkdkit.store import Store


def default_device() -> torch.device:
    """Return the GPU if there is one, else the CPU."""
    return torch.device("cuda" if torch.cuda.is_available() else "cpu")


@dataclass(frozen=True)
class Context:
    """All that doing a task depends on besides the task itself; an executor holds it.

    Attributes
    ----------
    store : where answers are looked for and put.
    device : on what networks are trained and measured.
    load : a dataset's name -> the dataset.
    modules : networks from elsewhere that teach, by (name, digest): `runs.foreign_teacher` adds to them.
    """

    store: Store = field(default_factory=Store)
    device: torch.device = field(default_factory=default_device)
    load: Callable[[str], data.Dataset] = data.load
    modules: Mapping[tuple[str, str], nn.Module] = field(default_factory=dict)


class Task(ABC):
    """A training, or a question about snapshots and images: a plain immutable value that can be pickled.

    A task has two names. Its `name` is made of specifications alone, so it is known before anything is trained. Its
    key in the store is made of the digests of weights and data, so it is known once its inputs are there.
    """

    @property
    @abstractmethod
    def name(self) -> str:
        """What tells it from every other task; the same in every process."""

    @property
    @abstractmethod
    def specs(self) -> tuple[RunSpec, ...]:
        """The specifications it rests on."""

    @property
    def certain(self) -> bool:
        """Whether it will be needed as it is: no epoch in it was chosen by a placeholder."""
        return all(spec.certain for spec in self.specs)

    @abstractmethod
    def inputs(self) -> Sequence["Task"]:
        """Return the tasks that must be done before this one can be."""

    @abstractmethod
    def find(self, context: Context) -> Any:
        """Return the answer that is in the store; None: it is not there.

        Raises
        ------
        StoreError
            If what is there cannot be read, is damaged, or belongs to other data.
        """

    @abstractmethod
    def do(self, context: Context) -> None:
        """Do the task, whose inputs are in the store, and put its answer there."""

    @abstractmethod
    def placeholder(self) -> Any:
        """Return something of the answer's form, for whoever only wants to know what comes next."""

    def __getstate__(self) -> dict[str, Any]:
        """Take the rows of the table along: another process may not know a notebook's own method."""
        names = {spec.method for spec in _with_teachers(self.specs)}
        return {**self.__dict__, "_rows": {name: methods.get(name) for name in sorted(names)}}

    def __setstate__(self, state: dict[str, Any]) -> None:
        rows = state.pop("_rows")
        for name, row in rows.items():
            if methods.METHODS.setdefault(name, row) != row:
                raise ValueError(f"The method {name!r} is another here than where this task was made. Rename one.")
        self.__dict__.update(state)


@dataclass(frozen=True)
class Answer:
    """What came of a task.

    Attributes
    ----------
    value : the answer.
    known : whether it is the answer; False: it is a placeholder.
    """

    value: Any
    known: bool = True


def _with_teachers(specs: Sequence[RunSpec]) -> list[RunSpec]:
    teachers = [teacher.run for spec in specs for teacher in spec.teachers if teacher.run is not None]
    return [*specs, *(_with_teachers(teachers) if teachers else ())]
