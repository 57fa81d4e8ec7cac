"""How far a network's penultimate features move under attacks on it and on its student (PeerAiD Table 2)."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from rkdkit import attacks, checks, data, evaluation, models, statistics
from rkdkit.determinism import exact_arithmetic
from rkdkit.measurements import EVALUATION_ENGINE, Digest, Load, Measurement, Pass, floats_from_text, floats_to_text
from rkdkit.modes import eval_without_gradients
from rkdkit.references import Snapshot

COSINES = ("cos(f(x), f(x*_S))", "cos(f(x*_S), f(x*_f))", "cos(f(x), f(x*_f))")
"""Cosine similarities of a guide's penultimate features at two kinds of images."""


def similarities(
    guide: nn.Module, student: nn.Module, images: Tensor, labels: Tensor, attack: attacks.Attack
) -> Tensor:
    """Compare a guide's penultimate features at natural images and at two kinds of adversarial examples.

    The adversarial examples are those of :func:`evaluation.correct_predictions`.

    Parameters
    ----------
    guide : the network f; it must be one of the kit's, which have a method for their features.
    student : the network S.
    images : (N, C, H, W) uint8, or floating point in [0, 1].
    labels : (N,) int64.
    attack : makes x*_f and x*_S, with the cross entropy as its loss.

    Returns
    -------
    (3, N) float32 in [-1, 1] on the CPU, in the order of `COSINES`.

    Raises
    ------
    ValueError
        If the guide is not one of the kit's networks, or images or labels do not fit.
    """
    shown = models.showing_features(guide)
    checks.batch(images, labels, shown)
    kinds, size = ((guide, None), (student, attack), (guide, attack)), evaluation.batch_size_for(attack)
    batches = zip(*(evaluation.perturbed(a, images, labels, by, batch_size=size) for a, by in kinds), strict=True)
    found = []
    for batch in batches:
        with exact_arithmetic(), torch.no_grad(), eval_without_gradients(guide):
            natural, on_student, own = (shown.features(x) for x, _ in batch)
        pairs = ((natural, on_student), (on_student, own), (natural, own))
        found.append(torch.stack([F.cosine_similarity(a, b) for a, b in pairs]))
    return torch.cat(found, dim=1).clamp(-1, 1).cpu()


def mean_similarity(of_seeds: Sequence[Tensor], bounds: tuple[float, float] = (-1.0, 1.0)) -> statistics.Measure:
    """Return the mean over images and seeds with its 95 % interval.

    Parameters
    ----------
    of_seeds : (N,) cosines, or paired differences of cosines, one tensor per seed; N at least 2.
    bounds : the range of the values; the interval is clipped to it.
    """
    return statistics.mean_over_seeds([values.double() for values in of_seeds], bounds=bounds)


@dataclass(frozen=True, kw_only=True)
class Similarities(Measurement):
    """The :func:`similarities` of snapshots; the answer is (3, N) float32 in [-1, 1], in the order of `COSINES`.

    Attributes
    ----------
    guide, student : the networks f and S.
    attack : makes x*_f and x*_S, with the cross entropy as its loss.
    """

    guide: Snapshot
    student: Snapshot
    attack: attacks.Attack

    @property
    def snapshots(self) -> tuple[Snapshot, ...]:
        """As :attr:`Measurement.snapshots`."""
        return self.guide, self.student

    def question(self, digest: Digest, split: data.Split) -> dict[str, Any]:
        """As :meth:`Measurement.question`."""
        return {
            "engine": EVALUATION_ENGINE,
            "question": "cosine similarities of penultimate features",
            "guide": digest(self.guide),
            "student": digest(self.student),
            "attack": self.attack.identity(),
            "data": split.digest,
            "n": len(split),
        }

    def measured(self, load: Load, split: data.Split) -> str:
        """As :meth:`Measurement.measured`."""
        guide, student = load(self.guide), load(self.student)
        return floats_to_text(similarities(guide, student, split.images, split.labels, self.attack))

    def value(self, answer: str, split: data.Split) -> Tensor:
        """As :meth:`Measurement.value`."""
        return floats_from_text(answer).view(len(COSINES), len(split))

    def placeholder(self) -> Tensor:
        """Return zeros."""
        return torch.zeros(len(COSINES), len(self.images))

    def passes(self) -> list[Pass]:
        """As :meth:`Measurement.passes`."""
        return [
            Pass(self.guide, None, self.guide),
            Pass(self.guide, self.attack, self.student),
            Pass(self.guide, self.attack, self.guide),
        ]
