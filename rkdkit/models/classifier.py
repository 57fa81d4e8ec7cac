"""What every network of the kit has in common."""

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
    """A network that normalises its own input and shows its penultimate features.

    Subclasses define :meth:`trunk`. Where they register a batch norm right behind a convolution, that norm alone reads
    what the convolution gives, and the convolution stands nowhere else: :meth:`folded` goes by it.

    Parameters
    ----------
    feature_width : length of the penultimate features.
    num_classes : how many logits it gives.
    mean, std : of each input channel, in [0, 1] pixel units; saved with the weights.
    """

    mean: Tensor
    std: Tensor
    architecture: str = ""
    """The name it was built by, the width's divisor included."""

    def __init__(self, feature_width: int, num_classes: int, mean: Sequence[float], std: Sequence[float]) -> None:
        super().__init__()
        self.num_classes = num_classes
        self.head = nn.Linear(feature_width, num_classes)
        self.register_buffer("mean", torch.tensor(mean).view(1, -1, 1, 1))
        self.register_buffer("std", torch.tensor(std).view(1, -1, 1, 1))

    def on(self, device: torch.device | str) -> Self:
        """Move to `device` with channels-last weights, the faster layout for convolutions; return the network."""
        return self.to(device).to(memory_format=torch.channels_last)

    @contextmanager
    def folded(self) -> Iterator[Self]:
        """Make batch norms part of the convolutions before them, for many passes with the same weights in eval mode.

        Inside, the network answers the same but for rounding, in fewer operations, and must be neither trained nor
        saved. Under autocast the convolutions' weights are cast once for all passes. Afterwards it is as it was. A norm
        in train mode, or without running statistics, stays where it is.
        """
        kept = [
            (parent, name, norm, convolution, convolution.weight, convolution.bias)
            for parent in self.modules()
            for (_, convolution), (name, norm) in pairwise(parent.named_children())
            if isinstance(convolution, nn.Conv2d) and isinstance(norm, nn.BatchNorm2d)
            # exactly these: another subclass may do without the bias
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
        """Penultimate features: (N, C, H, W) float in [0, 1] -> (N, feature_width).

        Raises
        ------
        ValueError
            If the images have another number of channels.
        """
        if x.shape[1] != self.mean.shape[1]:  # one channel would be broadcast to three without a word
            raise ValueError(f"The network takes images of {self.mean.shape[1]} channels, not {x.shape[1]}.")
        return self.trunk((x - self.mean) / self.std)

    def forward(self, x: Tensor) -> Tensor:
        """(N, C, H, W) float in [0, 1] -> (N, num_classes) logits."""
        logits: Tensor = self.head(self.features(x))
        return logits


def showing_features(network: nn.Module) -> Classifier:
    """Return a network that shows its penultimate features, as the kit's own do.

    Raises
    ------
    ValueError
        If it does not.
    """
    if not isinstance(network, Classifier):
        raise ValueError(f"{type(network).__name__} shows no penultimate features: it must be a models.Classifier.")
    return network


def stages(
    block: Callable[[int, int, int], nn.Module], in_width: int, rows: Iterable[tuple[int, int, int]]
) -> nn.Sequential:
    """Chain blocks, stage after stage, in one flat sequence.

    Parameters
    ----------
    block : makes one from its input channels, its output channels and its stride.
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
    """Rows for :func:`stages`: from the second stage on, half the resolution and twice the channels."""
    return [(width * 2**stage, depth, 2 if stage else 1) for stage, depth in enumerate(depths)]
