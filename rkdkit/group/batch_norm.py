"""Batch norms whose statistics in train mode are those of a whole batch, of which each process has a share."""

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.autograd.function import once_differentiable

from rkdkit.group.shares import Shares


class WholeBatchNorm2d(nn.SyncBatchNorm, nn.BatchNorm2d):
    """A batch norm over the images of all processes: on a GPU torch's own, on a CPU, where torch has none, this one.

    It has the weights, the buffers and the eval mode of `nn.BatchNorm2d`, and counts as one where norms are folded.

    Parameters
    ----------
    norm : the norm whose place it takes; parameters and buffers are shared with it, not copied.
    shares : the processes; on a GPU they must be torch's default group.
    """

    def __init__(self, norm: nn.BatchNorm2d, shares: Shares) -> None:
        super().__init__(norm.num_features, norm.eps, norm.momentum, norm.affine, norm.track_running_stats)
        self.shares = shares
        for name, parameter in norm.named_parameters(recurse=False):
            self.register_parameter(name, parameter)
        for name, buffer in norm.named_buffers(recurse=False):
            self.register_buffer(name, buffer)
        self.training = norm.training

    def forward(self, x: Tensor) -> Tensor:
        """(N, C, H, W), this process's share of the batch -> (N, C, H, W)."""
        if not self.training:
            return nn.BatchNorm2d.forward(self, x)
        if x.is_cuda:
            return nn.SyncBatchNorm.forward(self, x)
        mean, variance, count = statistics(x, self.shares)
        if self.track_running_stats:
            self._move(mean, variance * (count / (count - 1)))
        mean, variance = mean.to(self.weight.dtype), variance.to(self.weight.dtype)
        out: Tensor = _Normalised.apply(x, self.weight, self.bias, mean, variance, self.eps, count, self.shares)
        return out

    @torch.no_grad()
    def _move(self, mean: Tensor, variance: Tensor) -> None:
        """Move the running statistics, as `nn.BatchNorm2d` does; `variance` is the unbiased one."""
        assert self.running_mean is not None
        assert self.running_var is not None
        assert self.num_batches_tracked is not None
        self.num_batches_tracked += 1
        share = 1 / float(self.num_batches_tracked) if self.momentum is None else self.momentum
        self.running_mean.mul_(1 - share).add_(mean, alpha=share)
        self.running_var.mul_(1 - share).add_(variance, alpha=share)


@torch.no_grad()
def statistics(x: Tensor, shares: Shares) -> tuple[Tensor, Tensor, float]:
    """Return a whole batch's mean and (biased) variance by channel, each (C,) float64, and how many values each has.

    Parameters
    ----------
    x : (N, C, H, W), this process's share.
    shares : the processes.
    """
    values = x if x.dtype in (torch.float32, torch.float64) else x.float()
    mean, variance = (part.double() for part in torch.batch_norm_update_stats(values, None, None, 0.0))
    count = torch.full((1,), x.numel() / x.shape[1], dtype=torch.float64)
    everybody = torch.stack(shares.gather(torch.cat([mean, variance, count])))
    means, variances, counts = torch.split(everybody, [len(mean), len(mean), 1], 1)
    # differences from the common mean: sums of squares would lose digits where the mean is large
    weights = counts / counts.sum()
    common = (weights * means).sum(0)
    return common, (weights * (variances + (means - common).square())).sum(0), float(counts.sum())


class _Normalised(torch.autograd.Function):
    """(x - mean) / sqrt(variance + eps) * weight + bias, where mean and variance are the whole batch's.

    The gradient of x includes what goes through the statistics, to which the other processes' images belong, too;
    those of weight and bias are this process's share.
    """

    @staticmethod
    def forward(
        ctx: Any, x: Tensor, weight: Tensor, bias: Tensor, mean: Tensor, variance: Tensor, *others: Any
    ) -> Tensor:
        eps, ctx.count, ctx.shares = others
        ctx.eps = eps
        ctx.save_for_backward(x, weight, mean, variance)
        return F.batch_norm(x, mean, variance, weight, bias, False, 0.0, eps)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor | None, ...]:
        x, weight, mean, variance = ctx.saved_tensors
        # as if the statistics were constants; of_weight is the sum of gradient * (x - mean) / deviation
        of_x, of_weight, of_bias = torch.ops.aten.native_batch_norm_backward(
            gradient, x, weight, mean, variance, None, None, False, ctx.eps, [True, True, True]
        )
        nothing = (None,) * 5
        if not ctx.needs_input_grad[0]:
            return None, of_weight, of_bias, *nothing
        along, sum_of = ctx.shares.add(torch.stack([of_weight, of_bias])) / ctx.count
        inverse = (variance + ctx.eps).rsqrt()
        slope = weight * inverse * inverse * along
        shift = weight * inverse * sum_of - mean * slope
        by_channel = (1, -1, 1, 1)
        of_x -= torch.addcmul(shift.view(by_channel), x, slope.view(by_channel)).to(of_x.dtype)
        return of_x, of_weight, of_bias, *nothing


def over_whole_batches(network: nn.Module, shares: Shares) -> nn.Module:
    """Let a network's batch norms see whole batches, in place, and return it; its weights keep their names."""
    if shares.size > 1:
        for parent in list(network.modules()):
            for name, norm in list(parent.named_children()):
                if isinstance(norm, nn.BatchNorm2d):
                    setattr(parent, name, WholeBatchNorm2d(norm, shares))
    return network
