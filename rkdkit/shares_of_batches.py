"""A long measurement as several tasks, each of which measures some of the images in whole batches.

The answers of the shares are put together and stored as the answer of the whole measurement, so nobody else sees that
there were any. Until then each share's answer is progress: an evaluation that was stopped goes on from there.
"""

from abc import abstractmethod
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import pairwise
from typing import Any

import torch
from torch import nn

from rkdkit.computations import Computation, WholeBatches
from rkdkit.forms import has_form_of
from rkdkit.measurements import CorrectPredictions, Measurement, PerImage, unfinished
from rkdkit.progress import track
from rkdkit.provenance import environment, together
from rkdkit.references import Snapshot
from rkdkit.spec import RunSpec, digest_of
from rkdkit.store import StoreError
from rkdkit.tasks import Context, Task

HERE = ("platform", "device", "git_commit", "processes")
"""What may differ between the shares of one answer: the answer's environment then names all."""

MEETINGS = 8
"""How often processes that measure whole batches together meet, about: what they found is kept then."""


@dataclass(frozen=True)
class Round:
    """What processes that measure together do until they meet.

    Attributes
    ----------
    parts : for each process, what `Computation.answers` takes; none: it has nothing to do.
    before, after : how much of the measurement's work is done at its beginning and at its end, in [0, 1].
    """

    parts: Sequence[Sequence[Any]]
    before: float
    after: float


@dataclass(frozen=True, kw_only=True)
class OfWhole(Task):
    """What is done for a measurement: it rests on the same runs and data.

    Attributes
    ----------
    whole : the measurement.
    """

    whole: Measurement

    @property
    def specs(self) -> tuple[RunSpec, ...]:
        """As :attr:`Task.specs`."""
        return self.whole.specs

    @property
    def datasets(self) -> tuple[str, ...]:
        """As :attr:`Task.datasets`."""
        return self.whole.datasets

    @property
    def certain(self) -> bool:
        """As :attr:`Task.certain`."""
        return self.whole.certain


@dataclass(frozen=True, kw_only=True)
class Share(OfWhole):
    """What one of several processes does of a measurement.

    Attributes
    ----------
    share, shares : which share, counted from 0, of how many.
    """

    share: int
    shares: int

    @property
    def name(self) -> str:
        """As :attr:`Task.name`."""
        rest = [value for name, value in sorted(vars(self).items()) if name != "whole"]
        return f"{type(self).__name__}-{digest_of([self.whole.name, *rest])}"

    def __str__(self) -> str:
        return f"share {self.share + 1} of {self.shares} of the {self.whole}"

    def inputs(self) -> Sequence[Task]:
        """Return the trainings of the measurement's snapshots."""
        return self.whole.inputs()

    def placeholder(self) -> list[int]:
        """Return nothing."""
        return []

    @property
    @abstractmethod
    def weight(self) -> float:
        """How much of the measurement's work it is."""

    @property
    @abstractmethod
    def last(self) -> Sequence["Share"]:
        """The shares that are done when all are."""

    @property
    @abstractmethod
    def computation(self) -> Computation:
        """What all shares do, each its parts."""

    @property
    @abstractmethod
    def networks(self) -> tuple[Snapshot, ...]:
        """The networks for that, as `Computation.answers` takes them."""

    @abstractmethod
    def round(self, context: Context) -> Round | None:
        """Return what as many processes as there are shares do next, if they do it together; None: all is done."""

    @abstractmethod
    def keep(self, found: Sequence[tuple[Any, Any]], context: Context, origin: Mapping[str, Any]) -> None:
        """Store the answers to all parts of a round, given as pairs, and the environment of their `origin`."""

    @abstractmethod
    def join(self, context: Context) -> None:
        """Store the whole measurement's answer, which all shares have made, and forget theirs."""

    @abstractmethod
    def parts(self) -> Iterator[Any]:
        """Yield what tells the answers of all shares, and of what they come to, from each other: JSON values."""

    def read(self, context: Context) -> list[nn.Module]:
        """Return :attr:`networks`, each read once; errors as `references.Snapshot.read`."""
        found = {snapshot: snapshot.read(context) for snapshot in dict.fromkeys(self.networks)}
        return [found[snapshot] for snapshot in self.networks]

    def question(self, context: Context, part: Any) -> dict[str, Any] | None:
        """Return the key of a part of the progress; None: a snapshot is not trained yet."""
        question = self.whole.question_in(context)
        return None if question is None else unfinished(question, part)

    def forget(self, context: Context, *, of_others: bool = False) -> None:
        """Delete the answers of all shares; with `of_others`, only those that other versions of the kit's have made.

        Raises
        ------
        DamagedFileError
            With `of_others`, if one is damaged.
        """
        here = _versions(environment(context.device))
        for part in self.parts():
            question = self.question(context, part)
            if question is None:
                return
            if of_others:
                origin = context.store.read_environment(question)
                if origin is None or _versions(origin) == here:
                    continue
            context.store.forget_answer(question)


