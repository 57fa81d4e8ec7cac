"""The cost of a network: parameters and multiply-adds, as ARD's section 6 compares them."""

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn
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
    operations : multiplications and additions counted one by one, by the rules of :func:`operations_of`.
    """

    parameters: int
    multiply_adds: int
    operations: int


def cost(network: Classifier, shape: Sequence[int]) -> Cost:
    """Count a network's parameters, and the multiply-adds of one image.

    ARD's section 6 prints 13.3 B, 1.1 B and 187 M "MAdd operations" for WRN-34-10, ResNet-18 and MobileNetV2. This
    function counts 6.66 B, 0.555 B and 91.2 M multiply-adds, half as many: the paper's numbers count multiplications
    and additions one by one. Twice the multiply-adds are 13.32 B, 1.111 B and 182.3 M; the `operations` are 13.33 B,
    1.113 B and 187.5 M, which are the paper's three numbers.

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
    operations: list[int] = []
    hooks = [
        layer.register_forward_hook(lambda layer, _, out: operations.append(operations_of(layer, out)))
        for layer in network.modules()
        if not isinstance(layer, Classifier)
    ]
    try:
        with FlopCounterMode(display=False) as counter:
            functional_call(network, shadow, (images,))
    finally:
        for hook in hooks:
            hook.remove()
    parameters = sum(p.numel() for p in network.parameters())
    return Cost(parameters, counter.get_total_flops() // 4, sum(operations) // 2)


def operations_of(layer: nn.Module, out: Tensor) -> int:
    """Return a layer's multiplications and additions, counted one by one as the tool torchstat counts its "MAdd".

    An output of a convolution or linear layer that adds n products takes n multiplications and n - 1 additions, and a
    convolution's bias one addition more. A batch norm takes 4 operations per value. Layers of other kinds, and what is
    no layer (ReLUs and means, in the kit's networks), count nothing. The paper does not name its tool, but its numbers
    are those of these rules.

    Parameters
    ----------
    layer : the layer.
    out : its output; only the shape is used.
    """
    match layer:
        case nn.Conv2d():
            return out.numel() * (2 * layer.weight[0].numel() - (layer.bias is None))
        case nn.Linear():
            return out.numel() * (2 * layer.in_features - 1)
        case nn.BatchNorm2d():
            return 4 * out.numel()
    return 0
