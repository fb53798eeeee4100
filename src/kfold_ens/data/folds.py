"""The one split that every recipe uses."""

from __future__ import annotations

import numpy as np
import pandas as pd
from sklearn.model_selection import StratifiedKFold

from kfold_ens.errors import DataError, listing


def assign_folds(train: pd.DataFrame, num_folds: int, seed: int) -> pd.DataFrame:
    """Give every training image a fold: ``image_id, fold``, sorted by ``image_id``.

    scikit-learn's StratifiedKFold over one image of each group of duplicates; the others follow it. The result
    depends on the set of (image_id, label, duplicate_group), not on the order of its rows.

    Raises:
        DataError: where a class has fewer distinct images than there are folds.
    """
    train = train.sort_values("image_id")
    distinct = train.drop_duplicates("duplicate_group")
    _refuse_small_classes(distinct["label"], num_folds)
    splitter = StratifiedKFold(num_folds, shuffle=True, random_state=seed)
    fold_of_group = pd.Series(0, index=distinct["duplicate_group"].to_numpy())
    for fold, (_, held_out) in enumerate(splitter.split(np.zeros(len(distinct)), distinct["label"])):
        fold_of_group.iloc[held_out] = fold
    folds = fold_of_group.loc[train["duplicate_group"]].to_numpy()
    return pd.DataFrame({"image_id": train["image_id"].to_numpy(), "fold": folds})


def _refuse_small_classes(labels: pd.Series, num_folds: int) -> None:
    counts = labels.value_counts()
    small = [f"{label}: {count}" for label, count in counts[counts < num_folds].sort_index().items()]
    if small:
        raise DataError(
            f"num_folds is {num_folds}, but these classes have fewer distinct images; "
            f"add images, remove the classes, or lower num_folds:\n{listing(small)}"
        )
