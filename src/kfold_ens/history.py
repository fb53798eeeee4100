"""The columns of ``history.csv`` (one row per epoch of a fold), and the choice of the best epoch. Imports no torch."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from statistics import median
from typing import Any, Literal

import numpy as np

from kfold_ens.metrics import find_metric

Row = Mapping[str, Any]


@dataclass(frozen=True)
class Column:
    """How a column is shown, and the meaning of its values."""

    label: str
    figure: str | None = None  # the title of the figure that shows it
    figure_factor: float = 1  # from the column's unit to the figure's
    better: Literal["min", "max"] | None = None  # of a score: which value is better
    is_timing: bool = False  # differs between runs with the same seed
    is_share: bool = False  # from 0 to 1
    cell: str | None = None  # format of cells in tables; None: the default


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


def column_of(name: str) -> Column:
    """Return a column by name. Columns of metrics are named ``val_`` plus the metric."""
    return COLUMNS.get(name) or _of_metric(name.removeprefix("val_"))


def _of_metric(name: str) -> Column:
    metric = find_metric(name)
    return Column(f"held-out {metric.label}", metric.title, better=metric.better, cell="{:.4f}")


def scores_in(names: Iterable[str]) -> list[str]:
    """Select the columns that hold held-out scores."""
    return [name for name in names if name.startswith("val_")]


def figures_of(names: Sequence[str]) -> dict[str, list[str]]:
    """Return the columns of each figure, by title. Figures of scores come first."""
    scores_first = sorted(names, key=lambda name: column_of(name).better is None)
    shown: dict[str, list[str]] = {}
    for title in dict.fromkeys(column_of(name).figure for name in scores_first):
        if title:
            shown[title] = [name for name in names if column_of(name).figure == title]
    return shown


def goodness(name: str, row: Row) -> float:
    """Return a row's value in a column, negated if smaller is better."""
    return -row[name] if column_of(name).better == "min" else row[name]


def selecting_column(select: str) -> str:
    """Return the column that selects the epoch, such as ``val_accuracy`` for ``select: best_accuracy``."""
    return "epoch" if select == "last" else f"val_{select.removeprefix('best_')}"


def selecting_value(select: str, row: Row) -> float:
    """Return the value that is largest in the epoch whose weights are kept."""
    return goodness(selecting_column(select), row)


def selected_row(history: Sequence[Row], select: str) -> Row:
    """Return the epoch whose weights are kept: the first of the best ones. NaN is worse than any number."""
    return max(history, key=lambda row: np.nan_to_num(selecting_value(select, row), nan=-np.inf))


def median_epoch(histories: Iterable[Sequence[Row]], select: str) -> int:
    """Return the median of the epochs that folds selected, rounded up."""
    return math.ceil(median(selected_row(history, select)["epoch"] for history in histories))
