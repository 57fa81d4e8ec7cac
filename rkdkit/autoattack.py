"""AutoAttack and its Square attack (Croce & Hein 2020; Andriushchenko et al. 2020), by the authors' own package.

Their numbers differ between implementations, so the package and its version are among an attack's parameters. The
package's parts and settings are used as they are; the loop around them is here, so that what was found is kept batch
by batch, and the package's global seeding stays inside.
"""

import logging
from abc import abstractmethod
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass, field
from importlib.metadata import version

import pyautoattack
import torch
from torch import Tensor, nn

from rkdkit import checks
from rkdkit.attacks import Attack, check_batch, eval_without_gradients
from rkdkit.determinism import exact_arithmetic

FOOLED = -1

Stage = Callable[[Tensor, Tensor], Tensor]
"""Images (n, C, H, W) and labels (n,) -> images, those that were fooled changed."""


@dataclass(frozen=True)
class Packaged(Attack):
    """What the package's attacks have in common: stages in turn, each on the images that withstood those before.

    Attributes
    ----------
    seed : of all that is drawn; the `generator` of :meth:`examples` and the seed of a call are not made use of.
    batch_size : images at once; it decides which random numbers an image gets.

    Raises
    ------
    ValueError
        If `eps` is negative or NaN, or `batch_size` is below 1.
    """

    seed: int = field(default=0, kw_only=True)
    batch_size: int = field(default=250, kw_only=True)

    def __post_init__(self) -> None:
        super().__post_init__()
        checks.number("batch_size", self.batch_size, 1)

    def examples(self, network: nn.Module, images: Tensor, labels: Tensor, generator: torch.Generator) -> Tensor:
        """Return adversarial examples where some were found, and else the images themselves.

        Parameters, returns: as :meth:`Attack.examples`, but float32 only.

        Raises
        ------
        ValueError
            As :meth:`correct`.
        """
        del generator
        found = images.clone()
        for fooled, adversarial in self._run(network, images, labels, torch.zeros(len(images), dtype=torch.int64)):
            found[fooled] = adversarial.to(found.device)
        return found

    def correct(
        self,
        network: nn.Module,
        images: Tensor,
        labels: Tensor,
        progress: Sequence[int] | None = None,
        on_progress: Callable[[list[int]], None] | None = None,
    ) -> Tensor:
        """Say which images withstand the attack. Killed and taken up again, it says the same.

        Parameters
        ----------
        network : (N, C, H, W) -> (N, classes) logits.
        images : (N, C, H, W) float32 in [0, 1]; batches of it are taken to the network's device.
        labels : (N,) int64, the true classes.
        progress : what `on_progress` was handed last, to go on from there; None: from the beginning.
        on_progress : called after each batch with how many stages each image has withstood, its natural self the
            first, or -1 if it was fooled: plain integers, to be kept for `progress`.

        Returns
        -------
        (N,) bool on the CPU.

        Raises
        ------
        ValueError
            If images are no float32 in [0, 1], labels or progress do not fit, the network has too few classes, or it
            answers NaN or infinite logits.
        """
        check_batch(network, images, labels)
        withstood = torch.tensor([0] * len(images) if progress is None else progress, dtype=torch.int64)
        with exact_arithmetic():
            for _ in self._run(network, images, labels, withstood):
                if on_progress is not None:
                    on_progress(withstood.tolist())
        return withstood != FOOLED

    def parameters(self) -> dict[str, float | int | str]:
        """Return all that decides what the attack does, as plain JSON values."""
        return {**super().parameters(), "implementation": f"pyautoattack {version('pyautoattack')}"}

    @abstractmethod
    def _stages(self, package: pyautoattack.AutoAttack, num_classes: int) -> list[Stage]:
        """Return what is run, in this order, from the package's parts for one network."""

    def _run(
        self, network: nn.Module, images: Tensor, labels: Tensor, withstood: Tensor
    ) -> Iterator[tuple[Tensor, Tensor]]:
        """Attack batch by batch, noting it in `withstood`; yield who was fooled (indices), and by what (images).

        The images that wait for a stage are those that withstood as many as come before it, so batches are the same
        for one who comes back later.
        """
        if images.dtype != torch.float32:
            raise ValueError(f"{self} works on float32 images alone, not on {images.dtype}: use images.float().")
        device = next((p.device for p in network.parameters()), images.device)
        num_classes = _logits(network, images[:1].to(device)).shape[1]
        package = pyautoattack.AutoAttack(network, eps=self.eps, seed=self.seed, device=device)
        stages = [_natural, *self._stages(package, num_classes)]
        if len(withstood) != len(images) or not ((withstood >= FOOLED) & (withstood <= len(stages))).all():
            raise ValueError("progress is not of these images and this attack: start without it.")
        for done, stage in enumerate(stages):
            waiting = (withstood == done).nonzero().squeeze(1)
            for start in range(0, len(waiting), self.batch_size):
                batch = waiting[start : start + self.batch_size]
                # the package's views want the usual memory format
                x, y = images[batch].to(device).contiguous(), labels[batch].to(device)
                with eval_without_gradients(network), torch.no_grad(), _own_generators():
                    adversarial = stage(x, y)
                wrong = _logits(network, adversarial).argmax(1) != y
                withstood[batch] = torch.where(wrong.cpu(), FOOLED, done + 1)
                yield batch[wrong.cpu()], adversarial[wrong]


