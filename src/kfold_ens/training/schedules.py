"""Learning-rate schedules, by torch, each updated per step or per epoch."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from torch.optim import Optimizer
from torch.optim.lr_scheduler import (
    ConstantLR,
    CosineAnnealingLR,
    CosineAnnealingWarmRestarts,
    LRScheduler,
    OneCycleLR,
    ReduceLROnPlateau,
)

from kfold_ens import config
from kfold_ens.errors import KfoldError
from kfold_ens.history import Row, column_of


@dataclass(frozen=True)
class Schedule:
    """A scheduler that is updated after each step, after each epoch, or with a column of each epoch's history row."""

    scheduler: LRScheduler
    per_step: bool = False
    monitor: str | None = None

    def after_step(self) -> None:
        if self.per_step:
            self.scheduler.step()

    def after_epoch(self, row: Row) -> None:
        if self.monitor:
            self.scheduler.step(row[self.monitor])
        elif not self.per_step:
            self.scheduler.step()


def _constant(section: config.Constant, optimizer: Optimizer, total_steps: int) -> Schedule:
    return Schedule(ConstantLR(optimizer, factor=1, total_iters=0))


def _cosine(section: config.Cosine, optimizer: Optimizer, total_steps: int) -> Schedule:
    return Schedule(CosineAnnealingLR(optimizer, section.t_max, section.eta_min))


def _cosine_warm_restarts(section: config.CosineWarmRestarts, optimizer: Optimizer, total_steps: int) -> Schedule:
    return Schedule(CosineAnnealingWarmRestarts(optimizer, section.t_0, section.t_mult, section.eta_min))


def _one_cycle(section: config.OneCycle, optimizer: Optimizer, total_steps: int) -> Schedule:
    if section.pct_start * total_steps == 1:  # torch would divide by zero
        raise KfoldError(
            f"schedule.pct_start: {section.pct_start:g} of this run's {total_steps} steps is a warm-up of exactly one "
            "step, for which OneCycleLR divides by zero; change pct_start, epochs or batch_size slightly"
        )
    scheduler = OneCycleLR(
        optimizer,
        max_lr=[group["lr"] for group in optimizer.param_groups],
        total_steps=total_steps,
        pct_start=section.pct_start,
        div_factor=section.div_factor,
        final_div_factor=section.final_div_factor,
        cycle_momentum=section.cycle_momentum,
    )
    return Schedule(scheduler, per_step=True)


def _plateau(section: config.Plateau, optimizer: Optimizer, total_steps: int) -> Schedule:
    monitor = f"val_{section.monitor}"
    better = column_of(monitor).better
    assert better  # a plateau is of held-out scores
    return Schedule(
        ReduceLROnPlateau(optimizer, better, section.factor, section.patience, min_lr=section.min_lr), monitor=monitor
    )


SCHEDULES: dict[str, Callable[..., Schedule]] = {
    "constant": _constant,
    "cosine": _cosine,
    "cosine_warm_restarts": _cosine_warm_restarts,
    "one_cycle": _one_cycle,
    "plateau": _plateau,
}


def build_schedule(section: config.Schedule, optimizer: Optimizer, total_steps: int) -> Schedule:
    """Build a recipe's schedule for a run of ``total_steps`` steps.

    Raises:
        KfoldError: if ``schedule.pct_start`` makes a warm-up of exactly one step.
    """
    return SCHEDULES[section.kind](section, optimizer, total_steps)
