"""The split of a run: made or as given, checked, and told in a table."""

from __future__ import annotations

import logging

import pandas as pd

from kfold_ens.config import Config
from kfold_ens.data.classes import natural_key
from kfold_ens.errors import DataError, Together, listing
from kfold_ens.metrics import find_metric
from kfold_ens.splits.assign import as_split, assign_folds
from kfold_ens.splits.doubts import doubts_of_split, refuse_untrained_classes
from kfold_ens.splits.given import given_folds
from kfold_ens.splits.table import in_words
from kfold_ens.splits.units import is_grouped, kept_together

log = logging.getLogger(__name__)


def make_split(train: pd.DataFrame, run: Config) -> pd.DataFrame:
    """The split of the training images of a manifest: ``image_id, sha256, label, fold``. Logs what it looks like.

    Raises:
        DataError: if there is no such split, or none that can be trained on.
    """
    given = given_folds(train, run)
    if given is None:
        split = assign_folds(train, run.num_folds, run.seed, run.keep_together, run.rare_classes)
    else:
        split = as_split(train, given)
    units = pd.Series(kept_together(train, run.keep_together), train["image_id"].to_numpy())
    log.info("%s", in_words(split, units if is_grouped(train, run.keep_together) else None, run.num_folds))
    together = Together(DataError)
    with together.gather():
        refuse_untrained_classes(split, run.num_folds)
    with together.gather():
        _refuse_unmeasured_classes(split, run)
    together.raise_all()
    for doubt in doubts_of_split(split, units, run.num_folds):
        log.warning(doubt)
    return split


def _refuse_unmeasured_classes(split: pd.DataFrame, run: Config) -> None:
    """Refuse a metric that needs every class if some are never held out."""
    held_out = split["fold"].groupby(split["label"]).max() >= 0
    unmeasured = sorted(held_out.index[~held_out], key=natural_key)
    if unmeasured and find_metric(run.metric).needs_every_class:
        raise DataError(
            f"metric: {run.metric} has a value only if every class is held out, and these classes only train; write "
            f"another metric, or lower num_folds:\n{listing(unmeasured)}"
        )
