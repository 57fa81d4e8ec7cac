"""Everything that an exhibit needs is a task: a training, or a question about snapshots and images.

Any process may do a task: the same answer is then in the store, under the task's key. `executors` decide what happens
to a task whose answer is not in the store yet; the two kinds of tasks are in `trainings` and `measurements`.
"""

from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import torch
from torch import nn

from rkdkit import data, methods
from rkdkit.mirror import Wanted
from rkdkit.spec import RunSpec
from rkdkit.store import Store

if TYPE_CHECKING:
    from rkdkit.group.processes import Processes


def default_device() -> torch.device:
    """Return the GPU if there is one, else the CPU."""
    return torch.device("cuda" if torch.cuda.is_available() else "cpu")


@dataclass(frozen=True)
class Context:
    """Everything besides the task itself that doing a task depends on; the executor holds it.

    Attributes
    ----------
    store : where answers are looked up and written.
    device : the device on which networks are trained and measured.
    load : a dataset's name -> the dataset.
    modules : teachers that no run of the store trained, by (name, digest); `runs.foreign_teacher` adds them.
    group : the processes that train together, of which this is the first; None: this process trains alone.
    """

    store: Store = field(default_factory=Store)
    device: torch.device = field(default_factory=default_device)
    load: Callable[[str], data.Dataset] = data.load
    modules: Mapping[tuple[str, str], nn.Module] = field(default_factory=dict)
    group: "Processes | None" = None
    _records: dict[RunSpec, dict[str, Any]] = field(default_factory=dict, repr=False, compare=False)

    def record(self, spec: RunSpec) -> dict[str, Any] | None:
        """Return a run's record, which the caller must not change; None: there is none.

        The record of a finished run is read once per context: a measurement asks for it at each epoch.

        Raises
        ------
        DamagedFileError
            If the record is damaged.
        """
        if spec in self._records:
            return self._records[spec]
        record = self.store.run_folder(spec).read_record()
        if record is not None and record["finished"] == spec.epochs:
            self._records[spec] = record
        return record


class Task(ABC):
    """A training, or a question about snapshots and images: a plain immutable value that can be pickled.

    A task has two identifiers. Its `name` depends on specifications only, so it is known before anything is trained.
    Its key in the store is made from the digests of weights and data, so it is known once its inputs are in the store.
    """

    @property
    @abstractmethod
    def name(self) -> str:
        """Its identifier: different for every task, the same in every process."""

    @property
    @abstractmethod
    def specs(self) -> tuple[RunSpec, ...]:
        """The specifications it rests on."""

    @property
    def datasets(self) -> tuple[str, ...]:
        """The names of the datasets that it needs."""
        return tuple(dict.fromkeys(spec.dataset for spec in with_teachers(self.specs)))

    @property
    def certain(self) -> bool:
        """Whether exactly this task will be needed: none of its epochs is a placeholder."""
        return all(spec.certain for spec in self.specs)

    @property
    def label(self) -> str:
        """A few words for a progress bar: method, seed and network of the first training that it rests on."""
        return next((spec.short for spec in self.specs), self.name)

    @abstractmethod
    def inputs(self) -> Sequence["Task"]:
        """Return the tasks that must be done before this one."""

    def check(self, context: Context) -> None:  # noqa: B027 - most tasks have nothing to check
        """Refuse, before anything is done, a task that cannot be done with the data that are there.

        Raises
        ------
        ValueError
            If sizes do not fit the data.
        """

    @abstractmethod
    def find(self, context: Context) -> Any:
        """Return the answer from the store; None: it is not there.

        Raises
        ------
        StoreError
            If what is there cannot be read, is damaged, or belongs to other data.
        """

    def wanted(self, context: Context) -> Sequence[Wanted]:
        """Return the files that would answer it and are not in the store, for looking at a mirror.

        What it needs must be in the store.
        """
        del context
        return []

    @abstractmethod
    def do(self, context: Context) -> None:
        """Do the task and write its answer to the store; its inputs must be in the store."""

    @abstractmethod
    def placeholder(self) -> Any:
        """Return a placeholder of the answer's form, so that a plan can continue."""

    def __getstate__(self) -> dict[str, Any]:
        """Include the rows of the methods table: another process may not know a method that a notebook defines."""
        names = {methods.row_of(spec.method) for spec in with_teachers(self.specs)}
        return {**self.__dict__, "_rows": {name: methods.METHODS[name] for name in sorted(names)}}

    def __setstate__(self, state: dict[str, Any]) -> None:
        rows = state.pop("_rows")
        for name, row in rows.items():
            if methods.METHODS.setdefault(name, row) != row:
                raise ValueError(f"The method {name!r} here differs from the one this task was made with. Rename one.")
        self.__dict__.update(state)


@dataclass(frozen=True)
class Answer:
    """The answer to a task.

    Attributes
    ----------
    value : the answer, or a placeholder of its form.
    known : True: `value` is the answer; False: it is a placeholder.
    """

    value: Any
    known: bool = True


def with_teachers(specs: Sequence[RunSpec]) -> list[RunSpec]:
    """Return specifications, and those of their teachers and of their teachers' teachers; some may be repeated."""
    teachers = [teacher.run for spec in specs for teacher in spec.teachers if teacher.run is not None]
    return [*specs, *(with_teachers(teachers) if teachers else ())]
