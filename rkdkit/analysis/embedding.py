"""Penultimate features: their t-SNE, and how well they separate the classes (PeerAiD Figure 5)."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from rkdkit import attacks, data, evaluation, models
from rkdkit.determinism import exact_arithmetic
from rkdkit.measurements import Digest, Load, Measurement, Pass, floats_from_text, floats_to_text
from rkdkit.references import Snapshot

ENGINE = 1
"""A version number: raised whenever the same question about the same networks gets another answer, beyond rounding."""

EXAMPLES = {"natural": "natural images", "student": "x*_S"}
"""The kinds of images that are embedded, and their names in figures."""

Array = npt.NDArray[np.float64]


@torch.no_grad()
def penultimate(network: torch.nn.Module, images: Tensor, batch_size: int = 256) -> Tensor:
    """Return a network's penultimate features, the input of its last layer.

    Parameters
    ----------
    network : in eval mode.
    images : (N, C, H, W) float32 in [0, 1].
    batch_size : images per batch.

    Returns
    -------
    (N, feature_width) float32, on the CPU.

    Raises
    ------
    ValueError
        If the network is not one of the kit's, which have a method for their penultimate features.
    """
    shown, device = models.showing_features(network), next(network.parameters()).device
    with exact_arithmetic():
        starts = range(0, len(images), batch_size)
        return torch.cat([shown.features(images[i : i + batch_size].to(device)).cpu() for i in starts])


def silhouettes(features: Array, labels: npt.NDArray[np.int64], weights: Array) -> tuple[float, Array]:
    """Return the mean silhouette (Rousseeuw 1987, Euclidean distance) of all images, and of resamplings of them.

    In a resampling, an image may occur several times. Its own copies are not counted as neighbours, because they would
    make every class look denser than it is. That is why scikit-learn's silhouette is not used; on all images, both are
    equal.

    Parameters
    ----------
    features : (N, D).
    labels : (N,), of at least two classes, each with at least two images.
    weights : (R, N), how many times each image occurs in each resampling.

    Returns
    -------
    value, resampled : the mean silhouette of all images; (R,) those of the resamplings.
    """
    from sklearn.metrics import pairwise_distances

    distances = pairwise_distances(features)
    member = np.equal.outer(labels, np.unique(labels)).astype(float)

    def score(weight: Array) -> float:
        # (N, classes): the summed distances to each class and their number, without the image's own copies
        sums, counts = distances @ (weight[:, None] * member), weight @ member - weight[:, None] * member
        means = sums / np.maximum(counts, 1)
        own, other = means[member > 0], np.where(member > 0, np.inf, means).min(1)
        larger = np.maximum(np.maximum(own, other), np.finfo(float).tiny)  # if all distances are 0, the silhouette is 0
        alone = counts[member > 0] == 0  # for a class with one image, scikit-learn also returns 0
        return float(np.average(np.where(alone, 0, (other - own) / larger), weights=weight))

    return score(np.ones(len(labels))), np.array([score(weight) for weight in weights])


def resampled(labels: npt.NDArray[np.int64], resamplings: int, seed: int) -> Array:
    """Return (resamplings, N): how many times each image is drawn when each class is resampled from its own images.

    Parameters
    ----------
    labels : (N,).
    resamplings : the number of resamplings.
    seed : the seed of the draws.
    """
    draw = np.random.default_rng(seed)
    weights = np.zeros((resamplings, len(labels)))
    for label in np.unique(labels):
        places = np.flatnonzero(labels == label)
        weights[:, places] = draw.multinomial(len(places), np.full(len(places), 1 / len(places)), resamplings)
    return weights


@dataclass(frozen=True)
class Scores:
    """Silhouettes of one network's features; all networks use the same images and resamplings.

    Attributes
    ----------
    value : the mean silhouette of all images, in [-1, 1].
    resampled : (R,) the mean silhouettes of R resamplings of the images; the r-th resampling is the same for every
        network.
    n : the number of images.
    """

    value: float
    resampled: Array
    n: int


@dataclass(frozen=True)
class Features:
    """The measurements of a network's features.

    Attributes
    ----------
    scores : by examples (`EXAMPLES`).
    points : (len(EXAMPLES), N, 2) float64, one t-SNE of all images together; None: not requested.
    """

    scores: Mapping[str, Scores]
    points: Tensor | None


@dataclass(frozen=True, kw_only=True)
class Embedded(Measurement):
    """How well a network's features separate classes, on natural images and on x*_S; the answer is a `Features`.

    Attributes
    ----------
    network : the network whose features are measured.
    student : the student that is attacked.
    attack : makes x*_S, with the cross entropy as its loss.
    resamplings : how many times images are resampled for the silhouettes.
    seed : the seed of the resampling and of t-SNE.
    perplexity : the perplexity of the t-SNE; None: no t-SNE.
    """

    network: Snapshot
    student: Snapshot
    attack: attacks.Attack
    resamplings: int
    seed: int
    perplexity: float | None = None

    @property
    def snapshots(self) -> tuple[Snapshot, ...]:
        """As :attr:`Measurement.snapshots`."""
        return self.network, self.student

    def question(self, digest: Digest, split: data.Split) -> dict[str, Any]:
        """As :meth:`Measurement.question`."""
        return {
            "engine": ENGINE,
            "question": "classes in penultimate features",
            "network": digest(self.network),
            "attack": self.attack.identity(),
            "attacked": digest(self.student),
            "data": split.digest,
            "n": len(split),
            "resamplings": self.resamplings,
            "seed": self.seed,
            "perplexity": self.perplexity,
        }

    def measured(self, load: Load, split: data.Split) -> dict[str, Any]:
        """As :meth:`Measurement.measured`."""
        network, labels = load(self.network), split.labels.numpy()
        against = evaluation.perturbed(load(self.student), split.images, split.labels, self.attack)
        images = {"natural": data.to_float(split.images), "student": torch.cat([x.cpu() for x, _ in against])}
        features = {examples: penultimate(network, images[examples]).double().numpy() for examples in EXAMPLES}
        weights = resampled(labels, self.resamplings, self.seed)
        scores = {examples: silhouettes(of_images, labels, weights) for examples, of_images in features.items()}
        return {
            "silhouettes": {
                examples: {"value": value, "resampled": floats_to_text(torch.from_numpy(drawn), "<f8")}
                for examples, (value, drawn) in scores.items()
            },
            "points": None if self.perplexity is None else floats_to_text(self._tsne(features), "<f8"),
        }

    def _tsne(self, features: Mapping[str, Array]) -> Tensor:
        from sklearn.manifold import TSNE

        tsne = TSNE(perplexity=self.perplexity, init="pca", random_state=self.seed)
        return torch.from_numpy(tsne.fit_transform(np.concatenate(list(features.values())).astype(np.float32)))

    def value(self, answer: dict[str, Any], split: data.Split) -> Features:
        """As :meth:`Measurement.value`."""
        scores = {
            examples: Scores(of["value"], floats_from_text(of["resampled"], "<f8").numpy(), len(split))
            for examples, of in answer["silhouettes"].items()
        }
        points = answer["points"]
        return Features(
            scores, None if points is None else floats_from_text(points, "<f8").view(len(EXAMPLES), len(split), 2)
        )

    def placeholder(self) -> Features:
        """Return zeros."""
        n = len(self.images)
        points = None if self.perplexity is None else torch.zeros(len(EXAMPLES), n, 2, dtype=torch.float64)
        return Features({examples: Scores(0.0, np.zeros(self.resamplings), n) for examples in EXAMPLES}, points)

    def passes(self) -> list[Pass]:
        """As :meth:`Measurement.passes`."""
        return [Pass(self.network, None, self.network), Pass(self.network, self.attack, self.student)]
