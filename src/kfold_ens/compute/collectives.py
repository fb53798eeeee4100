"""Communication between the ranks that train one fold. With a single rank, nothing is sent."""

from __future__ import annotations

import torch
from torch import Tensor, distributed, nn
from torch.nn.parallel import DistributedDataParallel

from kfold_ens.compute.ranks import Ranks
from kfold_ens.network.synchronized import synchronize_batch_norms


def gather(ranks: Ranks, own: Tensor, length: int) -> Tensor:
    """Gather the whole batch (length, ...) from all ranks' parts."""
    if ranks.count == 1 or len(own) == length:
        return own
    sizes = ranks.sizes(length)
    padded = own.new_zeros(max(sizes), *own.shape[1:])
    padded[: len(own)] = own
    parts = [torch.empty_like(padded) for _ in sizes]
    distributed.all_gather(parts, padded)
    return torch.cat([part[:size] for part, size in zip(parts, sizes, strict=True)])


def sum_over(ranks: Ranks, tensor: Tensor) -> Tensor:
    """Sum a tensor over all ranks, in place."""
    if ranks.count > 1:
        distributed.all_reduce(tensor)
    return tensor


def wait_for_all(ranks: Ranks) -> None:
    """Block until every rank calls this."""
    if ranks.count > 1:
        distributed.barrier()


def wrap(ranks: Ranks, network: nn.Module) -> nn.Module:
    """Make a network's gradients and batch statistics those of the whole batch, over all ranks."""
    if ranks.count == 1:
        return network
    synchronize_batch_norms(network)
    return DistributedDataParallel(network)
