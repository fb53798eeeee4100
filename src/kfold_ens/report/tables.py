"""The report's numbers as tables, computed from the logits files and the manifest alone."""

from __future__ import annotations

import warnings
from collections import Counter
from collections.abc import Mapping, Sequence

import numpy as np
import pandas as pd
from scipy.special import softmax
from sklearn.metrics import confusion_matrix, precision_recall_fscore_support

from kfold_ens.logits import Logits

# --- out of fold -----------------------------------------------------------------------------------------


def labelled(logits: Logits, label_of: Mapping[str, str]) -> tuple[Logits, np.ndarray]:
    """Select the images with a known label; return their logits and labels (N,) text."""
    known = np.array([bool(label_of.get(image_id)) for image_id in logits.image_id], dtype=bool)
    some = Logits(logits.image_id[known], logits.values[known], logits.classes)
    return some, np.array([label_of[image_id] for image_id in some.image_id], dtype=object)


def confusion_counts(logits: Logits, truth: np.ndarray) -> np.ndarray:
    """Count images by true and predicted class, both in the order of ``logits.classes``: (K, K)."""
    return confusion_matrix(truth, logits.predictions(), labels=list(logits.classes))


def per_class(logits: Logits, truth: np.ndarray) -> pd.DataFrame:
    """Return recall, precision and number of images per class, the worst recall first.

    Recall is NaN for a class without images, precision for one that is never predicted.
    """
    precision, recall, _, images = precision_recall_fscore_support(
        truth, logits.predictions(), labels=list(logits.classes), zero_division=np.nan
    )
    table = pd.DataFrame({"class": logits.classes, "recall": recall, "precision": precision, "images": images})
    return table.sort_values(["recall", "precision"], kind="stable")


def most_confused(counts_kk: np.ndarray, classes: Sequence[str], most: int) -> pd.DataFrame:
    """List confused pairs of classes, the most frequent first. ``share`` is the share of the true class's images."""
    wrong = counts_kk - np.diag(np.diag(counts_kk))
    rows, columns = np.unravel_index(np.argsort(-wrong, axis=None, kind="stable")[:most], wrong.shape)
    names = np.array(classes, dtype=object)
    table = pd.DataFrame(
        {
            "true": names[rows],
            "predicted": names[columns],
            "images": wrong[rows, columns],
            "share": wrong[rows, columns] / counts_kk.sum(axis=1).clip(min=1)[rows],
        }
    )
    return table[table["images"] > 0]


def _class_indices(logits: Logits, truth: np.ndarray) -> np.ndarray:
    """Return the columns of these labels: (N,) int."""
    column = {label: index for index, label in enumerate(logits.classes)}
    return np.array([column[label] for label in truth], dtype=int)


def mistakes(logits: Logits, truth: np.ndarray) -> pd.DataFrame:
    """List wrong predictions, the most confident first. ``given`` is the softmax of the true label."""
    probabilities = softmax(logits.values, axis=1)
    own = _class_indices(logits, truth)
    table = pd.DataFrame(
        {
            "image_id": logits.image_id,
            "true": truth,
            "predicted": logits.predictions(),
            "confidence": probabilities.max(axis=1),
            "given": probabilities[np.arange(len(truth)), own],
        }
    )
    wrong = table[table["true"] != table["predicted"]]
    return wrong.sort_values(["confidence", "image_id"], ascending=[False, True], kind="stable")


def label_errors(logits: Logits, truth: np.ndarray) -> pd.DataFrame:
    """List images with likely label errors, the most likely first, in the columns of ``mistakes``.

    Confident learning (Northcutt et al. 2021, https://arxiv.org/abs/1911.00068), by cleanlab.
    """
    from cleanlab.filter import find_label_issues

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # about classes with few images
        ranked = find_label_issues(
            _class_indices(logits, truth),
            softmax(logits.values, axis=1),
            return_indices_ranked_by="self_confidence",
            n_jobs=1,
        )
    return mistakes(logits, truth).set_index("image_id", drop=False).reindex(logits.image_id[ranked]).dropna()


# --- confidence ------------------------------------------------------------------------------------------


def confidence_of(logits: Logits) -> np.ndarray:
    """Return each image's largest softmax: (N,)."""
    return softmax(logits.values, axis=1).max(axis=1)


def calibration(confidence: np.ndarray, right: np.ndarray, bins: int = 15) -> pd.DataFrame:
    """Return images, mean confidence and accuracy per non-empty bin of confidence. Bins have equal widths."""
    bin_of = np.clip((confidence * bins).astype(int), 0, bins - 1)
    table = pd.DataFrame({"bin": bin_of, "confidence": confidence, "accuracy": right})
    means = table.groupby("bin")[["confidence", "accuracy"]].mean()
    return means.assign(images=table.groupby("bin").size()).reset_index(drop=True)


def calibration_error(bins: pd.DataFrame) -> float:
    """Return the expected calibration error: |accuracy - confidence| of the bins, averaged over images.

    Guo et al. 2017, https://arxiv.org/abs/1706.04599, equation 3.
    """
    gaps = (bins["accuracy"] - bins["confidence"]).abs() * bins["images"]
    return float(gaps.sum() / bins["images"].sum())


# --- between folds ---------------------------------------------------------------------------------------


def votes(members: Sequence[Logits]) -> pd.DataFrame:
    """Return each fold's prediction for each test image: one column per fold, images as the index."""
    predictions = [pd.Series(each.predictions(), index=each.image_id) for each in members]
    return pd.concat(predictions, axis=1)


def agreement(votes: pd.DataFrame) -> np.ndarray:
    """Return the share of images on which two folds agree: (folds, folds)."""
    values = votes.to_numpy()
    return (values[:, :, None] == values[:, None, :]).mean(axis=0)


def majority_sizes(votes: pd.DataFrame) -> pd.Series:
    """Count the folds that give each image's most frequent prediction."""
    return votes.apply(lambda row: max(Counter(row).values()), axis=1)


def disputed(votes: pd.DataFrame, confidence: pd.Series) -> pd.DataFrame:
    """List test images on which folds disagree, the smallest majority first, then the lowest confidence."""
    sizes = majority_sizes(votes)
    table = pd.DataFrame({"image_id": votes.index, "majority": sizes.to_numpy()})
    table["votes"] = [
        ", ".join(f"{label} {count}" for label, count in Counter(row).most_common()) for row in votes.to_numpy()
    ]
    table["confidence"] = table["image_id"].map(confidence)
    split = table[table["majority"] < votes.shape[1]]
    return split.sort_values(["majority", "confidence", "image_id"], kind="stable")
