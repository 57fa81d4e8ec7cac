"""AutoAttack and Square by several processes: each attacks some images of a batch, with the numbers drawn for them.

The package attacks a batch of up to 250 images at once. Its images depend on each other by their random numbers alone:
those of an image follow those of the images before it. So a process that draws the numbers of the whole batch can
attack some of its images, and comes to the same verdicts on them. All processes meet after each *step*: a stage of the
attack or, of the targeted APGD, one target, since the next starts are drawn for the images that withstood this one.

How far all images are is a list of one integer each: k at least 0, it has withstood k steps; -(k + 1), it has withstood
k steps and was fooled by the next.
"""

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from rkdkit.autoattack import AutoAttack, Packaged, Stage, checked_logits, own_generators
from rkdkit.determinism import exact_arithmetic
from rkdkit.modes import eval_without_gradients

FEWEST = 16
"""Images at least in a part of a batch. The logits of fewer were seen to be rounded otherwise than in a batch: by
MobileNetV2 those of fewer than 16, by residual networks those of fewer than 4."""


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


def withstood(at: int) -> int:
    """Return how many steps an image has withstood."""
    return at if at >= 0 else -at - 1


def after(state: Sequence[int], fooled: Sequence[int]) -> list[int]:
    """Return how far all images are after a step that fooled some; those that were fooled before stay as they are."""
    now = set(fooled)
    return [at if at < 0 else -at - 1 if i in now else at + 1 for i, at in enumerate(state)]


def pieces(attack: Packaged, classes: int, state: Sequence[int], step: int, share: int, shares: int) -> list[Piece]:
    """Return what one of several processes attacks in a step.

    All that is left of the batches, one after the other, is cut into as many equal parts as there are processes; a cut
    that would leave too few images on one side is moved to the batch's end. What is of several batches is attacked at
    once where that changes nothing, up to as many images as a batch has.

    Parameters
    ----------
    attack, classes : as :func:`stages`.
    state : how far all images are; every image that was not fooled has withstood `step` steps.
    step : the step.
    share, shares : which process, of how many.
    """
    begin = stages(attack, classes).index(stages(attack, classes)[step])
    began = [i for i, at in enumerate(state) if withstood(at) >= begin]
    batches = [began[i : i + attack.batch_size] for i in range(0, len(began), attack.batch_size)]
    left = [[i for i in batch if withstood(state[i]) >= step] for batch in batches]
    total = sum(map(len, left))
    parts = max(min(shares, total // FEWEST), 1)
    ends = [total * part // parts for part in range(1, parts + 1)] + [total] * (shares - parts)
    least = max(FEWEST, total // parts // 8)  # a pass takes its time however few images there are
    found: list[tuple[list[int], list[Cut]]] = []
    most = 0 if by_batch(attack, classes, step) else attack.batch_size
    before = 0
    for batch, images in zip(batches, left, strict=True):
        drawn = tuple(sum(withstood(state[i]) >= each for i in batch) for each in range(begin, step + 1))
        ends = [_moved(end - before, len(images), least) + before for end in ends]
        begun = ends[share - 1] if share else 0
        first, last = (min(max(place - before, 0), len(images)) for place in (begun, ends[share]))
        if first < last:
            if not found or len(found[-1][0]) + last - first > most:
                found.append(([], []))
            found[-1][0].extend(images[first:last])
            found[-1][1].append(Cut(last - first, drawn, first))
        before += len(images)
    return [Piece(tuple(images), tuple(cuts)) for images, cuts in found]


def by_batch(attack: Packaged, classes: int, step: int) -> bool:
    """Return whether a step draws numbers that all images of a batch share, as Square does: it is the last step."""
    return step == len(stages(attack, classes)) - 1


def _moved(place: int, n: int, least: int) -> int:
    """Return where a batch of n images is cut, so that no part has fewer than `least`; a place outside of it stays."""
    if 0 < place < n:
        return 0 if place < least else n if n - place < least else place
    return place


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
