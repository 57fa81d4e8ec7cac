"""Wide residual networks (Zagoruyko & Komodakis 2016): three pre-activation stages after a narrow stem."""

from collections.abc import Callable, Sequence

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from rkdkit.models.preact import PreActResNet


class WideResNet(PreActResNet):
    """A WideResNet as TRADES trains it: ReLU, no dropout, weights drawn from N(0, 2 / fan-out).

    Parameters
    ----------
    depth : layers, 6 n + 4 for n blocks in each stage.
    width : channels of the first stage, doubled in each later one: 16 times the widening factor. The stem has 16
        channels at every width.
    num_classes, mean, std : as :class:`Classifier`.
    activation, conv1 : as :class:`PreActBlock`.
    """

    def __init__(
        self,
        depth: int,
        width: int,
        num_classes: int,
        mean: Sequence[float],
        std: Sequence[float],
        activation: Callable[[Tensor], Tensor] = torch.relu_,
        conv1: Callable[..., nn.Module] = nn.Conv2d,
    ) -> None:
        super().__init__(((depth - 4) // 6,) * 3, 16, width, num_classes, mean, std, activation, conv1)
        for module in self.modules():
            if isinstance(module, nn.Conv2d):
                nn.init.kaiming_normal_(module.weight, mode="fan_out", nonlinearity="relu")
        nn.init.zeros_(self.head.bias)


class SiLUWideResNet(WideResNet):
    """The WideResNet of Gowal et al. 2020, Rebuffi et al. 2021 and Wang et al. 2023, which RKD uses.

    It differs from TRADES's WideResNet in its activation (SiLU, called swish there), in the padding of strided
    convolutions (:class:`SameConv2d`) and in the momentum of its running statistics (0.01).

    Parameters
    ----------
    depth, width, num_classes, mean, std : as :class:`WideResNet`.
    """

    def __init__(self, depth: int, width: int, num_classes: int, mean: Sequence[float], std: Sequence[float]) -> None:
        super().__init__(depth, width, num_classes, mean, std, F.silu, SameConv2d)
        for module in self.modules():
            if isinstance(module, nn.BatchNorm2d):
                module.momentum = 0.01


class SameConv2d(nn.Conv2d):
    """A 3x3 convolution with TensorFlow's and JAX's "SAME" padding: with stride 2, even sizes only right and below."""

    def forward(self, x: Tensor) -> Tensor:
        """(N, in_channels, H, W) -> (N, out_channels, ceil(H / stride), ceil(W / stride))."""
        if self.stride == (1, 1):
            return super().forward(x)
        height, width = x.shape[2:]
        return F.conv2d(F.pad(x, (width % 2, 1, height % 2, 1)), self.weight, stride=self.stride)
