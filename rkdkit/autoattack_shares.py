"""AutoAttack and Square by several processes: each attacks some images of a batch, with the numbers drawn for them.

The package attacks a batch of up to 250 images at once. Its images depend on each other by their random numbers alone:
those of an image follow those of the images before it. So a process that draws the numbers of the whole batch can
attack some of its images, and comes to the same verdicts on them. All processes meet after each *step*: a stage of the
attack or, of the targeted APGD, one target, since the next starts are drawn for the images that withstood this one.

How far all images are is a list of one integer each: k at least 0, it has withstood k steps; -(k + 1), it has withstood
k steps and was fooled by the next.
"""

from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from rkdkit.autoattack import FOOLED, AutoAttack, Packaged, Stage, checked_logits, own_generators
from rkdkit.determinism import exact_arithmetic
from rkdkit.modes import eval_without_gradients

FEWEST = 16
"""Images at least in a part of a batch. The logits of fewer were seen to be rounded otherwise than in a batch: by
MobileNetV2 those of fewer than 16, by residual networks those of fewer than 4."""

PASS = 1e8
"""What a forward pass costs one thread however few images there are, in multiply-adds: with ResNet-18 / 4 on digits 1.9
ms, and 0.04 ms an image of 2.2 million multiply-adds."""


@dataclass(frozen=True)
class Cut:
    """Neighbouring images of one batch, and which of the batch's random numbers are theirs.

    Attributes
    ----------
    n : how many images.
    drawn : how many images of the batch each step of this stage attacks, up to this step: numbers are drawn for them.
    first : the place of the first of these images among those that this step attacks.
    """

    n: int
    drawn: tuple[int, ...]
    first: int


@dataclass(frozen=True)
class Piece:
    """Images that one process attacks at once in one step.

    Attributes
    ----------
    images : their numbers among all images, in their order.
    cuts : the batches that they are of; Square attacks images of one batch at once, because its squares are those of
        the whole batch.
    """

    images: tuple[int, ...]
    cuts: tuple[Cut, ...]


Step = Callable[[Tensor, Tensor, Piece], Tensor]
"""Images (n, C, H, W), labels (n,) and which they are -> images; an image is changed if it was fooled."""


def stages(attack: Packaged, classes: int) -> list[int]:
    """Return for each step the stage that it belongs to; the natural images are stage 0.

    Parameters
    ----------
    attack : AutoAttack or Square.
    classes : the network's number of classes.
    """
    if isinstance(attack, AutoAttack):
        return [0, 1, *[2] * min(9, classes - 1), 3, 4]
    return [0, 1]


def work(attack: Packaged, classes: int) -> list[int]:
    """Return each step's forward passes of an image, as an estimate: a backward pass counts as one, too."""
    if not isinstance(attack, AutoAttack):
        return [1, int(getattr(attack, "queries", 1)) + 1]
    targets = min(9, classes - 1)
    return [1, 202, *[202] * targets, 300 * targets, 5001]


class Pace:
    """How much of an attack by one process is done and how much is left, as :func:`work` counts it: for a progress bar.

    The first stage fools most images, which the others then need not try. So nothing is said before it has tried a
    batch: until then, `done` is 0. Then the images that wait for a stage are taken to withstand it as often as those
    that it has tried; where it has tried none, all are.

    Parameters
    ----------
    attack, classes : as :func:`stages`.
    progress : where the attack begins, as `Packaged.correct` says it.

    Attributes
    ----------
    done : the work since then.
    total : `done`, and what is left.
    """

    def __init__(self, attack: Packaged, classes: int, progress: Sequence[int]) -> None:
        self._work = Counter[int]()
        for stage, passes in zip(stages(attack, classes), work(attack, classes), strict=True):
            self._work[stage] += passes
        self._at, self._so_far = list(progress), 0
        self._tried, self._withstood = Counter[int](), Counter[int]()
        self.moved(progress)

    def moved(self, progress: Sequence[int]) -> None:
        """Note where the attack is after a batch."""
        for before, now in zip(self._at, progress, strict=True):
            if now != before:
                self._so_far += self._work[before]
                self._tried[before] += 1
                self._withstood[before] += now != FOOLED
        self._at = list(progress)
        left = {FOOLED: 0.0, len(self._work): 0.0}  # of an image, by the number of stages that it has withstood
        for stage in sorted(self._work, reverse=True):
            go_on = self._withstood[stage] / self._tried[stage] if self._tried[stage] else 1.0
            left[stage] = self._work[stage] + go_on * left[stage + 1]
        unknown = not self._tried[1] and not {0, 1}.isdisjoint(progress)
        self.done = 0.0 if unknown else float(self._so_far)
        self.total = self._so_far + sum(left.get(at, 0.0) for at in progress)  # a wrong place is refused elsewhere


