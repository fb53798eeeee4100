"""Optimizers; torch's implementations, fused where the device has them."""

from __future__ import annotations

from collections.abc import Callable, Iterable

from torch import nn, optim

from kfold_ens import config


def _adamw(slot: config.AdamW, parameters: Iterable[nn.Parameter]) -> optim.Optimizer:
    return optim.AdamW(parameters, lr=slot.lr, betas=slot.betas, weight_decay=slot.weight_decay, fused=True)


OPTIMIZERS: dict[str, Callable[..., optim.Optimizer]] = {"adamw": _adamw}


def build_optimizer(slot: config.Optimizer, network: nn.Module) -> optim.Optimizer:
    """The optimizer of a recipe over all parameters of a network."""
    return OPTIMIZERS[slot.kind](slot, network.parameters())
