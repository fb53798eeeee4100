"""The report's chapter on the images: counts, sizes, examples, outliers and duplicates."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import numpy as np
import pandas as pd

from kfold_ens.data.groups import shared_groups
from kfold_ens.data.listings import is_extra
from kfold_ens.data.look_alikes import SMALLEST
from kfold_ens.data.outliers import outliers
from kfold_ens.data.pixels import PixelStores
from kfold_ens.report import figures, pages
from kfold_ens.report.pages import Markup, Picture
from kfold_ens.report.pictures import of_store, picture
from kfold_ens.splits.doubts import doubts_of_split
from kfold_ens.splits.table import fold_table
from kfold_ens.splits.units import is_grouped, kept_together

EXAMPLES = 400  # pictures on the page of examples, over all classes
OUTLIERS = 60  # pictures
GROUPS = 50  # groups of identical images or near-duplicates in a table


def write_data(
    manifest: pd.DataFrame,
    alike: pd.DataFrame,
    folds: pd.DataFrame,
    classes: Sequence[str],
    store: PixelStores,
    outputs: Mapping[str, str],
    keep_together: str = "none",
) -> None:
    """Write the pages ``data`` and ``examples``. ``alike`` is the table of near-duplicates."""
    train = manifest[manifest["split"] == "train"]
    pages.write_page(
        outputs["data"],
        "The images",
        pages.definitions(facts(manifest, classes)),
        pages.figure(
            figures.class_counts(train, folds, classes), f"Training images of {len(classes)} classes, by fold"
        ),
        *the_split(manifest, folds, keep_together),
        pages.figure(figures.image_sizes(manifest), "Widths and heights of the images"),
        pages.heading("Outliers"),
        *far_outside(manifest, store),
        pages.heading("Byte-identical images"),
        *_duplicates(manifest, store),
        pages.heading("Near-duplicates"),
        *_look_alikes(alike, store),
    )
    pages.write_page(outputs["examples"], "Examples of every class", *_examples(train, classes, store))


def facts(manifest: pd.DataFrame, classes: Sequence[str]) -> dict[str, str]:
    """Return the counts and sizes of the images, as text."""
    counts, extra = manifest["split"].value_counts(), is_extra(manifest).sum()
    width, height = (_range(manifest[side]) for side in ("width", "height"))
    return {
        "training images": f"{counts.get('train', 0):,}"
        + (f", {extra:,} of them extra: never held out" if extra else ""),
        "test images": f"{counts.get('test', 0):,}",
        "classes": f"{len(classes):,}",
        "width": f"{width} pixels",
        "height": f"{height} pixels",
    }


def the_split(manifest: pd.DataFrame, folds: pd.DataFrame, keep_together: str = "none") -> Iterator[Markup]:
    """Yield the classes per fold, warnings about the split, and groups that training and test images share."""
    train = manifest[manifest["split"] == "train"]
    units = pd.Series(kept_together(train, keep_together), train["image_id"].to_numpy())
    num_folds = folds["fold"].astype(int).max() + 1
    is_shown = is_grouped(train, keep_together) and (keep_together != "none" or (train["group"] != "").any())
    table = fold_table(folds, units if is_shown else None, num_folds)
    yield pages.table(table, "images of each class, by the fold that holds them out")
    for doubt in doubts_of_split(folds, units, num_folds):
        yield pages.preformatted(doubt)
    if shared := shared_groups(train, manifest[manifest["split"] == "test"]):
        yield pages.paragraph(
            f"{shared}. Folds consist of whole groups, so out-of-fold scores are measured on unseen groups."
        )


def _range(values: pd.Series) -> str:
    low, high = values.min(), values.max()
    return f"{low}" if low == high else f"{low} to {high}"


def far_outside(manifest: pd.DataFrame, store: PixelStores) -> Iterator[Markup]:
    """Yield the outliers among training and among test images, with the reasons."""
    looks = store.looks()
    if looks.empty:
        yield pages.paragraph(
            "Not searched, because an earlier version decoded these images. To search them, delete "
            "results/data/pixels-* and run again; no fold is retrained."
        )
        return
    images = manifest.set_index("image_id").join(looks, how="inner")
    reasons = pd.concat([outliers(half) for _, half in images.groupby("split")] or [pd.Series(dtype=str)])
    if reasons.empty:
        yield pages.paragraph("There are none in brightness, contrast, shape or size.")
        return
    yield pages.paragraph(
        f"{len(reasons):,} images are far from the median of the training or test images in brightness, contrast, "
        "shape or size. Look for files that were decoded wrongly, such as dark 16-bit scans, and for images that do "
        "not belong here."
    )
    yield pages.gallery(of_store(store, name, why, name) for name, why in reasons[:OUTLIERS].items())


def _duplicates(manifest: pd.DataFrame, store: PixelStores) -> Iterator[Markup]:
    images = manifest.assign(group=manifest["sha256"])
    images = images[images.groupby("group")["image_id"].transform("size") > 1]
    groups = _overview(images)
    if groups.empty:
        yield pages.paragraph("There are none among the training and test images.")
        return
    yield pages.paragraph(
        f"{len(groups):,} images occur more than once, {groups['across'].sum():,} of them among both training and test "
        "images. Copies of an image are always in one fold, unless you give the folds."
    )
    yield _shown(groups, images, store, pictures=1)


def _look_alikes(alike: pd.DataFrame, store: PixelStores) -> Iterator[Markup]:
    groups = _overview(alike)
    if groups.empty:
        yield pages.paragraph(f"There are none. Images smaller than {SMALLEST} pixels were not compared.")
        return
    yield pages.paragraph(
        f"{len(groups):,} groups by perceptual hash: {(groups['labels'] > 1).sum():,} with different labels, "
        f"{groups['across'].sum():,} among both training and test images. results/data/look_alikes.csv lists them all. "
        "A copy in another fold makes the out-of-fold accuracy look too good: remove copies of an image, and keep "
        "images that only look alike."
    )
    yield _shown(groups, alike, store, pictures=4)


def _overview(images: pd.DataFrame) -> pd.DataFrame:
    """Count the images of each ``group`` and say whether it has both training and test images (``across``).

    Groups with different labels come first, then those with training and test images.
    """
    columns = {"training": images["split"] == "train", "test": images["split"] == "test"}
    known = images["label"].where(images["label"] != "")
    groups = images.assign(**columns, labels=known).groupby("group", sort=False)
    counts = groups.agg({"training": "sum", "test": "sum", "labels": "nunique"})
    counts["across"] = (counts["training"] > 0) & (counts["test"] > 0)
    return counts.iloc[np.lexsort([~counts["across"], counts["labels"] < 2])]


def _shown(groups: pd.DataFrame, images: pd.DataFrame, store: PixelStores, pictures: int) -> Markup:
    first = groups.head(GROUPS)
    members: dict[Any, pd.DataFrame] = dict(list(images[images["group"].isin(first.index)].groupby("group")))
    rows = [
        {
            "picture": tuple(of_store(store, image_id) for image_id in group["image_id"][:pictures]),
            "training": row.training,
            "test": row.test,
            "labels": ", ".join(figures.cut(label, 30) for label in group["label"].unique()[:5] if label),
            "images": ", ".join(figures.cut(image_id, 60) for image_id in group["image_id"][:5]),
        }
        for row, group in zip(first.itertuples(), map(members.__getitem__, first.index), strict=True)
    ]
    return pages.table(pd.DataFrame(rows), f"the first {len(rows)} of {len(groups):,}" if len(groups) > GROUPS else "")


def _examples(train: pd.DataFrame, classes: Sequence[str], store: PixelStores) -> Iterator[Markup]:
    each = int(np.clip(EXAMPLES // len(classes), 3, 10))
    by_class = dict(list(train.sort_values("image_id").groupby("label")))
    for label in classes:
        images = by_class[label]["image_id"]
        some = images.sample(min(each, len(images)), random_state=0)
        yield pages.heading(label)
        yield pages.gallery(of_store(store, image_id, image_id) for image_id in sorted(some))


def write_views(steps: Sequence, fold: int, classes: Sequence[str], path: str) -> None:
    """Write the page of the images of a fold's first steps.

    Each step has ``pixels`` (N, H, W, 3) uint8 and ``shares`` (N, K), the shares of the classes in each image.
    """
    words = f"The images on which the first steps of fold {fold} trained, after augmentation and mixing."
    blocks = [pages.paragraph(words)]
    for number, step in enumerate(steps, 1):
        blocks += [
            pages.heading(f"Step {number}"),
            pages.gallery(_view(*view, classes) for view in zip(step.pixels, step.shares, strict=True)),
        ]
    pages.write_page(path, "Images as the network sees them", *blocks)


def _view(pixels_hwc: np.ndarray, shares_k: np.ndarray, classes: Sequence[str]) -> Picture:
    held = [index for index in np.argsort(-shares_k, kind="stable") if shares_k[index] > 0.005]
    words = [f"{classes[index]} {shares_k[index]:.0%}" if len(held) > 1 else classes[index] for index in held]
    return picture(pixels_hwc, f"a training image after augmentation: {', '.join(words)}", *words)
