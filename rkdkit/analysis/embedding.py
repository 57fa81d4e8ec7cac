"""How well networks tell classes apart in their penultimate features (PeerAiD Figure 5)."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import pandas as pd
import torch
from torch import Tensor

from rkdkit import attacks, checks, data, evaluation, models, statistics
from rkdkit.determinism import exact_arithmetic, generator
from rkdkit.progress import track
from rkdkit.runs import Snapshot

EXAMPLES = {"natural": "natural images", "student": "x*_S"}
"""What is embedded, and what figures call it."""

PERPLEXITY = 30.0
"""t-SNE's, as scikit-learn sets it; the paper does not say."""

FEWEST = 5
"""Images a class must have: of fewer, a resampling could be one image over and over."""

MOST = 6
"""Classes that a picture has colours for."""

Array = npt.NDArray[np.float64]


@dataclass(frozen=True)
class Selection:
    """The images of some classes.

    Attributes
    ----------
    split : the images, labelled as in their dataset.
    classes : their classes' names by label.
    perplexity : of the t-SNE they are enough for.
    """

    split: data.Split
    classes: Mapping[int, str]
    perplexity: float


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
class Embedding:
    """Where networks put images, and how well that separates the classes.

    Attributes
    ----------
    points : columns network, examples (`EXAMPLES`), image, class, x, y: t-SNE of the first seed's features.
    scores : by network, then examples: one a seed.
    """

    points: pd.DataFrame
    scores: Mapping[str, Mapping[str, Sequence[Scores]]]

    def silhouette(self, network: str, examples: str) -> statistics.Measure:
        """Return the mean silhouette, over all seeds, with a bootstrap interval."""
        of_seeds = self.scores[network][examples]
        return statistics.over_seeds([_interval(s.value, s.resampled, s.n) for s in of_seeds], (-1, 1))

    def minus(self, first: str, second: str, examples: str) -> statistics.Measure:
        """Return the paired difference of two networks' mean silhouettes, over all seeds."""
        pairs = zip(self.scores[first][examples], self.scores[second][examples], strict=True)
        differences = [_interval(a.value - b.value, a.resampled - b.resampled, a.n) for a, b in pairs]
        return statistics.over_seeds(differences, (-2, 2))

    def table(self) -> pd.DataFrame:
        """Return the numbers drawn: the points, and a row a network and examples with image "all": the silhouette."""
        rows = []
        for network, by_examples in self.scores.items():
            for examples in by_examples:
                score = self.silhouette(network, examples).columns("silhouette")
                rows.append({"network": network, "examples": examples, "image": "all", "class": "all", **score})
        return pd.concat([pd.DataFrame(rows), self.points], ignore_index=True).astype({"n": "Int64", "seeds": "Int64"})


def select(
    dataset: data.Dataset,
    classes: Sequence[str] | None = None,
    *,
    n: int | None = None,
    seed: int = 0,
    perplexity: float = PERPLEXITY,
) -> Selection:
    """Return the test images of three classes, or of those that are named; call it before anything is trained.

    Parameters
    ----------
    dataset : whose test images to use.
    classes : names of two to six of its classes; None: three drawn at random, as in the paper.
    n : look among the first so many test images only; None: all.
    seed : decides which classes are drawn.
    perplexity : of the t-SNE to come.

    Raises
    ------
    UnknownNameError
        If there is no such class.
    ValueError
        If there are not two to six different classes, or too few images of one, or of all for the perplexity.
    """
    if classes is None:
        drawn = torch.randperm(len(dataset.classes), generator=generator(seed, 0, "classes"))[:3].sort().values
        classes = [dataset.classes[i] for i in drawn]
    named = [] if isinstance(classes, str) or not isinstance(classes, Sequence) else [str(name) for name in classes]
    labels = [dataset.classes.index(checks.one_of(f"class of {dataset.name}", c, dataset.classes)) for c in named]
    if not 2 <= len(labels) <= MOST or len(set(labels)) < len(labels):
        raise ValueError(f"Two to {MOST} different classes are needed to be told apart, not {classes!r}.")
    among = dataset.test.take(slice(0, n))
    split = among.take(torch.isin(among.labels, torch.tensor(labels)))
    for name, label in zip(named, labels, strict=True):
        count = int((split.labels == label).sum())
        if count < FEWEST:
            raise ValueError(
                f"There are {count} test images of class {name!r} among the first {len(among):,}, and at least "
                f"{FEWEST} are needed: choose another class, or set n_test higher."
            )
    checks.number("perplexity", perplexity, 1)
    if perplexity >= len(split):
        raise ValueError(
            f"A perplexity of {perplexity:g} needs more than {perplexity:g} images, and there are {len(split)} of "
            f"{', '.join(named)}: choose more classes or a lower perplexity, or set n_test higher."
        )
    return Selection(split, dict(zip(labels, named, strict=True)), perplexity)


