"""A listing: one row per image, with the label that the user gave it.

Its columns are ``image_id`` (unique, the same on every machine), ``name`` (what the user calls it), ``path``, ``split``
(train or test) and ``label`` (the user's text, empty if unknown). Three more columns exist only if configured:
``group`` (images of one group stay together in the split; empty if unknown), ``fold`` (as the user gave it) and
``extra`` (yes for images that only train, else empty).
"""

from __future__ import annotations

import pandas as pd

from kfold_ens import config

COLUMNS = ["image_id", "name", "path", "split", "label"]


def limited(images: pd.DataFrame, data: config.Source, seed: int) -> pd.DataFrame:
    """Draw at most ``limit_per_class`` images of each class and split, by the seed."""
    if data.limit_per_class is None:
        return images
    shuffled = images.sort_values("image_id").sample(frac=1, random_state=seed)
    kept = shuffled.groupby(["split", "label"], sort=False).head(data.limit_per_class)
    return images.loc[images["image_id"].isin(kept["image_id"])].copy()


def is_extra(images: pd.DataFrame) -> pd.Series:
    """Whether each image (N,) comes from ``data.extra`` and is therefore never held out."""
    return images["extra"] == "yes" if "extra" in images else pd.Series(False, images.index)


def with_extra(train: pd.DataFrame, extra: pd.DataFrame) -> pd.DataFrame:
    """Append the images of ``data.extra`` to a training listing, marked in the column ``extra``."""
    return pd.concat([train.assign(extra=""), extra.assign(extra="yes")], ignore_index=True).fillna("")
