"""The cost of a network: parameters and multiply-adds, as ARD's section 6 compares them."""

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch.func import functional_call

from rkdkit.models.classifier import Classifier


@dataclass(frozen=True)
class Cost:
    """The size of a network and the work of one inference.

    Attributes
    ----------
    parameters : the number of trained parameters.
    multiply_adds : the multiply-adds of the convolutions and linear layers for one image, half their floating-point
        operations.
    """

    parameters: int
    multiply_adds: int


def cost(network: Classifier, shape: Sequence[int]) -> Cost:
    """Count a network's parameters, and the multiply-adds of one image.

    ARD's section 6 prints 13.3 B, 1.1 B and 187 M "MAdd operations" for WRN-34-10, ResNet-18 and MobileNetV2. Those are
    floating-point operations, two per multiply-add: this function counts 6.66 B, 0.555 B and 91.2 M multiply-adds, and
    their doubles are 13.32 B, 1.111 B and 182.3 M. MobileNetV2's 187 M is 2.6 % more. The paper does not name its tool;
    a tool that also counts batch norm gives more (each operation per normalised value adds 3.4 M).

    Parameters
    ----------
    network : on any device, of any dtype and in any mode; it is not changed, and no values are computed.
    shape : (C, H, W) of an image.

    Raises
    ------
    ValueError
        If the shape is not (C, H, W) with the network's number of channels.
    """
    from torch.utils.flop_counter import FlopCounterMode  # late: it imports triton, which takes long

    channels = network.mean.shape[1]
    if len(shape) != 3 or shape[0] != channels or min(shape) < 1:
        raise ValueError(f"shape must be (C, H, W) with the network's {channels} channel(s), not {tuple(shape)}.")
    shadow = {name: tensor.to("meta") for name, tensor in network.state_dict().items()}
    # two images, because a norm in train mode refuses one image with a last feature map of a single pixel
    images = torch.empty(2, *shape, dtype=network.mean.dtype, device="meta")
    with FlopCounterMode(display=False) as counter:
        functional_call(network, shadow, (images,))
    return Cost(sum(p.numel() for p in network.parameters()), counter.get_total_flops() // 4)
