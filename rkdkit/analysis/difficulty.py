"""How hard images are to learn, by the losses of a training (RKD sections C.2 and D)."""

import math
from collections.abc import Sequence
from dataclasses import replace

from torch import Tensor

from rkdkit import attacks
from rkdkit.measurements import PerImage
from rkdkit.references import Images, Snapshot
from rkdkit.statistics import Measure

BY_IMAGE = Sequence[Tensor]
"""One (N,) tensor per seed, on the same N images: float32; or bool, whose mean is a share."""


def loss(snapshot: Snapshot, images: Images, attack: attacks.Attack | None = None) -> PerImage:
    """Return the task of measuring a network's cross entropy with each label, (N,) float32 in nats.

    Parameters
    ----------
    snapshot : the network.
    images : the images to measure on.
    attack : the attack on the snapshot itself; None: natural images.
    """
    return PerImage(images=images, quantity="cross entropy", snapshot=snapshot, attack=attack)


def difficulty(cross_entropies: Tensor) -> Tensor:
    """Return S(x), how hard images are to learn: their mean cross entropy over the epochs (RKD eq. 8).

    Parameters
    ----------
    cross_entropies : (K, N) floating point, at K epochs, in nats.

    Returns
    -------
    (N,), in nats.
    """
    return cross_entropies.mean(0)


def gap(first: Measure, second: Measure) -> Measure:
    """Return the difference of two means over different images; the intervals' half-widths are added in quadrature."""
    value = first.value - second.value
    down = math.hypot(first.value - first.low, second.high - second.value)
    up = math.hypot(first.high - first.value, second.value - second.low)
    return replace(first, value=value, low=value - down, high=value + up, n=first.n + second.n)
