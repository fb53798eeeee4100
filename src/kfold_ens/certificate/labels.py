"""Give a fold's held-out images other labels, the same ones for the same seed. Imports no torch."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import pandas as pd

from kfold_ens.members import Number
from kfold_ens.randomness import derive_seed


def with_other_labels(split: pd.DataFrame, fold: Number, classes: Sequence[str], seed: int) -> pd.DataFrame:
    """Return the split with other labels of the images that ``fold`` holds out. Folds stay the same.

    ``split`` is the table ``image_id, sha256, label, fold``. Names and the order of rows don't affect the result.
    """
    order = split.sort_values(["sha256", "image_id"]).index
    held_out = order[(split.loc[order, "fold"].astype(str) == str(fold)).to_numpy()]
    split = split.copy()
    split.loc[held_out, "label"] = other_labels(
        split.loc[held_out, "label"].tolist(), classes, derive_seed("certificate", seed, fold)
    )
    return split


def other_labels(labels: Sequence[str], classes: Sequence[str], seed: int) -> np.ndarray:
    """Permute labels (N,), then move half of the largest class to a small one.

    The permutation changes every label, unless one class holds over half of the images. The move changes the number of
    images per class: class weights and other totals would not notice a permutation.
    """
    random, true = np.random.default_rng(seed), np.array(labels, dtype=object)
    shuffled = random.permutation(len(true))
    by_class = shuffled[np.argsort(true[shuffled], kind="stable")]
    largest = np.unique(true, return_counts=True)[1].max()
    shift = random.integers(largest, max(len(true) - largest, largest), endpoint=True)  # no image meets its own class
    other = np.empty_like(true)
    other[by_class] = np.roll(true[by_class], shift)
    return _with_other_counts(other, true, classes)


def _with_other_counts(labels: np.ndarray, true: np.ndarray, classes: Sequence[str]) -> np.ndarray:
    counts = {name: int((labels == name).sum()) for name in classes}
    largest = max(counts, key=lambda name: counts[name])
    candidates = np.flatnonzero(labels == largest)
    receiver = min(
        (name for name in classes if name != largest),
        key=lambda name: ((true[candidates] == name).sum(), counts[name]),  # so that few labels become true again
    )
    candidates = candidates[np.argsort(true[candidates] == receiver, kind="stable")]
    moved = labels.copy()
    moved[candidates[: max(1, len(candidates) // 2)]] = receiver
    return moved
