import math

import pytest
import torch
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from torch import nn

from kfold_ens.config import AdamW, CosineWarmRestarts, OneCycle
from kfold_ens.errors import KfoldError
from kfold_ens.training.optimizers import build_optimizer
from kfold_ens.training.schedules import build_schedule

PEAK = 1e-3


def rates(section, epochs, steps_per_epoch):
    """The optimizer's learning rate and first beta at each step of a run."""
    optimizer = build_optimizer(AdamW(kind="adamw", lr=PEAK, weight_decay=0), nn.Linear(1, 1))
    schedule = build_schedule(section, optimizer, epochs * steps_per_epoch)
    for parameter in optimizer.param_groups[0]["params"]:
        parameter.grad = torch.zeros_like(parameter)
    seen = []
    for _ in range(epochs):
        for _ in range(steps_per_epoch):
            seen.append((optimizer.param_groups[0]["lr"], optimizer.param_groups[0]["betas"][0]))
            optimizer.step()
            schedule.after_step()
        schedule.after_epoch({})
    return seen


def cosine(start, end, progress):
    return end + (start - end) * (1 + math.cos(math.pi * progress)) / 2


def restarted(epoch, t_0, t_mult, eta_min):
    length = t_0
    while epoch >= length:
        epoch, length = epoch - length, length * t_mult
    return cosine(PEAK, eta_min, epoch / length)


@pytest.mark.parametrize(("t_0", "t_mult", "eta_min"), [(10, 2, 0), (10, 2, 1e-5), (3, 1, 0), (1, 3, 1e-6)])
def test_warm_restarts_follow_their_formula_epoch_by_epoch(t_0, t_mult, eta_min):
    section = CosineWarmRestarts(kind="cosine_warm_restarts", t_0=t_0, t_mult=t_mult, eta_min=eta_min)
    expected = [restarted(epoch, t_0, t_mult, eta_min) for epoch in range(80) for _ in range(3)]
    assert [rate for rate, _ in rates(section, 80, 3)] == pytest.approx(expected, rel=1e-9)


def test_the_main_recipe_restarts_after_10_30_and_70_epochs():
    seen = [rate for rate, _ in rates(CosineWarmRestarts(kind="cosine_warm_restarts", t_0=10, t_mult=2), 80, 1)]
    assert [epoch for epoch, rate in enumerate(seen) if rate == PEAK] == [0, 10, 30, 70]


@given(
    epochs=st.integers(1, 6),
    steps_per_epoch=st.integers(1, 9),
    pct_start=st.floats(0.05, 0.95),
    div_factor=st.floats(1, 100),
    final_div_factor=st.floats(1, 1e5),
    cycle_momentum=st.booleans(),
)
@settings(deadline=None)
def test_one_cycle_follows_its_formula_step_by_step(epochs, steps_per_epoch, **values):
    steps, low = epochs * steps_per_epoch, PEAK / values["div_factor"]
    top = values["pct_start"] * steps - 1  # step of the highest rate, can be a fraction
    assume(abs(top) > 1e-6)

    def at(step, start, middle, end):
        if step <= top:
            return cosine(start, middle, step / top)
        return cosine(middle, end, (step - top) / (steps - 1 - top))

    expected = [
        (
            at(step, low, PEAK, low / values["final_div_factor"]),
            at(step, 0.95, 0.85, 0.95) if values["cycle_momentum"] else 0.9,
        )
        for step in range(steps)
    ]
    assert rates(OneCycle(kind="one_cycle", **values), epochs, steps_per_epoch) == [
        pytest.approx(pair, rel=1e-6) for pair in expected
    ]


@pytest.mark.parametrize(("pct_start", "steps"), [(0.5, 2), (0.2, 5), (0.1, 10)])
def test_a_warm_up_of_exactly_one_step_is_refused(pct_start, steps):
    with pytest.raises(KfoldError, match=f"schedule.pct_start: {pct_start} of this run's {steps} steps"):
        rates(OneCycle(kind="one_cycle", pct_start=pct_start), 1, steps)
