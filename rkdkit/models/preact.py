"""Pre-activation residual networks (He et al. 2016, "Identity mappings in deep residual networks"), CIFAR stem."""

from collections.abc import Callable, Sequence
from functools import partial

import torch
from torch import Tensor, nn

from rkdkit.models.classifier import Classifier, doubling, stages
from rkdkit.models.shortcut import ShortcutConv2d


class PreActBlock(nn.Module):
    """Two 3x3 convolutions, each after batch norm and activation, beside a shortcut.

    If the shape changes, the shortcut is a 1x1 convolution of the activated input.

    Parameters
    ----------
    in_width, width : channels of its input and output.
    stride : the stride of the first convolution and of the shortcut.
    activation : may work in place, because nothing else uses the norm's output.
    conv1 : makes the first convolution, called with the arguments of `nn.Conv2d`.
    """

    def __init__(
        self,
        in_width: int,
        width: int,
        stride: int,
        activation: Callable[[Tensor], Tensor],
        conv1: Callable[..., nn.Module],
    ) -> None:
        super().__init__()
        self.activation = activation
        self.bn1 = nn.BatchNorm2d(in_width)
        self.conv1 = conv1(in_width, width, 3, stride, 1, bias=False)
        self.bn2 = nn.BatchNorm2d(width)
        self.conv2 = nn.Conv2d(width, width, 3, 1, 1, bias=False)
        changes = stride != 1 or in_width != width
        self.shortcut = ShortcutConv2d(in_width, width, stride) if changes else None

    def forward(self, x: Tensor) -> Tensor:
        """(N, in_width, H, W) -> (N, width, H / stride, W / stride)."""
        active = self.activation(self.bn1(x))
        shortcut = x if self.shortcut is None else self.shortcut(active)
        out: Tensor = self.conv2(self.activation(self.bn2(self.conv1(active))))
        return out + shortcut


class PreActResNet(Classifier):
    """A CIFAR-style pre-activation network; (2, 2, 2, 2) blocks and a stem of 64 channels make a PreAct ResNet-18.

    The last block is followed by a norm and the activation, as in the paper and in Rice et al. 2020; kuangliu's and
    PeerAiD's variant has no such norm and is another network.

    Parameters
    ----------
    blocks : blocks in each of the stages.
    stem_width : channels of the stem.
    width : channels of the first stage, doubled in each later one.
    num_classes, mean, std : as :class:`Classifier`.
    activation, conv1 : as :class:`PreActBlock`.
    """

    def __init__(
        self,
        blocks: Sequence[int],
        stem_width: int,
        width: int,
        num_classes: int,
        mean: Sequence[float],
        std: Sequence[float],
        activation: Callable[[Tensor], Tensor] = torch.relu_,
        conv1: Callable[..., nn.Module] = nn.Conv2d,
    ) -> None:
        rows = doubling(width, blocks)
        last_width = rows[-1][0]
        super().__init__(last_width, num_classes, mean, std)
        self.activation = activation
        self.stem = nn.Conv2d(len(mean), stem_width, 3, 1, 1, bias=False)
        self.stages = stages(partial(PreActBlock, activation=activation, conv1=conv1), stem_width, rows)
        self.norm = nn.BatchNorm2d(last_width)

    def trunk(self, x: Tensor) -> Tensor:
        """(N, C, H, W) normalised images -> (N, channels of the last stage)."""
        return self.activation(self.norm(self.stages(self.stem(x)))).mean((2, 3))