@dataclass(frozen=True)
class AutoAttack(Packaged):
    """The standard version: APGD on the cross entropy, targeted APGD and FAB, Square (Croce & Hein 2020).

    The targeted attacks try the 9 classes with the highest logits, or as many as there are beside the true one.
    """

    def _stages(self, package: pyautoattack.AutoAttack, num_classes: int) -> list[Stage]:
        check_classes(num_classes)
        package.apgd_targeted.logger = _silent
        package.fab.targeted = True
        for part in (package.apgd_targeted, package.fab):
            part.n_target_classes = min(part.n_target_classes, num_classes - 1)
        return [part.perturb for part in (package.apgd, package.apgd_targeted, package.fab, package.square)]


@dataclass(frozen=True)
class Square(Packaged):
    """AutoAttack's Square attack alone: a random search that sees no gradient (Andriushchenko et al. 2020).

    Attributes
    ----------
    queries : how often it may ask the network about an image. The sizes of its squares follow the same schedule
        whatever their number.

    Raises
    ------
    ValueError
        If `eps` is negative or NaN, `queries` is below 0, or `batch_size` is below 1.
    """

    queries: int = 5000

    def __post_init__(self) -> None:
        super().__post_init__()
        checks.number("queries", self.queries, 0)

    def _stages(self, package: pyautoattack.AutoAttack, num_classes: int) -> list[Stage]:
        del num_classes
        package.square.n_queries = self.queries
        return [package.square.perturb]


def check_classes(num_classes: int) -> None:
    """Refuse a number of classes that AutoAttack's targeted loss cannot work on.

    Raises
    ------
    ValueError
        If it is below 4.
    """
    if num_classes < 4:
        raise ValueError(
            f"AutoAttack's targeted loss needs at least 4 classes, and here are {num_classes}. "
            "Use Square, or PGD with restarts and loss='margin'."
        )


_silent = logging.Logger("pyautoattack")  # of nobody's tree: its warnings of zero gradients are printed otherwise
_silent.disabled = True


def _natural(x: Tensor, y: Tensor) -> Tensor:
    del y
    return x


def _logits(network: nn.Module, x: Tensor) -> Tensor:
    with eval_without_gradients(network), torch.no_grad():
        logits: Tensor = network(x)
    if not logits.isfinite().all():
        raise ValueError("The network answered NaN or infinite logits: it cannot be judged.")
    return logits


def _own_generators() -> AbstractContextManager[None]:
    """Return a context after which torch's global generators, which the package seeds, are as they were."""
    devices = range(torch.cuda.device_count()) if torch.cuda.is_initialized() else ()  # type: ignore[no-untyped-call]
    return torch.random.fork_rng(devices)
