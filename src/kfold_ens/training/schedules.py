"""Learning-rate schedules; torch's implementations, each stepped by its own clock."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from torch.optim import Optimizer
from torch.optim.lr_scheduler import CosineAnnealingWarmRestarts, LRScheduler, OneCycleLR

from kfold_ens import config
from kfold_ens.errors import KfoldError


@dataclass(frozen=True)
class Schedule:
    """A scheduler, and whether a step or an epoch moves it."""

    scheduler: LRScheduler
    per_step: bool

    def after_step(self) -> None:
        if self.per_step:
            self.scheduler.step()

    def after_epoch(self) -> None:
        if not self.per_step:
            self.scheduler.step()


def _cosine_warm_restarts(slot: config.CosineWarmRestarts, optimizer: Optimizer, total_steps: int) -> Schedule:
    scheduler = CosineAnnealingWarmRestarts(optimizer, slot.t_0, slot.t_mult, slot.eta_min)
    return Schedule(scheduler, per_step=False)


def _one_cycle(slot: config.OneCycle, optimizer: Optimizer, total_steps: int) -> Schedule:
    if slot.pct_start * total_steps == 1:  # torch would divide by zero
        raise KfoldError(
            f"schedule.pct_start: {slot.pct_start:g} of this run's {total_steps} steps is a single step, "
            "too short to rise in; change it, epochs or batch_size a little"
        )
    scheduler = OneCycleLR(
        optimizer,
        max_lr=[group["lr"] for group in optimizer.param_groups],
        total_steps=total_steps,
        pct_start=slot.pct_start,
        div_factor=slot.div_factor,
        final_div_factor=slot.final_div_factor,
        cycle_momentum=slot.cycle_momentum,
    )
    return Schedule(scheduler, per_step=True)


SCHEDULES: dict[str, Callable[..., Schedule]] = {
    "cosine_warm_restarts": _cosine_warm_restarts,
    "one_cycle": _one_cycle,
}


def build_schedule(slot: config.Schedule, optimizer: Optimizer, total_steps: int) -> Schedule:
    """The schedule of a recipe over a run of ``total_steps`` batches."""
    return SCHEDULES[slot.kind](slot, optimizer, total_steps)
