"""Asking a notebook what its exhibit needs: its cells are run while a :class:`Planner` only notes the tasks."""

import contextlib
import io
import traceback
from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch

from rkdkit import data, executors
from rkdkit.executors import Executor
from rkdkit.measurements import CorrectPredictions, Measurement
from rkdkit.store import Store
from rkdkit.tasks import Answer, Context, Task
from rkdkit.trainings import Train


class NeedsNetworkError(RuntimeError):
    """A trained network itself is wanted, where it is only asked what there is to do."""


class DrawingError(BaseException):
    """The exhibit is about to be drawn: all that it needs has been asked for.

    No `Exception`, so that a notebook that handles its own errors does not go on to draw.
    """


class Planner(Executor):
    """Notes the tasks that are not in the store, and answers them with placeholders. It does and writes nothing.

    Where data are not on this machine, blank images in their published number stand for them.

    Parameters
    ----------
    store, device : as :class:`Executor`.

    Attributes
    ----------
    trainings : every training asked for, teachers first, and how many of its epochs are in the store.
    measurements : what is not in the store, each once; of several judges, only those that are still to be asked.
    blank : the datasets that are not on this machine.
    cut_short : whether a trained network itself was wanted, so that what is asked for after that is not known.
    """

    draws = False

    def __init__(self, store: Store | None = None, device: torch.device | str | None = None) -> None:
        super().__init__(store, device)
        self.trainings: dict[Train, int] = {}
        self.measurements: list[Measurement] = []
        self.blank: list[str] = []
        self.cut_short = False
        self._noted: dict[Task, bool] = {}  # whether it is certain

    @property
    def context(self) -> Context:
        """As :attr:`Executor.context`, with blank images for data that are not on this machine."""
        return replace(super().context, load=self._load)

    def certain(self, task: Task) -> bool:
        """Return whether a task that was noted will be needed as it is: no placeholder chose an epoch in it.

        A task that was asked for several times is certain if it once was.
        """
        return all(self._noted[part] for part in parts_of(task))

    @property
    def missing(self) -> list[Task]:
        """What was noted and is not in the store, each once, what is needed first."""
        trainings = [task for task, finished in self.trainings.items() if finished < task.spec.epochs]
        return [*trainings, *self.measurements]

    @property
    def all_certain(self) -> bool:
        """Whether all that was noted is certain."""
        return all(self._noted.values())

    def networks_for(self, what: str) -> Context:
        """Refuse: no network is read while planning.

        Raises
        ------
        NeedsNetworkError
            Always; what is asked for after that is not known.
        """
        self.cut_short = True
        raise NeedsNetworkError(f"{what} is wanted itself, and here it is only asked what there is to do.")

    def before_drawing(self) -> None:
        """End the asking: nothing is drawn or saved from placeholders.

        Raises
        ------
        DrawingError
            Always.
        """
        raise DrawingError

    def answer_all(self, tasks: Sequence[Task], what: str) -> dict[Task, Answer]:
        """Note the tasks; return answers from the store, and placeholders where there are none."""
        del what
        context = self.context
        return {task: self._answer(task, context) for task in tasks}

    def _answer(self, task: Task, context: Context) -> Answer:
        for needed in task.inputs():
            self._note(needed, context)
        known = self._note(task, context)
        return Answer(task.find(context)) if known else Answer(task.placeholder(), known=False)

    def _note(self, task: Task, context: Context) -> bool:
        """Note a task and what it needs; return whether its answer is in the store."""
        if isinstance(task, Train):
            for needed in task.inputs():
                self._note(needed, context)
            if task not in self.trainings:
                self.trainings[task] = task.finished_epochs(context)
            self._remember(task, task.certain)
            return self.trainings[task] == task.spec.epochs
        missing = [part for part in parts_of(task) if part.find(context) is None]
        new = [part for part in missing if part not in self._noted]
        for part in missing:
            self._remember(part, part.certain)
        rest = without(task, [part for part in parts_of(task) if part not in new])
        if isinstance(rest, Measurement):
            self.measurements.append(rest)
        return not missing

    def _remember(self, task: Task, certain: bool) -> None:
        self._noted[task] = certain or self._noted.get(task, False)

    def _load(self, name: str) -> data.Dataset:
        dataset = data.load_or_blank(name)
        if dataset.source == data.BLANK and name not in self.blank:
            self.blank.append(name)
        return dataset


def parts_of(task: Task) -> Sequence[Task]:
    """Return what of a task is kept by itself: each judge's answer."""
    return task.parts if isinstance(task, CorrectPredictions) else [task]


def without(task: Task, parts: Collection[Task]) -> Task | None:
    """Return what is left of a task without some parts (of :func:`parts_of`); None: nothing is."""
    left = [part for part in parts_of(task) if part not in parts]
    if isinstance(task, CorrectPredictions) and left:
        judges = tuple(judge for part in left if isinstance(part, CorrectPredictions) for judge in part.judges)
        return replace(task, judges=judges, attacked=task.target)
    return task if left else None


def ask(planner: Planner, notebook: Path, parameters: Mapping[str, object]) -> list[str]:
    """Run a notebook's cells up to where it draws, while a planner notes what it asks for; return notes for the plan.

    Parameters
    ----------
    planner : several notebooks may be asked with the same one: what two of them need is then noted once.
    notebook : the exhibit.
    parameters : as papermill sets them.

    Raises
    ------
    Exception
        Whatever the notebook raises: bad parameters are refused as when it is made.
    """
    namespace: dict[str, Any] = {"__name__": "__main__", "display": lambda *_: None}  # as a kernel has it
    silent = io.StringIO()
    for source in _sources(notebook, parameters):
        try:
            with executors.using(planner), contextlib.redirect_stdout(silent), contextlib.redirect_stderr(silent):
                exec(compile(source, notebook.name, "exec"), namespace)
        except DrawingError:
            break
        except NeedsNetworkError as error:
            frames = traceback.extract_tb(error.__traceback__)
            line = next(frame.lineno for frame in frames if frame.filename == notebook.name)
            what = source.splitlines()[(line or 1) - 1]
            return [f"Not counted: what {notebook.stem} does from `{what.strip()}` on; it needs trained networks."]
    return []


def _sources(notebook: Path, parameters: Mapping[str, object]) -> Iterator[str]:
    """Yield the notebook's code with the given parameters in it, a cell at a time, as papermill runs it."""
    # papermill brings much along, and most of the kit does without
    from papermill.iorw import load_notebook_node
    from papermill.parameterize import parameterize_notebook

    for cell in parameterize_notebook(load_notebook_node(str(notebook)), dict(parameters)).cells:
        if cell.cell_type == "code":
            yield cell.source
