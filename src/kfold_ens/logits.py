"""Logits of models for images, and the logits files in which rules exchange them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from zipfile import BadZipFile

import numpy as np
from scipy.special import logsumexp

from kfold_ens.errors import DataError
from kfold_ens.files import atomic

DAMAGED = (OSError, ValueError, KeyError, EOFError, BadZipFile)  # raised by np.load and by missing arrays


@dataclass(frozen=True)
class Logits:
    """Logits of N images for K classes. Rows correspond to ``image_id``, columns to ``classes``."""

    image_id: np.ndarray  # (N,) text
    values: np.ndarray  # (N, K) floating point
    classes: tuple[str, ...]  # (K,)

    def __post_init__(self) -> None:
        if self.values.shape != (len(self.image_id), len(self.classes)):
            raise ValueError(
                f"logits of shape {self.values.shape} do not fit "
                f"{len(self.image_id)} images and {len(self.classes)} classes"
            )

    def predictions(self) -> np.ndarray:
        """Return the class with the largest logit of each image, the first one on a tie: (N,) text."""
        return np.array(self.classes, dtype=object)[self.values.argmax(axis=1)]


def at_temperature(logits: Logits, temperature: float) -> Logits:
    """Divide logits by a temperature, in float64."""
    return Logits(logits.image_id, logits.values.astype(np.float64) / temperature, logits.classes)


def class_indices(logits: Logits, label_of: Mapping[str, str]) -> np.ndarray:
    """Return the column of each image's label; -1 without a label or if it is not a class: (N,) int."""
    column_of = {label: column for column, label in enumerate(logits.classes)}
    labels = (label_of.get(image_id) for image_id in logits.image_id)
    return np.array([-1 if label is None else column_of.get(label, -1) for label in labels], dtype=np.int64)


def concatenated(parts: Sequence[Logits]) -> Logits:
    """Concatenate the logits of several sets of images, which must have the same classes in the same order."""
    return Logits(
        np.concatenate([part.image_id for part in parts]),
        np.concatenate([part.values for part in parts]),
        parts[0].classes,
    )


def log_mean_softmax(logits_mnk: np.ndarray) -> np.ndarray:
    """Return the logarithm of the mean softmax of M members: (M, N, K) to (N, K), finite for all finite logits.

    Values are sorted before they are summed, so that the order of members and classes changes no bit.
    """
    below_top = logits_mnk - logits_mnk.max(axis=2, keepdims=True)
    log_p = below_top - np.log(np.exp(np.sort(below_top, axis=2)).sum(axis=2, keepdims=True))
    return logsumexp(np.sort(log_p, axis=0), axis=0) - np.log(len(logits_mnk))


def write_logits(path: str | Path, logits: Logits) -> None:
    """Write a logits file atomically, readable without pickle."""
    write_arrays(path, logits.image_id, logits.values, logits.classes)


def write_arrays(
    path: str | Path, image_id: np.ndarray, values: np.ndarray, classes: Sequence[str], **more: Any
) -> None:
    """Write the arrays of a logits file, and ``more`` of them, atomically. ``values`` may have any shape."""
    columns: dict[str, Any] = {
        "image_id": np.asarray(image_id, dtype=np.str_),
        "logits": values,
        "classes": np.asarray(classes, dtype=np.str_),
        **more,
    }
    with atomic(path) as temporary, open(temporary, "wb") as file:
        np.savez(file, **columns)


def read_logits(path: str | Path) -> Logits:
    """Read a logits file.

    Raises:
        DataError: if the file is damaged, repeats an id, or holds a value that is not finite.
    """
    try:
        with np.load(path, allow_pickle=False) as columns:
            logits = Logits(
                image_id=columns["image_id"].astype(object),
                values=columns["logits"],
                classes=tuple(columns["classes"].tolist()),
            )
    except DAMAGED as error:
        raise DataError(f"{path} is damaged ({error}); delete it and run again") from None
    if len(np.unique(logits.image_id)) != len(logits.image_id):
        raise DataError(f"{path} holds an image twice; delete it and run again")
    if not np.isfinite(logits.values).all():
        raise DataError(f"{path} holds values that are not finite; retrain this fold")
    return logits
