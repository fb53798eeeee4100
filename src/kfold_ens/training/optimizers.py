"""Optimizers; torch's implementations, fused where the device has them."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from torch import nn, optim

from kfold_ens import config
from kfold_ens.errors import KfoldError
from kfold_ens.network.classifier import Classifier

Groups = list[dict[str, Any]]


def _adamw(slot: config.AdamW, groups: Groups) -> optim.Optimizer:
    return optim.AdamW(groups, lr=slot.lr, betas=slot.betas, weight_decay=slot.weight_decay, fused=True)


def _sgd(slot: config.Sgd, groups: Groups) -> optim.Optimizer:
    return optim.SGD(groups, slot.lr, slot.momentum, weight_decay=slot.weight_decay, nesterov=slot.nesterov, fused=True)


OPTIMIZERS: dict[str, Callable[..., optim.Optimizer]] = {"adamw": _adamw, "sgd": _sgd}


def build_optimizer(slot: config.Optimizer, network: Classifier) -> optim.Optimizer:
    """The optimizer of a recipe over all parameters of a network that are not frozen.

    Raises:
        KfoldError: where a stage with a rate of its own has no parameters to train.
    """
    return OPTIMIZERS[slot.kind](slot, parameter_groups(slot, network))


def parameter_groups(slot: config.Optimizer, network: Classifier) -> Groups:
    """A group for each stage with a rate of its own, and one for all the rest."""
    parts = [(name, _stage(network, name), lr) for name, lr in slot.stage_lr.items()]
    groups, taken = [], set()
    for name, part, lr in [*parts, ("rest", network, slot.lr)]:
        parameters = [each for each in part.parameters() if each.requires_grad and each not in taken]
        if parameters:
            groups.append({"params": parameters, "lr": lr, "name": name})
        elif name in slot.stage_lr:
            raise KfoldError(f"optimizer.stage_lr: stage {name!r} has nothing to train")
        taken.update(parameters)
    return groups


def _stage(network: Classifier, name: str) -> nn.Module:
    try:
        return network.backbone.get_submodule(name)
    except AttributeError:
        raise KfoldError(f"optimizer.stage_lr: the backbone has no stage {name!r}") from None
