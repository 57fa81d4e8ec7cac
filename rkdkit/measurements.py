"""Measurements as tasks: questions about snapshots and images. Each is measured once and its answer is stored.

A new kind of measurement is a subclass of :class:`Measurement`, in the module that uses it.
"""

import math
import re
from abc import abstractmethod
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, fields, replace
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from rkdkit import attacks, autoattack, autoattack_shares, checks, data, evaluation
from rkdkit.forms import has_form_of
from rkdkit.progress import track
from rkdkit.provenance import environment, same_versions
from rkdkit.references import Images, Snapshot
from rkdkit.spec import RunSpec, digest_of
from rkdkit.store import REMEASURE, DamagedFileError
from rkdkit.tasks import Context, Task
from rkdkit.trainings import Train
from rkdkit.wanted import WantedAnswer

EVALUATION_ENGINE = 1
"""A version number: raised whenever the same question about the same network gets another answer, beyond rounding."""

Digest = Callable[[Snapshot], str]
Load = Callable[[Snapshot], nn.Module]


@dataclass(frozen=True)
class Pass:
    """One part of a measurement's work, as the plan counts it: a network classifies images.

    Attributes
    ----------
    judge : the network that classifies the images.
    attack : the attack that makes the images; None: natural images.
    attacked : the network attacked; None: the judge itself.
    times : how many times.
    """

    judge: Snapshot
    attack: attacks.Attack | None
    attacked: Snapshot | None = None
    times: int = 1


@dataclass(frozen=True, kw_only=True)
class Measurement(Task):
    """A question about snapshots and images; all its fields are plain values.

    A subclass is a frozen dataclass (``kw_only=True``) that defines the abstract members below and
    :meth:`Task.placeholder`, an answer of the right form made of zeros.

    Attributes
    ----------
    images : the images that the snapshots are evaluated on.
    """

    images: Images

    @property
    @abstractmethod
    def snapshots(self) -> tuple[Snapshot, ...]:
        """The snapshots that are evaluated or attacked."""

    @abstractmethod
    def question(self, digest: Digest, split: data.Split) -> dict[str, Any]:
        """Return all that the answer depends on, as plain JSON values: its key in the store.

        A stored answer is found again by this key alone. So the question names the kind of measurement, with a text
        that no other kind has, and a number that is raised whenever :meth:`measured` would answer differently.

        Parameters
        ----------
        digest : a snapshot -> the digest of its weights.
        split : the images.
        """

    @abstractmethod
    def measured(self, load: Load, split: data.Split) -> Any:
        """Measure it and return the answer as plain JSON values.

        Parameters
        ----------
        load : a snapshot -> its network in eval mode.
        split : the images.
        """

    @abstractmethod
    def value(self, answer: Any, split: data.Split) -> Any:
        """Convert an answer of :meth:`measured`, as it is stored, to the value that callers get."""

    @abstractmethod
    def passes(self) -> Sequence[Pass]:
        """Return the measurement's work, as the plan counts it."""

    @property
    def name(self) -> str:
        """As :attr:`Task.name`."""
        return f"{type(self).__name__}-{digest_of([_plain(getattr(self, field.name)) for field in fields(self)])}"

    @property
    def specs(self) -> tuple[RunSpec, ...]:
        """As :attr:`Task.specs`."""
        return tuple(dict.fromkeys(snapshot.spec for snapshot in self.snapshots))

    @property
    def datasets(self) -> tuple[str, ...]:
        """As :attr:`Task.datasets`, with that of the images."""
        return tuple(dict.fromkeys((*super().datasets, self.images.dataset)))

    def __str__(self) -> str:
        what = re.sub(r"(?<=[a-z])(?=[A-Z])", " ", type(self).__name__).lower()
        return f"{what} of the {self.snapshots[0]}"

    @property
    def certain(self) -> bool:
        """As :attr:`Task.certain`."""
        return all(snapshot.certain for snapshot in self.snapshots)

    @property
    def attacks(self) -> tuple[attacks.Attack | None, ...]:
        """The attacks that make its images, each once; None: natural images."""
        return tuple(dict.fromkeys(each.attack for each in self.passes()))

    def inputs(self) -> list[Task]:
        """Return the trainings of its snapshots."""
        return [Train(spec) for spec in self.specs]

    def check(self, context: Context) -> None:
        """As :meth:`Task.check`, of the trainings of its snapshots."""
        for task in self.inputs():
            task.check(context)

    def find(self, context: Context) -> Any:
        """Return the answer from the store; None: it is not there.

        Raises
        ------
        DamagedFileError
            If the stored answer or a run's record is damaged, or the answer has another form than the placeholder.
        """
        question = self.question_in(context)
        answer = None if question is None else context.store.read_answer(question)
        if question is None or answer is None:
            return None
        try:
            value = self.value(answer, self.images.split(context.load))
        except (AttributeError, LookupError, RuntimeError, TypeError, ValueError):  # it was never an answer
            value = None
        if not has_form_of(value, self.placeholder()):
            path = context.store.answer_path(question)
            raise DamagedFileError(f"{path} holds no answer to its question: {self}. {REMEASURE.format(path)}")
        return value

    def do(self, context: Context) -> None:
        """Measure it and store the answer."""
        question = self.question_in(context)
        assert question is not None, "its snapshots are trained by now"
        answer = self.measured(lambda snapshot: snapshot.read(context), self.images.split(context.load))
        context.store.write_answer(question, answer, environment(context.device))

    def environments(self, context: Context) -> list[dict[str, Any]]:
        """Return where its answers in the store were measured, as `provenance.environment`; errors as :meth:`find`."""
        question = self.question_in(context)
        found = None if question is None else context.store.read_environment(question)
        return [found] if found else []

    def wanted(self, context: Context) -> list[WantedAnswer]:
        """As :meth:`Task.wanted`: its answer."""
        question = self.question_in(context)
        if question is None or context.store.read_answer(question) is not None:
            return []
        split = self.images.split(context.load)
        path = context.store.answer_path(question)
        return [WantedAnswer(path, question, lambda answer: self.value(answer, split), self.placeholder)]

    def question_in(self, context: Context) -> dict[str, Any] | None:
        """Return its question; None: one of its snapshots is not trained yet."""
        digests = {snapshot: snapshot.digest(context) for snapshot in self.snapshots}
        if None in digests.values():
            return None
        return self.question(lambda snapshot: digests[snapshot] or "", self.images.split(context.load))


