"""The terms that training losses are made of.

All take logits, not probabilities, and are computed in float32 at least, whatever the networks' precision.
"""

import torch
import torch.nn.functional as F
from torch import Tensor

from rkdkit import checks

KL_REDUCTIONS = ("batchmean", "mean")


def cross_entropy(logits: Tensor, labels: Tensor) -> Tensor:
    """Mean cross entropy H(y, softmax(logits)) over the batch.

    Parameters
    ----------
    logits : (N, C) floating point.
    labels : (N,) int64 in [0, C).

    Returns
    -------
    () float32, or float64 for float64 logits.
    """
    return F.cross_entropy(_precise(logits), labels)


def kl_divergence(target_logits: Tensor, logits: Tensor, tau: float = 1.0, reduction: str = "batchmean") -> Tensor:
    """KL(p || q) of p = softmax(target_logits / tau) and q = softmax(logits / tau).

    Gradients flow into both arguments: detach the target where it is to be a constant. The factor tau^2 that
    distillation puts before it (Hinton et al. 2015) is not included.

    Parameters
    ----------
    target_logits : (N, C) floating point.
    logits : (N, C) floating point.
    tau : temperature, above 0.
    reduction : "batchmean": the sum over classes, averaged over the batch, as the papers write it; "mean": averaged
        over batch *and* classes, as PeerAiD's and ARD's released codes do, hence 1/C of it.

    Returns
    -------
    () float32, or float64 for float64 logits; at least 0.

    Raises
    ------
    UnknownNameError
        If `reduction` is another.
    """
    checks.one_of("KL reduction", reduction, KL_REDUCTIONS)
    log_p = F.log_softmax(_precise(target_logits) / tau, dim=1)
    log_q = F.log_softmax(_precise(logits) / tau, dim=1)
    pointwise = log_p.exp() * (log_p - log_q)
    return pointwise.mean() if reduction == "mean" else pointwise.sum() / len(logits)


def _precise(logits: Tensor) -> Tensor:
    return logits if logits.dtype == torch.float64 else logits.float()
