"""A look at the data before a run: all that is found, and all that is wrong, at once."""

from __future__ import annotations

import logging
import os
from collections.abc import Callable, Mapping
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import pandas as pd

from kfold_ens.config import HALVES, Config, Half
from kfold_ens.data.classes import class_labels
from kfold_ens.data.extra import without_known_images
from kfold_ens.data.folders import file_size, missing
from kfold_ens.data.groups import tell_shared_groups
from kfold_ens.data.images import size_of
from kfold_ens.data.manifest import (
    INSPECTED,
    for_each_image,
    inspected,
    read_manifest,
    refuse_contradictions,
    refuse_shared_names,
    tell_training_images,
)
from kfold_ens.data.sources import list_images
from kfold_ens.errors import DataError, Together

log = logging.getLogger(__name__)

# Images that are read to their end in some 20 seconds on two cores: 1,100 JPEGs of 500 x 375 pixels per second.
MOST_IMAGES, MOST_BYTES = 20_000, 2_000_000_000


def check_data(
    run: Config,
    threads: int,
    manifests: Mapping[Half, Path],
    split: Callable[[pd.DataFrame, Config], Any],
    also: Callable[[pd.DataFrame, Config], None],
) -> None:
    """Log what the data are and what is doubtful about them.

    ``split`` makes the split of the training images, and logs it; ``also`` checks the listing of both halves.

    Images that ``manifests`` hold were read to their end before. Others are read to their end if that takes seconds. If
    there are more, only their first bytes are read, and a line says so.

    Raises:
        DataError: listing everything that a run would refuse, as far as what was read tells.
    """
    together, halves = Together(DataError), {}
    for half in HALVES:
        with together.gather():
            halves[half] = _listed(run, half, manifests[half], threads, together)
    if "train" in halves:
        _check_training(halves["train"], run, split, together)
    if "test" in halves:
        log.info("%d test images", len(halves["test"]))
        with together.gather():
            refuse_shared_names(halves["test"], run)
    if len(halves) == len(HALVES):  # or all that the other half should hold would be said to be unknown
        tell_shared_groups(*halves.values())
        with together.gather():
            also(pd.concat(halves.values()), run)
    together.raise_all()


def _check_training(train: pd.DataFrame, run: Config, split: Callable, together: Together) -> None:
    if "sha256" in train:
        train = without_known_images(train)
    tell_training_images(train, run)
    with together.gather():
        class_labels(train["label"])
    if "sha256" in train:
        with together.gather():
            refuse_contradictions(train)
    with together.gather():
        split(_as_if_hashed(train), run)


def _as_if_hashed(train: pd.DataFrame) -> pd.DataFrame:
    """Training images with hashes. An image that was not read to its end counts as distinct and as unlike any other."""
    hashes = train.reindex(columns=["sha256", "perceptual_hash"]).astype(object)
    return train.assign(
        sha256=hashes["sha256"].fillna(train["image_id"]), perceptual_hash=hashes["perceptual_hash"].fillna("")
    )


def _listed(run: Config, half: Half, manifest: Path, threads: int, together: Together) -> pd.DataFrame:
    """A half's images with ``width`` and ``height``, if these can be read; if its source is gone, as they were."""
    gone = missing(run.data, half)
    if gone and manifest.is_file():
        log.warning("%s; the %s images are taken as they were", "; ".join(gone), half)
        return read_manifest(str(manifest))
    with TemporaryDirectory() as export:
        images = list_images(run.data, half, run.seed, Path(export), together)
        known = images.merge(_known(manifest), on="image_id")
        new = images[~images["image_id"].isin(known["image_id"])]
        found = _looked_at(new, half, threads, together)
        return pd.concat([each for each in (known, found) if len(each)], ignore_index=True)


def _looked_at(images: pd.DataFrame, half: Half, threads: int, together: Together) -> pd.DataFrame:
    """Images with what the manifest holds of them; if they are many, with their sizes only."""
    if len(images) <= MOST_IMAGES and sum(map(file_size, images["path"])) <= MOST_BYTES:
        return inspected(images, threads, together)
    log.warning(
        "data.%s: of %d images only the first bytes are read here. A run reads them to their end before it trains, "
        "and only then finds truncated images and byte-identical images with different labels",
        half,
        len(images),
    )
    sizes = for_each_image(size_of, images["path"], threads, "Looking", together=together)
    width, height = zip(*(size or (None, None) for size in sizes), strict=True)
    return images.assign(width=width, height=height)


def _known(manifest: Path) -> pd.DataFrame:
    """What a manifest holds of the images that were not changed after it was made: their ids and ``INSPECTED``."""
    columns = ["image_id", *INSPECTED]
    if not manifest.is_file():
        return pd.DataFrame(columns=columns, dtype=object)
    known, made = read_manifest(str(manifest)), manifest.stat().st_mtime
    return known.loc[[os.path.isfile(path) and os.path.getmtime(path) <= made for path in known["path"]], columns]
