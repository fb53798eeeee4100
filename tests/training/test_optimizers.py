"""What an optimizer keeps, and steps that are not taken."""

import pytest
import torch
from stages import training_recipe
from test_fold import NEEDED
from torch import nn

from kfold_ens.training.optimizers import OPTIMIZERS, state_size, step_if


def section(kind, **values):
    return training_recipe(optimizer={"kind": kind, "lr": 0.1} | NEEDED.get(kind, {}) | values).optimizer


def after_a_step(optimizer, parameter):
    parameter.grad = torch.ones_like(parameter)
    step_if(torch.tensor(True), optimizer)
    return sum(each.nbytes for each in optimizer.state[parameter].values() if torch.is_tensor(each) and each.ndim)


@pytest.mark.parametrize("kind", OPTIMIZERS)
def test_the_disk_space_of_a_state_is_what_the_optimizer_keeps(kind):
    parameter = nn.Parameter(torch.ones(30, 50))
    optimizer = OPTIMIZERS[kind](section(kind), [{"params": [parameter], "lr": 0.1}])
    assert after_a_step(optimizer, parameter) == state_size(section(kind)) * parameter.nbytes > 0


def test_an_optimizer_without_momentum_keeps_nothing():
    assert state_size(section("sgd", momentum=0)) == 0


@pytest.mark.parametrize("fused", [True, False])
def test_a_step_is_taken_only_if_all_is_finite(fused):
    parameter = nn.Parameter(torch.ones(3))
    optimizer = torch.optim.AdamW([parameter], lr=0.1, fused=fused)
    parameter.grad = torch.ones_like(parameter)
    step_if(torch.tensor(False), optimizer)
    assert torch.equal(parameter, torch.ones(3))
    step_if(torch.tensor(True), optimizer)
    assert (parameter < 1).all()
