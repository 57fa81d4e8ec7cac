"""Rankings of images by trainings that agree."""

import torch

from rkdkit.analysis.difficulty import Difficulty


def agreed(scores, labels=None):
    """Return the difficulty of images by two trainings that give them the same scores, among all or within classes."""
    scores = torch.as_tensor(scores)
    groups = torch.zeros(len(scores), dtype=torch.int64) if labels is None else labels
    return Difficulty(torch.stack([scores, scores]), groups)
