"""Which pixels a network's loss depends on, and how alike networks are in that (PeerAiD Figure 6)."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import pandas as pd
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from rkdkit import attacks, checks, data, statistics
from rkdkit.determinism import exact_arithmetic
from rkdkit.progress import track
from rkdkit.runs import Snapshot, default_device

STUDENT = "student"
"""Whose maps the others' are compared with."""

MEASURES = {
    "gini": "Concentration on few pixels (Gini index)",
    "alignment": "Alignment with the image (cosine)",
    "similarity": "Likeness to the student's map (cosine)",
}
"""What is measured of each gradient, and what figures call it; see :func:`semantic_gradients`."""


@dataclass(frozen=True)
class SemanticGradients:
    """What was measured, and some gradients to look at.

    Attributes
    ----------
    values : by network, then measure (`MEASURES`), one a seed: (N,) float64 on the same N images throughout.
    shown : (K,) int64, the images that are drawn, as places among the N.
    images : (K, C, H, W) uint8, those images.
    classes : their classes' names.
    pictures : by network: (K, H, W) in [0, 1], of the first seed; see :func:`picture`.
    """

    values: Mapping[str, Mapping[str, Sequence[Tensor]]]
    shown: Tensor
    images: Tensor
    classes: tuple[str, ...]
    pictures: Mapping[str, Tensor]

    def mean(self, network: str, measure: str) -> statistics.Measure:
        """Return the mean over the images, over all seeds."""
        return statistics.over_seeds([statistics.mean(values) for values in self.values[network][measure]], (0, 1))

    def minus(self, first: str, second: str, measure: str) -> statistics.Measure:
        """Return the paired difference of two networks, over all seeds."""
        pairs = zip(self.values[first][measure], self.values[second][measure], strict=True)
        return statistics.over_seeds([statistics.mean(a - b) for a, b in pairs], (-1, 1))

    def table(self) -> pd.DataFrame:
        """Return the numbers: network, measure, image, class, value, its interval, n and seeds.

        The rows of image "all" are means with their intervals; those of a number are that drawn image's, first seed.
        """
        rows = []
        for network, by_measure in self.values.items():
            for measure, of_seeds in by_measure.items():
                about = {"network": network, "measure": measure}
                whole = self.mean(network, measure).columns()
                rows.append({**about, "image": "all", "class": "all", **whole})
                for place, name in zip(self.shown.tolist(), self.classes, strict=True):
                    rows.append({**about, "image": place, "class": name, "value": float(of_seeds[0][place])})
        return pd.DataFrame(rows).astype({"n": "Int64", "seeds": "Int64"})


def input_gradients(network: nn.Module, images: Tensor, labels: Tensor) -> Tensor:
    """Gradient of each image's cross entropy with respect to its pixels, at the image itself.

    It is where an attack's first step comes from (the paper: "we attack each model and get gradients"); the paper does
    not say after how many steps it took them.

    Parameters
    ----------
    network : (N, C, H, W) -> (N, classes) logits, in float64.
    images : (N, C, H, W) float64 in [0, 1].
    labels : (N,) int64, the true classes.

    Returns
    -------
    (N, C, H, W) float64.

    Raises
    ------
    ValueError
        If images or labels do not fit, or an image's gradient is zero, NaN or infinite.
    """
    attacks.check_batch(network, images, labels)
    x = images.detach().requires_grad_(True)
    with attacks.attacked(network), exact_arithmetic():
        logits, own = network(x), labels.unsqueeze(1)
        against = logits.scatter(1, own, -math.inf).logsumexp(1) - logits.gather(1, own).squeeze(1)
        # this is the cross entropy; as torch computes that, 1 - p is rounded to 0 where a network is very sure
        (gradient,) = torch.autograd.grad(F.softplus(against).sum(), x)
    sizes = gradient.abs().sum((1, 2, 3))
    if not (sizes.isfinite() & (sizes > 0)).all():
        raise ValueError("An image's gradient is zero, NaN or infinite: this network has no direction to show.")
    return gradient


def picture(gradients: Tensor) -> Tensor:
    """Turn one network's gradients into pictures, after the caption of PeerAiD's Figure 6.

    Each image's gradient is clipped to 3 standard deviations of itself, the absolute values are summed over channels,
    and the sums are scaled to [0, 1]. The paper puts all images of a network on one scale (section 4.10). Here each is
    on its own: the gradients of a network that is sure of some images differ by orders of magnitude between images,
    and on one scale all but a few are black. So brightness compares pixels, neither images nor networks.

    Parameters
    ----------
    gradients : (N, C, H, W) floating point.

    Returns
    -------
    (N, H, W) in [0, 1].
    """
    limit = 3 * gradients.std((1, 2, 3), keepdim=True)
    maps = gradients.clamp(-limit, limit).abs().sum(1)
    low, high = maps.amin((1, 2), keepdim=True), maps.amax((1, 2), keepdim=True)
    return (maps - low) / (high - low).clamp_min(torch.finfo(maps.dtype).tiny)


