"""Input gradients: which pixels a network's loss depends on, and how alike networks are in that (PeerAiD Figure 6)."""

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from rkdkit import attacks, data
from rkdkit.determinism import exact_arithmetic
from rkdkit.measurements import Digest, Load, Measure, Pass, floats_from_text, floats_to_text
from rkdkit.references import Snapshot

ENGINE = 1
"""Raised whenever the same question would get another answer from the same networks, beyond rounding."""

MEASURES = {
    "gini": "Concentration on few pixels (Gini index)",
    "alignment": "Alignment with the image (cosine)",
    "similarity": "Likeness to the student's map (cosine)",
}
"""What is measured of each gradient, and what figures call it; see :class:`InputGradients`."""

BATCH_SIZE = 256
"""Images at once."""


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
    with attacks.eval_without_gradients(network), exact_arithmetic():
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


@dataclass(frozen=True)
class Gradients:
    """What was measured of a network's input gradients.

    Attributes
    ----------
    values : by measure (`MEASURES`): (N,) float64.
    pictures : (K, H, W) float32 in [0, 1], of the images that are drawn; see :func:`picture`.
    """

    values: Mapping[str, Tensor]
    pictures: Tensor


@dataclass(frozen=True, kw_only=True)
class InputGradients(Measure):
    """Three measures of a network's gradient at every image, and maps to draw of some; its answer is `Gradients`.

    The Gini index of |gradient|, summed over channels (:func:`gini`); the alignment of gradient and image
    (:func:`alignment`); and the cosine similarity of |gradient|, summed over channels, to the student's. All of the
    gradient as it is, in float64, before the clipping and scaling that are for the eye.

    Attributes
    ----------
    network : whose gradients.
    student : with whose they are compared.
    shown : the images to draw, as places among the images.
    """

    network: Snapshot
    student: Snapshot
    shown: tuple[int, ...] = ()

    @property
    def snapshots(self) -> tuple[Snapshot, ...]:
        """As :attr:`Measure.snapshots`."""
        return self.network, self.student

    def question(self, digest: Digest, split: data.Split) -> dict[str, Any]:
        """As :meth:`Measure.question`."""
        return {
            "engine": ENGINE,
            "question": "input gradients",
            "network": digest(self.network),
            "student": digest(self.student),
            "data": split.digest,
            "n": len(split),
            "shown": list(self.shown),
        }

    def measured(self, load: Load, split: data.Split) -> dict[str, Any]:
        """As :meth:`Measure.measured`."""
        network = load(self.network).double()
        found: list[tuple[Tensor, ...]] = []
        for start in range(0, len(split), BATCH_SIZE):
            x, gradients = _at(network, split.take(slice(start, start + BATCH_SIZE)))
            maps = gradients.abs().sum(1)
            found.append((maps.cpu(), gini(maps).cpu(), alignment(x, gradients).cpu()))
        maps, concentration, aligned = (torch.cat(part) for part in zip(*found, strict=True))
        others = maps if self.student == self.network else _maps(load(self.student).double(), split)
        similarity = F.cosine_similarity(maps.flatten(1), others.flatten(1))
        values = {"gini": concentration, "alignment": aligned, "similarity": similarity}
        drawn = split.take(torch.tensor(self.shown, dtype=torch.int64))
        pictures = picture(_at(network, drawn)[1]).cpu() if self.shown else torch.empty(0)
        return {
            "values": {measure: floats_to_text(of_images, "<f8") for measure, of_images in values.items()},
            "pictures": floats_to_text(pictures),  # they are looked at: float32 will do
        }

    def value(self, answer: dict[str, Any], split: data.Split) -> Gradients:
        """As :meth:`Measure.value`."""
        values = {measure: floats_from_text(text, "<f8") for measure, text in answer["values"].items()}
        shape = (len(self.shown), *split.images.shape[2:])
        return Gradients(values, floats_from_text(answer["pictures"]).view(shape))

    def placeholder(self) -> Gradients:
        """Return zeros."""
        split = self.images.split()
        values = {measure: torch.zeros(len(split), dtype=torch.float64) for measure in MEASURES}
        return Gradients(values, torch.zeros(len(self.shown), *split.images.shape[2:]))

    def passes(self) -> list[Pass]:
        """As :meth:`Measure.passes`: a backward pass costs about two forward passes."""
        return [Pass(each, None, each, times=3) for each in dict.fromkeys(self.snapshots)]


def _at(network: nn.Module, split: data.Split) -> tuple[Tensor, Tensor]:
    """Return images in float64, and a network's gradients there, on its device."""
    split = split.to(next(network.parameters()).device)
    x = split.images.double() / 255
    return x, input_gradients(network, x, split.labels)


def _maps(network: nn.Module, split: data.Split) -> Tensor:
    """Return a network's |gradient|, summed over channels: (N, H, W) float64, on the CPU."""
    starts = range(0, len(split), BATCH_SIZE)
    batches = (split.take(slice(start, start + BATCH_SIZE)) for start in starts)
    return torch.cat([_at(network, batch)[1].abs().sum(1).cpu() for batch in batches])
