"""Adversarial examples in the l_inf ball: each attack is a small immutable value that can be called.

``PGD(eps=8/255, step_size=2/255, steps=20)(network, images, labels)`` gives the perturbed images.
"""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from typing import Protocol

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from rkdkit import checks

STARTS = ("none", "uniform", "gaussian")

Objective = Callable[[Tensor], Tensor]
"""Logits (N, C) -> the scalar to maximise, summed over the batch so that images do not influence one another."""


class Attack(Protocol):
    """What an attack can do; see :class:`PGD`."""

    def perturb(self, network: nn.Module, images: Tensor, objective: Objective, generator: torch.Generator) -> Tensor:
        """Return adversarial examples for an objective; inputs are not checked."""

    def __call__(self, network: nn.Module, images: Tensor, labels: Tensor, seed: int = 0) -> Tensor:
        """Return adversarial examples that maximise the cross entropy; inputs are checked."""

    def parameters(self) -> dict[str, float | int | str]:
        """Return all that decides what the attack does, as plain JSON values."""


@contextmanager
def attacked(network: nn.Module) -> Iterator[nn.Module]:
    """Hold a network still while it is attacked.

    Inside, it is in eval mode (batch-norm statistics fixed) and its parameters ask for no gradient, so a backward pass
    computes the input's gradient and nothing else. Afterwards every module and parameter is as it was.
    """
    modes = [(module, module.training) for module in network.modules()]
    wanted = [parameter for parameter in network.parameters() if parameter.requires_grad]
    network.eval()
    for parameter in wanted:
        parameter.requires_grad_(False)
    try:
        yield network
    finally:
        for parameter in wanted:
            parameter.requires_grad_(True)
        for module, training in modes:
            module.training = training


def cross_entropy_objective(labels: Tensor) -> Objective:
    """Return the usual objective: the cross entropy with the (N,) true labels, summed over the batch."""
    return lambda logits: F.cross_entropy(logits.float(), labels, reduction="sum")


@dataclass(frozen=True)
class PGD:
    """Projected gradient ascent in the l_inf ball (Madry et al. 2018); the last iterate is returned.

    Attributes
    ----------
    eps : radius of the ball, in [0, 1] pixel units (8/255 is the field's value for CIFAR).
    step_size : length of a step, in the same units.
    steps : how many gradient steps; 20 makes PGD-20.
    start : "uniform" in the ball (Madry et al.), "gaussian": 0.001 N(0, 1) (TRADES), "none": the image itself.

    Raises
    ------
    ValueError
        If `eps` or `step_size` is negative or not finite, or `steps` is below 0.
    UnknownNameError
        If `start` is another.
    """

    eps: float
    step_size: float
    steps: int
    start: str = "uniform"

    def __post_init__(self) -> None:
        checks.number("eps", self.eps, 0)
        checks.number("step_size", self.step_size, 0)
        checks.number("steps", self.steps, 0)
        checks.coerce_fields(self)
        checks.one_of("attack start", self.start, STARTS)

    def __str__(self) -> str:
        return f"PGD-{self.steps}"

    def perturb(self, network: nn.Module, images: Tensor, objective: Objective, generator: torch.Generator) -> Tensor:
        """Return adversarial examples for any objective; inputs are not checked.

        Parameters
        ----------
        network : (N, C, H, W) -> (N, classes) logits; held in eval mode meanwhile.
        images : (N, C, H, W) float32 in [0, 1].
        objective : logits -> the sum over the batch of what is maximised.
        generator : a CPU generator for the start.

        Returns
        -------
        (N, C, H, W) float32, within `eps` of `images` and in [0, 1].
        """
        low = (images - self.eps).clamp_(min=0)
        high = (images + self.eps).clamp_(max=1)
        x = self._start(images, generator).clamp_(low, high)
        with attacked(network):
            for _ in range(self.steps):
                x.requires_grad_(True)
                (gradient,) = torch.autograd.grad(objective(network(x)), x)
                x = (x.detach() + self.step_size * gradient.sign()).clamp_(low, high)
        return x

    def __call__(self, network: nn.Module, images: Tensor, labels: Tensor, seed: int = 0) -> Tensor:
        """Return adversarial examples that maximise the cross entropy.

        Parameters
        ----------
        network : (N, C, H, W) -> (N, classes) logits.
        images : (N, C, H, W) floating point in [0, 1].
        labels : (N,) int64, the true classes.
        seed : decides the random start.

        Returns
        -------
        (N, C, H, W), within `eps` of `images` and in [0, 1].

        Raises
        ------
        ValueError
            If images are NaN or outside [0, 1], or labels do not fit.
        """
        return _checked(self, network, images, labels, seed)

    def parameters(self) -> dict[str, float | int | str]:
        """Return all that decides what the attack does, as plain JSON values."""
        return asdict(self)

    def _start(self, images: Tensor, generator: torch.Generator) -> Tensor:
        if self.start == "none":
            return images.clone()
        noise = torch.empty(images.shape, dtype=images.dtype)
        if self.start == "uniform":
            noise.uniform_(-self.eps, self.eps, generator=generator)
        else:
            noise.normal_(0, 0.001, generator=generator)
        # images first: the sum keeps their memory format
        return images + noise.to(images.device, non_blocking=True)


@dataclass(frozen=True)
class FGSM:
    """One signed gradient step of length `eps` from the image (Goodfellow et al. 2015).

    Attributes
    ----------
    eps : radius of the ball, in [0, 1] pixel units.

    Raises
    ------
    ValueError
        If `eps` is negative or not finite.
    """

    eps: float

    def __post_init__(self) -> None:
        checks.number("eps", self.eps, 0)

    def __str__(self) -> str:
        return "FGSM"

    def perturb(self, network: nn.Module, images: Tensor, objective: Objective, generator: torch.Generator) -> Tensor:
        """Return adversarial examples for any objective; as :meth:`PGD.perturb`."""
        return PGD(self.eps, self.eps, 1, "none").perturb(network, images, objective, generator)

    def __call__(self, network: nn.Module, images: Tensor, labels: Tensor, seed: int = 0) -> Tensor:
        """Return adversarial examples that maximise the cross entropy; as :meth:`PGD.__call__`."""
        return _checked(self, network, images, labels, seed)

    def parameters(self) -> dict[str, float | int | str]:
        """Return all that decides what the attack does, as plain JSON values."""
        return asdict(self)


def _checked(attack: Attack, network: nn.Module, images: Tensor, labels: Tensor, seed: int) -> Tensor:
    checks.images(images)
    if not images.is_floating_point():
        raise ValueError("images must be floating point in [0, 1]; data.to_float turns uint8 images into that.")
    checks.labels(labels, len(images), getattr(network, "num_classes", torch.iinfo(torch.int64).max))
    generator = torch.Generator().manual_seed(seed)
    return attack.perturb(network, images, cross_entropy_objective(labels), generator)
