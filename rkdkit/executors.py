"""Executors decide what happens to tasks whose answers are not in the store: :class:`Here` does them in this process.

`plan.ask.Planner` only notes them. One context variable holds the executor; nothing else about tasks is ambient.
"""

from abc import ABC, abstractmethod
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass, field
from typing import Any

import torch

from rkdkit.progress import track
from rkdkit.store import Store
from rkdkit.tasks import Answer, Context, Task


@dataclass
class Asked:
    """What an exhibit asked for, in order: it is what the exhibit rests on.

    Attributes
    ----------
    tasks : each once.
    deciding : those of them that only decided which epoch stands for a run.
    """

    tasks: dict[Task, None] = field(default_factory=dict)
    deciding: set[Task] = field(default_factory=set)

    def note(self, tasks: Iterable[Task], deciding: bool) -> None:
        """Add tasks; one that was asked for in earnest, too, does not only decide."""
        for task in tasks:
            if deciding and task not in self.tasks:
                self.deciding.add(task)
            elif not deciding:
                self.deciding.discard(task)
            self.tasks.setdefault(task)


class Executor(ABC):
    """Answers tasks: from the store where it can, and otherwise as its kind does.

    Parameters
    ----------
    store : where answers are; None: the default one, looked up anew at each call.
    device : on what tasks are done; None: the GPU if there is one, else the CPU.

    Attributes
    ----------
    asked : what was asked for since `listen` was called last.
    modules : as `tasks.Context`.
    """

    def __init__(self, store: Store | None = None, device: torch.device | str | None = None) -> None:
        self._given: dict[str, Any] = {} if store is None else {"store": store}
        if device is not None:
            self._given["device"] = torch.device(device)
        self.modules: dict[tuple[str, str], torch.nn.Module] = {}
        self.asked = Asked()

    @property
    def context(self) -> Context:
        """What its tasks are found and done with."""
        return Context(**self._given, modules=self.modules)

    def listen(self) -> Asked:
        """Return an empty list of what is asked for; all that is asked for from now on is added to it."""
        self.asked = Asked()
        return self.asked

    def gather(self, tasks: Iterable[Task], what: str = "", *, deciding: bool = False) -> list[Answer]:
        """Return the answers to tasks, in their order.

        Parameters
        ----------
        tasks : those that are independent go into one call, so that they can be done side by side.
        what : what is going on, for the progress bar; "": the tasks show their own progress.
        deciding : whether the answers only decide which epoch stands for a run.

        Raises
        ------
        StoreError
            If the store cannot be read or written, or a file in it is damaged.
        """
        listed = list(tasks)
        self.asked.note(listed, deciding)
        answers = self._answers(list(dict.fromkeys(listed)), what) if listed else {}
        return [answers[task] for task in listed]

    @abstractmethod
    def _answers(self, tasks: Sequence[Task], what: str) -> dict[Task, Answer]:
        """Return the answers to different tasks."""

    @abstractmethod
    def networks_for(self, what: str) -> Context:
        """Return the context to read networks with, for something that is no task; `what` says which network."""

    @abstractmethod
    def before_drawing(self) -> None:
        """Stop whoever is about to draw or save an exhibit, where there are no answers to draw."""


class Here(Executor):
    """Does what is not in the store in this process, one task after the other."""

    def _answers(self, tasks: Sequence[Task], what: str) -> dict[Task, Answer]:
        context = self.context
        found = {task: task.find(context) for task in tasks}
        missing = [task for task, answer in found.items() if answer is None]
        # a bar in which nothing is to be done would only flicker
        for task in track(missing, desc=what, unit="task") if what and missing else missing:
            _find_or_do(task, context, found)
        return {task: Answer(found[task]) for task in tasks}

    def networks_for(self, what: str) -> Context:
        """As :meth:`Executor.networks_for`."""
        del what
        return self.context

    def before_drawing(self) -> None:
        """Everything is there to be drawn."""


def _find_or_do(task: Task, context: Context, found: dict[Task, Any]) -> None:
    """Put a task's answer into `found`; do it first where it is not in the store, and before that what it needs."""
    if found.get(task) is None:
        found[task] = task.find(context)
    if found[task] is None:
        for needed in task.inputs():
            _find_or_do(needed, context, found)
        task.do(context)
        found[task] = task.find(context)


_CURRENT: ContextVar[Executor] = ContextVar("executor", default=Here())  # noqa: B039 - one for the process is meant


def current() -> Executor:
    """Return the executor that answers tasks: :class:`Here`, unless :func:`using` says otherwise."""
    return _CURRENT.get()


@contextmanager
def using(executor: Executor) -> Iterator[Executor]:
    """Hold a context in which another executor answers tasks."""
    token = _CURRENT.set(executor)
    try:
        yield executor
    finally:
        _CURRENT.reset(token)
