"""Evaluate any row of the table: the logits that its terms need, the update's loss, and adversarial examples."""

from collections.abc import Mapping, Sequence
from types import MappingProxyType

import torch
from torch import Tensor, nn

from rkdkit import attacks, losses
from rkdkit.methods.grammar import Maximised, Method, Term
from rkdkit.methods.notation import CERTAINTY_POINT, TRAINED, Point, Settings


class Logits:
    """The logits of some networks at some points; each forward pass is done once, even if several terms use it.

    Parameters
    ----------
    networks : by slot: {"S": (student,), "P": (peer,), "T": teachers}. Teachers are in eval mode and their parameters
        need no gradients.
    points : the images by their name in the papers: {"x": ..., "x*": ...}, each (N, C, H, W).
    weights : the weights of the teachers in each slot, which sum to 1.
    """

    def __init__(
        self,
        networks: Mapping[str, Sequence[nn.Module]],
        points: Mapping[str, Tensor],
        weights: Mapping[str, Sequence[float]] = MappingProxyType({}),
    ) -> None:
        self.networks, self.weights = networks, weights
        self._images = dict(points)
        self._done: dict[tuple[str, str], tuple[Tensor, ...]] = {}

    def add(self, place: str, images: Tensor) -> None:
        """Set the images of a place; logits at this place, and all logits of trained networks, are discarded."""
        self._images[place] = images
        self._done = {
            asked: answer for asked, answer in self._done.items() if asked[0] not in TRAINED and asked[1] != place
        }

    def __getitem__(self, point: Point) -> Tensor:
        """Return the logits of a trained network; S(x) and S(x).detach share one forward pass."""
        (logits,) = self._at(point)
        return logits.detach() if point.constant else logits

    def target(self, term: Term, settings: Settings, labels: Tensor) -> Tensor:
        """Return logits whose softmax at the term's temperature is its target, after mixing teachers and labels.

        Raises
        ------
        ValueError
            If the target is the labels themselves.
        """
        point = term.target_point
        if point is None:
            raise ValueError(f"{term}: its target is the labels, which no network answers with.")
        if not point.fixed:
            return self[point]
        share = float(settings[term.mixing]) if term.mixing else 1.0
        return self.taught(point, _temperature(term, settings), labels, share)

    def taught(self, point: Point, tau: float = 1.0, labels: Tensor | None = None, share: float = 1.0) -> Tensor:
        """Return the teachers' logits at a point, mixed by :func:`losses.mixture`."""
        return losses.mixture(self._at(point), self.weights.get(point.network, (1.0,)), tau, labels, share)

    def certainty(self, labels: Tensor, beta: float) -> Tensor:
        """Return a = T(x*)[y]^beta of IAD, (N,) in [0, 1]."""
        return self.taught(CERTAINTY_POINT).softmax(1).gather(1, labels[:, None])[:, 0] ** beta

    def _at(self, point: Point) -> tuple[Tensor, ...]:
        asked = point.network, point.place
        if asked not in self._done:
            images = self._images[point.place]
            with torch.set_grad_enabled(torch.is_grad_enabled() and not point.fixed):
                answers = [network(images) for network in self.networks[point.network]]
            self._done[asked] = tuple(answer.detach() if point.fixed else answer for answer in answers)
        return self._done[asked]


def loss(method: Method, settings: Settings, logits: Logits, labels: Tensor, progress: float = 1.0) -> Tensor:
    """Return the loss that a method's update minimises; terms of weight 0 are not computed.

    Parameters
    ----------
    method : a row of the table.
    settings : all of its settings, as :meth:`Method.resolve` returns them.
    logits : the logits at the natural images and at the attacks' examples.
    labels : (N,) int64.
    progress : the share of the training's epochs that are finished, for methods that change during training.

    Returns
    -------
    () float32.
    """
    total = torch.zeros((), device=labels.device)
    for term in method.minimises:
        weight = term.factors.value(settings) * _temperature(term, settings) ** 2
        certainty = _certainty(term, settings, logits, labels, progress)
        if weight == 0 or certainty is None:
            continue
        total = total + weight * (certainty * _divergence(term, settings, logits, labels)).mean()
    return total


def adversarial_examples(
    maximised: Maximised,
    logits: Logits,
    images: Tensor,
    labels: Tensor,
    attack: attacks.PGD,
    generator: torch.Generator,
) -> Tensor:
    """Perturb images to maximise what a row's attack maximises.

    A target at the natural images is a constant: it is computed once, in eval mode. A target at the current iterate is
    computed again at each step, and the gradient passes through it.

    Parameters
    ----------
    maximised : an entry of a row's `maximises`.
    logits : holds the networks; fixed teachers' logits at the natural images are shared with the update.
    images : (N, C, H, W) float32 in [0, 1].
    labels : (N,) int64.
    attack : the attack, with the start of the row's entry.
    generator : a CPU generator for the attack's start.

    Returns
    -------
    (N, C, H, W) float32: x* of the papers.
    """
    (attacked,) = logits.networks[maximised.output_point.network]
    guide = maximised.target_point
    if guide is None:
        return attack.perturb(attacked, images, attacks.cross_entropy_objective(labels), generator)
    if guide.place == "x~":
        weights = logits.weights.get(guide.network, (1.0,))

        def gap(answers: Tensor) -> Tensor:
            return losses.kl_divergence(losses.mixture(answers[1:].unbind(), weights), answers[0]).sum()

        return attack.perturb(_SideBySide(attacked, *logits.networks[guide.network]), images, gap, generator)
    with torch.no_grad(), attacks.eval_without_gradients(logits.networks[guide.network][0]) as network:
        target = logits.taught(guide) if guide.fixed else network(images)
    return attack.perturb(attacked, images, lambda z: losses.kl_divergence(target, z).sum(), generator)


class _SideBySide(nn.Module):
    """Several networks' logits at the same images: (N, C, H, W) -> (networks, N, classes)."""

    def __init__(self, *networks: nn.Module) -> None:
        super().__init__()
        self.networks = nn.ModuleList(networks)

    def forward(self, x: Tensor) -> Tensor:
        return torch.stack([network(x) for network in self.networks])


def _divergence(term: Term, settings: Settings, logits: Logits, labels: Tensor) -> Tensor:
    output = logits[term.output_point]
    if term.target_point is None:
        return losses.cross_entropy(output, labels)
    target = logits.target(term, settings, labels)
    if term.divergence == "CE":
        return losses.soft_cross_entropy(target, output)
    if term.divergence == "MSE":
        return losses.squared_error(target, output)
    return losses.kl_divergence(target, output, _temperature(term, settings), str(settings["kl_reduction"]))


def _certainty(
    term: Term, settings: Settings, logits: Logits, labels: Tensor, progress: float
) -> Tensor | float | None:
    """Return the weight of each image in a term; None: it is 0 for all images."""
    which = str(settings.get(term.certainty, term.certainty))
    if which in ("", "1"):
        return 1.0
    if progress < float(settings["warmup"]):
        return 1.0 if which == "a" else None
    certainty = logits.certainty(labels, float(settings["beta"]))
    return certainty if which == "a" else 1 - certainty


def _temperature(term: Term, settings: Settings) -> float:
    return float(settings[term.tau]) if term.tau else 1.0