def withstood(at: int) -> int:
    """Return how many steps an image has withstood."""
    return at if at >= 0 else -at - 1


def after(state: Sequence[int], fooled: Sequence[int]) -> list[int]:
    """Return how far all images are after a step that fooled some; those that were fooled before stay as they are."""
    now = set(fooled)
    return [at if at < 0 else -at - 1 if i in now else at + 1 for i, at in enumerate(state)]


def pieces(
    attack: Packaged, classes: int, state: Sequence[int], step: int, share: int, shares: int, overhead: int
) -> list[Piece]:
    """Return what one of several processes attacks in a step.

    All that is left of the batches, one after the other, is dealt out so that the process with most to do has as little
    as possible. What is of several batches is attacked at once where that changes nothing, up to as many images as a
    batch has.

    Parameters
    ----------
    attack, classes : as :func:`stages`.
    state : how far all images are; every image that was not fooled has withstood `step` steps.
    step : the step.
    share, shares : which process, of how many.
    overhead : the time that a forward pass takes however few images there are, in images: a piece counts as so many
        more.
    """
    begin = stages(attack, classes).index(stages(attack, classes)[step])
    began = [i for i, at in enumerate(state) if withstood(at) >= begin]
    batches = [began[i : i + attack.batch_size] for i in range(0, len(began), attack.batch_size)]
    left = [[i for i in batch if withstood(state[i]) >= step] for batch in batches]
    at_once = 0 if by_batch(attack, classes, step) else attack.batch_size
    found: list[Piece] = []
    for piece in _dealt([*map(len, left)], shares, overhead, at_once)[share]:
        images, cuts = list[int](), list[Cut]()
        for number, first, last in piece:
            drawn = tuple(sum(withstood(state[i]) >= each for i in batches[number]) for each in range(begin, step + 1))
            images += left[number][first:last]
            cuts.append(Cut(last - first, drawn, first))
        found.append(Piece(tuple(images), tuple(cuts)))
    return found


Dealt = list[list[list[tuple[int, int, int]]]]
"""For each process its pieces: of each, the batches' numbers, with the first image and the one behind the last."""


def by_batch(attack: Packaged, classes: int, step: int) -> bool:
    """Return whether a step draws numbers that all images of a batch share, as Square does: it is the last step."""
    return step == len(stages(attack, classes)) - 1


def _dealt(left: Sequence[int], shares: int, overhead: int, at_once: int) -> Dealt:
    """Deal batches of so many images out: the least limit is looked for by which every process keeps to it."""
    too_little, enough = 0, sum(left) + overhead * len(left)
    while enough - too_little > 1:
        limit = (too_little + enough) // 2
        if _within(limit, left, shares, overhead, at_once) is None:
            too_little = limit
        else:
            enough = limit
    found = _within(enough, left, shares, overhead, at_once)
    assert found is not None, "one process can do all"
    return found


def _within(limit: int, left: Sequence[int], shares: int, overhead: int, at_once: int) -> Dealt | None:
    """Deal batches out, as much as the limit allows to one process after the other; None: something is left.

    No part of a batch has fewer than `FEWEST` images, unless the batch has.
    """
    found: Dealt = [[]]
    spent = together = 0  # by this process; images in its last piece
    for number, n in enumerate(left):
        first = 0
        while first < n:
            joins = 0 < together < at_once
            take = min(n - first, limit - spent - (0 if joins else overhead), *([at_once - together] if joins else []))
            if 0 < n - first - take < FEWEST:
                take = n - first - FEWEST
            if take >= min(FEWEST, n - first):
                if not joins:
                    found[-1].append([])
                    spent, together = spent + overhead, 0
                found[-1][-1].append((number, first, first + take))
                first, spent, together = first + take, spent + take, together + take
            elif joins:
                together = 0  # another piece
            elif len(found) < shares:
                found.append([])
                spent = together = 0
            else:
                return None
    return found + [[] for _ in range(shares - len(found))]


