"""Read the images of one fold. Images are identified by their bytes, never by their names."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import pandas as pd

from kfold_ens.data.pixels import PixelStore
from kfold_ens.files import read_json, read_table
from kfold_ens.members import Number


@dataclass(frozen=True)
class Images:
    """Labelled images of a pixel store: ids (N,) and class indices (N,)."""

    store: PixelStore
    image_id: np.ndarray
    target: np.ndarray

    def __len__(self) -> int:
        return len(self.image_id)

    def keys(self) -> list[str]:
        """Identify each image for random draws: by its SHA-256, plus a number for copies."""
        sha256 = pd.Series(self.store.sha256(self.image_id), dtype=object)
        number = sha256.groupby(sha256).cumcount()
        return [f"{each}-{copy}" if copy else each for each, copy in zip(sha256, number, strict=True)]


@dataclass(frozen=True)
class Fold:
    """Everything that determines a fold's weights, besides its recipe and pretrained weights."""

    number: Number
    seed: int
    train: Images
    validation: Images
    classes: tuple[str, ...]


def read_fold(number: Number, seed: int, folds: str, classes: str, store: PixelStore) -> Fold:
    """Read a fold's training and held-out images, in the order of their SHA-256.

    Images of fold -1 only train. The fold ``members.FULL`` holds out nothing.
    """
    labels = tuple(read_json(classes))
    class_index = {label: index for index, label in enumerate(labels)}
    images = read_table(folds).sort_values(["sha256", "image_id"])
    targets = images["label"].map(class_index).to_numpy(dtype=np.int64)
    held_out = (images["fold"] == str(number)).to_numpy()
    train, validation = (
        Images(store, images.loc[part, "image_id"].to_numpy(), targets[part]) for part in (~held_out, held_out)
    )
    return Fold(number, seed, train, validation, labels)


def listed_images(table: str, fold: Number | None = None) -> np.ndarray:
    """The image ids of a table, or only those that ``fold`` holds out: (N,) text."""
    images = read_table(table)
    return (images if fold is None else images[images["fold"] == str(fold)])["image_id"].to_numpy()
