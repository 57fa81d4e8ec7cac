"""Executors decide what happens to tasks whose answers are not in the store: :class:`Here` does them in this process.

`plan.ask.Planner` only records them. One context variable holds the current executor; tasks have no other global state.
"""

from abc import ABC, abstractmethod
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass, field
from typing import Any, ClassVar
from weakref import WeakSet

import torch

from rkdkit import fetching, kernel, progress
from rkdkit.endings import Stopped
from rkdkit.store import Store
from rkdkit.tasks import Answer, Context, Task


@dataclass(eq=False)
class Asked:
    """The tasks that an exhibit requested, in order: the results that it rests on.

    Attributes
    ----------
    tasks : each once.
    deciding : the tasks that were used only to choose the epoch of a run.
    """

    tasks: dict[Task, None] = field(default_factory=dict)
    deciding: set[Task] = field(default_factory=set)

    def note(self, tasks: Iterable[Task], deciding: bool) -> None:
        """Add tasks; a task that is also requested for its own result is not kept in `deciding`."""
        for task in tasks:
            if deciding and task not in self.tasks:
                self.deciding.add(task)
            elif not deciding:
                self.deciding.discard(task)
            self.tasks.setdefault(task)


class Executor(ABC):
    """Answers tasks: from the store if the answer is there, otherwise in its subclass's way.

    Parameters
    ----------
    store : where answers are stored; None: the default store, looked up again at each call.
    device : the device that tasks run on; None: the GPU if there is one, else the CPU.

    Attributes
    ----------
    modules : as `tasks.Context`.
    draws : whether exhibits can be drawn and saved with its answers.
    """

    draws: ClassVar[bool] = True

    def __init__(self, store: Store | None = None, device: torch.device | str | None = None) -> None:
        self._given: dict[str, Any] = {} if store is None else {"store": store}
        if device is not None:
            self._given["device"] = torch.device(device)
        self.modules: dict[tuple[str, str], torch.nn.Module] = {}
        self._listening: WeakSet[Asked] = WeakSet()

    @property
    def context(self) -> Context:
        """The context in which its tasks are looked up and done."""
        return Context(**self._given, modules=self.modules)

    def listen(self) -> Asked:
        """Return a new list of requested tasks; later requests are added to it for as long as the caller keeps it."""
        asked = Asked()
        self._listening.add(asked)
        return asked

    def listen_as(self, other: "Executor") -> None:
        """Add requests to the lists of another executor, too."""
        self._listening |= other._listening

    def gather(self, tasks: Iterable[Task], what: str = "", *, deciding: bool = False) -> list[Answer]:
        """Return the answers to tasks, in their order.

        Parameters
        ----------
        tasks : put tasks that do not depend on each other into one call, so that they can be done in parallel.
        what : a description for the progress bar; "": the tasks show their own progress.
        deciding : whether the answers are used only to choose the epoch of a run.

        Raises
        ------
        StoreError
            If the store cannot be read or written, or a file in it is damaged.
        Stopped
            In a kernel, if the user interrupts.
        """
        listed = list(tasks)
        for asked in list(self._listening):
            asked.note(listed, deciding)
        try:
            answers = self.answer_all(list(dict.fromkeys(listed)), what) if listed else {}
        except BaseException as error:
            progress.clear()
            if isinstance(error, KeyboardInterrupt) and not isinstance(error, Stopped) and kernel.inside():
                raise Stopped() from None
            raise
        return [answers[task] for task in listed]

    @abstractmethod
    def answer_all(self, tasks: Sequence[Task], what: str) -> dict[Task, Answer]:
        """Return the answers to tasks, all of which are different."""

    def look_elsewhere(self, tasks: Iterable[Task]) -> int:
        """Fetch from a mirror what it has of the answers to tasks; return the number of files. By default none.

        Raises
        ------
        StoreError, ValueError
            As `fetching.fetch`.
        """
        del tasks
        return 0

    @abstractmethod
    def networks_for(self, what: str) -> Context:
        """Return the context for reading a network outside of a task; `what` describes the network."""

    @abstractmethod
    def before_drawing(self) -> None:
        """Stop the caller before it draws or saves an exhibit, if there are no answers to draw."""


class Here(Executor):
    """Does the tasks that are not in the store in this process, one after the other; what a mirror has is fetched."""

    def answer_all(self, tasks: Sequence[Task], what: str) -> dict[Task, Answer]:
        """As :meth:`Executor.answer_all`."""
        context = self.context
        found = {task: task.find(context) for task in tasks}
        missing = [task for task, answer in found.items() if answer is None]
        for task in missing:
            task.check(context)
        if missing and fetching.fetch(missing, context):
            missing = [task for task in missing if task.find(context) is None]
        if missing:
            self.do_all(missing, context, what)
        return {task: Answer(task.find(context) if found[task] is None else found[task]) for task in tasks}

    def look_elsewhere(self, tasks: Iterable[Task]) -> int:
        """As :meth:`Executor.look_elsewhere`."""
        return fetching.fetch(tasks, self.context)

    def do_all(self, tasks: Sequence[Task], context: Context, what: str) -> None:
        """Do tasks that are not in the store, and first the tasks that they need.

        Parameters
        ----------
        tasks : each once, and checked.
        context : where their answers are written.
        what : as :meth:`Executor.gather`.
        """
        ordered = with_inputs(tasks, context)
        if len(ordered) < 2:
            for task in ordered:
                self.do_one(task, context)
            return
        from rkdkit.plan.estimate import costs_of  # counting is for those who have something to do

        costs = costs_of(ordered, context)
        with progress.overall(what or "Training and measuring", sum(costs.values())) as bar:
            for i, task in enumerate(ordered, 1):
                with bar.piece(costs[task], f"{i} of {len(ordered)}: {task.label}"):
                    if task.find(context) is None:  # a task before it may have done it
                        self.do_one(task, context)

    def do_one(self, task: Task, context: Context) -> None:
        """Do a task that is not in the store; what it needs is there."""
        task.do(context)

    def networks_for(self, what: str) -> Context:
        """As :meth:`Executor.networks_for`."""
        del what
        return self.context

    def before_drawing(self) -> None:
        """Do nothing: all answers can be drawn."""


def with_inputs(tasks: Iterable[Task], context: Context) -> list[Task]:
    """Return tasks and all that they need, as far as it is not in the store: each once, what is needed first."""
    ordered: dict[Task, None] = {}

    def add(task: Task) -> None:
        if task not in ordered and task.find(context) is None:
            for needed in task.inputs():
                add(needed)
            ordered[task] = None

    for task in tasks:
        add(task)
    return list(ordered)


DEFAULT = Here()
"""The executor of whoever did not choose one."""

_CURRENT: ContextVar[Executor] = ContextVar("executor", default=DEFAULT)


def current() -> Executor:
    """Return the executor that answers tasks: :class:`Here`, unless :func:`using` says otherwise."""
    return _CURRENT.get()


@contextmanager
def using(executor: Executor) -> Iterator[Executor]:
    """Let another executor answer tasks within a ``with`` block."""
    executor.listen_as(current())
    token = _CURRENT.set(executor)
    try:
        yield executor
    finally:
        _CURRENT.reset(token)
