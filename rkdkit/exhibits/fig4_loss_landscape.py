"""PeerAiD, Figure 4: how fast the adversarial loss rises around trained weights."""

import itertools
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import pandas as pd
import torch
from torch import Tensor

from rkdkit import attacks, checks, runs, statistics
from rkdkit.analysis.landscape import LossesAround, Place
from rkdkit.claims import Claim, Quantity, Question, judged
from rkdkit.comparisons import Students, choose
from rkdkit.references import Images, Snapshot
from rkdkit.setup import Exhibit, Setup
from rkdkit.spec import AVERAGED

FEWEST = 32
"""The smallest number of test images: the surfaces are measured on a sixteenth of them, which must be at least two."""

METHODS = ("PGD-AT", "TRADES", "PeerAiD")
"""The methods whose networks the paper draws, in the paper's order."""

EXHIBIT = Exhibit(
    paper="PeerAiD, Figure 4",
    differs={"": {"teacher_method": "TRADES"}, "paper": {"dataset": "cifar100", "student": "wrn-34-10"}},
    unused=("test_steps", "test_iterate"),
    needs=FEWEST,
    compares=METHODS,
)

_OWN = ", not averaged"

NOT_AVERAGED = f"PeerAiD{_OWN}"
"""The name of PeerAiD's student with its own weights; "PeerAiD" is the student with averaged weights."""

_COLOURS = {"Natural": "natural", "PGD-AT": "teacher", "TRADES": "TRADES", "PeerAiD": "student"}

REACH = 0.75
"""The largest offset along a direction in the paper, in units of each filter's norm."""


@dataclass(frozen=True)
class Landscape:
    """The loss along lines through networks, and on a plane through each.

    Attributes
    ----------
    offsets : the places on a line, with 0 in the middle.
    profiles : by network, one per seed: (directions, len(offsets), N) loss of each image, in nats.
    grid : the places on each axis of the plane, with 0 in the middle.
    surfaces : by network, for the first seed: (len(grid), len(grid)) mean loss in nats; rows go along the first
        direction, columns along the second.
    n_surface : the number of images that the surfaces are measured on.
    """

    offsets: tuple[float, ...]
    profiles: Mapping[str, Sequence[Tensor]]
    grid: tuple[float, ...]
    surfaces: Mapping[str, Tensor]
    n_surface: int

    def rise(self, network: str) -> statistics.Measure:
        """Return the mean over the line of the loss minus the loss at the network itself, over all seeds."""
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


def networks(setup: Setup, trained: Students) -> dict[str, list[Snapshot]]:
    """Return the chosen networks, one per seed; where their weights are averaged, also those that are not."""
    averaged = [name for name, of_seeds in trained.chosen.items() if of_seeds[0].role == AVERAGED]
    return {**trained.chosen, **{f"{name}{_OWN}": choose(setup, trained.runs[name], "student") for name in averaged}}


def lines(names: Iterable[str]) -> dict[str, tuple[str, str]]:
    """Return the colour (a name that `look.COLOURS` or matplotlib knows) and the line style of each network."""
    own = {name: name.removesuffix(_OWN) for name in names}
    further = itertools.cycle(f"C{i}" for i in range(5, 10))  # colours that no network has elsewhere
    colours = {method: _COLOURS.get(method) or next(further) for method in dict.fromkeys(own.values())}
    return {name: (colours[method], "-" if name == method else "--") for name, method in own.items()}


