"""Report the progress of training: progress bar, log, progress file and TensorBoard."""

from __future__ import annotations

import logging
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pandas as pd
from torch import Tensor

from kfold_ens.errors import KfoldError
from kfold_ens.files import write_json, write_table
from kfold_ens.history import column_of, scores_in
from kfold_ens.jobs import ROUTINE
from kfold_ens.training.epochs import KeptEpochs
from kfold_ens.training.state import Checkpoints
from kfold_ens.training.trainer import Trainer

log = logging.getLogger(__name__)

SECONDS = 5  # between two reads of loss and accuracy from the device, if there is no progress bar


class Progress:
    """Shows a progress bar, logs a line per epoch, and writes a file for ``kfold-progress`` and TensorBoard events."""

    def __init__(self, trainer: Trainer, file: Path, tensorboard: Path | None) -> None:
        self._trainer, self._file = trainer, file
        self._reported_at = -float("inf")
        self._bar = _bar(trainer)
        self._writer = _event_writer(tensorboard, trainer.position.epoch) if tensorboard else None

    def close(self) -> None:
        """Close the progress bar and the event files."""
        self._bar.close()
        if self._writer:
            self._writer.close()

    def after_step(self) -> None:
        """Count a step; every few seconds, read the epoch's loss and accuracy so far from the device."""
        due = time.monotonic() - self._reported_at >= SECONDS
        if self._bar.update() or due:
            self._trainer.check_finite()
            numbers = _numbers(self._trainer)
            self._bar.set_postfix_str(_words(numbers), refresh=False)
        if due:
            write_json(self._file, numbers)
            self._reported_at = time.monotonic()

    def after_epoch(self, row: dict[str, Any]) -> None:
        """Log an epoch's history row and write it to TensorBoard."""
        log.info("%s", _epoch_line(self._trainer, row), extra=ROUTINE)
        if self._writer:
            for name, value in row.items():
                if isinstance(value, int | float):
                    self._writer.add_scalar(name, value, row["epoch"])
            self._writer.flush()


@dataclass(frozen=True)
class Record:
    """Saves the state, history and held-out logits, and reports progress, in the main process."""

    checkpoints: Checkpoints
    progress: Progress
    history: Path
    epochs: KeptEpochs

    def after_step(self, trainer: Trainer) -> None:
        self.progress.after_step()
        self.checkpoints.after_step(trainer.state)

    def after_epoch(self, trainer: Trainer, row: dict[str, Any], logits: Tensor | None) -> None:
        if logits is not None:
            self.epochs.add(row["epoch"], logits.numpy())
        write_table(self.history, pd.DataFrame(trainer.history))
        self.progress.after_epoch(row)
        self.checkpoints.after_step(trainer.state)

    def close(self) -> None:
        self.progress.close()


class NoRecord:
    """Records nothing: for the other ranks."""

    def after_step(self, trainer: Trainer) -> None:
        pass

    def after_epoch(self, trainer: Trainer, row: dict[str, Any], logits: Tensor | None) -> None:
        pass

    def close(self) -> None:
        pass


class _NoBar:
    """Replaces tqdm if it is not installed: benchmarks/gpu.py runs without it."""

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
            "config.yaml: tensorboard is true, but the tensorboard package is not installed; "
            "run pip install 'kfold_ens[tensorboard]', or set tensorboard: false"
        ) from None
    return SummaryWriter(str(folder), purge_step=epochs_done + 1)


def _numbers(trainer: Trainer) -> dict[str, Any]:
    """Progress so far; estimates the seconds left from the speed of this epoch and of the three before."""
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
    scores = ", ".join(f"{column_of(name).label} {row[name]:.4f}" for name in scores_in(row)) or "no held-out images"
    return (
        f"{trainer.title}  epoch {row['epoch']}/{trainer.recipe.last_epoch}  lr {row['lr']:.2e}  "
        f"train loss {row['train_loss']:.4f} accuracy {row['train_accuracy']:.4f}  {scores}  "
        f"{row['images_per_second']:.0f} images/s, {row['waiting_share']:.0%} waiting for data  {row['seconds']:.0f} s"
    )
