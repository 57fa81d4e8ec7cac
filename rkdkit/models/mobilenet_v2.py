"""MobileNetV2 (Sandler et al. 2018) for small images: the stem and the first two stages keep the resolution.

This is the variant of kuangliu's CIFAR networks, common in this field: with ReLU, and with a convolution in the
shortcut if only the number of channels changes. The released codes of ARD and PeerAiD use it.
"""

from collections.abc import Sequence
from functools import partial

import torch.nn.functional as F
from torch import Tensor, nn

from rkdkit.models.classifier import Classifier, stages

# channels, number of blocks and stride of each stage after the first
STAGES = ((24, 2, 1), (32, 3, 2), (64, 4, 2), (96, 3, 1), (160, 3, 2), (320, 1, 1))


def _conv_norm(in_width: int, width: int, size: int) -> nn.Sequential:
    return nn.Sequential(nn.Conv2d(in_width, width, size, 1, size // 2, bias=False), nn.BatchNorm2d(width))


class InvertedResidual(nn.Module):
    """A 1x1 convolution that expands, a depthwise 3x3 convolution, and a linear 1x1 convolution that narrows again.

    Parameters
    ----------
    in_width, width : channels of its input and output.
    stride : the stride of the 3x3 convolution; with stride 2 there is no shortcut.
    expansion : the factor between the input's channels and the inner channels.
    """

    def __init__(self, in_width: int, width: int, stride: int, expansion: int) -> None:
        super().__init__()
        inner = expansion * in_width
        self.conv1 = nn.Conv2d(in_width, inner, 1, bias=False)
        self.bn1 = nn.BatchNorm2d(inner)
        self.conv2 = nn.Conv2d(inner, inner, 3, stride, 1, groups=inner, bias=False)
        self.bn2 = nn.BatchNorm2d(inner)
        self.conv3 = nn.Conv2d(inner, width, 1, bias=False)
        self.bn3 = nn.BatchNorm2d(width)
        self.shortcut: nn.Module | None = None
        if stride == 1:
            self.shortcut = nn.Identity() if in_width == width else _conv_norm(in_width, width, 1)

    def forward(self, x: Tensor) -> Tensor:
        """(N, in_width, H, W) -> (N, width, H / stride, W / stride)."""
        out = F.relu(self.bn1(self.conv1(x)), inplace=True)
        out = F.relu(self.bn2(self.conv2(out)), inplace=True)
        narrowed: Tensor = self.bn3(self.conv3(out))
        return narrowed if self.shortcut is None else narrowed + self.shortcut(x)


class MobileNetV2(Classifier):
    """A CIFAR-style MobileNetV2.

    Parameters
    ----------
    divisor : divides every number of channels, also in the stem and the last layer, rounding down.
    num_classes, mean, std : as :class:`Classifier`.
    """

    def __init__(self, divisor: int, num_classes: int, mean: Sequence[float], std: Sequence[float]) -> None:
        stem, first, last = 32 // divisor, 16 // divisor, 1280 // divisor
        super().__init__(last, num_classes, mean, std)
        rows = [(width // divisor, depth, stride) for width, depth, stride in STAGES]
        self.stem = _conv_norm(len(mean), stem, 3)
        self.stages = nn.Sequential(
            InvertedResidual(stem, first, 1, expansion=1),
            *stages(partial(InvertedResidual, expansion=6), first, rows),
        )
        self.last = _conv_norm(rows[-1][0], last, 1)

    def trunk(self, x: Tensor) -> Tensor:
        """(N, C, H, W) normalised images -> (N, 1280 / divisor)."""
        out = self.stages(F.relu(self.stem(x), inplace=True))
        return F.relu(self.last(out), inplace=True).mean((2, 3))
