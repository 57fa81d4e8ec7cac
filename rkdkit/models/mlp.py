"""Fully connected networks for points of the plane, as ARD's Figure 2 trains them."""

from collections.abc import Sequence

import torch.nn.functional as F
from torch import Tensor, nn

from rkdkit.models.classifier import Classifier


class MLP(Classifier):
    """A fully connected network with ReLU between its layers, without normalisation layers.

    A point of the plane is an image of one pixel whose channels are the coordinates. Of a larger image, the network
    uses only the mean of each channel.

    Parameters
    ----------
    depth : the number of linear layers, counting the last one, at least 2.
    width : the number of units of each hidden layer.
    num_classes, mean, std : as :class:`Classifier`.
    """

    def __init__(self, depth: int, width: int, num_classes: int, mean: Sequence[float], std: Sequence[float]) -> None:
        super().__init__(width, num_classes, mean, std)
        self.stem = nn.Linear(len(mean), width)
        self.stages = nn.Sequential(*(nn.Linear(width, width) for _ in range(depth - 2)))
        for layer in (self.stem, *self.stages):
            # torch's own initialisation lets the signal fade in ten layers without normalisation
            nn.init.kaiming_normal_(layer.weight, nonlinearity="relu")
            nn.init.zeros_(layer.bias)

    def trunk(self, x: Tensor) -> Tensor:
        """(N, C, H, W) normalised images -> (N, width)."""
        out = F.relu(self.stem(x.mean((2, 3))))
        for layer in self.stages:
            out = F.relu(layer(out))
        return out