@dataclass(frozen=True, kw_only=True)
class CorrectPredictions(Measurement):
    """Which images each of several snapshots classifies correctly, all on the same adversarial examples.

    The answer is (len(judges), N) bool; each judge's row is stored separately.

    Attributes
    ----------
    judges : the snapshots that classify the images.
    attack : makes the adversarial examples, with the cross entropy as its loss; None: natural images.
    attacked : the snapshot attacked; None: the first judge.
    """

    judges: tuple[Snapshot, ...]
    attack: attacks.Attack | None = None
    attacked: Snapshot | None = None

    def __post_init__(self) -> None:
        # the same question has only one form, so that equal questions compare equal
        if self.attack is None or self.attacked == self.judges[0]:
            object.__setattr__(self, "attacked", None)

    @property
    def target(self) -> Snapshot:
        """The snapshot attacked."""
        return self.attacked or self.judges[0]

    @property
    def snapshots(self) -> tuple[Snapshot, ...]:
        """As :attr:`Measurement.snapshots`."""
        return (*self.judges, self.target) if self.attack is not None else self.judges

    def __str__(self) -> str:
        under = "" if self.attack is None else f" under {self.attack}"
        others = f" and {len(self.judges) - 1} others" if len(self.judges) > 1 else ""
        return f"accuracy of the {self.judges[0]}{others}{under}"

    @property
    def parts(self) -> list["CorrectPredictions"]:
        """The same question for each judge separately."""
        return [replace(self, judges=(judge,), attacked=self.target) for judge in self.judges]

    def question(self, digest: Digest, split: data.Split) -> dict[str, Any]:
        """As :meth:`Measurement.question`, for the first judge."""
        return question_of("correct predictions", self.judges[0], split, self.attack, self.target, digest)

    def find(self, context: Context) -> Tensor | None:
        """As :meth:`Measurement.find`, for all judges."""
        if len(self.judges) == 1:
            found: Tensor | None = super().find(context)
            return found
        rows = [part.find(context) for part in self.parts]
        return None if any(row is None for row in rows) else torch.cat([row for row in rows if row is not None])

    def environments(self, context: Context) -> list[dict[str, Any]]:
        """As :meth:`Measurement.environments`, for each judge."""
        if len(self.judges) == 1:
            return super().environments(context)
        return [each for part in self.parts for each in part.environments(context)]

    def wanted(self, context: Context) -> list[WantedAnswer]:
        """As :meth:`Task.wanted`: the answers of the judges."""
        if len(self.judges) == 1:
            return super().wanted(context)
        return [each for part in self.parts for each in part.wanted(context)]

    def do(self, context: Context) -> None:
        """Evaluate the judges whose answers are not in the store."""
        missing = [part for part in self.parts if part.find(context) is None]
        split = self.images.split(context.load)
        needed = dict.fromkeys(snapshot for part in missing for snapshot in (self.target, *part.judges))
        networks = {snapshot: snapshot.read(context) for snapshot in needed}
        if isinstance(self.attack, autoattack.Packaged):
            # AutoAttack and Square evaluate the attacked network batch by batch, and continue where they were stopped
            for part in [part for part in missing if part.judges == (self.target,)]:
                part.keep(part._withstanding(self.attack, networks[self.target], split, context), context)
            missing = [part for part in missing if part.judges != (self.target,)]
        if missing:
            judges = [networks[part.judges[0]] for part in missing]
            attacked = networks[self.target]
            found = evaluation.correct_predictions(judges, split.images, split.labels, self.attack, attacked)
            for part, correct in zip(missing, found, strict=True):
                part.keep(correct, context)

    def keep(self, correct: Tensor, context: Context, origin: Mapping[str, Any] | None = None) -> None:
        """Store the first judge's answer, and the environment of its `origin`; None: this one."""
        question = self.question_in(context)
        assert question is not None
        context.store.write_answer(question, _packed(correct), dict(origin or environment(context.device)))
        context.store.forget_answer(unfinished(question))

    def _withstanding(
        self, attack: autoattack.Packaged, network: nn.Module, split: data.Split, context: Context
    ) -> Tensor:
        """Return which images withstand a costly attack; it goes on where it was stopped in the same environment."""
        question = self.question_in(context)
        assert question is not None
        so_far, here = unfinished(question), environment(context.device)
        images, classes = data.to_float(split.images), len(context.load(self.target.spec.dataset).classes)
        before, origin = context.store.read_answer(so_far), context.store.read_environment(so_far) or {}
        goes_on = has_form_of(before, [0] * len(split)) and same_versions(origin, here)
        begun: list[int] | None = before if goes_on else None
        pace = autoattack_shares.Pace(attack, classes, begun or [0] * len(split))
        with track(total=pace.total, desc=f"{attack} on {self.target.spec.label}", leave=False) as bar:

            def keep(progress: list[int]) -> None:
                context.store.write_answer(so_far, progress, here)
                pace.moved(progress)
                bar.set_postfix_str(f"part {max(*progress, 1)}", refresh=False)
                bar.n, bar.total = pace.done, pace.total
                bar.refresh()

            with evaluation.prepared(network, attack, images) as prepared:
                return attack.correct(prepared, images, split.labels, begun, keep)

    def measured(self, load: Load, split: data.Split) -> str:
        """As :meth:`Measurement.measured`, for the first judge."""
        judge, attacked = load(self.judges[0]), load(self.target)
        return _packed(evaluation.correct_predictions([judge], split.images, split.labels, self.attack, attacked)[0])

    def value(self, answer: str, split: data.Split) -> Tensor:
        """As :meth:`Measurement.value`: (1, N) bool."""
        packed = np.frombuffer(bytes.fromhex(answer), np.uint8)
        bits = np.unpackbits(packed)
        if len(packed) != math.ceil(len(split) / 8) or bits[len(split) :].any():
            raise ValueError("an answer to a question about other images")
        return torch.from_numpy(bits[: len(split)]).bool()[None]

    def placeholder(self) -> Tensor:
        """Return False for every judge and image."""
        return torch.zeros(len(self.judges), len(self.images), dtype=torch.bool)

    def passes(self) -> list[Pass]:
        """As :meth:`Measurement.passes`."""
        return [Pass(judge, self.attack, self.target) for judge in self.judges]


