"""Penultimate features: where t-SNE puts images by them, and how well they tell classes apart (PeerAiD Figure 5)."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from rkdkit import attacks, data, evaluation, models
from rkdkit.determinism import exact_arithmetic
from rkdkit.measurements import Digest, Load, Measure, Pass, floats_from_text, floats_to_text
from rkdkit.references import Snapshot

ENGINE = 1
"""Raised whenever the same question would get another answer from the same networks, beyond rounding."""

EXAMPLES = {"natural": "natural images", "student": "x*_S"}
"""What is embedded, and what figures call it."""

Array = npt.NDArray[np.float64]


@torch.no_grad()
def penultimate(network: torch.nn.Module, images: Tensor, batch_size: int = 256) -> Tensor:
    """Return what a network's last layer is given.

    Parameters
    ----------
    network : in eval mode.
    images : (N, C, H, W) float32 in [0, 1].
    batch_size : images at once.

    Returns
    -------
    (N, feature_width) float32, on the CPU.

    Raises
    ------
    ValueError
        If it is none of the kit's networks, which show their penultimate features.
    """
    shown, device = models.showing_features(network), next(network.parameters()).device
    with exact_arithmetic():
        starts = range(0, len(images), batch_size)
        return torch.cat([shown.features(images[i : i + batch_size].to(device)).cpu() for i in starts])


def silhouettes(features: Array, labels: npt.NDArray[np.int64], weights: Array) -> tuple[float, Array]:
    """Return the mean silhouette (Rousseeuw 1987) by Euclidean distance, of all images and of resamplings of them.

    In a resampling an image may come several times; its own copies are not counted as neighbours, since they would
    make every class look denser than it is. That is why this is not scikit-learn's, which it equals on all images.

    Parameters
    ----------
    features : (N, D).
    labels : (N,), of two classes or more, each with two images or more.
    weights : (R, N), how often each image comes in each resampling.

    Returns
    -------
    value, resampled : of all images; (R,) of the resamplings.
    """
    from sklearn.metrics import pairwise_distances

    distances = pairwise_distances(features)
    member = np.equal.outer(labels, np.unique(labels)).astype(float)

    def score(weight: Array) -> float:
        # (N, classes): the summed distances to each class and how many they are, own copies left out
        sums, counts = distances @ (weight[:, None] * member), weight @ member - weight[:, None] * member
        means = sums / np.maximum(counts, 1)
        own, other = means[member > 0], np.where(member > 0, np.inf, means).min(1)
        larger = np.maximum(np.maximum(own, other), np.finfo(float).tiny)  # images that are all in one place: 0
        alone = counts[member > 0] == 0  # of a class of one image scikit-learn says 0
        return float(np.average(np.where(alone, 0, (other - own) / larger), weights=weight))

    return score(np.ones(len(labels))), np.array([score(weight) for weight in weights])


def resampled(labels: npt.NDArray[np.int64], resamplings: int, seed: int) -> Array:
    """Return (resamplings, N): how often each image is drawn when each class is drawn anew from its own images.

    Parameters
    ----------
    labels : (N,).
    resamplings : how many.
    seed : of the draws.
    """
    draw = np.random.default_rng(seed)
    weights = np.zeros((resamplings, len(labels)))
    for label in np.unique(labels):
        places = np.flatnonzero(labels == label)
        weights[:, places] = draw.multinomial(len(places), np.full(len(places), 1 / len(places)), resamplings)
    return weights


@dataclass(frozen=True)
class Scores:
    """Silhouettes of the same images in one network, resampled alike.

    Attributes
    ----------
    value : the mean silhouette of all images, in [-1, 1].
    resampled : (R,) the same of R resamplings of the images; the r-th is the same resampling for every network.
    n : the number of images.
    """

    value: float
    resampled: Array
    n: int


@dataclass(frozen=True)
class Features:
    """What was measured of a network's features.

    Attributes
    ----------
    scores : by examples (`EXAMPLES`).
    points : (len(EXAMPLES), N, 2) float64, one t-SNE of all of them; None: it was not asked for.
    """

    scores: Mapping[str, Scores]
    points: Tensor | None


@dataclass(frozen=True, kw_only=True)
class Embedded(Measure):
    """How a network's features tell classes apart, on natural images and on a student's; its answer is `Features`.

    Attributes
    ----------
    network : whose features.
    student : who is attacked.
    attack : makes x*_S, by the cross entropy.
    resamplings : how often images are resampled for the silhouettes.
    seed : of the resampling and of t-SNE.
    perplexity : of the t-SNE; None: there is none.
    """

    network: Snapshot
    student: Snapshot
    attack: attacks.Attack
    resamplings: int
    seed: int
    perplexity: float | None = None

    @property
    def snapshots(self) -> tuple[Snapshot, ...]:
        """As :attr:`Measure.snapshots`."""
        return self.network, self.student

    def question(self, digest: Digest, split: data.Split) -> dict[str, Any]:
        """As :meth:`Measure.question`."""
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
        """As :meth:`Measure.measured`."""
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
        """As :meth:`Measure.value`."""
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
        """As :meth:`Measure.passes`."""
        return [Pass(self.network, None, self.network), Pass(self.network, self.attack, self.student)]
