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
    better: Literal["min", "max"] | None = None  # of a score, which `select` can name: which value is better
    is_timing: bool = False  # differs between runs of the same seed
    is_share: bool = False  # from 0 to 1
    cell: str | None = None  # the format of a cell in a table, if not that of other numbers


_share = partial(Column, is_timing=True, is_share=True, cell="{:.0%}")
COLUMNS = {
    "epoch": Column("epoch"),
    "lr": Column("learning rate", "Learning rate at the epoch's end", cell="{:.2e}"),
    "train_loss": Column("training loss", "Loss"),
    "train_accuracy": Column("training accuracy", "Accuracy"),
    "val_loss": Column("held-out loss", "Loss", better="min"),
    "val_accuracy": Column("held-out accuracy", "Accuracy", better="max"),
    "seconds": Column("seconds", "Seconds per epoch", is_timing=True),
    "images_per_second": Column("images/s", "Training images per second", is_timing=True),
    "waiting_share": _share("waiting for data", "Share of the time waiting for data"),
    "gpu_utilization": _share("GPU utilization", "GPU utilization"),
    "peak_memory_mb": Column("peak memory in MB", "Peak memory in GB", figure_factor=1 / 1024, is_timing=True),
    "device": Column("device"),
}
TIMINGS = [name for name, column in COLUMNS.items() if column.is_timing]

# From a figure's title to the columns that it shows. Figures of scores come first.
_scores_first = sorted(COLUMNS.values(), key=lambda column: column.better is None)
FIGURES = {
    title: [name for name, column in COLUMNS.items() if column.figure == title]
    for title in dict.fromkeys(column.figure for column in _scores_first)
    if title
}


def _accuracy(logits: np.ndarray, target: np.ndarray) -> float:
    return float((logits.argmax(axis=1) == target).mean())


# From held-out logits (N, K) and class indices (N,) to each validation score but the loss.
SCORES: dict[str, Callable[[np.ndarray, np.ndarray], float]] = {"val_accuracy": _accuracy}


def goodness(column: str, row: Row) -> float:
    """A row's value in a column, negated if smaller is better."""
    return -row[column] if COLUMNS[column].better == "min" else row[column]


# From a recipe's `select` to the column that chooses the epoch: best_accuracy to val_accuracy, and so on.
SELECTED_BY = {f"best_{name.removeprefix('val_')}": name for name, column in COLUMNS.items() if column.better}
SELECTED_BY["last"] = "epoch"

# From a row to the value that is largest in the epoch whose weights are kept.
SELECT: dict[str, Callable[[Row], float]] = {
    select: partial(goodness, column) for select, column in SELECTED_BY.items()
}


def selected_row(history: Sequence[Row], select: str) -> Row:
    """The epoch whose weights are kept: the first of the best ones. NaN is worse than any number."""
    return max(history, key=lambda row: np.nan_to_num(SELECT[select](row), nan=-np.inf))
