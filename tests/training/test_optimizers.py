"""State of optimizers, and skipped steps."""

import pytest
import torch
from stages import training_recipe
from test_fold import NEEDED
from torch import nn

from kfold_ens.training.optimizers import OPTIMIZERS, state_size, step_if
from kfold_ens.training.schedules import build_schedule


def section(kind, **values):
    return training_recipe(optimizer={"kind": kind, "lr": 0.1} | NEEDED.get(kind, {}) | values).optimizer


def after_a_step(optimizer, parameter):
    parameter.grad = torch.ones_like(parameter)
    step_if(torch.tensor(True), optimizer)
    return sum(each.nbytes for each in optimizer.state[parameter].values() if torch.is_tensor(each) and each.ndim)


@pytest.mark.parametrize("schedule", [{"kind": "constant"}, {"kind": "one_cycle"}], ids=lambda each: each["kind"])
@pytest.mark.parametrize("momentum", [{}, {"momentum": 0}])
@pytest.mark.parametrize("kind", OPTIMIZERS)
def test_the_planned_disk_space_matches_the_optimizers_state(kind, momentum, schedule):
    """one_cycle gives SGD a momentum even if it is configured as 0."""
    parameter = nn.Parameter(torch.ones(30, 50))
    chosen = section(kind, **momentum if kind == "sgd" else {})
    optimizer = OPTIMIZERS[kind](chosen, [{"params": [parameter], "lr": 0.1}])
    build_schedule(training_recipe(schedule=schedule).schedule, optimizer, 10)
    expected = state_size(optimizer)
    assert after_a_step(optimizer, parameter) == expected * parameter.nbytes
    assert expected == {"adamw": 2, "sgd": 1 - (momentum == {"momentum": 0} and schedule["kind"] == "constant")}[kind]


@pytest.mark.parametrize("fused", [True, False])
def test_a_step_is_taken_only_if_finite(fused):
    parameter = nn.Parameter(torch.ones(3))
    optimizer = torch.optim.AdamW([parameter], lr=0.1, fused=fused)
    parameter.grad = torch.ones_like(parameter)
    step_if(torch.tensor(False), optimizer)
    assert torch.equal(parameter, torch.ones(3))
    step_if(torch.tensor(True), optimizer)
    assert (parameter < 1).all()
