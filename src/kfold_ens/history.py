"""The columns of ``history.csv``, one row per epoch of a fold, and how the best epoch is chosen. Imports no torch."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any, Literal

import numpy as np

Row = Mapping[str, Any]


@dataclass(frozen=True)
class Column:
    """How a column is shown, and what its values are."""

    label: str
    figure: str | None = None  # the title of the figure that shows it
    figure_factor: float = 1  # from the column's unit to the figure's
    better: Literal["min", "max"] | None = None  # of a score: which value is better
    is_timing: bool = False  # differs between runs of the same seed
    is_share: bool = False  # from 0 to 1


COLUMNS = {
    "epoch": Column("epoch"),
    "lr": Column("learning rate", "Learning rate at the epoch's end"),
    "train_loss": Column("training loss", "Loss"),
    "train_accuracy": Column("training accuracy", "Accuracy"),
    "val_loss": Column("held-out loss", "Loss", better="min"),
    "val_accuracy": Column("held-out accuracy", "Accuracy", better="max"),
    "seconds": Column("seconds", "Seconds per epoch", is_timing=True),
    "images_per_second": Column("images/s", "Training images per second", is_timing=True),
    "waiting_share": Column("waiting for data", "Share of the time waiting for data", is_timing=True, is_share=True),
    "gpu_utilization": Column("GPU utilization", "GPU utilization", is_timing=True, is_share=True),
    "peak_memory_mb": Column("peak memory in MB", "Peak memory in GB", figure_factor=1 / 1024, is_timing=True),
    "device": Column("device"),
}
TIMINGS = [name for name, column in COLUMNS.items() if column.is_timing]


def _accuracy(logits: np.ndarray, target: np.ndarray) -> float:
    return float((logits.argmax(axis=1) == target).mean())


# From held-out logits (N, K) and class indices (N,) to each validation score but the loss.
SCORES: dict[str, Callable[[np.ndarray, np.ndarray], float]] = {"val_accuracy": _accuracy}


def goodness(column: str, row: Row) -> float:
    """A row's score, negated if smaller is better."""
    return row[column] if COLUMNS[column].better == "max" else -row[column]


# From a row to the value that is largest in the epoch whose weights are kept.
SELECT: dict[str, Callable[[Row], float]] = {
    "best_accuracy": partial(goodness, "val_accuracy"),
    "best_loss": partial(goodness, "val_loss"),
    "last": lambda row: row["epoch"],
}


def selected_row(history: Sequence[Row], select: str) -> Row:
    """The epoch whose weights are kept: the first of the best ones."""
    return max(history, key=SELECT[select])
