"""The out-of-fold predictions of each image, combined over repeats."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import pandas as pd

from kfold_ens.ensemble.combine import METHODS
from kfold_ens.logits import Logits, concatenated, read_logits
from kfold_ens.members import of_recipes


def read_held_out(files: Sequence[str], method: str) -> dict[str, Logits]:
    """Read the out-of-fold logits of each recipe from the files of folds, combined over repeats by a method."""
    return {
        recipe: concatenated(combined_over_repeats(list(map(read_logits, own)), method))
        for recipe, own in of_recipes(files).items()
    }


def combined_over_repeats(folds: Sequence[Logits], method: str) -> list[Logits]:
    """Combine each image's out-of-fold logits over repeats by an ensembling method, in float64.

    ``folds`` are those of all repeats, with the same classes in the same order; some may be missing. In the result
    each image occurs once, in the first fold that held it out. Without repeats, returns the folds unchanged.
    """
    together = concatenated(folds)
    image, image_id = pd.factorize(together.image_id)
    if len(image_id) == len(image):
        return list(folds)
    scores = np.empty((len(image_id), len(together.classes)))
    times = np.bincount(image)
    for number in np.unique(times):
        chosen = np.flatnonzero(times == number)
        scores[chosen] = METHODS[method].build(_of_images(together.values, image, chosen))
    first = np.repeat(np.arange(len(folds)), [len(fold.image_id) for fold in folds])[np.unique(image, True)[1]]
    return [
        Logits(image_id[first == fold], scores[first == fold], together.classes)
        for fold in range(len(folds))
        if (first == fold).any()
    ]


def _of_images(values_rk: np.ndarray, image: np.ndarray, chosen: np.ndarray) -> np.ndarray:
    """Stack the logits of images that occur M times each: (M, N, K)."""
    rows = np.flatnonzero(np.isin(image, chosen))
    rows_nm = rows[np.argsort(image[rows], kind="stable")].reshape(len(chosen), -1)
    return values_rk[rows_nm.T].astype(np.float64)
