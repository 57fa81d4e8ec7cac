"""What tests of measurements share: an executor that only pretends, and what makes a question another one."""

import json
from collections.abc import Sequence
from dataclasses import replace

import torch

from rkdkit import executors
from rkdkit.measurements import Measurement
from rkdkit.references import Images, Snapshot
from rkdkit.tasks import Answer, Context, Task


class Pretending(executors.Here):
    """Answers whatever it is asked by placeholders, and notes it."""

    def __init__(self) -> None:
        super().__init__()
        self.noted: list[Task] = []
        self.gathers: list[int] = []

    def answer_all(self, tasks: Sequence[Task], what: str) -> dict[Task, Answer]:
        del what
        self.noted += tasks
        self.gathers.append(len(tasks))
        return {task: Answer(task.placeholder(), known=False) for task in tasks}


def name_of(snapshot: Snapshot) -> str:
    """Stand for a snapshot's digest, where nothing is trained."""
    return f"{snapshot.role} {snapshot.epoch} of {snapshot.spec.method} {snapshot.spec.seed}"


def question(task: Measurement) -> str:
    """A task's question as it is written."""
    return json.dumps(task.question(name_of, task.images.split()), allow_nan=False, sort_keys=True)


def each_makes_another_question(task: Measurement, **changes: object) -> None:
    """Make sure that a change of a single field makes another question and another task.

    Parameters
    ----------
    task : a measurement.
    changes : another value for each field; all but `images` must be named, of which number and classes are changed.
    """
    images = replace(task.images, n=7), replace(task.images, part="train"), Images("digits:3,8", n=task.images.n)
    assert {"images", *changes} == set(task.__dataclass_fields__), "a field is left out"
    others = [replace(task, **{name: value}) for name, value in changes.items()]
    others += [replace(task, images=each) for each in images]
    tasks = [task, *others]
    assert len({question(each) for each in tasks}) == len(tasks)
    assert len({each.name for each in tasks}) == len(tasks)


def has_the_form_of(placeholder: object, answer: object) -> None:
    """Make sure that a placeholder is of an answer's form: the same types, names, shapes and kinds of numbers."""
    assert type(placeholder) is type(answer)
    if isinstance(answer, torch.Tensor) or hasattr(answer, "dtype"):
        assert (placeholder.shape, placeholder.dtype) == (answer.shape, answer.dtype)
    elif isinstance(answer, dict):
        assert list(placeholder) == list(answer)
        for name, value in answer.items():
            has_the_form_of(placeholder[name], value)
    elif hasattr(answer, "__dataclass_fields__"):
        for name in answer.__dataclass_fields__:
            has_the_form_of(getattr(placeholder, name), getattr(answer, name))


def the_store_answers(task: Measurement) -> object:
    """Return the answer that is in the store; there must be one."""
    answer = task.find(Context())
    assert answer is not None
    return answer
