"""Evaluate any row of the table: the logits that its terms need, the update's loss, and adversarial examples."""

from collections.abc import Callable, Mapping, Sequence
from functools import partial
from types import MappingProxyType
from typing import Self

import torch
from torch import Tensor, nn

from rkdkit import attacks, losses
from rkdkit.graphs import Graphs
from rkdkit.methods.grammar import CHOICES, Maximised, Method, Term
from rkdkit.methods.notation import CERTAINTY_POINT, TRAINED, Point, Settings
from rkdkit.modes import without_gradients


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

    def move_statistics(self, point: Point) -> None:
        """Do a forward pass without gradients, which in train mode moves the running statistics of batch norms."""
        with torch.no_grad():
            for network in self.networks[point.network]:
                network(self._images[point.place])

    def _at(self, point: Point) -> tuple[Tensor, ...]:
        asked = point.network, point.place
        if asked not in self._done:
            images = self._images[point.place]
            with torch.set_grad_enabled(torch.is_grad_enabled() and not point.fixed):
                answers = [network(images) for network in self.networks[point.network]]
            self._done[asked] = tuple(answer.detach() if point.fixed else answer for answer in answers)
        return self._done[asked]


def check_loss(method: Method, settings: Settings, teachers: Mapping[str, int]) -> None:
    """Refuse settings and teachers with which a method's loss would train nothing, or compare what cannot be compared.

    Parameters
    ----------
    method : a row of the table.
    settings : all of its settings, as :meth:`Method.resolve` returns them.
    teachers : the number of teachers in each slot.

    Raises
    ------
    ValueError
        If no term of weight above 0 trains one of the networks in the first epoch, if a free row has none at x*, or if
        an MSE has several teachers, whose outputs are mixed as probabilities.
    """
    counting = [term for term in method.minimises if _has_weight(term, settings, 0.0)]
    points = [point for term in counting for point in (term.output_point, term.target_point) if point is not None]
    idle = sorted(set(method.roles) - {TRAINED.get(point.network) for point in points if not point.constant})
    if idle:
        raise ValueError(f"With its settings, no term of {method.title} with a weight above 0 trains the {idle[-1]}.")
    if method.free and all(term.output_point.place != "x*" for term in counting):
        raise ValueError(
            f"With its settings, no term of {method.title} is at x*: its perturbation would have no gradient."
        )
    for term in method.minimises:
        slot = "" if term.target_point is None else term.target_point.network
        if term.divergence == "MSE" and teachers.get(slot, 1) > 1:
            raise ValueError(f"{term} compares logits, and several teachers are mixed as probabilities: give one.")


