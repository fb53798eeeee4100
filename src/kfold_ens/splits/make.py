"""Make the split of a run, or use the given one; check it and log it as a table."""

from __future__ import annotations

import logging
from collections.abc import Mapping

import pandas as pd

from kfold_ens.config import Config, Scoring
from kfold_ens.data.classes import natural_key
from kfold_ens.errors import DataError, Together, listing
from kfold_ens.metrics import find_metric
from kfold_ens.splits.assign import as_split, assign_folds
from kfold_ens.splits.doubts import doubts_of_split, refuse_untrained_classes
from kfold_ens.splits.given import given_folds, has_given_folds
from kfold_ens.splits.table import class_counts, in_words
from kfold_ens.splits.units import is_grouped, kept_together

log = logging.getLogger(__name__)


NONE: Mapping[str, Scoring] = {}


def check_splits(train: pd.DataFrame, run: Config, of_recipes: Mapping[str, Scoring] = NONE) -> None:
    """Check that the splits of all repeats can be made. Given folds are the same in every repeat.

    Raises:
        DataError: if a split cannot be made, or cannot be trained on.
    """
    for repeat in range(1 if has_given_folds(train, run) else run.repeats):
        if repeat:
            log.info("repeat %d:", repeat)
        make_split(train, run, run.seed + repeat, of_recipes)


def make_split(
    train: pd.DataFrame, run: Config, seed: int | None = None, of_recipes: Mapping[str, Scoring] = NONE
) -> pd.DataFrame:
    """Split the training images of a manifest: ``image_id, sha256, label, fold``. Logs the split as a table.

    ``seed`` is that of the repeat, by default the run's. ``of_recipes`` holds the metrics by which recipes select,
    stop or step, by recipe and key.

    Raises:
        DataError: if no split can be made, or it cannot be trained on.
    """
    seed = run.seed if seed is None else seed
    given = given_folds(train, run)
    if given is None:
        split = assign_folds(train, run.num_folds, seed, run.keep_together, run.rare_classes)
    else:
        split = as_split(train, given)
    units = pd.Series(kept_together(train, run.keep_together), train["image_id"].to_numpy())
    log.info("%s", in_words(split, units if is_grouped(train, run.keep_together) else None, run.num_folds))
    together = Together(DataError)
    with together.gather():
        refuse_untrained_classes(split, run.num_folds)
    with together.gather():
        _refuse_unmeasured_classes(split, run)
    with together.gather():
        _refuse_folds_without_a_class(split, run.num_folds, of_recipes)
    together.raise_all()
    for doubt in doubts_of_split(split, units, run.num_folds):
        log.warning(doubt)
    return split


def _refuse_unmeasured_classes(split: pd.DataFrame, run: Config) -> None:
    """Refuse a metric that needs every class if some classes are never held out."""
    held_out = split["fold"].groupby(split["label"]).max() >= 0
    unmeasured = sorted(held_out.index[~held_out], key=natural_key)
    if unmeasured and find_metric(run.metric).needs_every_class:
        raise DataError(
            f"metric: {run.metric} needs held-out images of every class, but these classes only train; choose "
            f"another metric, or lower num_folds:\n{listing(unmeasured)}"
        )


def _refuse_folds_without_a_class(split: pd.DataFrame, num_folds: int, of_recipes: Mapping[str, Scoring]) -> None:
    """Refuse metrics that recipes compute every epoch and that need every class, if a fold lacks a class."""
    needing = [key for key, scoring in of_recipes.items() if find_metric(scoring.metric).needs_every_class]
    counts = class_counts(split, num_folds)[range(num_folds)]
    lacking = [
        f"{label}: none in fold {', '.join(map(str, row.index[row == 0]))}"
        for label, row in counts[(counts == 0).any(axis=1)].iterrows()
    ]
    if needing and lacking:
        raise DataError(
            f"{', '.join(needing)}: this metric needs held-out images of every class in every fold; choose another "
            f"metric, or lower num_folds:\n{listing(lacking)}"
        )
