"""Networks by name. Input normalisation is their first layer, so images and attacks are in [0, 1]."""

import math
import re
from collections.abc import Callable, Sequence
from typing import Any

import torch

from rkdkit import checks
from rkdkit.models.classifier import Classifier, showing_features
from rkdkit.models.costs import Cost, cost
from rkdkit.models.mlp import MLP
from rkdkit.models.mobilenet_v2 import MobileNetV2
from rkdkit.models.preact import PreActResNet
from rkdkit.models.resnet import ResNet
from rkdkit.models.wide_resnet import SiLUWideResNet, WideResNet

__all__ = ["ARCHITECTURES", "LEAST_STD", "Classifier", "Cost", "build", "cost", "parse", "showing_features"]


def _preact_resnet18(divisor: int, **settings: Any) -> PreActResNet:
    return PreActResNet((2, 2, 2, 2), 64 // divisor, 64 // divisor, **settings)


ARCHITECTURES: dict[str, Callable[..., Classifier]] = {
    "resnet18": lambda divisor, **shape: ResNet((2, 2, 2, 2), 64 // divisor, **shape),
    "resnet34": lambda divisor, **shape: ResNet((3, 4, 6, 3), 64 // divisor, **shape),
    "preact-resnet18": _preact_resnet18,
    # without a last norm; their weights have the same names and shapes, but they are different networks
    "preact-resnet18-kuangliu": lambda divisor, **shape: _preact_resnet18(divisor, last_norm=False, **shape),
    "preact-resnet18-wong": lambda divisor, **shape: _preact_resnet18(
        divisor, last_norm=False, activated_shortcut=False, **shape
    ),
    "wrn-34-10": lambda divisor, **shape: WideResNet(34, 160 // divisor, **shape),
    "wrn-28-10-silu": lambda divisor, **shape: SiLUWideResNet(28, 160 // divisor, **shape),
    "mobilenetv2": lambda divisor, **shape: MobileNetV2(divisor, **shape),
    "mlp-10": lambda divisor, **shape: MLP(10, 128 // divisor, **shape),
    "mlp-5": lambda divisor, **shape: MLP(5, 128 // divisor, **shape),
}

LEAST_STD = 1e-7
"""The smallest standard deviation that a network normalises by; images of one grey value are given 1e-6."""


def parse(name: str) -> tuple[str, int]:
    """Split a network's name into architecture and width divisor: "resnet18/4" has a quarter of the channels.

    Every number of channels is divided and rounded down, except in a WideResNet's stem: there the widening factor is
    divided, which does not affect the stem, so "wrn-34-10/4" is a WRN-34-2.5.

    Raises
    ------
    UnknownNameError
        If there is no such architecture.
    ValueError
        If the divisor is not one of 1, 2, 4, 8, 16.
    """
    architecture, slash, divisor = name.partition("/")
    try:
        checks.one_of("model", architecture, ARCHITECTURES)
    except checks.UnknownNameError as error:
        raise checks.UnknownNameError(f"{error} A divisor of the width may follow, as in 'resnet18/4'.") from None
    if slash and not re.fullmatch(r"1|2|4|8|16", divisor):
        raise ValueError(f"The width divisor of {name!r} must be 1, 2, 4, 8 or 16, as in 'resnet18/4'.")
    return architecture, int(divisor) if slash else 1


def build(name: str, num_classes: int, mean: Sequence[float], std: Sequence[float], *, seed: int = 0) -> Classifier:
    """Make a network with new random weights.

    Parameters
    ----------
    name : an architecture, with an optional width divisor: "resnet18", "resnet18/4", "resnet18/16".
    num_classes : the number of logits, at least 1.
    mean, std : the normalisation of each input channel, in [0, 1] pixel units; their length is the number of input
        channels. Each std is at least `LEAST_STD`.
    seed : the seed of the weights; torch's global generators are neither used nor changed.

    Returns
    -------
    Classifier : (N, C, H, W) float in [0, 1] -> (N, num_classes) logits.

    Raises
    ------
    UnknownNameError, ValueError
        As :func:`parse`; also if `num_classes`, `mean` or `std` is not as above, or `mean` and `std` differ in length.
    """
    architecture, divisor = parse(name)
    num_classes = checks.whole("num_classes", num_classes, 1)
    if len(mean) == 0 or len(mean) != len(std):
        raise ValueError(
            f"mean and std must have one number for each input channel, not {len(mean)} and {len(std)} numbers."
        )
    for which, values, low in (("mean", mean, -math.inf), ("std", std, LEAST_STD)):
        for value in values:
            checks.number(which, value, low)
    with torch.random.fork_rng(devices=[]):
        torch.default_generator.manual_seed(seed)  # torch.manual_seed would also seed the GPUs
        network = ARCHITECTURES[architecture](divisor, num_classes=num_classes, mean=tuple(mean), std=tuple(std))
    network.architecture = name
    return network
