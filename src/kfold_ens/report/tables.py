"""The report's tables."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
import pandas as pd
from sklearn.metrics import confusion_matrix, precision_recall_fscore_support

from kfold_ens.exchange import Logits


def truth_of(logits: Logits, label_of: Mapping[str, str]) -> np.ndarray:
    """The labels of a set of images: (N,) text."""
    return np.array([label_of[image_id] for image_id in logits.image_id], dtype=object)


def confusion_counts(logits: Logits, truth: np.ndarray) -> np.ndarray:
    """Images by true and predicted class, both in the classes' order: (K, K)."""
    return confusion_matrix(truth, logits.predictions(), labels=list(logits.classes))


def per_class(logits: Logits, truth: np.ndarray) -> pd.DataFrame:
    """Recall, precision and images of every class, the worst recall first."""
    precision, recall, _, images = precision_recall_fscore_support(
        truth, logits.predictions(), labels=list(logits.classes), zero_division=0
    )
    table = pd.DataFrame(
        {"class": logits.classes, "recall": recall.round(4), "precision": precision.round(4), "images": images}
    )
    return table.sort_values(["recall", "precision"], kind="stable")


def most_confused(counts_kk: np.ndarray, classes: tuple[str, ...], most: int = 50) -> pd.DataFrame:
    """Pairs of classes taken for each other, the most frequent first; ``share`` is of the true class."""
    wrong = counts_kk - np.diag(np.diag(counts_kk))
    rows, columns = np.unravel_index(np.argsort(-wrong, axis=None, kind="stable")[:most], wrong.shape)
    table = pd.DataFrame(
        {
            "true": np.array(classes, dtype=object)[rows],
            "predicted": np.array(classes, dtype=object)[columns],
            "images": wrong[rows, columns],
            "share": (wrong[rows, columns] / counts_kk.sum(axis=1).clip(min=1)[rows]).round(4),
        }
    )
    return table[table["images"] > 0]
