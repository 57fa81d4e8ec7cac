"""The base class of all networks of the kit."""

from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from itertools import pairwise
from typing import Self

import torch
from torch import Tensor, nn
from torch.nn.utils.fusion import fuse_conv_bn_weights

from rkdkit.models.shortcut import ShortcutConv2d


class Classifier(nn.Module, ABC):
    """A network that normalises its own input and has a method for its penultimate features.

    Subclasses define :meth:`trunk`. If a subclass registers a batch norm directly after a convolution, only this norm
    may use the convolution's output, and the convolution must not be registered elsewhere: :meth:`folded` relies on
    this.

    Parameters
    ----------
    feature_width : length of the penultimate features.
    num_classes : the number of logits.
    mean, std : the normalisation of each input channel, in [0, 1] pixel units; saved with the weights.
    """

    mean: Tensor
    std: Tensor
    architecture: str = ""
    """The name it was built from, including the width divisor."""

    def __init__(self, feature_width: int, num_classes: int, mean: Sequence[float], std: Sequence[float]) -> None:
        super().__init__()
        self.num_classes = num_classes
        self.head = nn.Linear(feature_width, num_classes)
        self.register_buffer("mean", torch.tensor(mean).view(1, -1, 1, 1))
        self.register_buffer("std", torch.tensor(std).view(1, -1, 1, 1))

    def on(self, device: torch.device | str) -> Self:
        """Move the network to `device`, with channels-last weights (faster for convolutions), and return it."""
        return self.to(device).to(memory_format=torch.channels_last)

    @contextmanager
    def folded(self) -> Iterator[Self]:
        """Fold batch norms into the convolutions before them, for many passes with the same weights in eval mode.

        Within the ``with`` block, the network gives the same outputs except for rounding, with fewer operations, and
        must be neither trained nor saved. Under autocast, the convolutions' weights are cast once for all passes.
        Afterwards the network is restored. A norm in train mode, or without running statistics, is not folded.
        """
        kept = [
            (parent, name, norm, convolution, convolution.weight, convolution.bias)
            for parent in self.modules()
            for (_, convolution), (name, norm) in pairwise(parent.named_children())
            if isinstance(convolution, nn.Conv2d) and isinstance(norm, nn.BatchNorm2d)
            # exactly these classes: another subclass may ignore the bias
            if type(convolution) in (nn.Conv2d, ShortcutConv2d)
            if norm.running_mean is not None and not norm.training
        ]
        device = self.mean.device.type
        dtype = torch.get_autocast_dtype(device) if torch.is_autocast_enabled(device) else None
        try:
            for parent, name, norm, convolution, weight, bias in kept:
                assert norm.running_mean is not None
                assert norm.running_var is not None
                folded = fuse_conv_bn_weights(
                    weight, bias, norm.running_mean, norm.running_var, norm.eps, norm.weight, norm.bias
                )
                convolution.weight, convolution.bias = (
                    nn.Parameter(part.detach().to(dtype), requires_grad=False) for part in folded
                )
                setattr(parent, name, nn.Identity())
            yield self
        finally:
            for parent, name, norm, convolution, weight, bias in kept:
                convolution.weight, convolution.bias = weight, bias
                setattr(parent, name, norm)

    @abstractmethod
    def trunk(self, x: Tensor) -> Tensor:
        """(N, C, H, W) normalised images -> (N, feature_width)."""

    def features(self, x: Tensor) -> Tensor:
        """Return the penultimate features: (N, C, H, W) float in [0, 1] -> (N, feature_width).

        Raises
        ------
        ValueError
            If the images do not have the network's number of channels.
        """
        if x.shape[1] != self.mean.shape[1]:  # one channel would be broadcast to three without an error
            raise ValueError(f"The network takes images of {self.mean.shape[1]} channels, not {x.shape[1]}.")
        return self.trunk((x - self.mean) / self.std)

    def forward(self, x: Tensor) -> Tensor:
        """(N, C, H, W) float in [0, 1] -> (N, num_classes) logits."""
        logits: Tensor = self.head(self.features(x))
        return logits


def showing_features(network: nn.Module) -> Classifier:
    """Return the network, if it has a method for its penultimate features, as the kit's networks have.

    Raises
    ------
    ValueError
        If it has none.
    """
    if not isinstance(network, Classifier):
        raise ValueError(f"{type(network).__name__} shows no penultimate features: it must be a models.Classifier.")
    return network


def stages(
    block: Callable[[int, int, int], nn.Module], in_width: int, rows: Iterable[tuple[int, int, int]]
) -> nn.Sequential:
    """Put the blocks of all stages into one flat sequence.

    Parameters
    ----------
    block : makes a block from its input channels, output channels and stride.
    in_width : channels of the first block's input.
    rows : channels, number of blocks and stride of each stage; only a stage's first block has the stride.
    """
    blocks: list[nn.Module] = []
    for width, depth, stride in rows:
        for i in range(depth):
            blocks.append(block(in_width, width, stride if i == 0 else 1))
            in_width = width
    return nn.Sequential(*blocks)


def doubling(width: int, depths: Sequence[int]) -> list[tuple[int, int, int]]:
    """Return rows for :func:`stages`: each stage after the first halves the resolution and doubles the channels."""
    return [(width * 2**stage, depth, 2 if stage else 1) for stage, depth in enumerate(depths)]
