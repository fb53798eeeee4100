"""Fused optimizers, by torch."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn, optim

from kfold_ens import config
from kfold_ens.errors import KfoldError
from kfold_ens.network.classifier import Classifier

Groups = list[dict[str, Any]]


def _adamw(section: config.AdamW, groups: Groups) -> optim.Optimizer:
    return optim.AdamW(groups, lr=section.lr, betas=section.betas, weight_decay=section.weight_decay, fused=True)


def _sgd(section: config.Sgd, groups: Groups) -> optim.Optimizer:
    return optim.SGD(
        groups, section.lr, section.momentum, weight_decay=section.weight_decay, nesterov=section.nesterov, fused=True
    )


OPTIMIZERS: dict[str, Callable[..., optim.Optimizer]] = {"adamw": _adamw, "sgd": _sgd}


def build_optimizer(section: config.Optimizer, network: Classifier) -> optim.Optimizer:
    """Build a recipe's optimizer over all parameters that are not frozen.

    Raises:
        KfoldError: if a stage of ``stage_lr`` does not exist or has no trainable parameters.
    """
    return OPTIMIZERS[section.kind](section, parameter_groups(section, network))


def step_if(finite: Tensor, optimizer: optim.Optimizer) -> None:
    """Take a step if ``finite``, a boolean on the device, is true; otherwise change neither parameters nor optimizer.

    Optimizers that support torch's ``found_inf``, such as fused ones, decide on the device; others wait for it.
    """
    if getattr(optimizer, "_step_supports_amp_scaling", False):
        optimizer.found_inf = (~finite).float()  # type: ignore[attr-defined]  # as torch's GradScaler sets it
        optimizer.step()
    elif finite:
        optimizer.step()


def state_size(optimizer: optim.Optimizer) -> float:
    """Elements that an optimizer stores per element of a parameter, measured by one step of a copy."""
    parameter, group = nn.Parameter(torch.zeros(64, 64)), optimizer.param_groups[0]
    kind: Any = type(optimizer)  # each has options of its own
    alike = kind([{**group, "params": [parameter]}], lr=group["lr"])
    parameter.grad = torch.zeros_like(parameter)
    alike.step()
    saved = alike.state[parameter].values()
    return sum(each.numel() for each in saved if torch.is_tensor(each) and each.ndim) / parameter.numel()


def parameter_groups(section: config.Optimizer, network: Classifier) -> Groups:
    """One group per stage of ``stage_lr``, and one for all other parameters."""
    parts = [(name, _stage(network, name), lr) for name, lr in section.stage_lr.items()]
    groups, taken = [], set()
    for name, part, lr in [*parts, ("rest", network, section.lr)]:
        parameters = [each for each in part.parameters() if each.requires_grad and each not in taken]
        if parameters:
            groups.append({"params": parameters, "lr": lr, "name": name})
        elif name in section.stage_lr:
            raise KfoldError(
                f"optimizer.stage_lr: stage {name!r} has no trainable parameters; remove it, or unfreeze it"
            )
        taken.update(parameters)
    return groups


def _stage(network: Classifier, name: str) -> nn.Module:
    try:
        return network.backbone.get_submodule(name)
    except AttributeError:
        raise KfoldError(f"optimizer.stage_lr: the backbone has no stage {name!r}; correct the name") from None
