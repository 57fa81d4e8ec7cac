"""Input gradients: the pixels that a network's loss depends on, compared between networks (PeerAiD Figure 6)."""

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from rkdkit import attacks, data
from rkdkit.determinism import exact_arithmetic
from rkdkit.measurements import Digest, Load, Measurement, Pass, floats_from_text, floats_to_text
from rkdkit.modes import eval_without_gradients
from rkdkit.references import Snapshot

ENGINE = 2
"""A version number: raised whenever the same question about the same networks gets another answer, beyond rounding."""

MEASURES = {
    "gini": "Concentration on few pixels (Gini index)",
    "alignment": "Alignment with the image (cosine)",
    "similarity": "Likeness to the student's map (cosine)",
}
"""The measures of each gradient, and their names in figures; see :class:`InputGradients`."""

BATCH_SIZE = 256
"""Images per batch."""


def input_gradients(network: nn.Module, images: Tensor, labels: Tensor) -> Tensor:
    """Return the gradient of each image's cross entropy with respect to its pixels, at the image itself.

    An attack's first step from the image uses this gradient (the paper: "we attack each model and get gradients"); the
    paper does not say after how many attack steps its gradients were taken.

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
    with eval_without_gradients(network), exact_arithmetic():
        logits, own = network(x), labels.unsqueeze(1)
        against = logits.scatter(1, own, -math.inf).logsumexp(1) - logits.gather(1, own).squeeze(1)
        # this is the cross entropy; torch's own would round 1 - p to 0 where a network is very certain
        (gradient,) = torch.autograd.grad(F.softplus(against).sum(), x)
    sizes = gradient.abs().sum((1, 2, 3))
    if not (sizes.isfinite() & (sizes > 0)).all():
        raise ValueError("An image's gradient is zero, NaN or infinite, so this network has no gradient to show.")
    return gradient


def picture(gradients: Tensor) -> Tensor:
    """Turn one network's gradients into pictures, following the caption of PeerAiD's Figure 6.

    Each image's gradient is clipped to 3 of its own standard deviations, the absolute values are summed over channels,
    and the sums are scaled to [0, 1]. The paper uses one scale for all images of a network (section 4.10). Here each
    image has its own scale: if a network is certain of some images, its gradients differ by orders of magnitude between
    images, and on one scale all but a few pictures are black. So brightness can be compared between pixels, but not
    between images or networks.

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
    """Return the Gini index of each map (Hurley & Rickard 2009), a measure of its sparsity (Chalasani et al. 2020).

    Parameters
    ----------
    maps : (N, ...) floating point, not negative, not all zero.

    Returns
    -------
    (N,) in [0, 1): 0 if all pixels are equal, 1 - 1 / pixels if only one pixel is not zero.
    """
    ordered = maps.flatten(1).sort(1).values
    n = ordered.shape[1]
    above = (n - torch.arange(n, dtype=maps.dtype, device=maps.device) - 0.5) / n
    return 1 - 2 * (ordered * above).sum(1) / ordered.sum(1)


def alignment(images: Tensor, gradients: Tensor) -> Tensor:
    """Return the absolute cosine of the angle between each image and its gradient.

    Etmann et al. (2019) use the gradient of the largest logit and do not divide by the image's norm. Here it is the
    gradient of the attacked loss, divided by the norm, so that bright and dark images count equally.

    Parameters
    ----------
    images, gradients : (N, C, H, W) floating point.

    Returns
    -------
    (N,) in [0, 1].
    """
    return _cosine(images, gradients).abs()


def _cosine(first: Tensor, second: Tensor) -> Tensor:
    """Return the cosine of each pair, (N,), however small it is: torch takes a norm below 1e-8 to be 1e-8."""
    tiny = torch.finfo(first.dtype).tiny
    a, b = (each / each.abs().amax(1, keepdim=True).clamp_min(tiny) for each in (first.flatten(1), second.flatten(1)))
    return F.cosine_similarity(a, b)


