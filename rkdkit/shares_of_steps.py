"""AutoAttack and Square as tasks: each is some images in one step of the attack, as `autoattack_shares` cuts it up."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import torch

from rkdkit import autoattack, autoattack_shares
from rkdkit.computations import AttackSteps
from rkdkit.forms import has_form_of
from rkdkit.measurements import CorrectPredictions
from rkdkit.progress import track
from rkdkit.provenance import environment, same_versions, together
from rkdkit.references import Snapshot
from rkdkit.shares_of_batches import Round, Share, gone
from rkdkit.tasks import Context, Task


@dataclass(frozen=True, kw_only=True)
class StepShare(Share):
    """Some images in one step of AutoAttack or Square: see `autoattack_shares`.

    Attributes
    ----------
    step : the step, counted from 0.
    classes : the number of classes, which decides how many steps there are.
    overhead : as `autoattack_shares.pieces`.
    """

    step: int
    classes: int
    overhead: int

    @property
    def attack(self) -> autoattack.Packaged:
        """The attack."""
        assert isinstance(self.whole, CorrectPredictions)
        assert isinstance(self.whole.attack, autoattack.Packaged)
        return self.whole.attack

    @property
    def steps(self) -> int:
        """How many steps there are."""
        return len(autoattack_shares.stages(self.attack, self.classes))

    def __str__(self) -> str:
        return f"share {self.share + 1} of {self.shares} of step {self.step + 1} of {self.steps} of the {self.whole}"

    def inputs(self) -> Sequence[Task]:
        """Return all shares of the step before; of the first step, as :meth:`Share.inputs`."""
        return super().inputs() if self.step == 0 else self.all_of(self.step - 1)

    @property
    def weight(self) -> float:
        """As :attr:`Share.weight`."""
        work = autoattack_shares.work(self.attack, self.classes)
        return work[self.step] / sum(work) / self.shares

    @property
    def last(self) -> list["StepShare"]:
        """As :attr:`Share.last`."""
        return self.all_of(self.steps - 1)

    @property
    def computation(self) -> AttackSteps:
        """As :attr:`Share.computation`."""
        return AttackSteps(attack=self.attack, classes=self.classes)

    @property
    def networks(self) -> tuple[Snapshot, ...]:
        """As :attr:`Share.networks`."""
        return self.whole.snapshots[:1]

    def parts(self) -> Iterator[Any]:
        """As :meth:`Share.parts`."""
        for step in range(self.steps):
            yield {"after steps": step + 1}
            for each in self.all_of(step):
                yield each._part

    def find(self, context: Context) -> list[int] | None:
        """Return the images that it fooled; if the whole step or measurement is done, nothing."""
        found = self._read(context)
        if found is not None and found["left"] == 0:
            return list(found["fooled"])
        done = self._after(self.step + 1, context) is not None or self.whole.find(context) is not None
        return [] if done else None

    def do(self, context: Context) -> None:
        """Attack its images, and keep what was found after each batch."""
        split, here = self.whole.images.split(context.load), environment(context.device)
        question, state = self.question(context, self._part), self.state(self.step, context)
        assert question is not None, "its snapshots are trained by now"
        if state is None:
            gone(self, context)
            return
        to_do = self._pieces(state)
        mine = [i for piece in to_do for i in piece.images]
        kept, origin = self._read(context), context.store.read_environment(question) or {}
        goes_on = kept is not None and kept["left"] <= len(to_do) and same_versions(origin, here)
        done, fooled = (len(to_do) - kept["left"], kept["fooled"]) if kept is not None and goes_on else (0, [])
        sizes = [len(piece.images) for piece in to_do]
        with track(total=sum(sizes), initial=sum(sizes[:done]), desc=str(self), leave=False) as bar:
            answer = {"images": mine, "left": len(to_do) - done, "fooled": fooled}
            context.store.write_answer(question, answer, here)
            answers = self.computation.answers(self.read(context), split, [self._told(piece) for piece in to_do[done:]])
            for i, (piece, found) in enumerate(zip(to_do[done:], answers, strict=True), done + 1):
                fooled = [*fooled, *found]
                context.store.write_answer(question, {**answer, "left": len(to_do) - i, "fooled": fooled}, here)
                bar.update(len(piece.images))

    def round(self, context: Context) -> Round | None:
        """As :meth:`Share.round`: a step."""
        step, state = self._reached(context)
        if step == self.steps:
            return None
        work = autoattack_shares.work(self.attack, self.classes)
        shares = [(share, share._pieces(state)) for share in self.all_of(step)]
        parts = [[share._told(piece) for piece in pieces] for share, pieces in shares]
        return Round(parts, sum(work[:step]) / sum(work), sum(work[: step + 1]) / sum(work))

    def keep(self, found: Sequence[tuple[Any, list[int]]], context: Context, origin: Mapping[str, Any]) -> None:
        """As :meth:`Share.keep`: how far all images are after the step."""
        step, state = self._reached(context)
        before = self.question(context, {"after steps": step})
        after = self.question(context, {"after steps": step + 1})
        assert before is not None, "its snapshots are trained by now"
        assert after is not None, "its snapshots are trained by now"
        earlier = context.store.read_environment(before)
        reached = autoattack_shares.after(state, [i for _, fooled in found for i in fooled])
        context.store.write_answer(after, reached, together([earlier, origin] if earlier else [origin]))

    def join(self, context: Context) -> None:
        """As :meth:`Share.join`."""
        state, question = self.state(self.steps, context), self.question(context, {"after steps": self.steps})
        if state is None or question is None:
            gone(self, context)
            return
        origin = context.store.read_environment(question) or {}
        assert isinstance(self.whole, CorrectPredictions)
        self.whole.keep(torch.tensor(state) >= 0, context, origin)
        self.forget(context)

    def state(self, steps: int, context: Context) -> list[int] | None:
        """Return how far all images are after so many steps, as `autoattack_shares` says it; None: they are not.

        It is kept, so that another number of shares can go on from there.
        """
        if steps == 0:
            return [0] * len(self.whole.images)
        known = self._after(steps, context)
        if known is not None:
            return known
        before, shares = self.state(steps - 1, context), self.all_of(steps - 1)
        found = [share._read(context) for share in shares]
        questions = [self.question(context, part) for part in ({"after steps": steps - 1}, *(s._part for s in shares))]
        fooled = [i for each in found if each is not None and each["left"] == 0 for i in each["fooled"]]
        if before is None or any(each is None or each["left"] for each in found):
            return None
        origins = [origin for each in questions if each and (origin := context.store.read_environment(each))]
        state, question = autoattack_shares.after(before, fooled), self.question(context, {"after steps": steps})
        assert question is not None, "its snapshots are trained by now"
        context.store.write_answer(question, state, together(origins))
        return state

    def all_of(self, step: int) -> list["StepShare"]:
        """Return all shares of a step."""
        return [replace(self, step=step, share=share) for share in range(self.shares)]

    @property
    def _part(self) -> Any:
        return {"step": self.step, "share": self.share, "shares": self.shares}

    def _told(self, piece: autoattack_shares.Piece) -> list[Any]:
        """Return a piece as a part of the computation."""
        return [self.step, piece.images, [(cut.n, cut.drawn, cut.first) for cut in piece.cuts]]

    def _reached(self, context: Context) -> tuple[int, list[int]]:
        """Return how many steps are done, one after the other, and how far all images are."""
        step, state = 0, [0] * len(self.whole.images)
        while step < self.steps and (after := self._after(step + 1, context)) is not None:
            step, state = step + 1, after
        return step, state

    def _pieces(self, state: Sequence[int]) -> list[autoattack_shares.Piece]:
        return autoattack_shares.pieces(
            self.attack, self.classes, state, self.step, self.share, self.shares, self.overhead
        )

    def _read(self, context: Context) -> dict[str, Any] | None:
        """Return what is kept, if it is of the images that are this share's today: they may be cut up otherwise."""
        question = self.question(context, self._part)
        found = None if question is None else context.store.read_answer(question)
        fooled = found.get("fooled") if isinstance(found, dict) else None
        state = [0] * len(self.whole.images) if self.step == 0 else self._after(self.step, context)
        if not isinstance(fooled, list) or state is None:
            return None
        assert isinstance(found, dict)
        mine = [i for piece in self._pieces(state) for i in piece.images]
        form = {"images": mine, "left": 0, "fooled": [0] * len(fooled)}
        return found if has_form_of(found, form) and found["images"] == mine and set(fooled) <= set(mine) else None

    def _after(self, steps: int, context: Context) -> list[int] | None:
        question = self.question(context, {"after steps": steps})
        found = None if question is None else context.store.read_answer(question)
        return found if has_form_of(found, [0] * len(self.whole.images)) else None
