"""Adversarial examples in the l_inf ball: each attack is a small immutable value that can be called.

``PGD(eps=8/255, step_size=2/255, steps=20)(network, images, labels)`` gives the perturbed images.
"""

import math
from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from rkdkit import checks
from rkdkit.determinism import drawn
from rkdkit.modes import eval_without_gradients, folded_for_inference, without_gradients

STARTS = ("none", "uniform", "gaussian")
ITERATES = ("last", "any")
"""The possible values of :class:`PGD`'s `iterate`."""

Objective = Callable[[Tensor], Tensor]
"""Logits (N, C) -> the scalar to maximise, summed over the batch so that images do not influence each other."""


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
    """The interface of all attacks.

    Attributes
    ----------
    eps : radius of the l_inf ball, in [0, 1] pixel units (8/255 is the usual value for CIFAR). A value of 1 or more,
        infinity included, means the whole box [0, 1]; `eps` is then stored as 1.

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
        network : (N, C, H, W) -> (N, classes) logits; it is in eval mode during the attack.
        images : (N, C, H, W) floating point in [0, 1].
        labels : (N,) int64, the true classes.
        generator : a CPU generator for the attack's random numbers, if it needs any.

        Returns
        -------
        (N, C, H, W), within `eps` of `images` and in [0, 1].
        """

    def __call__(self, network: nn.Module, images: Tensor, labels: Tensor, seed: int = 0) -> Tensor:
        """Return adversarial examples against the true labels; inputs are checked.

        Parameters
        ----------
        network, images, labels : as :meth:`examples`. Images are float32, or float64 if the network's weights are. A
            network from elsewhere first classifies them once, because the shape of its logits is not known.
        seed : the seed of the attack's random numbers.

        Returns
        -------
        (N, C, H, W), within `eps` of `images` and in [0, 1].

        Raises
        ------
        ValueError
            As :func:`check_batch` and :func:`check_answers`.
        """
        check_batch(network, images, labels)
        check_answers(network, images, labels)
        with torch.enable_grad():
            return self.examples(network, images, labels, torch.Generator().manual_seed(seed))

    def parameters(self) -> dict[str, float | int | str]:
        """Return everything that decides what the attack does, as plain JSON values."""
        return asdict(self)

    def identity(self) -> dict[str, float | int | str]:
        """Return its name and :meth:`parameters`: the attack's part of the key of a stored answer."""
        return {"name": type(self).__name__, **self.parameters()}

    def _ball(self, images: Tensor) -> tuple[Tensor, Tensor]:
        return (images - self.eps).clamp_(min=0), (images + self.eps).clamp_(max=1)


def check_batch(network: nn.Module, images: Tensor, labels: Tensor) -> None:
    """Refuse images and labels that an attack cannot use.

    Raises
    ------
    ValueError
        As :func:`checks.batch`; also if images are neither float32 nor, as the network's weights, float64.
    """
    checks.batch(images, labels, network)
    if images.dtype not in (torch.float32, torch.float64):  # in half precision, a rounded step may leave the ball
        raise ValueError(f"images must be float32, not {images.dtype}: use data.to_float (uint8) or images.float().")
    checks.precision(network, images.dtype, "convert one of the two, for example by images.float() or network.float()")


@torch.no_grad()
def check_answers(network: nn.Module, images: Tensor, labels: Tensor) -> None:
    """Let a network from elsewhere classify some images; refuse it if it does not return logits of all labels' classes.

    Parameters
    ----------
    network : any network; the kit's own are not asked.
    images : (n, C, H, W) floating point in [0, 1], on the network's device, at least one.
    labels : (N,) int64; they may be of more images.

    Raises
    ------
    ValueError
        If it does not return (n, classes) floating point, or a label is not below this number of classes.
    """
    if callable(getattr(network, "folded", None)):
        return
    with eval_without_gradients(network):
        answer = network(images)
    checks.labels(labels, len(labels), checks.logits(answer, len(images), type(network).__name__))


