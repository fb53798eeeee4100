"""The report's chapter on training: what every fold did, epoch by epoch."""

from __future__ import annotations

from collections.abc import Mapping

import pandas as pd

from kfold_ens.config import TrainingRecipe
from kfold_ens.history import Row, column_of, scores_in, selected_row, selecting_column
from kfold_ens.members import FULL, Number, title
from kfold_ens.report import figures, pages
from kfold_ens.report.pages import Markup


def write_curves(histories: Mapping[Number, pd.DataFrame], recipe: TrainingRecipe, num_folds: int, path: str) -> None:
    """The page of all folds together."""
    pages.write_page(
        path,
        "Training, all folds",
        *pages.unfinished(len(histories), num_folds),
        curves(histories, recipe),
        *[_ending(fold, history, recipe) for fold, history in histories.items()],
    )


def write_fold(fold: Number, history: pd.DataFrame, recipe: TrainingRecipe, path: str) -> None:
    """The page of one fold, or of the full fit."""
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
    """A row per epoch, without empty columns."""
    cells = {
        column_of(name).label: history[name].map(cell.format, na_action="ignore")
        if (cell := column_of(name).cell)
        else values
        for name, values in history.items()
    }
    return pd.DataFrame(cells).dropna(axis="columns", how="all")


def curves(histories: Mapping[Number, pd.DataFrame], recipe: TrainingRecipe) -> Markup:
    """The curves as figures side by side."""
    kept = {fold: _chosen(history, recipe) for fold, history in histories.items()}
    chosen = {fold: int(row["epoch"]) for fold, row in kept.items() if row}
    drawn = figures.training_curves(histories, chosen)
    named = title(*histories) if len(histories) == 1 else f"folds {', '.join(map(str, histories))}"
    words = f"of {named}, epoch by epoch"
    return pages.grid(*[pages.figure(each, f"{title} {words}") for title, each in drawn.items()])


def _chosen(history: pd.DataFrame, recipe: TrainingRecipe) -> Row | None:
    """The epoch whose weights were kept; None if the fold was not scored by what selects it now."""
    known = selecting_column(recipe.select) in history
    return selected_row(history.to_dict("records"), recipe.select) if known else None


def _ending(fold: Number, history: pd.DataFrame, recipe: TrainingRecipe) -> Markup:
    """How a fold, or the full fit, ended, in a sentence."""
    took = f"{history['seconds'].sum() / 60:.1f} minutes on {', '.join(history['device'].unique())}."
    if fold == FULL:
        return pages.paragraph(
            f"Trained on all training images for {len(history)} of {recipe.epochs} epochs, the median of those that "
            f"the folds chose. Nothing was held out, so this model has no score of its own; {took}"
        )
    stopped = f", stopped early after epoch {len(history)}" if len(history) < recipe.epochs else ""
    return pages.paragraph(f"Fold {fold}: {_kept(history, recipe)}{stopped}; {took}")


def _kept(history: pd.DataFrame, recipe: TrainingRecipe) -> str:
    """The epoch that was kept and its scores; the last one's if it is unknown which was."""
    chosen, select = _chosen(history, recipe), recipe.select.replace("_", " ")
    row = chosen or history.to_dict("records")[-1]
    scores = ", ".join(f"{column_of(name).label} {row[name]:.4f}" for name in scores_in(row))
    if chosen:
        return f"the weights of epoch {row['epoch']} of {recipe.epochs} were kept ({select}: {scores})"
    return (
        f"it was trained under another metric, so no epoch can be shown as that of the {select}; "
        f"epoch {row['epoch']} of {recipe.epochs} ended with {scores}"
    )