def gini(maps: Tensor) -> Tensor:
    """Gini index of each map (Hurley & Rickard 2009), Chalasani et al.'s (2020) measure of a sparse attribution.

    Parameters
    ----------
    maps : (N, ...) floating point, not negative, not all zero.

    Returns
    -------
    (N,) in [0, 1): 0 where all pixels are alike, 1 - 1 / pixels where one has everything.
    """
    ordered = maps.flatten(1).sort(1).values
    n = ordered.shape[1]
    above = (n - torch.arange(n, dtype=maps.dtype, device=maps.device) - 0.5) / n
    return 1 - 2 * (ordered * above).sum(1) / ordered.sum(1)


def alignment(images: Tensor, gradients: Tensor) -> Tensor:
    """Cosine of the angle between each image and its gradient, up to the sign.

    Etmann et al. (2019) take the gradient of the winning logit, and do not divide by the image's norm; here it is the
    attacked loss's, and divided, so that bright images count like dark ones.

    Parameters
    ----------
    images, gradients : (N, C, H, W) floating point.

    Returns
    -------
    (N,) in [0, 1].
    """
    return F.cosine_similarity(images.flatten(1), gradients.flatten(1)).abs()


def semantic_gradients(
    networks: Mapping[str, Sequence[Snapshot]], dataset: data.Dataset, *, n: int | None = None, shown: int = 8
) -> SemanticGradients:
    """Measure the input gradients of several networks on the same test images.

    Three things of every image: the Gini index of |gradient|, summed over channels (:func:`gini`); the alignment of
    gradient and image (:func:`alignment`); and the cosine similarity of |gradient|, summed over channels, to the
    student's. All of the gradient as it is, before the clipping and scaling that are for the eye.

    Parameters
    ----------
    networks : the snapshots by name, one a seed; one name is "student".
    dataset : whose test images to use.
    n : only the first so many test images; None: all.
    shown : how many images to draw: the first test image of each of the first so many classes.

    Raises
    ------
    UnknownNameError
        If there is no "student".
    ValueError
        As :func:`input_gradients`.
    """
    checks.one_of("network", STUDENT, networks)
    split = dataset.test.take(slice(0, n))
    drawn = _first_of_each_class(split.labels, shown)
    device = default_device()
    values: dict[str, dict[str, list[Tensor]]] = {name: {measure: [] for measure in MEASURES} for name in networks}
    pictures: dict[str, Tensor] = {}
    pairs = [(name, i, s) for name, of_seeds in networks.items() for i, s in enumerate(of_seeds)]
    # the student comes first: the others' maps are compared with its
    pairs.sort(key=lambda pair: pair[0] != STUDENT)
    students: dict[int, Tensor] = {}
    for name, i, snapshot in track(pairs, desc="Input gradients", unit="network"):
        network = snapshot.load(device).double()
        found, maps = _measured(network, split, students.get(i))
        students.setdefault(i, maps)
        for measure, of_images in found.items():
            values[name][measure].append(of_images)
        if i == 0:
            part = split.take(drawn).to(device)
            pictures[name] = picture(input_gradients(network, _float64(part.images), part.labels)).cpu()
    part = split.take(drawn)
    classes = tuple(dataset.classes[label] for label in part.labels.tolist())
    return SemanticGradients(values, drawn, part.images, classes, pictures)


def _measured(
    network: nn.Module, split: data.Split, student: Tensor | None, batch_size: int = 256
) -> tuple[dict[str, Tensor], Tensor]:
    """Return a network's measures by name, and its maps (N, H, W); no maps to compare with: its own."""
    device = default_device()
    parts: list[tuple[Tensor, ...]] = []
    for start in range(0, len(split), batch_size):
        batch = split.take(slice(start, start + batch_size)).to(device)
        x = _float64(batch.images)
        gradients = input_gradients(network, x, batch.labels)
        maps = gradients.abs().sum(1)
        parts.append((maps.cpu(), gini(maps).cpu(), alignment(x, gradients).cpu()))
    maps, concentration, aligned = (torch.cat(part) for part in zip(*parts, strict=True))
    similarity = F.cosine_similarity(maps.flatten(1), (maps if student is None else student).flatten(1))
    return {"gini": concentration, "alignment": aligned, "similarity": similarity}, maps


def _float64(images: Tensor) -> Tensor:
    return images.double() / 255


def _first_of_each_class(labels: Tensor, k: int) -> Tensor:
    """Return the places of the first image of each of the first `k` classes that occur."""
    return torch.tensor([int((labels == label).nonzero()[0]) for label in sorted(set(labels.tolist()))[:k]])