class Parts:
    """The steps of an attack on one network.

    Parameters
    ----------
    attack : AutoAttack or Square.
    network : (N, C, H, W) -> (N, classes) logits, as `autoattack.Packaged.correct` takes it.
    classes : its number of classes.

    Raises
    ------
    ValueError
        If it has too few classes.
    """

    def __init__(self, attack: Packaged, network: nn.Module, classes: int) -> None:
        import pyautoattack  # late, as in `autoattack`

        self.network = network
        self.device = next((p.device for p in network.parameters()), torch.device("cpu"))
        self.package: Any = pyautoattack.AutoAttack(network, eps=attack.eps, seed=attack.seed, device=self.device)
        by_stage = attack.stages(self.package, classes)
        steps: list[Step] = [_natural]
        for stage in by_stage:
            if stage == self.package.apgd.perturb:
                steps.append(self._untargeted)
            elif stage == self.package.apgd_targeted.perturb:
                targets = self.package.apgd_targeted.n_target_classes
                steps += [self._targeted(rank) for rank in range(2, targets + 2)]
            elif stage == self.package.square.perturb:
                steps.append(self._square)
            else:  # FAB draws nothing, since it starts at the images themselves
                steps.append(_drawing_nothing(stage))
        assert len(steps) == len(stages(attack, classes))
        self.steps = steps

    def fooled(self, step: int, piece: Piece, images: Tensor, labels: Tensor) -> list[int]:
        """Return the images of a piece that a step fools.

        Parameters
        ----------
        step : the step.
        piece : what is attacked.
        images : all images, (N, C, H, W) float32 in [0, 1].
        labels : (N,) int64.

        Raises
        ------
        ValueError
            If the network returns NaN or infinite logits, or logits of a wrong shape, or labels do not fit.
        """
        chosen = torch.tensor(piece.images)
        x, y = images[chosen].to(self.device).contiguous(), labels[chosen].to(self.device)
        with exact_arithmetic(), eval_without_gradients(self.network), torch.no_grad(), own_generators():
            adversarial = self.steps[step](x, y, piece)
            wrong = checked_logits(self.network, adversarial).argmax(1) != y
        found: list[int] = chosen[wrong.cpu()].tolist()
        return found

    def _untargeted(self, x: Tensor, y: Tensor, piece: Piece) -> Tensor:
        return self._from_starts(self.package.apgd, x, y, piece)

    def _targeted(self, rank: int) -> Step:
        def step(x: Tensor, y: Tensor, piece: Piece) -> Tensor:
            part = self.package.apgd_targeted
            part.y_target = self.network(x).sort(dim=1)[1][:, -rank]
            return self._from_starts(part, x, y, piece)

        return step

    def _from_starts(self, part: Any, x: Tensor, y: Tensor, piece: Piece) -> Tensor:
        """Run APGD from the starts that these images get in their batch; return what it fooled, else the starts."""
        part.init_hyperparam(x)
        own = []
        for cut in piece.cuts:
            torch.random.manual_seed(part.seed)
            for n in cut.drawn:
                drawn = torch.rand(n, *x.shape[1:])
            own.append(drawn[cut.first : cut.first + cut.n])
        noise = 2 * torch.cat(own).to(self.device) - 1
        start = x + torch.full_like(x, part.eps) * part.normalize(noise)
        found: Tensor = part.attack_single_run(x, y, x_init=start)[3]
        return found

    def _square(self, x: Tensor, y: Tensor, piece: Piece) -> Tensor:
        """Run Square, whose stripes at the start are drawn for each image, and all that follows for all alike."""
        with _drawing(self.package.square, piece):
            found: Tensor = self.package.square.perturb(x, y)
        return found


def _natural(x: Tensor, y: Tensor, piece: Piece) -> Tensor:
    del y, piece
    return x


def _drawing_nothing(stage: Stage) -> Step:
    return lambda x, y, _: stage(x, y)


@contextmanager
def _drawing(square: Any, piece: Piece) -> Iterator[None]:
    """Let Square draw the numbers of a whole batch, and use those of a piece of it."""
    drawn, (cut,) = square.random_choice, piece.cuts

    def random_choice(shape: Sequence[int]) -> Tensor:
        if len(shape) < 4:
            one: Tensor = drawn(shape)
            return one
        every: Tensor = drawn([cut.drawn[-1], *shape[1:]])
        return every[cut.first : cut.first + cut.n]

    square.random_choice = random_choice
    try:
        yield
    finally:
        del square.random_choice
