"""Telling how a fold's training goes: to its terminal, to any other terminal, and to TensorBoard."""

from __future__ import annotations

import logging
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pandas as pd

from kfold_ens.errors import KfoldError
from kfold_ens.files import write_json, write_table
from kfold_ens.history import column_of, scores_in
from kfold_ens.training.state import Checkpoints
from kfold_ens.training.trainer import Trainer

log = logging.getLogger(__name__)

SECONDS = 5  # between two looks at the device's numbers where there is no terminal to draw a bar on


class Progress:
    """A bar, one log line per epoch, a file for ``kfold-progress``, and event files where they are asked for."""

    def __init__(self, trainer: Trainer, file: Path, tensorboard: Path | None) -> None:
        self._trainer, self._file = trainer, file
        self._told_at = -float("inf")
        self._bar = _bar(trainer)
        self._writer = _event_writer(tensorboard, trainer.position.epoch) if tensorboard else None

    def close(self) -> None:
        """End the bar and the event files."""
        self._bar.close()
        if self._writer:
            self._writer.close()

    def after_step(self) -> None:
        """Count a step; now and then ask the device for the epoch's loss and accuracy so far."""
        due = time.monotonic() - self._told_at >= SECONDS
        if self._bar.update() or due:
            self._trainer.check_finite()
            numbers = _numbers(self._trainer)
            self._bar.set_postfix_str(_words(numbers), refresh=False)
        if due:
            write_json(self._file, numbers)
            self._told_at = time.monotonic()

    def after_epoch(self, row: dict[str, Any]) -> None:
        """Tell an epoch's row of the history."""
        log.info("%s", _epoch_line(self._trainer, row))
        if self._writer:
            for name, value in row.items():
                if isinstance(value, int | float):
                    self._writer.add_scalar(name, value, row["epoch"])
            self._writer.flush()


@dataclass(frozen=True)
class Record:
    """What the main process keeps, and tells, of a training while it runs."""

    checkpoints: Checkpoints
    progress: Progress
    history: Path

    def after_step(self, trainer: Trainer) -> None:
        self.progress.after_step()
        self.checkpoints.after_step(trainer.state)

    def after_epoch(self, trainer: Trainer, row: dict[str, Any]) -> None:
        write_table(self.history, pd.DataFrame(trainer.history))
        self.progress.after_epoch(row)
        self.checkpoints.after_step(trainer.state)

    def close(self) -> None:
        self.progress.close()


class NoRecord:
    """Of a rank that is not the main process."""

    def after_step(self, trainer: Trainer) -> None:
        pass

    def after_epoch(self, trainer: Trainer, row: dict[str, Any]) -> None:
        pass

    def close(self) -> None:
        pass


class _NoBar:
    """Stands for tqdm's bar if tqdm is not installed: benchmarks/gpu.py runs without it."""

    def update(self) -> bool:
        return False

    def set_postfix_str(self, words: str, refresh: bool) -> None:
        pass

    def close(self) -> None:
        pass


def _bar(trainer: Trainer) -> Any:
    try:
        from tqdm import tqdm
    except ImportError:
        return _NoBar()
    steps = trainer.order.steps_per_epoch
    return tqdm(
        desc=trainer.title,
        total=trainer.recipe.last_epoch * steps,
        initial=trainer.position.epoch * steps + trainer.position.step,
        unit="step",
        disable=None,
        leave=False,
        mininterval=0.5,
        dynamic_ncols=True,
        bar_format="{desc} {percentage:3.0f}%|{bar:20}| {elapsed}<{remaining}{postfix}",
    )


def _event_writer(folder: Path, epochs_done: int) -> Any:
    try:
        from torch.utils.tensorboard import SummaryWriter
    except ImportError:
        raise KfoldError(
            "tensorboard: true wants the package: pip install 'kfold_ens[tensorboard]'; or write false into config.yaml"
        ) from None
    return SummaryWriter(str(folder), purge_step=epochs_done + 1)


def _numbers(trainer: Trainer) -> dict[str, Any]:
    """Where training is; the seconds left are reckoned from the pace of this epoch and the epochs before."""
    at, steps, epochs = trainer.position, trainer.order.steps_per_epoch, trainer.recipe.last_epoch
    pace = at.seconds / at.step
    whole = max([row["seconds"] for row in trainer.history[-3:]], default=pace * steps)
    return {
        "select": trainer.recipe.select,
        "epoch": at.epoch + 1,
        "epochs": epochs,
        "step": at.step,
        "steps": steps,
        "loss": float(at.loss) / at.images,
        "accuracy": float(at.correct) / at.images,
        "images_per_second": at.images / at.seconds,
        "seconds_left": pace * (steps - at.step) + whole * (epochs - at.epoch - 1),
    }


def _words(numbers: dict[str, Any]) -> str:
    return (
        f"epoch {numbers['epoch']}/{numbers['epochs']}, step {numbers['step']}/{numbers['steps']}, "
        f"loss {numbers['loss']:.3f}, accuracy {numbers['accuracy']:.3f}, {numbers['images_per_second']:.0f} images/s"
    )


def _epoch_line(trainer: Trainer, row: dict[str, Any]) -> str:
    scores = ", ".join(f"{column_of(name).label} {row[name]:.4f}" for name in scores_in(row)) or "nothing held out"
    return (
        f"{trainer.title}  epoch {row['epoch']}/{trainer.recipe.last_epoch}  lr {row['lr']:.2e}  "
        f"train loss {row['train_loss']:.4f} accuracy {row['train_accuracy']:.4f}  {scores}  "
        f"{row['images_per_second']:.0f} images/s, {row['waiting_share']:.0%} waiting for data  {row['seconds']:.0f} s"
    )
