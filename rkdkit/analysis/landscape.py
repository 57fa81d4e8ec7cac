"""How fast the adversarial loss rises around trained weights (PeerAiD Figure 4)."""

import copy
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import pandas as pd
import torch
from torch import Tensor, nn

from rkdkit import attacks, checks, data, evaluation, runs, statistics
from rkdkit.determinism import generator
from rkdkit.progress import track
from rkdkit.runs import Snapshot
from rkdkit.store import Store

ENGINE = 2
"""Raised whenever the same question would get another answer from the same network."""

REACH = 0.75
"""How far the paper goes along a direction, in units of each filter's norm."""

FEWEST = 32
"""The fewest test images: a sixteenth of them, two at least, is what the surfaces are measured on."""

Direction = dict[str, Tensor]
"""A step for every parameter of a network, by name."""

Place = tuple[float, ...]
"""An offset along each of some directions."""

Loss = Callable[[nn.Module], Tensor]
"""A network -> the loss of each image, (N,)."""


@dataclass(frozen=True)
class Landscape:
    """The loss along lines through networks, and on a plane through each.

    Attributes
    ----------
    offsets : where on a line, 0 in the middle.
    profiles : by network, one a seed: (directions, len(offsets), N) loss of each image, in nats.
    grid : where on each axis of the plane, 0 in the middle.
    surfaces : by network, of the first seed: (len(grid), len(grid)) mean loss, along the first direction by row and
        along the second by column.
    n_surface : how many images the surfaces rest on.
    """

    offsets: tuple[float, ...]
    profiles: Mapping[str, Sequence[Tensor]]
    grid: tuple[float, ...]
    surfaces: Mapping[str, Tensor]
    n_surface: int

    def rise(self, network: str) -> statistics.Measure:
        """Return the mean rise of the loss over the line above that at the network itself, over all seeds."""
        return _over_directions([mean_rise(profile) for profile in self.profiles[network]])

    def rise_minus(self, first: str, second: str) -> statistics.Measure:
        """Return the paired difference of two networks' mean rises, over all seeds."""
        pairs = zip(self.profiles[first], self.profiles[second], strict=True)
        return _over_directions([mean_rise(a) - mean_rise(b) for a, b in pairs])

    def table(self) -> pd.DataFrame:
        """Return the numbers to draw: part, network, first, second (offsets), loss, its interval, n and seeds.

        part is "profile" (means over directions) or "surface"; the rise over the whole profile is part "mean rise".
        """
        rows: list[dict[str, Any]] = []
        for network, of_seeds in self.profiles.items():
            for i, offset in enumerate(self.offsets):
                there = _over_directions([profile[:, i] for profile in of_seeds])
                rows.append({"part": "profile", "network": network, "first": offset, **there.columns("loss")})
            rows.append({"part": "mean rise", "network": network, **self.rise(network).columns("loss")})
        for network, surface in self.surfaces.items():
            for first, row in zip(self.grid, surface.tolist(), strict=True):
                for second, loss in zip(self.grid, row, strict=True):
                    at = {"first": first, "second": second, "loss": loss, "n": self.n_surface, "seeds": 1}
                    rows.append({"part": "surface", "network": network, **at})
        return pd.DataFrame(rows)


