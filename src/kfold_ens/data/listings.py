"""A listing: one row per image, with the label its user gave it.

Its columns are ``image_id`` (unique, the same on every machine), ``name`` (what the user calls it), ``path``, ``split``
(train or test) and ``label`` (the user's own string, empty if unknown). If configured, there are also ``group`` (images
of one group stay together in the split; empty if unknown), ``fold`` (as given by the user) and ``extra`` (yes for
images that only train, else empty).
"""

from __future__ import annotations

import pandas as pd

from kfold_ens import config

COLUMNS = ["image_id", "name", "path", "split", "label"]


def limited(images: pd.DataFrame, data: config.Source, seed: int) -> pd.DataFrame:
    """At most ``limit_per_class`` images of each class and split, drawn by the seed."""
    if data.limit_per_class is None:
        return images
    shuffled = images.sort_values("image_id").sample(frac=1, random_state=seed)
    kept = shuffled.groupby(["split", "label"], sort=False).head(data.limit_per_class)
    return images.loc[images["image_id"].isin(kept["image_id"])].copy()


def is_extra(images: pd.DataFrame) -> pd.Series:
    """Whether each image (N,) is one of ``data.extra``: such images are never held out."""
    return images["extra"] == "yes" if "extra" in images else pd.Series(False, images.index)


def with_extra(train: pd.DataFrame, extra: pd.DataFrame) -> pd.DataFrame:
    """A listing of training images with those of ``data.extra``; they are marked in the column ``extra``."""
    return pd.concat([train.assign(extra=""), extra.assign(extra="yes")], ignore_index=True).fillna("")
