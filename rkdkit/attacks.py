"""Adversarial examples in the l_inf ball: each attack is a small immutable value that can be called.

``PGD(eps=8/255, step_size=2/255, steps=20)(network, images, labels)`` gives the perturbed images.
"""

import math
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, ExitStack, contextmanager
from dataclasses import asdict, dataclass

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from rkdkit import checks

STARTS = ("none", "uniform", "gaussian")

ITERATES = ("last", "any")
"""Which iterate of :class:`PGD` decides."""

Objective = Callable[[Tensor], Tensor]
"""Logits (N, C) -> the scalar to maximise, summed over the batch so that images do not influence one another."""


@contextmanager
def eval_without_gradients(network: nn.Module) -> Iterator[nn.Module]:
    """Hold a context in which a network is in eval mode and its parameters ask for no gradient.

    Batch-norm statistics are fixed and nothing but the input has a gradient, so a backward pass
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


@contextmanager
def folded_for_inference(network: nn.Module) -> Iterator[nn.Module]:
    """As :func:`eval_without_gradients`, for many passes: batch norms are folded into convolutions once for all.

    Any part of it that has a context ``folded``, as the kit's networks do, is in that context meanwhile.
    """
    with eval_without_gradients(network), ExitStack() as held:
        for module in list(network.modules()):
            folded: Callable[[], AbstractContextManager[object]] | None = getattr(module, "folded", None)
            if callable(folded):  # a network from elsewhere may call a mere flag so
                held.enter_context(folded())
        yield network


def cross_entropy_objective(labels: Tensor) -> Objective:
    """Return the usual objective: the cross entropy with the (N,) true labels, summed over the batch."""
    return lambda logits: F.cross_entropy(logits.float(), labels, reduction="sum")


def margin_objective(labels: Tensor) -> Objective:
    """Return how far the best wrong logit is above the true one, summed over the batch (Carlini & Wagner 2017).

    Parameters
    ----------
    labels : (N,) int64, the true classes.
    """

    def objective(logits: Tensor) -> Tensor:
        own = labels.unsqueeze(1)
        return (logits.scatter(1, own, -math.inf).amax(1) - logits.gather(1, own).squeeze(1)).sum()

    return objective


OBJECTIVES = {"CE": cross_entropy_objective, "margin": margin_objective}


@dataclass(frozen=True)
class Attack(ABC):
    """What every attack can do.

    Attributes
    ----------
    eps : radius of the l_inf ball, in [0, 1] pixel units (8/255 is the field's value for CIFAR). From 1 on, infinity
        included, the ball is the whole box [0, 1], and `eps` is kept as 1.

    Raises
    ------
    ValueError
        If `eps` is negative or NaN.
    """

    eps: float

    def __post_init__(self) -> None:
        checks.number("eps", 1.0 if self.eps == math.inf else self.eps, 0)
        object.__setattr__(self, "eps", min(self.eps, 1.0))
        checks.coerce_fields(self)

    def __str__(self) -> str:
        return type(self).__name__

    @abstractmethod
    def examples(self, network: nn.Module, images: Tensor, labels: Tensor, generator: torch.Generator) -> Tensor:
        """Return adversarial examples against the true labels; inputs are not checked.

        Parameters
        ----------
        network : (N, C, H, W) -> (N, classes) logits; held in eval mode meanwhile.
        images : (N, C, H, W) floating point in [0, 1].
        labels : (N,) int64, the true classes.
        generator : a CPU generator for what is drawn, if anything.

        Returns
        -------
        (N, C, H, W), within `eps` of `images` and in [0, 1].
        """

    def __call__(self, network: nn.Module, images: Tensor, labels: Tensor, seed: int = 0) -> Tensor:
        """Return adversarial examples against the true labels; inputs are checked.

        Parameters
        ----------
        network, images, labels : as :meth:`examples`.
        seed : decides what the attack draws.

        Returns
        -------
        (N, C, H, W), within `eps` of `images` and in [0, 1].

        Raises
        ------
        ValueError
            If images are no floating point in [0, 1], or labels do not fit.
        """
        check_batch(network, images, labels)
        return self.examples(network, images, labels, torch.Generator().manual_seed(seed))

    def parameters(self) -> dict[str, float | int | str]:
        """Return all that decides what the attack does, as plain JSON values."""
        return asdict(self)

    def identity(self) -> dict[str, float | int | str]:
        """Return its name and :meth:`parameters`: what a kept answer is known by."""
        return {"name": type(self).__name__, **self.parameters()}

    def _ball(self, images: Tensor) -> tuple[Tensor, Tensor]:
        return (images - self.eps).clamp_(min=0), (images + self.eps).clamp_(max=1)


def check_batch(network: nn.Module, images: Tensor, labels: Tensor) -> None:
    """Refuse what an attack cannot start from.

    Raises
    ------
    ValueError
        If images are no (N, C, H, W) floating point in [0, 1], or labels are not one class of the network an image.
    """
    checks.images(images)
    if not images.is_floating_point():
        raise ValueError("images must be floating point in [0, 1]; data.to_float turns uint8 images into that.")
    checks.labels(labels, len(images), getattr(network, "num_classes", torch.iinfo(torch.int64).max))


@dataclass(frozen=True)
class PGD(Attack):
    """Projected gradient ascent in the l_inf ball (Madry et al. 2018).

    Attributes
    ----------
    step_size : length of a step, in pixel units as `eps`.
    steps : how many gradient steps; 20 makes PGD-20.
    start : "uniform" in the ball (Madry et al.), "gaussian": 0.001 N(0, 1) (TRADES), "none": the image itself.
    restarts : how often it is tried anew on the images that are still classified correctly.
    loss : what :meth:`examples` maximises: "CE", the cross entropy, or "margin", the best wrong logit above the true
        one (Carlini & Wagner 2017).
    iterate : which iterate :meth:`examples` returns: the "last", as the papers do, or the first that is misclassified
        if there is "any", the start included, and else the last. By "any" an image is robust only if no iterate fools
        the network, and one that is settled leaves the batch. Other networks are asked about the same examples.

    Raises
    ------
    ValueError
        If `eps` is negative or NaN, `step_size` is negative or not finite, `steps` is below 0 or `restarts` below 1.
    UnknownNameError
        If `start`, `loss` or `iterate` is another.
    """

    step_size: float
    steps: int
    start: str = "uniform"
    restarts: int = 1
    loss: str = "CE"
    iterate: str = "last"

    def __post_init__(self) -> None:
        super().__post_init__()
        checks.number("step_size", self.step_size, 0)
        checks.number("steps", self.steps, 0)
        checks.number("restarts", self.restarts, 1)
        checks.one_of("attack start", self.start, STARTS)
        checks.one_of("attack loss", self.loss, OBJECTIVES)
        checks.one_of("deciding iterate", self.iterate, ITERATES)

    def __str__(self) -> str:
        differs = [self.loss] * (self.loss != "CE") + [f"{self.iterate} iterate"] * (self.iterate != "last")
        name = f"PGD-{self.steps}" + (f" ({', '.join(differs)})" if differs else "")
        return name if self.restarts == 1 else f"{name} x {self.restarts}"

    def parameters(self) -> dict[str, float | int | str]:
        """As :meth:`Attack.parameters`; that the last iterate decides goes without saying."""
        return {name: value for name, value in super().parameters().items() if (name, value) != ("iterate", "last")}

    def perturb(self, network: nn.Module, images: Tensor, objective: Objective, generator: torch.Generator) -> Tensor:
        """Return the last iterate of one start, for any objective; inputs are not checked.

        Parameters
        ----------
        network, images, generator : as :meth:`examples`.
        objective : logits -> the sum over the batch of what is maximised.

        Returns
        -------
        (N, C, H, W), within `eps` of `images` and in [0, 1].
        """
        low, high = self._ball(images)
        x = self._start(images, generator).clamp_(low, high)
        return _ascended(network, x, low, high, objective, self.steps, self.step_size)

    def examples(self, network: nn.Module, images: Tensor, labels: Tensor, generator: torch.Generator) -> Tensor:
        """Return, for each image, the first restart's example that is misclassified, else the last one's.

        Parameters, returns: as :meth:`Attack.examples`.
        """
        x = self._tried(network, images, labels, generator)
        for _ in range(self.restarts - 1):
            with eval_without_gradients(network), torch.no_grad():
                right = (network(x).argmax(1) == labels).nonzero().squeeze(1)
            if len(right) == 0:
                break
            x[right] = self._tried(network, images[right], labels[right], generator)
        return x

    def _tried(self, network: nn.Module, images: Tensor, labels: Tensor, generator: torch.Generator) -> Tensor:
        """Return the iterate that decides of one start."""
        objective = OBJECTIVES[self.loss]
        if self.iterate == "last":
            return self.perturb(network, images, objective(labels), generator)
        low, high = self._ball(images)
        x = self._start(images, generator).clamp_(low, high)
        left = torch.arange(len(x), device=x.device)
        with folded_for_inference(network):
            for _ in range(self.steps):
                now = x[left].requires_grad_(True)
                logits = network(now)
                (gradient,) = torch.autograd.grad(objective(labels[left])(logits), now)
                # the one place where a GPU is waited for, after all that it has to do is asked of it
                right = (logits.argmax(1) == labels[left]).nonzero().squeeze(1)
                if len(right) == 0:
                    break
                left = left[right]
                step = self.step_size * gradient[right].sign()
                x[left] = (now.detach()[right] + step).clamp_(low[left], high[left])
        return x

    def _start(self, images: Tensor, generator: torch.Generator) -> Tensor:
        if self.start == "none":
            return images.clone()
        # pinned, or its copy to a GPU would wait for what the GPU is at
        noise = torch.empty(images.shape, dtype=images.dtype, pin_memory=images.is_cuda)
        if self.start == "uniform":
            noise.uniform_(-self.eps, self.eps, generator=generator)
        else:
            noise.normal_(0, 0.001, generator=generator)
        # images first: the sum keeps their memory format
        return images + noise.to(images.device, non_blocking=True)


@dataclass(frozen=True)
class FGSM(Attack):
    """One signed gradient step of length `eps` from the image (Goodfellow et al. 2015)."""

    def examples(self, network: nn.Module, images: Tensor, labels: Tensor, generator: torch.Generator) -> Tensor:
        """As :meth:`Attack.examples`."""
        return PGD(self.eps, self.eps, 1, "none").examples(network, images, labels, generator)


@dataclass(frozen=True)
class FFGSM(Attack):
    """One signed gradient step of length 1.25 `eps` from a uniform start in the ball (Wong et al. 2020)."""

    def examples(self, network: nn.Module, images: Tensor, labels: Tensor, generator: torch.Generator) -> Tensor:
        """As :meth:`Attack.examples`."""
        return PGD(self.eps, 1.25 * self.eps, 1, "uniform").examples(network, images, labels, generator)


@dataclass(frozen=True)
class MIFGSM(Attack):
    """Signed steps along a momentum of gradients, each divided by its l_1 norm, from the image (Dong et al. 2018).

    Attributes
    ----------
    step_size : length of a step, in pixel units as `eps`; Dong et al. take eps / steps.
    steps : how many gradient steps.
    decay : the factor of the momentum at each step, Dong et al.'s mu.

    Raises
    ------
    ValueError
        If `eps` is negative or NaN, `step_size` or `decay` is negative or not finite, or `steps` is below 0.
    """

    step_size: float
    steps: int
    decay: float = 1.0

    def __post_init__(self) -> None:
        super().__post_init__()
        checks.number("step_size", self.step_size, 0)
        checks.number("steps", self.steps, 0)
        checks.number("decay", self.decay, 0)

    def __str__(self) -> str:
        return f"MI-FGSM-{self.steps}"

    def examples(self, network: nn.Module, images: Tensor, labels: Tensor, generator: torch.Generator) -> Tensor:
        """As :meth:`Attack.examples`; nothing is drawn."""
        del generator
        low, high = self._ball(images)
        momentum = torch.zeros_like(images)
        tiny = torch.finfo(images.dtype).tiny  # a gradient of zeros stays zeros

        def direction(gradient: Tensor) -> Tensor:
            norm = gradient.abs().sum((1, 2, 3), keepdim=True).clamp_(min=tiny)
            return momentum.mul_(self.decay).add_(gradient / norm).sign()

        objective = cross_entropy_objective(labels)
        return _ascended(network, images.clone(), low, high, objective, self.steps, self.step_size, direction)


@dataclass(frozen=True)
class DeepFool(Attack):
    """Steps to the nearest boundary of the linearised network, in l_inf (Moosavi-Dezfooli et al. 2016).

    It looks for the smallest perturbation that is misclassified, up to `steps` steps an image; what it found is then
    brought into the `eps` ball, so that the accuracy on it is an accuracy at `eps`.

    Attributes
    ----------
    steps : at most how many steps an image.
    candidates : how many classes with the highest logits are looked at, the true one among them.
    overshoot : by how much more of itself the perturbation is taken, to get past the boundary.

    Raises
    ------
    ValueError
        If `eps` is negative or NaN, `steps` below 0, `candidates` below 2, or `overshoot` negative or not finite.
    """

    steps: int = 50
    candidates: int = 10
    overshoot: float = 0.02

    def __post_init__(self) -> None:
        super().__post_init__()
        checks.number("steps", self.steps, 0)
        checks.number("candidates", self.candidates, 2)
        checks.number("overshoot", self.overshoot, 0)

    def examples(self, network: nn.Module, images: Tensor, labels: Tensor, generator: torch.Generator) -> Tensor:
        """As :meth:`Attack.examples`; nothing is drawn, and an image that is misclassified is left as it is."""
        del generator
        found, moved = images.clone(), torch.zeros_like(images)
        left = torch.arange(len(images), device=images.device)
        with folded_for_inference(network):
            with torch.no_grad():
                logits = network(images)
            rivals = logits.topk(min(self.candidates, logits.shape[1])).indices[:, 1:]
            for _ in range(self.steps):
                x = found[left].requires_grad_(True)
                logits = network(x)
                # a GPU is waited for here alone
                right = (logits.argmax(1) == labels[left]).nonzero().squeeze(1)
                if len(right) == 0:
                    break
                step = _to_nearest_boundary(x, logits, labels[left], rivals[left])
                left = left[right]
                moved[left] += step[right]
                found[left] = (images[left] + (1 + self.overshoot) * moved[left]).clamp_(0, 1)
        return found.clamp_(*self._ball(images))


def _ascended(
    network: nn.Module,
    x: Tensor,
    low: Tensor,
    high: Tensor,
    objective: Objective,
    steps: int,
    step_size: float,
    direction: Callable[[Tensor], Tensor] = torch.sign,
) -> Tensor:
    with folded_for_inference(network):
        for _ in range(steps):
            x.requires_grad_(True)
            (gradient,) = torch.autograd.grad(objective(network(x)), x)
            x = (x.detach() + step_size * direction(gradient)).clamp_(low, high)
    return x


def _to_nearest_boundary(x: Tensor, logits: Tensor, labels: Tensor, rivals: Tensor) -> Tensor:
    gaps = logits.gather(1, rivals) - logits.gather(1, labels.unsqueeze(1))
    gradients = torch.stack([torch.autograd.grad(gap.sum(), x, retain_graph=True)[0] for gap in gaps.unbind(1)])
    distances, nearest = (gaps.detach().abs() / (gradients.abs().sum((2, 3, 4)).T + 1e-8)).min(1)
    gradient = gradients[nearest, torch.arange(len(x), device=x.device)]
    # the authors' code adds 1e-4, too: on the boundary itself a step would have no length
    return (distances + 1e-4).view(-1, 1, 1, 1) * gradient.sign()
