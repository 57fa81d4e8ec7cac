"""AutoAttack and its Square attack (Croce & Hein 2020; Andriushchenko et al. 2020), run by the authors' own package.

Results differ between implementations, so the package and its version are among an attack's parameters. The package's
parts and settings are used unchanged. The loop around them is in this module, so that progress is stored batch by batch
and the package's global seeding has no effect outside.
"""

import logging
from abc import abstractmethod
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass, field
from importlib.metadata import version
from typing import TYPE_CHECKING

import torch
from torch import Tensor, nn

from rkdkit import checks
from rkdkit.attacks import Attack, check_batch
from rkdkit.determinism import exact_arithmetic
from rkdkit.modes import eval_without_gradients

if TYPE_CHECKING:  # whoever attacks by PGD does without it
    import pyautoattack

FOOLED = -1

Stage = Callable[[Tensor, Tensor], Tensor]
"""Images (n, C, H, W) and labels (n,) -> images; an image is changed if an adversarial example was found."""


@dataclass(frozen=True)
class Packaged(Attack):
    """The base of the package's attacks: stages run in turn, each on the images that withstood all stages before.

    Attributes
    ----------
    seed : the seed of all random numbers; the `generator` of :meth:`examples` and the seed of a call are not used.
    batch_size : images per batch; it decides which random numbers an image gets.

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
        """Return adversarial examples; images for which none was found are returned unchanged.

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
        """Return which images withstand the attack; the result is the same if it is killed and resumed.

        Parameters
        ----------
        network : (N, C, H, W) -> (N, classes) logits.
        images : (N, C, H, W) float32 in [0, 1]; batches of it are moved to the network's device.
        labels : (N,) int64, the true classes.
        progress : the last argument of `on_progress`, to resume from there; None: start from the beginning.
        on_progress : called after each batch with one integer per image: the number of stages it has withstood, where
            the first stage is the natural image, or -1 if the network misclassified it. Store this list for `progress`.

        Returns
        -------
        (N,) bool on the CPU.

        Raises
        ------
        ValueError
            If images are not float32 in [0, 1], there are none, labels or progress do not fit, the network has too few
            classes, or it returns NaN or infinite logits, or logits of a wrong shape.
        """
        check_batch(network, images, labels)
        withstood = torch.tensor([0] * len(images) if progress is None else progress, dtype=torch.int64)
        with exact_arithmetic():
            for _ in self._run(network, images, labels, withstood):
                if on_progress is not None:
                    on_progress(withstood.tolist())
        return withstood != FOOLED

    def parameters(self) -> dict[str, float | int | str]:
        """Return everything that decides what the attack does, as plain JSON values."""
        return {**super().parameters(), "implementation": f"pyautoattack {version('pyautoattack')}"}

    @abstractmethod
    def stages(self, package: "pyautoattack.AutoAttack", num_classes: int) -> list[Stage]:
        """Return the stages in their order, made from the package's parts for one network."""

    def _run(
        self, network: nn.Module, images: Tensor, labels: Tensor, withstood: Tensor
    ) -> Iterator[tuple[Tensor, Tensor]]:
        """Attack batch by batch and update `withstood`; yield the fooled images' indices and adversarial examples.

        The images of a stage are those that withstood all stages before it, so a resumed attack has the same batches.
        """
        import pyautoattack

        if images.dtype != torch.float32:
            raise ValueError(f"{self} works on float32 images only, not on {images.dtype}: use images.float().")
        device = next((p.device for p in network.parameters()), images.device)
        num_classes = checked_logits(network, images[:1].to(device)).shape[1]
        checks.labels(labels, len(images), num_classes)
        package = pyautoattack.AutoAttack(network, eps=self.eps, seed=self.seed, device=device)
        stages = [_natural, *self.stages(package, num_classes)]
        if len(withstood) != len(images) or not ((withstood >= FOOLED) & (withstood <= len(stages))).all():
            raise ValueError("progress does not belong to these images and this attack: start without it.")
        for done, stage in enumerate(stages):
            waiting = (withstood == done).nonzero().squeeze(1)
            for start in range(0, len(waiting), self.batch_size):
                batch = waiting[start : start + self.batch_size]
                # the package uses views that need contiguous memory
                x, y = images[batch].to(device).contiguous(), labels[batch].to(device)
                with eval_without_gradients(network), torch.no_grad(), own_generators():
                    adversarial = stage(x, y)
                wrong = checked_logits(network, adversarial).argmax(1) != y
                withstood[batch] = torch.where(wrong.cpu(), FOOLED, done + 1)
                yield batch[wrong.cpu()], adversarial[wrong]


