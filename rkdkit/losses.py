"""The terms of training losses, each with one value per image.

All functions take logits, not probabilities, and compute in float32 or float64, whatever the networks' precision.
"""

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor

from rkdkit import checks

KL_REDUCTIONS = ("batchmean", "mean")


def cross_entropy(logits: Tensor, labels: Tensor) -> Tensor:
    """Return the cross entropy H(y, softmax(logits)) of each image.

    Parameters
    ----------
    logits : (N, C) floating point.
    labels : (N,) int64 in [0, C).

    Returns
    -------
    (N,) float32, or float64 for float64 logits.
    """
    return F.cross_entropy(_precise(logits), labels, reduction="none")


def soft_cross_entropy(target_logits: Tensor, logits: Tensor) -> Tensor:
    """Return the cross entropy H(p, q) of p = softmax(target_logits) and q = softmax(logits), per image (RKD eq. 4).

    Parameters
    ----------
    target_logits, logits : (N, C) floating point.

    Returns
    -------
    (N,) float32, or float64 for float64 logits.
    """
    return -(F.softmax(_precise(target_logits), 1) * F.log_softmax(_precise(logits), 1)).sum(1)


def kl_divergence(target_logits: Tensor, logits: Tensor, tau: float = 1.0, reduction: str = "batchmean") -> Tensor:
    """Return KL(p || q) of p = softmax(target_logits / tau) and q = softmax(logits / tau), per image.

    Gradients flow into both arguments: detach the target if it must be a constant. The factor tau^2 of distillation
    (Hinton et al. 2015) is not included.

    Parameters
    ----------
    target_logits : (N, C) floating point.
    logits : (N, C) floating point.
    tau : temperature, above 0.
    reduction : "batchmean": the sum over classes, as in the papers; "mean": the mean over classes, 1/C of the sum,
        which corresponds to the element-wise mean of PeerAiD's and ARD's released codes.

    Returns
    -------
    (N,) float32, or float64 for float64 logits; at least 0.

    Raises
    ------
    UnknownNameError
        If `reduction` is neither of these.
    """
    checks.one_of("KL reduction", reduction, KL_REDUCTIONS)
    log_p = F.log_softmax(_precise(target_logits) / tau, dim=1)
    log_q = F.log_softmax(_precise(logits) / tau, dim=1)
    pointwise = log_p.exp() * (log_p - log_q)
    return pointwise.mean(1) if reduction == "mean" else pointwise.sum(1)


def squared_error(target_logits: Tensor, logits: Tensor) -> Tensor:
    """Return the mean squared difference of two networks' logits, per image (Kannan et al. 2018, logit pairing).

    Parameters
    ----------
    target_logits, logits : (N, C) floating point.

    Returns
    -------
    (N,) float32, or float64 for float64 logits.
    """
    return (_precise(target_logits) - _precise(logits)).square().mean(1)


def mixture(
    logits: Sequence[Tensor],
    weights: Sequence[float] = (1.0,),
    tau: float = 1.0,
    labels: Tensor | None = None,
    share: float = 1.0,
) -> Tensor:
    """Return logits whose softmax at `tau` is share * sum_i weights_i softmax(logits_i / tau) + (1 - share) y.

    This is the target of label mixing and of ensembles of teachers (RKD eq. 5 to 7 and section 3.6).

    Parameters
    ----------
    logits : one (N, C) floating point tensor per teacher.
    weights : one per teacher, summing to 1.
    tau : temperature, above 0.
    labels : (N,) int64; only needed if `share` is below 1.
    share : the weight of the teachers' probabilities, in [0, 1]; the labels have the rest.

    Returns
    -------
    (N, C) float32, or float64 for float64 logits.
    """
    if len(logits) == 1 and share == 1:
        return _precise(logits[0])
    answers = [weight * F.softmax(_precise(z) / tau, 1) for weight, z in zip(weights, logits, strict=True)]
    mixed = torch.stack(answers).sum(0)
    if share < 1:
        assert labels is not None
        # not F.one_hot, which reads the labels first and so waits for a GPU
        one_hot = torch.zeros_like(mixed).scatter(1, labels.unsqueeze(1), 1.0)
        mixed = share * mixed + (1 - share) * one_hot
    # log(0) is infinite; the smallest number is used instead, which becomes 0 again within rounding
    return tau * mixed.clamp_min(torch.finfo(mixed.dtype).tiny).log()


def _precise(logits: Tensor) -> Tensor:
    return logits if logits.dtype == torch.float64 else logits.float()