def mean_rise(profile: Tensor) -> Tensor:
    """Return by how much the loss is higher along a line than in its middle, on average.

    Parameters
    ----------
    profile : (directions, P, N) losses, P odd.

    Returns
    -------
    (directions, N), in the loss's unit.
    """
    return profile.mean(1) - profile[:, profile.shape[1] // 2]


def random_direction(network: nn.Module, draw: int) -> Direction:
    """Draw a filter-normalised random direction (Li et al. 2018).

    Every filter of the direction (every row of a linear layer) gets the norm of the network's own. Biases and
    batch-norm parameters stay where they are, as in the authors' code for its pictures.

    Parameters
    ----------
    network : whose filters give the norms.
    draw : which direction; networks of one architecture get the same random draws, each by its own norms.
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
    """Yield the loss of each image at places around a network, which itself stays as it is.

    Parameters
    ----------
    network : the centre. Batch-norm statistics stay those it was trained with, as in Li et al.'s code.
    directions : one an axis.
    places : offsets along the directions.
    loss : what to measure of a network that stands at such a place.

    Yields
    ------
    (N,) on the CPU, one a place.
    """
    moved = copy.deepcopy(network).eval()
    for offsets in places:
        steps = list(zip(offsets, directions, strict=True))
        with torch.no_grad():
            for name, parameter in moved.named_parameters():
                parameter.copy_(network.get_parameter(name) + sum(offset * along[name] for offset, along in steps))
        yield loss(moved).detach().cpu()


def adversarial_loss(split: data.Split, attack: attacks.Attack) -> Loss:
    """Return the loss whose landscape is drawn: the cross entropy on adversarial examples of the very network.

    They are made anew at every place, always from the same random starts, as for Wu et al.'s (2020) weight loss
    landscape; PeerAiD's caption says no more than "the loss value".

    Parameters
    ----------
    split : the images.
    attack : what makes adversarial examples of them.
    """
    return lambda network: evaluation.per_image("cross entropy", network, split.images, split.labels, attack)


def sizes(n_test: int) -> dict[str, int]:
    """Return how large :func:`landscapes` is measured where `n_test` images are tested.

    A place costs an attack on every image, so there are fewer images than usual: an eighth on the lines, a sixteenth on
    the planes; and where few are tested, fewer places.

    Raises
    ------
    ValueError
        If `n_test` is below `FEWEST`.
    """
    checks.number("n_test", n_test, FEWEST)
    points, grid = (31, 15) if n_test > 200 else (5, 3)
    return {"n": n_test // 8, "n_surface": n_test // 16, "points": points, "grid": grid, "directions": 3}


def landscapes(
    networks: Mapping[str, Sequence[Snapshot]],
    dataset: data.Dataset,
    attack: attacks.Attack,
    *,
    n: int,
    n_surface: int,
    points: int = 31,
    directions: int = 3,
    grid: int = 15,
    surfaces_of: Sequence[str] | None = None,
    store: Store | None = None,
) -> Landscape:
    """Measure the adversarial loss around several networks, along the same random draws; every part is kept.

    Parameters
    ----------
    networks : the snapshots by name, one a seed, all of one architecture.
    dataset : whose test images to use.
    attack : makes the adversarial examples, at every place anew.
    n, n_surface : the first so many test images, for the lines and for the planes.
    points : how many places on a line, the middle among them.
    directions : how many lines, each along a direction of its own.
    grid : how many places on each axis of a plane; its axes are the first two directions.
    surfaces_of : which networks' planes are measured; None: all.
    store : as `runs.ensure`.

    Raises
    ------
    UnknownNameError
        If `surfaces_of` names another network.
    ValueError
        If the networks are not of one architecture, a number of places is even, or there are too few images.
    """
    architectures = {snapshot.architecture for of_seeds in networks.values() for snapshot in of_seeds}
    if len(architectures) != 1:
        raise ValueError(f"Directions are shared by networks of one architecture only, not {sorted(architectures)}.")
    checks.number("directions", directions, 1)
    for name, images in (("n", n), ("n_surface", n_surface)):
        checks.number(name, images, 2, len(dataset.test))
    planes = [checks.one_of("network", name, networks) for name in surfaces_of or networks]
    line, axis = _evenly(points), _evenly(grid)
    lines: list[Place] = [(offset,) for offset in line]
    plane: list[Place] = [(first, second) for first in axis for second in axis]
    total = sum(len(s) for s in networks.values()) * directions * points + len(planes) * len(plane)
    with track(total=total, desc=f"Loss landscapes by {attack}", unit="place") as bar:

        def measured(snapshot: Snapshot, draws: list[int], places: list[Place], images: int) -> Tensor:
            done, split = bar.n + len(places), dataset.test.take(slice(0, images))
            losses = _stored(snapshot, draws, places, split, attack, store, bar.update)
            bar.update(done - bar.n)  # what was in the store already
            return losses

        profiles = {
            name: [torch.stack([measured(s, [d], lines, n) for d in range(directions)]) for s in of_seeds]
            for name, of_seeds in networks.items()
        }
        surfaces = {
            name: measured(networks[name][0], [0, 1], plane, n_surface).mean(1).view(grid, grid) for name in planes
        }
    return Landscape(line, profiles, axis, surfaces, n_surface)


def _stored(
    snapshot: Snapshot,
    draws: list[int],
    places: list[Place],
    split: data.Split,
    attack: attacks.Attack,
    store: Store | None,
    advance: Callable[[], object],
) -> Tensor:
    """Return the losses (places, N) around a snapshot; what is not in the store is measured and put there."""
    question = {
        "engine": ENGINE,
        "question": "losses along random directions",
        "network": snapshot.digest,
        "draws": draws,
        "places": places,
        "attack": attack.identity(),
        "data": split.digest,
    }

    def measure() -> list[list[float]]:
        network = snapshot.load()
        directions = [random_direction(network, draw) for draw in draws]
        found = []
        for values in losses_at(network, directions, places, adversarial_loss(split, attack)):
            found.append(values.tolist())
            advance()
        return found

    needs = [(snapshot, attack, snapshot)] * len(places)
    made_up = [[0.0] * len(split)] * len(places)
    return torch.tensor(runs.kept_answer(question, measure, split, needs, made_up, store=store))


def _evenly(points: int) -> tuple[float, ...]:
    checks.number("points", points, 3)
    if points % 2 == 0:
        raise ValueError(f"An odd number of places is needed, so that the network itself is one, not {points}.")
    half = points // 2
    return tuple(REACH * i / half for i in range(-half, half + 1))


def _norms(filters: Tensor) -> Tensor:
    norms: Tensor = torch.linalg.vector_norm(filters.detach(), dim=tuple(range(1, filters.ndim)), keepdim=True)
    return norms


def _over_directions(of_seeds: Sequence[Tensor]) -> statistics.Measure:
    """Return the mean of (directions, N) values; directions count like seeds, for they are drawn like them."""
    per_seed = [statistics.over_seeds([statistics.mean(values, "nats") for values in each]) for each in of_seeds]
    return statistics.over_seeds([replace(measure, seeds=1) for measure in per_seed])