class OfOneSnapshot(Measurement):
    """A question about one snapshot alone.

    A subclass lists the field ``snapshot`` itself, because the order of the fields is part of a measurement's name.

    Attributes
    ----------
    snapshot : the snapshot that is evaluated.
    """

    snapshot: Snapshot

    @property
    def snapshots(self) -> tuple[Snapshot, ...]:
        """As :attr:`Measurement.snapshots`."""
        return (self.snapshot,)


@dataclass(frozen=True, kw_only=True)
class PerImage(OfOneSnapshot):
    """A quantity of a snapshot's output for each image, under an attack on itself; the answer is (N,) float32, in nats.

    Attributes
    ----------
    quantity : one of `evaluation.QUANTITIES`.
    snapshot : the network that is attacked and classifies the images.
    attack : None: natural images.

    Raises
    ------
    UnknownNameError
        If `quantity` is not known.
    """

    quantity: str
    snapshot: Snapshot
    attack: attacks.Attack | None = None

    def __post_init__(self) -> None:
        checks.one_of("quantity", self.quantity, evaluation.QUANTITIES)

    def question(self, digest: Digest, split: data.Split) -> dict[str, Any]:
        """As :meth:`Measurement.question`."""
        return question_of(self.quantity, self.snapshot, split, self.attack, self.snapshot, digest)

    def measured(self, load: Load, split: data.Split) -> str:
        """As :meth:`Measurement.measured`."""
        values = evaluation.per_image(self.quantity, load(self.snapshot), split.images, split.labels, self.attack)
        return floats_to_text(values)

    def value(self, answer: str, split: data.Split) -> Tensor:
        """As :meth:`Measurement.value`."""
        del split
        return floats_from_text(answer)

    def placeholder(self) -> Tensor:
        """Return zeros."""
        return torch.zeros(len(self.images))

    def passes(self) -> list[Pass]:
        """As :meth:`Measurement.passes`."""
        return [Pass(self.snapshot, self.attack, self.snapshot)]