@dataclass(frozen=True)
class Gradients:
    """The measurements of a network's input gradients.

    Attributes
    ----------
    values : by measure (`MEASURES`): (N,) float64.
    pictures : (K, H, W) float32 in [0, 1], for the images that are drawn; see :func:`picture`.
    """

    values: Mapping[str, Tensor]
    pictures: Tensor


@dataclass(frozen=True, kw_only=True)
class InputGradients(Measurement):
    """Three measures of a network's gradient at every image, and maps of some images; the answer is a `Gradients`.

    The measures are the Gini index of |gradient|, summed over channels (:func:`gini`); the alignment of gradient and
    image (:func:`alignment`); and the cosine similarity of |gradient|, summed over channels, to the student's. All use
    the gradient in float64, without the clipping and scaling of the pictures.

    Attributes
    ----------
    network : the network whose gradients are measured.
    student : the network whose gradients they are compared with.
    shown : the indices of the images to draw.
    """

    network: Snapshot
    student: Snapshot
    shown: tuple[int, ...] = ()

    @property
    def snapshots(self) -> tuple[Snapshot, ...]:
        """As :attr:`Measurement.snapshots`."""
        return self.network, self.student

    def question(self, digest: Digest, split: data.Split) -> dict[str, Any]:
        """As :meth:`Measurement.question`."""
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
        """As :meth:`Measurement.measured`."""
        network = load(self.network).double()
        found: list[tuple[Tensor, ...]] = []
        for start in range(0, len(split), BATCH_SIZE):
            x, gradients = _at(network, split.take(slice(start, start + BATCH_SIZE)))
            maps = gradients.abs().sum(1)
            found.append((maps.cpu(), gini(maps).cpu(), alignment(x, gradients).cpu()))
        maps, concentration, aligned = (torch.cat(part) for part in zip(*found, strict=True))
        others = maps if self.student == self.network else _maps(load(self.student).double(), split)
        similarity = _cosine(maps, others)
        values = {"gini": concentration, "alignment": aligned, "similarity": similarity}
        drawn = split.take(torch.tensor(self.shown, dtype=torch.int64))
        pictures = picture(_at(network, drawn)[1]).cpu() if self.shown else torch.empty(0)
        return {
            "values": {measure: floats_to_text(of_images, "<f8") for measure, of_images in values.items()},
            "pictures": floats_to_text(pictures),  # float32 is enough for pictures
        }

    def value(self, answer: dict[str, Any], split: data.Split) -> Gradients:
        """As :meth:`Measurement.value`."""
        values = {measure: floats_from_text(text, "<f8") for measure, text in answer["values"].items()}
        shape = (len(self.shown), *split.images.shape[2:])
        return Gradients(values, floats_from_text(answer["pictures"]).view(shape))

    def placeholder(self) -> Gradients:
        """Return zeros."""
        split = self.images.split()
        values = {measure: torch.zeros(len(split), dtype=torch.float64) for measure in MEASURES}
        return Gradients(values, torch.zeros(len(self.shown), *split.images.shape[2:]))

    def passes(self) -> list[Pass]:
        """As :meth:`Measurement.passes`: a backward pass costs about two forward passes."""
        return [Pass(each, None, each, times=3) for each in dict.fromkeys(self.snapshots)]


def _at(network: nn.Module, split: data.Split) -> tuple[Tensor, Tensor]:
    """Return images in float64 and a network's gradients at them, on the network's device."""
    split = split.to(next(network.parameters()).device)
    x = split.images.double() / 255
    return x, input_gradients(network, x, split.labels)


def _maps(network: nn.Module, split: data.Split) -> Tensor:
    """Return a network's |gradient|, summed over channels: (N, H, W) float64, on the CPU."""
    starts = range(0, len(split), BATCH_SIZE)
    batches = (split.take(slice(start, start + BATCH_SIZE)) for start in starts)
    return torch.cat([_at(network, batch)[1].abs().sum(1).cpu() for batch in batches])
