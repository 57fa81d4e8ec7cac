"""Pre-activation residual networks (He et al. 2016, "Identity mappings in deep residual networks"), CIFAR stem."""

from collections.abc import Callable, Sequence
from functools import partial

import torch
from torch import Tensor, nn

from rkdkit.models.classifier import Classifier, doubling, stages
from rkdkit.models.shortcut import ShortcutConv2d


class PreActBlock(nn.Module):
    """Two 3x3 convolutions, each after batch norm and activation, beside a shortcut.

    If the shape changes, the shortcut is a 1x1 convolution.

    Parameters
    ----------
    in_width, width : channels of its input and output.
    stride : the stride of the first convolution and of the shortcut.
    activation : may work in place, because nothing else uses the norm's output.
    conv1 : makes the first convolution, called with the arguments of `nn.Conv2d`.
    activated_shortcut : whether the shortcut's convolution takes the normalised and activated input, as in the paper,
        or the input itself.
    """

    def __init__(
        self,
        in_width: int,
        width: int,
        stride: int,
        activation: Callable[[Tensor], Tensor],
        conv1: Callable[..., nn.Module],
        activated_shortcut: bool = True,
    ) -> None:
        super().__init__()
        self.activation = activation
        self.activated_shortcut = activated_shortcut
        self.bn1 = nn.BatchNorm2d(in_width)
        self.conv1 = conv1(in_width, width, 3, stride, 1, bias=False)
        self.bn2 = nn.BatchNorm2d(width)
        self.conv2 = nn.Conv2d(width, width, 3, 1, 1, bias=False)
        changes = stride != 1 or in_width != width
        self.shortcut = ShortcutConv2d(in_width, width, stride) if changes else None

    def forward(self, x: Tensor) -> Tensor:
        """(N, in_width, H, W) -> (N, width, H / stride, W / stride)."""
        active = self.activation(self.bn1(x))
        shortcut = x if self.shortcut is None else self.shortcut(active if self.activated_shortcut else x)
        out: Tensor = self.conv2(self.activation(self.bn2(self.conv1(active))))
        return out + shortcut


class PreActResNet(Classifier):
    """A CIFAR-style pre-activation network; (2, 2, 2, 2) blocks and a stem of 64 channels make a PreAct ResNet-18.

    In the paper and in Rice et al. 2020, the last block is followed by a norm and the activation. Two variants have no
    such norm: kuangliu's, which PeerAiD's code uses, and that of Wong et al. 2020 (`bn_before_fc=False` in
    RobustBench), whose shortcuts take the input itself. The two have weights of the same names and shapes.

    Parameters
    ----------
    blocks : blocks in each of the stages.
    stem_width : channels of the stem.
    width : channels of the first stage, doubled in each later one.
    num_classes, mean, std : as :class:`Classifier`.
    activation, conv1 : as :class:`PreActBlock`.
    last_norm : whether a norm and the activation follow the last block.
    activated_shortcut : as :class:`PreActBlock`.
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
        last_norm: bool = True,
        activated_shortcut: bool = True,
    ) -> None:
        rows = doubling(width, blocks)
        last_width = rows[-1][0]
        super().__init__(last_width, num_classes, mean, std)
        self.activation = activation
        self.stem = nn.Conv2d(len(mean), stem_width, 3, 1, 1, bias=False)
        block = partial(PreActBlock, activation=activation, conv1=conv1, activated_shortcut=activated_shortcut)
        self.stages = stages(block, stem_width, rows)
        self.norm = nn.BatchNorm2d(last_width) if last_norm else None

    def trunk(self, x: Tensor) -> Tensor:
        """(N, C, H, W) normalised images -> (N, channels of the last stage)."""
        maps: Tensor = self.stages(self.stem(x))
        return (maps if self.norm is None else self.activation(self.norm(maps))).mean((2, 3))