def question_of(
    what: str,
    judge: Snapshot,
    split: data.Split,
    attack: attacks.Attack | None,
    attacked: Snapshot,
    digest: Digest,
) -> dict[str, Any]:
    """Return a question about a judge's output on images, as plain JSON values: its key in the store.

    Parameters
    ----------
    what : the name of the question.
    judge, split, attack, attacked : as :class:`CorrectPredictions`.
    digest : a snapshot -> the digest of its weights.
    """
    return {
        "engine": EVALUATION_ENGINE,
        "question": what,
        "judge": digest(judge),
        "attack": None if attack is None else attack.identity(),
        "attacked": None if attack is None else digest(attacked),
        "data": split.digest,
        "n": len(split),
    }


def floats_to_text(values: Tensor, dtype: str = "<f4") -> str:
    """Return numbers as hexadecimal text from which the same bits can be read: "<f4" float32, "<f8" float64."""
    return values.detach().cpu().numpy().astype(dtype).tobytes().hex()


def floats_from_text(text: str, dtype: str = "<f4") -> Tensor:
    """Return the (N,) numbers of :func:`floats_to_text`."""
    return torch.from_numpy(np.frombuffer(bytes.fromhex(text), dtype).copy())


def _packed(correct: Tensor) -> str:
    return np.packbits(correct.numpy()).tobytes().hex()


def unfinished(question: dict[str, Any], part: Any = True) -> dict[str, Any]:
    """Return the key of a question's progress, or of some part of it, as `inventory.prune` knows it."""
    return {**question, "unfinished": part}


def _plain(value: Any) -> Any:
    """Return a field of a measurement as plain JSON values that depend on specifications only."""
    match value:
        case Snapshot():
            return [value.spec.id, value.role, value.epoch]
        case Images():
            return value.to_json()
        case attacks.Attack():
            return value.identity()
        case tuple():
            return [_plain(each) for each in value]
    return value