def loss(method: Method, settings: Settings, logits: Logits, labels: Tensor, progress: float = 1.0) -> Tensor:
    """Return the loss that a method's update minimises; terms of weight 0 are not computed.

    If the row lists its forward passes, they are done in the row's order; but while a term waits for the end of the
    warmup, one pass of each point that only it needs is left out.

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
    terms = [term for term in method.minimises if _has_weight(term, settings, progress)]
    if method.passes:
        needed = {point for term in terms for point in term.asked}
        waiting = [term for term in method.minimises if _waits(term, settings, progress)]
        not_yet = {point for term in waiting for point in term.asked} - needed
        for point in method.points_passed:
            if point in not_yet:
                not_yet.remove(point)
            elif point in needed:
                _ = logits[point]
                needed.remove(point)
            else:
                logits.move_statistics(point)
    total = torch.zeros((), device=labels.device)
    for term in terms:
        certainty = _certainty(term, settings, logits, labels, progress)
        total = total + _weight(term, settings) * (certainty * _divergence(term, settings, logits, labels)).mean()
    return total


def adversarial_examples(
    maximised: Maximised,
    logits: Logits,
    images: Tensor,
    labels: Tensor,
    attack: attacks.PGD,
    generator: torch.Generator,
    mode: str = "eval",
    *,
    clamps_start: bool = True,
    graphs: Graphs | None = None,
) -> Tensor:
    """Perturb images to maximise what a row's attack maximises.

    A target at the natural images is a constant: it is computed once. A target at the current iterate is computed again
    at each step, and the gradient passes through it. Networks that guide the attack are in eval mode; the attacked
    network is in the same mode throughout.

    Parameters
    ----------
    maximised : an entry of a row's `maximises`.
    logits : holds the networks; fixed teachers' logits at the natural images are shared with the update.
    images : (N, C, H, W) float32 in [0, 1].
    labels : (N,) int64.
    attack : the attack, with the start of the row's entry.
    generator : a CPU generator for the attack's start.
    mode, clamps_start : the row's `attack_mode`, and whether it clamps this attack's start, as
        :meth:`attacks.PGD.perturb` takes them.
    graphs : captures the attack's steps as one graph, those of these networks only; None: they are taken one by one.

    Returns
    -------
    (N, C, H, W) float32: x* of the papers.
    """
    slot = maximised.output_point.network
    (attacked,) = logits.networks[slot]

    def perturbed(network: nn.Module, objective: Callable[..., Tensor], *given: Tensor) -> Tensor:
        call = None if graphs is None else partial(graphs.call, (maximised, attack, mode))
        return attack.perturb(
            network, images, objective, generator, mode, clamps_start=clamps_start, given=given, call=call
        )

    guide = maximised.target_point
    if guide is None:
        return perturbed(attacked, lambda z, y: attacks.cross_entropy_objective(y)(z), labels)
    if guide.place == "x~":
        weights = logits.weights.get(guide.network, (1.0,))

        def gap(answers: Tensor) -> Tensor:
            return losses.kl_divergence(losses.mixture(answers[1:].unbind(), weights), answers[0]).sum()

        return perturbed(_SideBySide(attacked, *logits.networks[guide.network]), gap)
    own = guide.network == slot
    with torch.no_grad(), without_gradients(logits.networks[guide.network][0], mode if own else "eval") as network:
        target = logits.taught(guide) if guide.fixed else network(images)
    return perturbed(attacked, lambda z, guide: losses.kl_divergence(guide, z).sum(), target)


class _SideBySide(nn.Module):
    """Several networks' logits at the same images: (N, C, H, W) -> (networks, N, classes).

    Only the first, which is attacked, can be in train mode; the others guide the attack.
    """

    def __init__(self, *networks: nn.Module) -> None:
        super().__init__()
        self.networks = nn.ModuleList(networks)

    def train(self, mode: bool = True) -> Self:
        super().train(False)
        self.networks[0].train(mode)
        return self

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


def _weight(term: Term, settings: Settings) -> float:
    """Return the weight that all images have in a term, tau^2 included."""
    return term.factors.value(settings) * _temperature(term, settings) ** 2


def _has_weight(term: Term, settings: Settings, progress: float) -> bool:
    """Return whether a term counts now."""
    return not _waits(term, settings, progress) and _weight(term, settings) != 0


def _waits(term: Term, settings: Settings, progress: float) -> bool:
    """Return whether a term's weight `1-a` is 0 for all images, because the warmup is not over."""
    return _certainty_of(term, settings) == "1-a" and progress < float(settings["warmup"])


def _certainty(term: Term, settings: Settings, logits: Logits, labels: Tensor, progress: float) -> Tensor | float:
    """Return the weight of each image in a term that counts."""
    which = _certainty_of(term, settings)
    if which in ("", "1") or progress < float(settings["warmup"]):
        return 1.0
    certainty = logits.certainty(labels, float(settings["beta"]))
    return certainty if which == "a" else 1 - certainty


def _certainty_of(term: Term, settings: Settings) -> str:
    """Return "a", "1-a", "1" or ""."""
    return str(settings[term.certainty]) if term.certainty in CHOICES else term.certainty


def _temperature(term: Term, settings: Settings) -> float:
    return float(settings[term.tau]) if term.tau else 1.0
