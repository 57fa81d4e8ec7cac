"""What every network of the kit has in common."""

from abc import ABC, abstractmethod
from collections.abc import Sequence
from typing import Self

import torch
from torch import Tensor, nn


class Classifier(nn.Module, ABC):
    """A network that normalises its own input and shows its penultimate features.

    Subclasses define :meth:`trunk`.

    Parameters
    ----------
    feature_width : length of the penultimate features.
    num_classes : how many logits it gives.
    mean, std : of each input channel, in [0, 1] pixel units; saved with the weights.
    """

    mean: Tensor
    std: Tensor

    def __init__(self, feature_width: int, num_classes: int, mean: Sequence[float], std: Sequence[float]) -> None:
        super().__init__()
        self.num_classes = num_classes
        self.head = nn.Linear(feature_width, num_classes)
        self.register_buffer("mean", torch.tensor(mean).view(1, -1, 1, 1))
        self.register_buffer("std", torch.tensor(std).view(1, -1, 1, 1))

    def on(self, device: torch.device | str) -> Self:
        """Move to `device` with channels-last weights, the faster layout for convolutions; return the network."""
        return self.to(device).to(memory_format=torch.channels_last)

    @abstractmethod
    def trunk(self, x: Tensor) -> Tensor:
        """(N, C, H, W) normalised images -> (N, feature_width)."""

    def features(self, x: Tensor) -> Tensor:
        """Penultimate features: (N, C, H, W) float in [0, 1] -> (N, feature_width)."""
        return self.trunk((x - self.mean) / self.std)

    def forward(self, x: Tensor) -> Tensor:
        """(N, C, H, W) float in [0, 1] -> (N, num_classes) logits."""
        logits: Tensor = self.head(self.features(x))
        return logits
