"""Batch normalisation over a batch that is divided among several processes."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, distributed, nn

from kfold_ens.errors import KfoldError


def synchronize_batch_norms(network: nn.Module) -> None:
    """Make the batch norms of a network, in place, train on the statistics of the whole batch.

    Uses torch's SyncBatchNorm on GPUs, or timm's for timm's layers. On CPUs, where torch has none, uses ours.

    Raises:
        KfoldError: for a timm network on a CPU.
    """
    of_timm = any(type(each).__module__.startswith("timm.") for each in network.modules())
    if next(network.parameters()).device.type == "cuda":
        convert = _timms_conversion() if of_timm else nn.SyncBatchNorm.convert_sync_batchnorm
    elif of_timm:
        raise KfoldError("gpus_per_fold: on a CPU, only one process can train a timm network; write 1 into config.yaml")
    else:
        convert = _convert_for_cpu
    for name, child in list(network.named_children()):
        setattr(network, name, convert(child))


def _timms_conversion() -> Callable[[nn.Module], nn.Module]:
    from timm.layers import convert_sync_batchnorm

    return convert_sync_batchnorm


def _convert_for_cpu(network: nn.Module) -> nn.Module:
    for module in network.modules():
        if isinstance(module, nn.modules.batchnorm._BatchNorm):
            module.__class__ = _SynchronizedBatchNorm  # keeps its weights, statistics and settings
    return network


class _Sum(torch.autograd.Function):
    """Sum over all processes. The gradient is summed too, since every process uses the result."""

    @staticmethod
    def forward(ctx: Any, tensor: Tensor) -> Tensor:
        return _Sum._over_all(tensor)

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> Tensor:
        return _Sum._over_all(gradient)

    @staticmethod
    def _over_all(tensor: Tensor) -> Tensor:
        total = tensor.clone()
        distributed.all_reduce(total)
        return total


class _SynchronizedBatchNorm(nn.modules.batchnorm._BatchNorm):
    """Batch norm with statistics from differentiable sums over all processes."""

    def _check_input_dim(self, x: Tensor) -> None:
        pass

    def forward(self, x: Tensor) -> Tensor:
        if not self.training:
            return super().forward(x)
        axes = [0, *range(2, x.ndim)]
        values = x.to(torch.promote_types(x.dtype, torch.float32))
        count = _Sum.apply(values.new_tensor([values.numel() / values.shape[1]]))
        mean = _Sum.apply(values.sum(axes)) / count
        centred = values - _along(mean, x)
        variance = _Sum.apply((centred * centred).sum(axes)) / count
        self._update_running_statistics(mean.detach(), variance.detach() * count / (count - 1))
        scale = self.weight * torch.rsqrt(variance + self.eps)
        return (centred * _along(scale, x) + _along(self.bias, x)).to(x.dtype)

    def _update_running_statistics(self, mean: Tensor, variance: Tensor) -> None:
        # No backbone switches these statistics off or averages them over all batches.
        assert self.num_batches_tracked is not None
        assert self.running_mean is not None
        assert self.running_var is not None
        assert self.momentum is not None
        self.num_batches_tracked.add_(1)
        self.running_mean.lerp_(mean, self.momentum)
        self.running_var.lerp_(variance, self.momentum)


def _along(per_channel: Tensor, like: Tensor) -> Tensor:
    return per_channel.reshape(1, -1, *[1] * (like.ndim - 2))
