"""What the processes that train a fold together tell each other; with one process alone nothing is sent."""

from __future__ import annotations

import torch
from torch import Tensor, distributed, nn
from torch.nn.parallel import DistributedDataParallel

from kfold_ens.compute.ranks import Ranks
from kfold_ens.network.synchronized import synchronize_batch_norms


def gather(ranks: Ranks, own: Tensor, length: int) -> Tensor:
    """The whole batch (length, ...), put together from every rank's part."""
    if ranks.count == 1 or len(own) == length:
        return own
    sizes = ranks.sizes(length)
    padded = own.new_zeros(max(sizes), *own.shape[1:])
    padded[: len(own)] = own
    parts = [torch.empty_like(padded) for _ in sizes]
    distributed.all_gather(parts, padded)
    return torch.cat([part[:size] for part, size in zip(parts, sizes, strict=True)])


def sum_over(ranks: Ranks, tensor: Tensor) -> Tensor:
    """The sum over all ranks."""
    if ranks.count > 1:
        distributed.all_reduce(tensor)
    return tensor


def wait_for_all(ranks: Ranks) -> None:
    """Return when every rank has come here."""
    if ranks.count > 1:
        distributed.barrier()


def wrap(ranks: Ranks, network: nn.Module) -> nn.Module:
    """A network whose gradients, and batch statistics, are those of the whole batch."""
    if ranks.count == 1:
        return network
    synchronize_batch_norms(network)
    return DistributedDataParallel(network)
