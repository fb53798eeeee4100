"""The held-out logits of every epoch of a fold, kept to score the choice of the epoch. Imports no torch.

They are float16 below each image's largest logit. That changes no softmax and no prediction, and where classes are
close, float16 is most precise.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

from kfold_ens.files import sha256_of
from kfold_ens.logits import DAMAGED, Logits, write_arrays

FILE = "oof_epochs.npz"
DTYPE = np.dtype(np.float16)


class NotKept(Exception):
    """The reason why the choice of an epoch cannot be scored. Shown beside the score; no error of the user."""


@dataclass(frozen=True)
class EpochLogits:
    """Logits of N held-out images for K classes after each of E epochs."""

    image_id: np.ndarray  # (N,) text
    values: np.ndarray  # (E, N, K) float16
    classes: tuple[str, ...]  # (K,)

    def after(self, epoch: int) -> Logits:
        """Return the logits after an epoch, counted from 1, in float32."""
        return Logits(self.image_id, self.values[epoch - 1].astype(np.float32), self.classes)


def compact(logits: np.ndarray) -> np.ndarray:
    """Turn logits (N, K) into float16, less the largest of each image."""
    below_top = logits - logits.max(axis=1, keepdims=True)
    return np.maximum(below_top, np.finfo(DTYPE).min).astype(DTYPE)


def size_of(epochs: int, images: int, classes: int) -> int:
    """Return the bytes of the logits of all epochs."""
    return epochs * images * classes * DTYPE.itemsize


def write_epochs(path: Path, epochs: EpochLogits, history: Path) -> None:
    """Write the logits of all epochs atomically; ``history`` is the file of the same training."""
    write_arrays(path, epochs.image_id, epochs.values, epochs.classes, history=np.asarray(sha256_of(history)))


def name_images(history: Path, image_id: np.ndarray) -> None:
    """Put the images' present names (N,), in the order of a fold, into its restored logits of epochs.

    A kept fold is found by the bytes of its images, in this order; their names may have changed since.
    """
    try:
        epochs = read_epochs(history)
    except NotKept:
        return
    if len(image_id) == len(epochs.image_id) and not np.array_equal(epochs.image_id, image_id):
        write_epochs(history.with_name(FILE), replace(epochs, image_id=image_id), history)


def read_epochs(history: str | Path) -> EpochLogits:
    """Read the logits that lie beside a fold's history.

    Raises:
        NotKept: if there are none, if they are damaged, or if they are of another training.
    """
    path = Path(history).with_name(FILE)
    if not path.is_file() or not path.stat().st_size:  # in a storage, it is empty if none are kept
        raise NotKept(f"there is no {path}, which training writes if epoch_logits_mb allows it")
    try:
        with np.load(path, allow_pickle=False) as columns:
            epochs = EpochLogits(
                columns["image_id"].astype(object), columns["logits"], tuple(columns["classes"].tolist())
            )
            owner = str(columns["history"])
    except DAMAGED as error:
        raise NotKept(f"{path} is damaged ({error})") from None
    if owner != sha256_of(history):
        raise NotKept(f"{path} is of another training than {history}")
    return epochs