@dataclass(frozen=True, kw_only=True)
class BatchesShare(Share):
    """Some of a measurement's batches; each is kept by itself, so another number of shares can go on with them.

    Attributes
    ----------
    batch_size : images per batch.
    """

    batch_size: int

    @property
    def starts(self) -> range:
        """The first images of all batches."""
        return range(0, len(self.whole.images), self.batch_size)

    @property
    def own(self) -> range:
        """Those of its batches: neighbours, so that each share skips as few as possible."""
        n = len(self.starts)
        return self.starts[n * self.share // self.shares : n * (self.share + 1) // self.shares]

    @property
    def weight(self) -> float:
        """As :attr:`Share.weight`."""
        return len(self.own) / len(self.starts)

    @property
    def last(self) -> list[Share]:
        """As :attr:`Share.last`."""
        return [replace(self, share=share) for share in range(self.shares)]

    @property
    def computation(self) -> WholeBatches:
        """As :attr:`Share.computation`."""
        assert isinstance(self.whole, CorrectPredictions | PerImage)
        quantity = self.whole.quantity if isinstance(self.whole, PerImage) else ""
        return WholeBatches(attack=self.whole.attack, quantity=quantity, batch_size=self.batch_size)

    @property
    def networks(self) -> tuple[Snapshot, ...]:
        """As :attr:`Share.networks`."""
        judges = _judges(self.whole)
        attacked = self.whole.target if isinstance(self.whole, CorrectPredictions) and self.whole.attack else judges[0]
        return (attacked, *judges)

    def parts(self) -> Iterator[Any]:
        """As :meth:`Share.parts`."""
        for start in self.starts:
            yield self._part(start)

    def find(self, context: Context) -> list[int] | None:
        """Return its batches if they are measured, or the whole is."""
        if all(self._read(start, context) is not None for start in self.own):
            return list(self.own)
        return None if self.whole.find(context) is None else list(self.own)

    def do(self, context: Context) -> None:
        """Measure the batches that are missing, and keep each."""
        missing = self._missing(self.own, context)
        split, here = self.whole.images.split(context.load), environment(context.device)
        with track(total=len(self.own), initial=len(self.own) - len(missing), desc=str(self), leave=False) as bar:
            answers = self.computation.answers(self.read(context), split, missing) if missing else ()
            for found in zip(missing, answers, strict=True):
                self.keep([found], context, here)
                bar.update()

    def round(self, context: Context) -> Round | None:
        """As :meth:`Share.round`: as many batches by each process, neighbours."""
        missing, n = self._missing(self.starts, context), len(self.starts)
        if not missing:
            return None
        now = missing[: self.shares * -(-n // (self.shares * MEETINGS))]
        cuts = [len(now) * share // self.shares for share in range(self.shares + 1)]
        done = n - len(missing)
        return Round([now[a:b] for a, b in pairwise(cuts)], done / n, (done + len(now)) / n)

    def keep(self, found: Sequence[tuple[int, list[str]]], context: Context, origin: Mapping[str, Any]) -> None:
        """As :meth:`Share.keep`: each batch by itself."""
        for start, answer in found:
            question = self.question(context, self._part(start))
            assert question is not None, "its snapshots are trained by now"
            context.store.write_answer(question, answer, dict(origin))

    def join(self, context: Context) -> None:
        """As :meth:`Share.join`."""
        found, origins = [], []
        for start in self.starts:
            answer, question = self._read(start, context), self.question(context, self._part(start))
            if answer is None or question is None:
                gone(self, context)
                return
            found.append(answer)
            origins.append(context.store.read_environment(question) or {})
        _keep(self.whole, ["".join(each) for each in zip(*found, strict=True)], together(origins), context)
        self.forget(context)

    def _missing(self, starts: Sequence[int], context: Context) -> list[int]:
        return [start for start in starts if self._read(start, context) is None]

    def _part(self, start: int) -> Any:
        n = min(self.batch_size, len(self.whole.images) - start)
        return {"first": start, "n": n, "batch size": self.batch_size}

    def question(self, context: Context, part: Any) -> dict[str, Any] | None:
        """As :meth:`Share.question`; all judges answer together."""
        judges = [judge.digest(context) for judge in _judges(self.whole)]
        return super().question(context, {**part, "judges": judges})

    def _read(self, start: int, context: Context) -> list[str] | None:
        question = self.question(context, self._part(start))
        found = None if question is None else context.store.read_answer(question)
        n = self._part(start)["n"] * (1 if isinstance(self.whole, CorrectPredictions) else 8)
        if not isinstance(found, list) or not has_form_of(found, [""] * len(_judges(self.whole))):
            return None
        return found if {*map(len, found)} == {n} else None


@dataclass(frozen=True, kw_only=True)
class Joined(OfWhole):
    """A measurement whose answer is put together from that of its shares.

    Attributes
    ----------
    share : one of the shares.
    """

    share: Share

    @property
    def name(self) -> str:
        """As :attr:`Task.name`."""
        return f"Joined-{digest_of([self.whole.name, self.share.name])}"

    def __str__(self) -> str:
        return str(self.whole)

    def inputs(self) -> Sequence[Task]:
        """Return the shares that are done when all are."""
        return self.share.last

    def find(self, context: Context) -> Any:
        """As :meth:`Task.find`."""
        return self.whole.find(context)

    def do(self, context: Context) -> None:
        """Put the answer together and store it."""
        self.share.join(context)

    def placeholder(self) -> Any:
        """As :meth:`Task.placeholder`."""
        return self.whole.placeholder()


def _judges(whole: Measurement) -> tuple[Snapshot, ...]:
    return whole.judges if isinstance(whole, CorrectPredictions) else whole.snapshots


def _keep(whole: Measurement, texts: Sequence[str], origin: Mapping[str, Any], context: Context) -> None:
    """Store the whole answer, from texts as `WholeBatches` gives them, one for each judge."""
    if isinstance(whole, CorrectPredictions):
        for part, text in zip(whole.parts, texts, strict=True):
            part.keep(torch.tensor([letter == "1" for letter in text]), context, origin)
        return
    question = whole.question_in(context)
    assert question is not None, "its snapshots are trained by now"
    context.store.write_answer(question, texts[0], dict(origin))


def _versions(origin: Mapping[str, Any]) -> dict[str, Any]:
    return {name: value for name, value in origin.items() if name not in HERE}


def gone(share: Share, context: Context) -> None:
    """Refuse to go on without the answers of other shares, unless the measurement is done meanwhile.

    Raises
    ------
    StoreError
        If it is not.
    """
    if share.whole.find(context) is None:
        raise StoreError(
            f"What others made of the {share.whole} is gone from {context.store.root}. Repeat the command."
        )


def whole_of(task: Task) -> Task:
    """Return the measurement that a task is a share of; a task that is none: itself."""
    return task.whole if isinstance(task, Share | Joined) else task
