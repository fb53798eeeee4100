"""Find faults and suspicious properties of a split. ``split`` and ``units`` are as in ``splits/table.py``."""

from __future__ import annotations

from collections.abc import Iterator

import pandas as pd

from kfold_ens.errors import DataError, listing
from kfold_ens.splits.table import class_counts

FACTOR, IMAGES = 1.5, 5  # a class is far from its share in a fold if both are exceeded
MOST = 0.5  # share of a class's images


def refuse_untrained_classes(split: pd.DataFrame, num_folds: int) -> None:
    """Refuse a split in which one fold holds out all images of a class, so that its model never trains on the class.

    Raises:
        DataError: listing these classes and folds.
    """
    counts = class_counts(split, num_folds)
    others = counts.sum(axis=1).to_numpy()[:, None] - counts[range(num_folds)]
    untrained = [f"{label}: all of its images are in fold {row.idxmin()}" for label, row in _some(others, others == 0)]
    if untrained:
        raise DataError(
            "one fold holds out all images of these classes, so its model would never train on them; split their "
            f"group, add images, remove the class, or write rare_classes: train_only:\n{listing(untrained)}"
        )


def doubts_of_split(split: pd.DataFrame, units: pd.Series, num_folds: int) -> list[str]:
    """Warnings about a split, each with what to do about it."""
    split = split.assign(fold=split["fold"].astype(int), unit=split["image_id"].map(units))
    counts = class_counts(split, num_folds)[range(num_folds)]
    return [*_empty(counts), *_far_from_share(counts), *_large_groups(split), *_parted(split), *_partly_trained(split)]


def _some(counts: pd.DataFrame, where: pd.DataFrame) -> Iterator[tuple[str, pd.Series]]:
    """The rows of classes for which a condition holds in some fold."""
    return counts[where.any(axis=1)].iterrows()


def _empty(counts: pd.DataFrame) -> Iterator[str]:
    held_out = counts[counts.sum(axis=1) > 0]
    lines = [
        f"{label}: none in fold {', '.join(map(str, row.index[row == 0]))} ({row.sum()} images in other folds)"
        for label, row in _some(held_out, held_out == 0)
    ]
    if lines:
        yield (
            "these folds hold out no images of a class, so their scores do not cover it. Lower num_folds, or write "
            f"rare_classes: train_only:\n{listing(lines)}"
        )


def _far_from_share(counts: pd.DataFrame) -> Iterator[str]:
    share = counts.mean(axis=1).to_numpy()[:, None]
    far = ((counts - share).abs() > IMAGES) & ((counts > FACTOR * share) | (counts < share / FACTOR)) & (counts > 0)
    lines = [
        f"{label}: {', '.join(f'{row[fold]} in fold {fold}' for fold in row.index[far.loc[label]])}; an equal share "
        f"is {row.mean():.3g}"
        for label, row in _some(counts, far)
    ]
    if lines:
        yield (
            "the folds hold out very different numbers of images of these classes. Try another seed or num_folds, or "
            f"split large groups:\n{listing(lines)}"
        )


def _large_groups(split: pd.DataFrame) -> Iterator[str]:
    distinct = split[split["fold"] >= 0].drop_duplicates("sha256")
    groups = distinct.groupby(["label", "unit"])["image_id"].agg(images="size", one="first").reset_index()
    groups["all"] = groups.groupby("label")["images"].transform("sum")
    large = groups[groups["images"] > MOST * groups["all"]]
    lines = [f"{row.label}: {row.images} of {row.all} images, such as {row.one}" for row in large.itertuples()]
    if lines:
        yield (
            "one group holds most images of these classes, so the model whose fold holds it out trains on few of "
            f"them. Check that it is really one group:\n{listing(lines)}"
        )


def _parted(split: pd.DataFrame) -> Iterator[str]:
    held_out = split[split["fold"] >= 0]
    parted = held_out[held_out.groupby("unit")["fold"].transform("nunique") > 1]
    if len(parted):
        yield (
            f"{parted['unit'].nunique()} groups of images that belong together (copies included) are in several folds, "
            "so out-of-fold scores may be too high. The given folds are used unchanged:\n"
            f"{listing(_members(parted), most=10)}"
        )


def _partly_trained(split: pd.DataFrame) -> Iterator[str]:
    only_trains = split["fold"] < 0
    both = only_trains.groupby(split["unit"]).transform("nunique") > 1
    if both.any():
        yield (
            f"{(both & only_trains).sum()} images that train in every fold belong together with held-out images, so "
            f"out-of-fold scores may be too high:\n{listing(_members(split[both]), most=10)}"
        )


def _members(images: pd.DataFrame) -> Iterator[str]:
    for _, group in images.groupby("unit", sort=False):
        shown = group.drop_duplicates("fold").head(4)
        names = (
            f"{row.image_id} ({'train only' if row.fold < 0 else f'fold {row.fold}'})" for row in shown.itertuples()
        )
        yield " ~ ".join(names)
