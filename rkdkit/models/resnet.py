"""Residual networks for small images (He et al. 2016, with the CIFAR stem: one 3x3 convolution, no pooling)."""

from collections.abc import Sequence

import torch.nn.functional as F
from torch import Tensor, nn

from rkdkit.models.classifier import Classifier, doubling, stages
from rkdkit.models.shortcut import ShortcutConv2d


class BasicBlock(nn.Module):
    """Two 3x3 convolutions beside a shortcut."""

    def __init__(self, in_width: int, width: int, stride: int) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(in_width, width, 3, stride, 1, bias=False)
        self.bn1 = nn.BatchNorm2d(width)
        self.conv2 = nn.Conv2d(width, width, 3, 1, 1, bias=False)
        self.bn2 = nn.BatchNorm2d(width)
        self.shortcut: nn.Module = nn.Identity()
        if stride != 1 or in_width != width:
            self.shortcut = nn.Sequential(ShortcutConv2d(in_width, width, stride), nn.BatchNorm2d(width))

    def forward(self, x: Tensor) -> Tensor:
        """(N, in_width, H, W) -> (N, width, H / stride, W / stride)."""
        out = F.relu(self.bn1(self.conv1(x)), inplace=True)
        out = self.bn2(self.conv2(out)) + self.shortcut(x)
        return F.relu(out, inplace=True)


class ResNet(Classifier):
    """A CIFAR-style residual network; (2, 2, 2, 2) blocks make a ResNet-18, (3, 4, 6, 3) a ResNet-34.

    Any input size works, because the last feature map is averaged: 8x8 digits end at 1x1, 32x32 at 4x4, 64x64 at 8x8.
    So Tiny ImageNet's 64x64 images use the same network as CIFAR, stem and strides included, as in PeerAiD's released
    code. This holds for every network of the kit.

    Parameters
    ----------
    blocks : blocks in each of the four stages.
    width : channels of the first stage, doubled in each later one; 64 is the papers' full width.
    num_classes, mean, std : as :class:`Classifier`.
    """

    def __init__(
        self,
        blocks: Sequence[int],
        width: int,
        num_classes: int,
        mean: Sequence[float],
        std: Sequence[float],
    ) -> None:
        super().__init__(8 * width, num_classes, mean, std)
        self.stem = nn.Sequential(nn.Conv2d(len(mean), width, 3, 1, 1, bias=False), nn.BatchNorm2d(width))
        self.stages = stages(BasicBlock, width, doubling(width, blocks))

    def trunk(self, x: Tensor) -> Tensor:
        """(N, C, H, W) normalised images -> (N, 8 * width)."""
        # a mean, because the backward pass of adaptive pooling is not deterministic on GPUs
        maps: Tensor = self.stages(F.relu(self.stem(x), inplace=True))
        return maps.mean((2, 3))