def embed(
    networks: Mapping[str, Sequence[Snapshot]],
    students: Sequence[Snapshot],
    selection: Selection,
    attack: attacks.Attack,
    *,
    resamplings: int = 1000,
    seed: int = 0,
) -> Embedding:
    """Embed natural images and the students' adversarial examples in the features of several networks.

    The picture is a t-SNE (van der Maaten & Hinton 2008) of both kinds together, one a network. It says little about
    distances, so classes are told apart in the features themselves: by the silhouette (Rousseeuw 1987), of the natural
    images and of x*_S each. Its interval is from resampling images within their classes.

    Parameters
    ----------
    networks : the snapshots by name, one a seed.
    students : who is attacked, one a seed, in the same order.
    selection : the images.
    attack : makes x*_S, by the cross entropy.
    resamplings : how often images are resampled.
    seed : of the resampling and of t-SNE.

    Raises
    ------
    ValueError
        If there is not one student a seed, or a network has no penultimate features.
    """
    if {len(of_seeds) for of_seeds in networks.values()} != {len(students)}:
        raise ValueError(f"One student a seed is needed, not {len(students)}.")
    labels = selection.split.labels
    weights = _resampled(labels.numpy(), resamplings, seed)
    points: list[pd.DataFrame] = []
    scores: dict[str, dict[str, list[Scores]]] = {name: {kind: [] for kind in EXAMPLES} for name in networks}
    with track(total=len(networks) * len(students), desc=f"Features on x*_S by {attack}", unit="network") as bar:
        for i, student in enumerate(students):
            split = selection.split
            against = evaluation.perturbed(student.load(), split.images, split.labels, attack)
            images = {
                "natural": data.to_float(split.images),
                "student": torch.cat([x.cpu() for x, _ in against]),
            }
            for name, of_seeds in networks.items():
                network = of_seeds[i].load()
                features = {kind: penultimate(network, x).double().numpy() for kind, x in images.items()}
                for kind, of_images in features.items():
                    value, resampled = silhouettes(of_images, labels.numpy(), weights)
                    scores[name][kind].append(Scores(value, resampled, len(labels)))
                if i == 0:
                    points.append(_points(features, selection, seed).assign(network=name))
                bar.update()
    return Embedding(pd.concat(points, ignore_index=True), scores)


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


def _resampled(labels: npt.NDArray[np.int64], resamplings: int, seed: int) -> Array:
    """Return (resamplings, N): how often each image is drawn when each class is drawn anew from its own images."""
    draw = np.random.default_rng(seed)
    weights = np.zeros((resamplings, len(labels)))
    for label in np.unique(labels):
        places = np.flatnonzero(labels == label)
        weights[:, places] = draw.multinomial(len(places), np.full(len(places), 1 / len(places)), resamplings)
    return weights


def _points(features: Mapping[str, Array], selection: Selection, seed: int) -> pd.DataFrame:
    from sklearn.manifold import TSNE

    tsne = TSNE(perplexity=selection.perplexity, init="pca", random_state=seed)
    x, y = tsne.fit_transform(np.concatenate(list(features.values())).astype(np.float32)).T
    n = len(selection.split)
    return pd.DataFrame(
        {
            "examples": np.repeat(list(features), n),
            "image": np.tile(np.arange(n), len(features)),
            "class": [selection.classes[label] for label in selection.split.labels.tolist()] * len(features),
            "x": x,
            "y": y,
        }
    )


def _interval(value: float, resampled: Array, n: int) -> statistics.Measure:
    tail = 50 * (1 - statistics.CONFIDENCE)
    low, high = np.percentile(resampled, [tail, 100 - tail])
    return statistics.Measure(value, min(float(low), value), max(float(high), value), n)
