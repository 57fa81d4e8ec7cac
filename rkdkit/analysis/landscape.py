"""The loss of a network whose weights are moved along random directions (PeerAiD Figure 4)."""

import copy
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from rkdkit import attacks, data, evaluation
from rkdkit.determinism import generator
from rkdkit.measurements import Digest, Load, OfOneSnapshot, Pass
from rkdkit.progress import track
from rkdkit.references import Snapshot

ENGINE = 2
"""A version number: raised whenever the same question about the same network gets another answer."""

Direction = dict[str, Tensor]
"""A step for every parameter of a network, by name."""

Place = tuple[float, ...]
"""One offset per direction."""

Loss = Callable[[nn.Module], Tensor]
"""A network -> the loss of each image, (N,)."""


def random_direction(network: nn.Module, draw: int) -> Direction:
    """Draw a filter-normalised random direction (Li et al. 2018).

    Every filter of the direction (every row of a linear layer) is scaled to the norm of the network's filter. Biases
    and batch-norm parameters are not moved, as in the authors' code for its pictures.

    Parameters
    ----------
    network : its filters give the norms.
    draw : the number of the direction; networks of one architecture get the same random numbers, scaled to their own
        norms.
    """
    noise = generator(draw, 0, "direction")
    direction = {}
    for name, parameter in network.named_parameters():
        drawn = torch.randn(parameter.shape, generator=noise).to(parameter.device)
        direction[name] = torch.zeros_like(drawn) if parameter.ndim < 2 else drawn * _norms(parameter) / _norms(drawn)
    return direction


def losses_at(
    network: nn.Module, directions: Sequence[Direction], places: Sequence[Place], loss: Loss
) -> Iterator[Tensor]:
    """Yield the loss of each image at places around a network; the network itself is not changed.

    Parameters
    ----------
    network : the centre. Its batch-norm statistics from training are kept at all places, as in Li et al.'s code.
    directions : one per axis.
    places : offsets along the directions.
    loss : measures the network with the moved weights.

    Yields
    ------
    (N,) on the CPU, one per place.
    """
    moved = copy.deepcopy(network).eval()
    for offsets in places:
        steps = list(zip(offsets, directions, strict=True))
        with torch.no_grad():
            for name, parameter in moved.named_parameters():
                parameter.copy_(network.get_parameter(name) + sum(offset * along[name] for offset, along in steps))
        yield loss(moved).detach().cpu()


def adversarial_loss(split: data.Split, attack: attacks.Attack) -> Loss:
    """Return the loss whose landscape is drawn: the cross entropy on adversarial examples of the moved network.

    New examples are made at every place, always from the same random starts, as for Wu et al.'s (2020) weight loss
    landscape; PeerAiD's caption only says "the loss value".

    Parameters
    ----------
    split : the images.
    attack : makes the adversarial examples.
    """
    return lambda network: evaluation.per_image("cross entropy", network, split.images, split.labels, attack)


@dataclass(frozen=True, kw_only=True)
class LossesAround(OfOneSnapshot):
    """The adversarial loss of each image at places around a snapshot; the answer is (places, N) float32, in nats.

    Attributes
    ----------
    snapshot : the centre.
    draws : the random directions, one per axis, as `draw` of :func:`random_direction`.
    places : offsets along the directions.
    attack : makes new adversarial examples at every place.
    """

    snapshot: Snapshot
    draws: tuple[int, ...]
    places: tuple[Place, ...]
    attack: attacks.Attack

    def question(self, digest: Digest, split: data.Split) -> dict[str, Any]:
        """As :meth:`Measurement.question`."""
        return {
            "engine": ENGINE,
            "question": "losses along random directions",
            "network": digest(self.snapshot),
            "draws": list(self.draws),
            "places": [list(place) for place in self.places],
            "attack": self.attack.identity(),
            "data": split.digest,
        }

    def measured(self, load: Load, split: data.Split) -> list[list[float]]:
        """As :meth:`Measurement.measured`."""
        network = load(self.snapshot)
        directions = [random_direction(network, draw) for draw in self.draws]
        losses = losses_at(network, directions, self.places, adversarial_loss(split, self.attack))
        what = f"Around {self.snapshot}"
        return [
            values.tolist() for values in track(losses, total=len(self.places), desc=what, unit="place", leave=False)
        ]

    def value(self, answer: list[list[float]], split: data.Split) -> Tensor:
        """As :meth:`Measurement.value`."""
        del split
        return torch.tensor(answer)

    def placeholder(self) -> Tensor:
        """Return zeros."""
        return torch.zeros(len(self.places), len(self.images))

    def passes(self) -> list[Pass]:
        """As :meth:`Measurement.passes`."""
        return [Pass(self.snapshot, self.attack, self.snapshot, times=len(self.places))]


def _norms(filters: Tensor) -> Tensor:
    norms: Tensor = torch.linalg.vector_norm(filters.detach(), dim=tuple(range(1, filters.ndim)), keepdim=True)
    return norms
