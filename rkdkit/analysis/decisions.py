"""Which class a network gives to every place of the plane, and around which points the class changes (ARD Figure 2)."""

import math
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from rkdkit import data, evaluation
from rkdkit.measurements import Digest, Load, OfOneSnapshot, Pass
from rkdkit.references import Snapshot

ENGINE = 1
"""A version number: raised whenever the same question about the same network gets another answer."""

SIDE = 256
"""The number of places on each side of the unit square: all pairs of multiples of 1/255, so all possible points."""

FINEST, CLOSEST, ROUNDS = 9, 8, 3
"""A refined search looks at a grid of FINEST x FINEST places around each of the CLOSEST places, ROUNDS times."""

_BATCH = 8192


def classes_on_grid(network: nn.Module, side: int = SIDE) -> Tensor:
    """Return the class that a network gives to each place of a grid over the unit square.

    Parameters
    ----------
    network : (N, 2, 1, 1) float in [0, 1] -> (N, classes) logits.
    side : the number of places on each side, including both ends.

    Returns
    -------
    (side, side) uint8; row i and column j are the place (j, i) / (side - 1).
    """
    ends = torch.linspace(0, 1, side)
    second, first = torch.meshgrid(ends, ends, indexing="ij")
    return _logits(network, torch.stack([first, second], -1)).argmax(-1).to(torch.uint8)


def changes_in_box(network: nn.Module, points: Tensor, eps: float) -> Tensor:
    """Return for which points the class changes within their l_inf box.

    Each box is searched on a grid at most half a multiple of 1/255 wide, with the box's edges. If all classes on it are
    the same, the search goes on around the places where the point's own class leads least, on finer and finer grids.
    A region of another class that is narrower than half a multiple of 1/255 and far from these places is not found.

    Parameters
    ----------
    network : as :func:`classes_on_grid`.
    points : (N, 2) float in [0, 1].
    eps : half the side of a box, in the same units; the part of a box outside the unit square is not searched.

    Returns
    -------
    (N,) bool.
    """
    own = _logits(network, points).argmax(-1)
    low, high = (points - eps).clamp(0, 1), (points + eps).clamp(0, 1)
    per_side = _per_side(eps)
    steps = torch.linspace(0, 1, per_side)
    places = low[:, None] + torch.cartesian_prod(steps, steps) * (high - low)[:, None]
    reach = 2 * eps / max(per_side - 1, 1)
    around = torch.cartesian_prod(*2 * [torch.linspace(-1, 1, FINEST)])
    changes, left = torch.zeros(len(points), dtype=torch.bool), torch.arange(len(points))
    for finer in range(ROUNDS + 1):
        lead = _lead(network, places, own[left])
        found = (lead < 0).any(1)
        changes[left[found]] = True
        left = left[~found]
        if finer == ROUNDS or not len(left):
            break
        closest = lead[~found].topk(min(CLOSEST, lead.shape[1]), 1, largest=False).indices
        centres = places[~found].gather(1, closest[..., None].expand(-1, -1, 2))
        places = (centres[:, :, None] + reach * around).flatten(1, 2).clamp(low[left, None], high[left, None])
        reach /= (FINEST - 1) / 2
    return changes


@dataclass(frozen=True, kw_only=True)
class Regions(OfOneSnapshot):
    """The class that a snapshot gives to every place of the unit square; the answer is (SIDE, SIDE) uint8.

    Row i and column j are the place (j, i) / 255. The images only say on which data the snapshot was trained.

    Attributes
    ----------
    snapshot : the network.
    """

    snapshot: Snapshot

    def question(self, digest: Digest, split: data.Split) -> dict[str, Any]:
        """As :meth:`Measurement.question`."""
        return {
            "engine": ENGINE,
            "question": "classes on a grid over the plane",
            "network": digest(self.snapshot),
            "side": SIDE,
            "data": split.digest,
        }

    def measured(self, load: Load, split: data.Split) -> str:
        """As :meth:`Measurement.measured`."""
        del split
        return classes_on_grid(load(self.snapshot)).numpy().tobytes().hex()

    def value(self, answer: str, split: data.Split) -> Tensor:
        """As :meth:`Measurement.value`."""
        del split
        return torch.frombuffer(bytearray.fromhex(answer), dtype=torch.uint8).view(SIDE, SIDE)

    def placeholder(self) -> Tensor:
        """Return class 0 everywhere."""
        return torch.zeros(SIDE, SIDE, dtype=torch.uint8)

    def passes(self) -> list[Pass]:
        """As :meth:`Measurement.passes`."""
        return [Pass(self.snapshot, None, times=math.ceil(SIDE**2 / max(len(self.images), 1)))]


@dataclass(frozen=True, kw_only=True)
class ChangingBoxes(OfOneSnapshot):
    """Around which points the class of a snapshot changes, found by :func:`changes_in_box`; the answer is (N,) bool.

    Attributes
    ----------
    snapshot : the network.
    eps : half the side of a box, in [0, 1].
    """

    snapshot: Snapshot
    eps: float

    def question(self, digest: Digest, split: data.Split) -> dict[str, Any]:
        """As :meth:`Measurement.question`."""
        return {
            "engine": ENGINE,
            "question": "points whose class changes within their box",
            "network": digest(self.snapshot),
            "eps": self.eps,
            "data": split.digest,
        }

    def measured(self, load: Load, split: data.Split) -> list[bool]:
        """As :meth:`Measurement.measured`."""
        found: list[bool] = changes_in_box(load(self.snapshot), points_of(split), self.eps).tolist()
        return found

    def value(self, answer: list[bool], split: data.Split) -> Tensor:
        """As :meth:`Measurement.value`."""
        del split
        return torch.tensor(answer, dtype=torch.bool)

    def placeholder(self) -> Tensor:
        """Return False for every point."""
        return torch.zeros(len(self.images), dtype=torch.bool)

    def passes(self) -> list[Pass]:
        """As :meth:`Measurement.passes`, with all rounds of the search."""
        places = _per_side(self.eps) ** 2 + ROUNDS * CLOSEST * FINEST**2
        return [Pass(self.snapshot, None, times=places)]


def points_of(split: data.Split) -> Tensor:
    """Return the points that images of one pixel with two channels stand for, (N, 2) float32 in [0, 1]."""
    return data.to_float(split.images).flatten(1)


def _per_side(eps: float) -> int:
    return math.ceil(4 * eps * 255) + 1


def _logits(network: nn.Module, places: Tensor) -> Tensor:
    """(..., 2) places -> (..., classes) logits."""
    images = places.reshape(-1, 2, 1, 1)
    labels = torch.zeros(len(images), dtype=torch.int64)
    answers = evaluation.logits([network], images, labels, batch_size=_BATCH)[0]
    return answers.view(*places.shape[:-1], -1)


def _lead(network: nn.Module, places: Tensor, own: Tensor) -> Tensor:
    """Return by how much the class `own` (N,) leads at places (N, P, 2); (N, P), negative where another class leads."""
    answers = _logits(network, places)
    index = own[:, None, None].expand(-1, places.shape[1], 1)
    rest = answers.scatter(2, index, -math.inf).amax(2)
    return answers.gather(2, index).squeeze(2) - rest
