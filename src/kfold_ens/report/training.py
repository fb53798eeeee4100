"""The report's chapter on training: what every fold did, epoch by epoch."""

from __future__ import annotations

from collections.abc import Mapping

import pandas as pd

from kfold_ens.config import TrainingRecipe
from kfold_ens.report import figures, pages
from kfold_ens.report.pages import Markup

SHOWN = {
    "epoch": "epoch",
    "lr": "learning rate",
    "train_loss": "training loss",
    "train_accuracy": "training accuracy",
    "val_loss": "held-out loss",
    "val_accuracy": "held-out accuracy",
    "seconds": "seconds",
    "images_per_second": "images/s",
    "waiting_share": "waiting for data",
    "gpu_utilization": "GPU utilisation",
    "peak_memory_mb": "peak memory in MB",
    "device": "device",
}


def write_curves(histories: Mapping[int, pd.DataFrame], recipe: TrainingRecipe, num_folds: int, path: str) -> None:
    """The page of all folds together."""
    pages.write_page(
        path,
        "Training, all folds",
        *pages.unfinished(len(histories), num_folds),
        curves(histories, recipe),
        *[_ending(fold, history, recipe) for fold, history in histories.items()],
    )


def write_fold(fold: int, history: pd.DataFrame, recipe: TrainingRecipe, path: str) -> None:
    """The page of one fold."""
    pages.write_page(
        path,
        f"Training, fold {fold}",
        _ending(fold, history, recipe),
        curves({fold: history}, recipe),
        pages.table(_epochs(history)),
    )


def _epochs(history: pd.DataFrame) -> pd.DataFrame:
    """A row an epoch, without the columns that say nothing here."""
    shares = history.columns.intersection(figures.SHARES)
    table = history.assign(lr=history["lr"].map("{:.2e}".format))
    table = table.assign(**{column: history[column].map("{:.0%}".format, na_action="ignore") for column in shares})
    return table.rename(columns=SHOWN).reindex(columns=SHOWN.values()).dropna(axis="columns", how="all")


def curves(histories: Mapping[int, pd.DataFrame], recipe: TrainingRecipe) -> Markup:
    """The curves as figures side by side."""
    chosen = {fold: chosen_epoch(history, recipe) for fold, history in histories.items()}
    drawn = figures.training_curves(histories, chosen)
    words = f"of {'fold ' if len(histories) == 1 else 'folds '}{', '.join(map(str, histories))}, epoch by epoch"
    return pages.grid(*[pages.figure(each, f"{title} {words}") for title, each in drawn.items()])


def chosen_epoch(history: pd.DataFrame, recipe: TrainingRecipe) -> int:
    """The epoch whose weights were kept, counted from 1."""
    scores = {"best_accuracy": history["val_accuracy"], "best_loss": -history["val_loss"], "last": history["epoch"]}
    return int(history["epoch"][scores[recipe.select].idxmax()])


def _ending(fold: int, history: pd.DataFrame, recipe: TrainingRecipe) -> Markup:
    """How a fold ended, in a sentence."""
    epoch = chosen_epoch(history, recipe)
    chosen = history[history["epoch"] == epoch].iloc[0]
    stopped = f", stopped early after epoch {len(history)}" if len(history) < recipe.epochs else ""
    return pages.paragraph(
        f"Fold {fold}: the weights of epoch {epoch} of {recipe.epochs} were kept ({recipe.select.replace('_', ' ')}: "
        f"accuracy {chosen['val_accuracy']:.4f}, loss {chosen['val_loss']:.4f}){stopped}; "
        f"{history['seconds'].sum() / 60:.1f} minutes on {', '.join(history['device'].unique())}."
    )