@dataclass(frozen=True)
class PGD(Attack):
    """Projected gradient ascent in the l_inf ball (Madry et al. 2018).

    Attributes
    ----------
    step_size : length of a step, in the same pixel units as `eps`.
    steps : the number of gradient steps; 20 gives PGD-20, and 0 gives the start.
    start : "uniform" in the ball (Madry et al.), "gaussian": 0.001 N(0, 1) (TRADES), "none": the image itself.
    restarts : the number of starts; each one after the first attacks only the images that are still classified
        correctly.
    loss : what :meth:`examples` maximises: "CE", the cross entropy, or "margin", the best wrong logit minus the true
        one (Carlini & Wagner 2017).
    iterate : which iterate :meth:`examples` returns. "last": the last one, as in the papers. "any": the first
        misclassified iterate, the start included, or the last one if there is none. With "any", an image counts as
        robust only if no iterate fools the network, and misclassified images are dropped from later steps. Other
        networks are evaluated on the same examples.

    Raises
    ------
    ValueError
        If `eps` is negative or NaN, `step_size` is negative or not finite, `steps` is below 0 or `restarts` below 1.
    UnknownNameError
        If `start`, `loss` or `iterate` is not a known name.
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
        """As :meth:`Attack.parameters`; `iterate` is left out if it is "last"."""
        return {name: value for name, value in super().parameters().items() if (name, value) != ("iterate", "last")}

    def perturb(
        self,
        network: nn.Module,
        images: Tensor,
        objective: Callable[..., Tensor],
        generator: torch.Generator,
        mode: str = "eval",
        *,
        clamps_start: bool = True,
        visit: Callable[[Tensor], object] | None = None,
        given: Sequence[Tensor] = (),
        call: Callable[..., Tensor] | None = None,
    ) -> Tensor:
        """Return the last iterate from one start, for any objective; inputs are not checked.

        Parameters
        ----------
        network, images, generator : as :meth:`examples`.
        objective : logits, and what is `given` -> the scalar to maximise, summed over the batch.
        mode : the network's mode during the attack, one of `modes.MODES`. In "train", images influence each other by
            the batch's statistics, and running statistics move at each step.
        clamps_start : whether the start is clamped to ball and box; if not, the first gradient is at the unclamped
            start. Iterates after it are clamped all the same, and so is a start that is returned.
        visit : called with the start and the iterate after each step, which it must not change; None: it is not.
        given : the tensors that the objective takes after the logits, such as labels.
        call : calls the function that takes the steps with its tensors, as `graphs.Graphs.call`; None: it is called.

        Returns
        -------
        (N, C, H, W), within `eps` of `images` and in [0, 1].
        """
        low, high = self._ball(images)
        x = self._start(images, generator)
        if clamps_start or self.steps == 0:
            x = x.clamp_(low, high)

        def ascended(x: Tensor, low: Tensor, high: Tensor, *given: Tensor) -> Tensor:
            asked = (network, x, low, high, lambda logits: objective(logits, *given), self.steps, self.step_size)
            return _ascended(*asked, mode=mode, visit=visit)

        return ascended(x, low, high, *given) if call is None else call(ascended, (x, low, high, *given), network)

    def examples(self, network: nn.Module, images: Tensor, labels: Tensor, generator: torch.Generator) -> Tensor:
        """Return, for each image, the example of the first misclassified start, or of the last start if there is none.

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
        """Return the iterate that `iterate` selects, from one start."""
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
                # the only wait for a GPU, after all of the step's work has been submitted to it
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

        def draw(noise: Tensor) -> None:
            if self.start == "uniform":
                noise.uniform_(-self.eps, self.eps, generator=generator)
            else:
                noise.normal_(0, 0.001, generator=generator)

        noise = drawn(images, generator, draw)
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
    """Signed steps along a momentum of l_1-normalised gradients, from the image (Dong et al. 2018).

    Attributes
    ----------
    step_size : length of a step, in the same pixel units as `eps`; Dong et al. use eps / steps.
    steps : the number of gradient steps.
    decay : the factor that the momentum is multiplied by at each step, Dong et al.'s mu.

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
        """As :meth:`Attack.examples`; the generator is not used."""
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

    It searches for the smallest perturbation that is misclassified, with at most `steps` steps per image. The
    perturbation found is then clipped to the `eps` ball, so that the accuracy is an accuracy at `eps`.

    Attributes
    ----------
    steps : the largest number of steps per image.
    candidates : the number of classes considered, those with the highest logits, the top class included.
    overshoot : the perturbation is multiplied by 1 + overshoot, to get past the boundary.

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
        """As :meth:`Attack.examples`; the generator is not used, and misclassified images are returned unchanged."""
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
                # the only wait for a GPU
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
    mode: str = "eval",
    visit: Callable[[Tensor], object] | None = None,
) -> Tensor:
    if visit is not None:
        visit(x)
    # batch norms in train mode cannot be folded: their statistics are each batch's
    with folded_for_inference(network) if mode == "eval" else without_gradients(network, mode):
        for _ in range(steps):
            x.requires_grad_(True)
            (gradient,) = torch.autograd.grad(objective(network(x)), x)
            x = (x.detach() + step_size * direction(gradient)).clamp_(low, high)
            if visit is not None:
                visit(x)
    return x


def _to_nearest_boundary(x: Tensor, logits: Tensor, labels: Tensor, rivals: Tensor) -> Tensor:
    gaps = logits.gather(1, rivals) - logits.gather(1, labels.unsqueeze(1))
    gradients = torch.stack([torch.autograd.grad(gap.sum(), x, retain_graph=True)[0] for gap in gaps.unbind(1)])
    distances, nearest = (gaps.detach().abs() / (gradients.abs().sum((2, 3, 4)).T + 1e-8)).min(1)
    # as in Foolbox 3: on the boundary itself, a step would have length 0
    return (distances + 1e-4).view(-1, 1, 1, 1) * gradients[nearest, torch.arange(len(x), device=x.device)].sign()
