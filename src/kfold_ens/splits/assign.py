"""Assign the folds that every recipe shares. Images are identified by their bytes, never by their names."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import pandas as pd

from kfold_ens.data.listings import is_extra
from kfold_ens.errors import DataError, listing
from kfold_ens.randomness import derive_seed
from kfold_ens.splits.units import is_grouped, kept_together

TRAINS_ONLY = -1  # the fold of images that are never held out
MOST_TRIES = 10  # draws of grouped folds, to keep the best balanced; 20 draws gave no better ones
TRIED_GROUPS = 10_000  # groups over all draws, at 0.6 ms each; with many groups the first draw is balanced anyway


def assign_folds(
    train: pd.DataFrame, num_folds: int, seed: int, keep_together: str = "none", rare_classes: str = "refuse"
) -> pd.DataFrame:
    """Assign a fold to each training image: a table ``image_id, sha256, label, fold``.

    Uses scikit-learn's StratifiedKFold on the distinct images in the order of their SHA-256; copies of an image follow
    it. If more than copies stay together, uses the best balanced of several draws of StratifiedGroupKFold. The result
    depends on the bytes, labels and groups of the images, not on their names or the order of the rows.

    Raises:
        DataError: if a class has fewer distinct images than there are folds, or there are fewer groups than folds.
    """
    candidates = train.assign(unit=kept_together(train, keep_together))[~is_extra(train)]
    distinct = candidates.drop_duplicates("sha256").sort_values("sha256")
    held_out = distinct[~distinct["label"].isin(RARE_CLASSES[rare_classes](distinct, num_folds))]
    if held_out.empty:
        raise DataError(
            f"num_folds is {num_folds}, but every class has fewer images or groups than that; lower num_folds"
        )
    split = _grouped if is_grouped(train, keep_together) else _stratified
    fold_of_image = pd.Series(split(held_out, num_folds, seed), held_out["sha256"].to_numpy())
    fold = train["sha256"].map(fold_of_image).where(~is_extra(train))
    return as_split(train, fold.fillna(TRAINS_ONLY).astype(int))


def as_split(train: pd.DataFrame, fold: pd.Series) -> pd.DataFrame:
    """Make the table of a split from the fold of each training image."""
    return train[["image_id", "sha256", "label"]].assign(fold=fold).sort_values("image_id", ignore_index=True)


# --- rare classes ------------------------------------------------------------------------------------------


def refuse_small_classes(distinct: pd.DataFrame, num_folds: int) -> list[str]:
    """Refuse classes with too few images for every fold; ``distinct`` holds distinct images.

    Raises:
        DataError: listing these classes and their numbers of images.
    """
    counts = distinct["label"].value_counts()
    small = [f"{label}: {count}" for label, count in counts[counts < num_folds].sort_index().items()]
    if small:
        raise DataError(
            f"num_folds is {num_folds}, but these classes have fewer distinct images; "
            "add images, remove the classes, lower num_folds, or write rare_classes: train_only:\n"
            f"{listing(small)}"
        )
    return []


def _in_fewer_units(distinct: pd.DataFrame, num_folds: int) -> list[str]:
    """Classes with fewer images, or groups of images, than there are folds."""
    units = distinct.groupby("label")["unit"].nunique()
    return list(units.index[units < num_folds])


RARE_CLASSES: dict[str, Callable[[pd.DataFrame, int], list[str]]] = {
    "refuse": refuse_small_classes,
    "train_only": _in_fewer_units,
}


# --- draws -------------------------------------------------------------------------------------------------


def _stratified(distinct: pd.DataFrame, num_folds: int, seed: int) -> np.ndarray:
    from sklearn.model_selection import StratifiedKFold  # slow to import, and few jobs need it

    return _folds_of(StratifiedKFold(num_folds, shuffle=True, random_state=seed), distinct["label"])


def _grouped(distinct: pd.DataFrame, num_folds: int, seed: int) -> np.ndarray:
    """The fold (N,) of each image, by its ``unit``. Images, and therefore units, are in the order of their SHA-256."""
    units, labels = (pd.factorize(distinct[name])[0] for name in ("unit", "label"))
    _refuse_few_groups(units, num_folds)
    folds = min(grouped_draws(labels, units, num_folds, seed), key=lambda draw: imbalance(labels, draw, num_folds))
    if len(set(folds)) < num_folds:
        raise DataError(
            f"num_folds is {num_folds}, but the groups are so uneven that a fold would hold out no images; "
            "lower num_folds"
        )
    return folds


def grouped_draws(labels: np.ndarray, units: np.ndarray, num_folds: int, seed: int) -> Iterator[np.ndarray]:
    """Draw folds (N,) with scikit-learn's StratifiedGroupKFold: first with the seed, then with derived seeds."""
    from sklearn.model_selection import StratifiedGroupKFold

    tries = int(np.clip(TRIED_GROUPS // (units.max() + 1), 1, MOST_TRIES))
    for number in range(tries):
        state = derive_seed(seed, "grouped folds", number) % 2**32 if number else seed
        yield _folds_of(StratifiedGroupKFold(num_folds, shuffle=True, random_state=state), labels, units)


def imbalance(labels: np.ndarray, folds: np.ndarray, num_folds: int) -> tuple[int, float, float]:
    """How uneven folds are: empty folds, and deviations of a fold's share of a class from 1 / ``num_folds``.

    Returns the number of empty folds, the largest deviation and the mean deviation; smaller is better.
    """
    counts = np.zeros((labels.max() + 1, num_folds))
    np.add.at(counts, (labels, folds), 1)
    deviation = np.abs(counts / counts.sum(axis=1, keepdims=True) - 1 / num_folds)
    return int((counts.sum(axis=0) == 0).sum()), round(deviation.max(), 9), round(deviation.mean(), 9)


def _folds_of(splitter: Any, labels: np.ndarray, groups: np.ndarray | None = None) -> np.ndarray:
    folds = np.zeros(len(labels), dtype=int)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # about classes in fewer groups than folds, which doubts_of_split reports
        for fold, (_, held_out) in enumerate(splitter.split(np.zeros(len(labels)), labels, groups)):
            folds[held_out] = fold
    return folds


def _refuse_few_groups(units: np.ndarray, num_folds: int) -> None:
    groups = len(np.unique(units))
    if groups < num_folds:
        raise DataError(
            f"num_folds is {num_folds}, but there are only {groups} groups of images that stay together (data.groups, "
            "data.group_column, keep_together); lower num_folds"
        )