def mean_rise(profile: Tensor) -> Tensor:
    """Return the mean of the losses along a line minus the loss in its middle, for each line and image.

    Parameters
    ----------
    profile : (directions, P, N) losses, P odd.

    Returns
    -------
    (directions, N), in the loss's unit.
    """
    return profile.mean(1) - profile[:, profile.shape[1] // 2]


def sizes(n_test: int) -> dict[str, int]:
    """Return the sizes that :func:`measure` is called with, for `n_test` test images.

    Every place costs an attack on every image. So an eighth of the images is used on the lines and a sixteenth on the
    planes; with at most 200 test images there are also fewer places.

    Raises
    ------
    ValueError
        If `n_test` is below `FEWEST`.
    """
    checks.number("n_test", n_test, FEWEST)
    points, grid = (31, 15) if n_test > 200 else (5, 3)
    return {"n": n_test // 8, "n_surface": n_test // 16, "points": points, "grid": grid, "directions": 3}


def evenly(points: int, name: str = "points") -> tuple[float, ...]:
    """Return `points` equally spaced offsets from -`REACH` to `REACH`.

    Parameters
    ----------
    points : how many.
    name : what the caller calls this number, for the message.

    Raises
    ------
    ValueError
        If `points` is below 3 or even: the network itself, at 0, must be one of the places.
    """
    checks.number(name, points, 3)
    if points % 2 == 0:
        raise ValueError(f"{name} must be odd, so that the network itself is one of the places, not {points}.")
    half = points // 2
    return tuple(REACH * i / half for i in range(-half, half + 1))


def measure(
    networks: Mapping[str, Sequence[Snapshot]],
    images: Images,
    attack: attacks.Attack,
    *,
    n: int,
    n_surface: int,
    points: int = 31,
    directions: int = 3,
    grid: int = 15,
    surfaces_of: Sequence[str] | None = None,
) -> Landscape:
    """Measure the adversarial loss around several networks, along the same random directions.

    Parameters
    ----------
    networks : the snapshots by name, one per seed, all of one architecture.
    images : the test images.
    attack : makes new adversarial examples at every place.
    n, n_surface : how many of the first images are used, for the lines and for the planes.
    points : the number of places on a line, including the middle.
    directions : the number of lines, each along its own direction.
    grid : the number of places on each axis of a plane; the axes are the first two directions.
    surfaces_of : the networks whose planes are measured; None: all.

    Raises
    ------
    UnknownNameError
        If `surfaces_of` names a network that is not in `networks`.
    ValueError
        If the networks are not of one architecture, a number of places is even, or there are too few images.
    """
    architectures = {snapshot.architecture for of_seeds in networks.values() for snapshot in of_seeds}
    if len(architectures) != 1:
        raise ValueError(f"Directions are shared by networks of one architecture only, not {sorted(architectures)}.")
    checks.number("directions", directions, 1)
    for name, number in (("n", n), ("n_surface", n_surface)):
        checks.number(name, number, 2, len(images))
    planes = [checks.one_of("network", name, networks) for name in surfaces_of or networks]
    line, axis = evenly(points), evenly(grid, "grid")
    on_line: tuple[Place, ...] = tuple((offset,) for offset in line)
    on_plane: tuple[Place, ...] = tuple((first, second) for first in axis for second in axis)

    def around(snapshot: Snapshot, draws: tuple[int, ...], places: tuple[Place, ...], number: int) -> LossesAround:
        return LossesAround(images=images.first(number), snapshot=snapshot, draws=draws, places=places, attack=attack)

    lines = {
        (name, i, draw): around(snapshot, (draw,), on_line, n)
        for name, of_seeds in networks.items()
        for i, snapshot in enumerate(of_seeds)
        for draw in range(directions)
    }
    surfaces = {name: around(networks[name][0], (0, 1), on_plane, n_surface) for name in planes}
    losses = runs.answers({**lines, **surfaces}, f"Loss landscapes by {attack}")
    profiles = {
        name: [torch.stack([losses[name, i, draw] for draw in range(directions)]) for i in range(len(of_seeds))]
        for name, of_seeds in networks.items()
    }
    return Landscape(line, profiles, axis, {p: losses[p].mean(1).view(grid, grid) for p in planes}, n_surface)


def check_claims(measured: Landscape) -> list[Claim]:
    """Check what the paper says of its Figure 4 (section 4.8), which prints no numbers.

    "Sharper" here means that the adversarial loss rises more on average between -0.75 and 0.75 filter norms.

    Parameters
    ----------
    measured : the measurements of all networks. A claim about methods that are not among them is left out.
    """

    def rise(network: str) -> Quantity:
        return Quantity(f"{network}, mean rise of the adversarial loss", measured.rise(network))

    def question(other: str, own: str) -> Question:
        def judge(text: str) -> Claim:
            source = "PeerAiD, Figure 4 and section 4.8"
            return Claim(text, source, rise(other), rise(own), measured.rise_minus(other, own))

        return Question(f"The loss landscape of {other} is sharper than that of {own}.", (other, own), judge)

    questions = [question(other, own) for own in ("PeerAiD", NOT_AVERAGED) for other in ("PGD-AT", "TRADES")]
    return judged(questions, measured.profiles)


def _over_directions(of_seeds: Sequence[Tensor]) -> statistics.Measure:
    """Return the mean of (directions, N) values; directions count as seeds, because they are also random."""
    per_seed = [statistics.over_seeds([statistics.mean(values, "nats") for values in each]) for each in of_seeds]
    return statistics.over_seeds([replace(measure, seeds=1) for measure in per_seed])