@dataclass(frozen=True)
class AutoAttack(Packaged):
    """The standard version: APGD on the cross entropy, targeted APGD and FAB, Square (Croce & Hein 2020).

    The targeted attacks try the 9 wrong classes with the highest logits, or all wrong classes if there are fewer.
    """

    def stages(self, package: "pyautoattack.AutoAttack", num_classes: int) -> list[Stage]:
        """As :meth:`Packaged.stages`."""
        check_classes(num_classes)
        package.apgd_targeted.logger = _silent
        package.fab.targeted = True
        for part in (package.apgd_targeted, package.fab):
            part.n_target_classes = min(part.n_target_classes, num_classes - 1)
        return [part.perturb for part in (package.apgd, package.apgd_targeted, package.fab, package.square)]


@dataclass(frozen=True)
class Square(Packaged):
    """AutoAttack's Square attack alone: a random search that sees no gradient (Andriushchenko et al. 2020).

    The squares shrink by a schedule for 10,000 queries. As in AutoAttack, the schedule depends on how many queries were
    made, not on `queries`. With fewer than AutoAttack's 5,000, the search ends while its squares are still large: it
    was up to 5 points of accuracy weaker than versions that rescale the schedule to their number of queries. So the
    attack's name says the number, as in "Square-500".

    Attributes
    ----------
    queries : the largest number of queries of the network per image.

    Raises
    ------
    ValueError
        If `eps` is negative or NaN, `queries` is below 0, or `batch_size` is below 1.
    """

    queries: int = 5000

    def __post_init__(self) -> None:
        super().__post_init__()
        checks.number("queries", self.queries, 0)

    def __str__(self) -> str:
        return f"Square-{self.queries}"

    def stages(self, package: "pyautoattack.AutoAttack", num_classes: int) -> list[Stage]:
        """As :meth:`Packaged.stages`."""
        del num_classes
        package.square.n_queries = self.queries
        return [package.square.perturb]


def check_classes(num_classes: int) -> None:
    """Refuse a number of classes that is too small for AutoAttack's targeted loss.

    Raises
    ------
    ValueError
        If it is below 4.
    """
    if num_classes < 4:
        raise ValueError(
            f"AutoAttack's targeted loss needs at least 4 classes, and there are {num_classes}. "
            "Use Square, or PGD with restarts and loss='margin'."
        )


_silent = logging.Logger("pyautoattack")  # outside the logging tree, to silence warnings of zero gradients
_silent.disabled = True


def _natural(x: Tensor, y: Tensor) -> Tensor:
    del y
    return x


def checked_logits(network: nn.Module, x: Tensor) -> Tensor:
    """Return a network's logits for images.

    Raises
    ------
    ValueError
        If they are NaN or infinite, or of a wrong shape.
    """
    with eval_without_gradients(network), torch.no_grad():
        logits: Tensor = network(x)
    checks.logits(logits, len(x), type(network).__name__)
    if not logits.isfinite().all():
        raise ValueError("The network returned NaN or infinite logits, so it cannot be evaluated.")
    return logits


def own_generators() -> AbstractContextManager[None]:
    """Return a context that restores torch's global generators, which the package seeds."""
    devices = range(torch.cuda.device_count()) if torch.cuda.is_initialized() else ()  # type: ignore[no-untyped-call]
    return torch.random.fork_rng(devices)
