"""Test by small classifiers whether test images differ from training images."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import PurePath
from typing import TYPE_CHECKING

import numpy as np
import pandas as pd
from PIL import Image
from scipy.optimize import brentq
from scipy.stats import norm

from kfold_ens.data.pixels import PixelStore, PixelStores

if TYPE_CHECKING:
    from sklearn.base import ClassifierMixin

FOLDS = 5  # of the classifiers; each half needs at least as many different images
MOST = 2000  # images of each half: intervals are then at most 0.04 wide, and computing takes seconds
SIDE = 8  # pixels of a thumbnail
CLEAR = 0.6  # an AUC whose interval is above this is a clear difference
SAME_KIND = {"jpeg": "jpg", "jpe": "jpg", "jfif": "jpg", "tif": "tiff"}


@dataclass(frozen=True)
class Told:
    """The ROC AUC of a classifier that separates test from training images, with its 95% interval."""

    auc: float
    low: float
    high: float
    probability: np.ndarray  # (N,) of being a test image, by a classifier that was not trained on the image

    @property
    def is_clear(self) -> bool:
        """Whether the images clearly differ."""
        return self.low > CLEAR

    @property
    def is_alike(self) -> bool:
        """Whether the images differ little or not at all."""
        return self.high <= CLEAR


def kinds(paths: pd.Series) -> pd.Series:
    """Return the kind of each file by its extension, in lower case: ``jpg``, ``png``; empty without one."""
    extension = paths.map(lambda path: PurePath(path).suffix.lower().removeprefix("."))
    return extension.replace(SAME_KIND)


def drawn(manifest: pd.DataFrame, alike: pd.DataFrame) -> pd.DataFrame:
    """Sample at most ``MOST`` images of each half, with a column ``group``.

    Takes the first images by SHA-256, which is as good as random and independent of names and order. Identical images
    and near-duplicates share a group, and each half has at most one image per group.
    """
    look_alike = manifest["image_id"].map(alike.set_index("image_id")["group"].astype(str)).astype(object)
    group = look_alike.where(look_alike.notna(), manifest["sha256"])
    images = manifest.assign(group=group).sort_values(["sha256", "split", "image_id"])
    some = images.drop_duplicates(["split", "sha256"]).groupby("split").head(MOST)
    return some.drop_duplicates(["split", "group"]).reset_index(drop=True)


def can_be_compared(images: pd.DataFrame) -> bool:
    """Whether both halves have enough images in the sample."""
    return all((images["split"] == half).sum() >= FOLDS for half in ("train", "test"))


def looks(images: pd.DataFrame, store: PixelStore | PixelStores) -> np.ndarray:
    """Return the features of images' pixels: (N, 3 SIDE² + 2) float64, thumbnails, then brightness and contrast.

    Reads one image at a time.
    """
    values = np.empty((len(images), 3 * SIDE**2 + 2))
    for row, image_id in enumerate(images["image_id"]):
        values[row] = _look(store.image(image_id))
    return values


def _look(pixels_hwc: np.ndarray) -> np.ndarray:
    thumbnail = Image.fromarray(pixels_hwc).resize((SIDE, SIDE), Image.Resampling.BOX)
    step = max(1, min(pixels_hwc.shape[:2]) // 64)  # a subset of the pixels is enough
    some = pixels_hwc[::step, ::step]
    return np.concatenate([np.asarray(thumbnail).ravel(), [some.mean(), some.std()]])


def told_apart(images: pd.DataFrame, looks_nf: np.ndarray) -> dict[str, Told]:
    """Train classifiers that separate the sampled test and training images, by ``pixels`` and by ``files``.

    ``looks_nf`` comes from ``looks``. Sizes and kinds of files have their own classifier, since stored pixels have lost
    them.
    """
    from sklearn.model_selection import StratifiedGroupKFold  # loading scikit-learn takes a second

    is_test = (images["split"] == "test").to_numpy()
    folds = StratifiedGroupKFold(FOLDS, shuffle=True, random_state=0)
    splits = list(folds.split(looks_nf, is_test, images["group"]))
    seen = {"pixels": (_of_pixels(), _with_extremes(looks_nf)), "files": (_of_files(len(images)), _files(images))}
    return {name: _told(model, values, is_test, splits) for name, (model, values) in seen.items()}


def _told(model: ClassifierMixin, values_nf: np.ndarray, is_test: np.ndarray, splits: list) -> Told:
    from sklearn.metrics import roc_auc_score
    from sklearn.model_selection import cross_val_predict

    probability = cross_val_predict(model, values_nf, is_test, cv=splits, method="predict_proba")[:, 1]
    auc = float(roc_auc_score(is_test, probability))
    return Told(auc, *auc_interval(auc, int(is_test.sum()), int((~is_test).sum())), probability)


def _of_pixels() -> ClassifierMixin:
    """Build the classifier of pixels: linear, since trees take minutes on these columns and need more images.

    Values are clipped, since a pixel that is constant in nearly all images would otherwise dominate in the others.
    """
    from sklearn.linear_model import LogisticRegression
    from sklearn.pipeline import make_pipeline
    from sklearn.preprocessing import FunctionTransformer, StandardScaler

    clip = FunctionTransformer(np.clip, kw_args={"a_min": -3, "a_max": 3})
    return make_pipeline(StandardScaler(), clip, LogisticRegression(C=0.01, class_weight="balanced", max_iter=500))


def _of_files(images: int) -> ClassifierMixin:
    """Build the classifier of files: trees, since the distribution of sizes often has several peaks."""
    from sklearn.ensemble import HistGradientBoostingClassifier

    return HistGradientBoostingClassifier(
        max_iter=30,
        max_leaf_nodes=16,
        min_samples_leaf=int(np.clip(images // 20, 1, 20)),
        early_stopping=False,
        class_weight="balanced",
        random_state=0,
    )


def _with_extremes(looks_nf: np.ndarray) -> np.ndarray:
    """Add the distances of brightness and contrast from their means.

    With them a linear classifier also recognises test images that are either darker or brighter than training images.
    """
    moments = looks_nf[:, -2:]
    return np.hstack([looks_nf, np.abs(moments - moments.mean(axis=0))])


def _files(images: pd.DataFrame) -> np.ndarray:
    """Return the logarithms of width, height and aspect ratio, and the kind of file as a number: (N, 4)."""
    width, height = np.log(images["width"].to_numpy(dtype=float)), np.log(images["height"].to_numpy(dtype=float))
    return np.stack([width, height, width - height, kinds(images["path"]).factorize(sort=True)[0]], axis=1)


def auc_interval(auc: float, positives: int, negatives: int) -> tuple[float, float]:
    """Return the 95% interval of a ROC AUC: Newcombe's method 5 (2006, https://doi.org/10.1002/sim.2324).

    Like Wilson's interval, it is not empty at an AUC of 1. It treats the classifier as fixed: with few images, training
    it on other images would change the AUC a little more.
    """
    more = (positives + negatives) / 2 - 1
    at = float(np.clip(auc, 1e-9, 1 - 1e-9))

    def beyond(area: float) -> float:
        variance = area * (1 - area) * (1 + more * (1 - area) / (2 - area) + more * area / (1 + area))
        return (at - area) ** 2 - norm.ppf(0.975) ** 2 * variance / (positives * negatives)

    return float(brentq(beyond, 0, at)), float(brentq(beyond, at, 1))


def measures(images: pd.DataFrame, looks_nf: np.ndarray) -> Mapping[str, pd.Series]:
    """Return the measures of each sampled image, by title."""
    mean, contrast = (pd.Series(column, images.index) for column in looks_nf[:, -2:].T)
    return {
        "width in pixels": images["width"],
        "height in pixels": images["height"],
        "width / height": images["width"] / images["height"],
        "brightness in grey levels": mean,
        "contrast in grey levels": contrast,
    }
