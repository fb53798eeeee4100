"""The report's chapter on training: every fold, epoch by epoch."""

from __future__ import annotations

from collections.abc import Mapping

import pandas as pd

from kfold_ens.config import TrainingRecipe
from kfold_ens.history import Row, column_of, scores_in, selected_row, selecting_column
from kfold_ens.members import FULL, Number, title
from kfold_ens.report import figures, pages
from kfold_ens.report.pages import Markup


def write_curves(histories: Mapping[Number, pd.DataFrame], recipe: TrainingRecipe, num_folds: int, path: str) -> None:
    """Write the page of all folds."""
    pages.write_page(
        path,
        "Training, all folds",
        *pages.unfinished(len(histories), num_folds),
        curves(histories, recipe),
        *[_ending(fold, history, recipe) for fold, history in histories.items()],
    )


def write_fold(fold: Number, history: pd.DataFrame, recipe: TrainingRecipe, path: str) -> None:
    """Write the page of one fold, or of the full fit."""
    if fold == FULL:
        recipe = recipe.of_all_images(len(history))
    pages.write_page(
        path,
        f"Training, {title(fold)}",
        _ending(fold, history, recipe),
        curves({fold: history}, recipe),
        pages.table(_epochs(history)),
    )


def _epochs(history: pd.DataFrame) -> pd.DataFrame:
    """Return a row per epoch, without empty columns."""
    cells = {
        column_of(name).label: history[name].map(cell.format, na_action="ignore")
        if (cell := column_of(name).cell)
        else values
        for name, values in history.items()
    }
    return pd.DataFrame(cells).dropna(axis="columns", how="all")


def curves(histories: Mapping[Number, pd.DataFrame], recipe: TrainingRecipe) -> Markup:
    """Plot the training curves as figures side by side."""
    kept = {fold: _chosen(history, recipe) for fold, history in histories.items()}
    chosen = {fold: int(row["epoch"]) for fold, row in kept.items() if row}
    drawn = figures.training_curves(histories, chosen)
    named = title(*histories) if len(histories) == 1 else f"folds {', '.join(map(str, histories))}"
    words = f"of {named}, epoch by epoch"
    return pages.grid(*[pages.figure(each, f"{title} {words}") for title, each in drawn.items()])


def _chosen(history: pd.DataFrame, recipe: TrainingRecipe) -> Row | None:
    """Return the epoch whose weights were kept; None if the history lacks the column that selects it."""
    known = selecting_column(recipe.select) in history
    return selected_row(history.to_dict("records"), recipe.select) if known else None


def _ending(fold: Number, history: pd.DataFrame, recipe: TrainingRecipe) -> Markup:
    """Describe in a sentence how a fold or the full fit ended."""
    took = f"{history['seconds'].sum() / 60:.1f} minutes on {', '.join(history['device'].unique())}."
    if fold == FULL:
        return pages.paragraph(
            f"Trained on all training images for {len(history)} of {recipe.epochs} epochs, the median of the epochs "
            f"that the folds chose. It held out no images, so it has no out-of-fold score; {took}"
        )
    stopped = f", stopped early after epoch {len(history)}" if len(history) < recipe.epochs else ""
    return pages.paragraph(f"Fold {fold}: {_kept(history, recipe)}{stopped}; {took}")


def _kept(history: pd.DataFrame, recipe: TrainingRecipe) -> str:
    """Describe the epoch that was kept and its scores, or the last epoch if the kept one is unknown."""
    chosen, select = _chosen(history, recipe), recipe.select.replace("_", " ")
    row = chosen or history.to_dict("records")[-1]
    scores = ", ".join(f"{column_of(name).label} {row[name]:.4f}" for name in scores_in(row))
    if chosen:
        return f"the weights of epoch {row['epoch']} of {recipe.epochs} were kept ({select}: {scores})"
    return (
        f"it was trained with another metric, so the epoch with the {select} is unknown; "
        f"epoch {row['epoch']} of {recipe.epochs} ended with {scores}"
    )
