"""Check the data before a run: log a summary, and raise all faults at once."""

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

# Reading this many images in full takes about 20 seconds on two cores (1,100 JPEGs of 500 x 375 pixels per second).
MOST_IMAGES, MOST_BYTES = 20_000, 2_000_000_000


def check_data(
    run: Config,
    threads: int,
    manifests: Mapping[Half, Path],
    split: Callable[[pd.DataFrame, Config], Any],
    also: Callable[[pd.DataFrame, Config], None],
) -> None:
    """Log a summary of the data, and warn about what looks wrong.

    ``split`` makes and logs the split of the training images. ``also`` checks the listing of both halves.

    Images in ``manifests`` were read in full before. New images are read in full if that takes seconds. Otherwise only
    their first bytes are read, and a warning says so.

    Raises:
        DataError: listing every fault that a run would refuse, as far as the bytes read show it.
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
    if len(halves) == len(HALVES):  # otherwise everything in the missing half would be reported as unknown
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
    """Training images with hashes. An image that was not read in full counts as distinct, without near-duplicates."""
    hashes = train.reindex(columns=["sha256", "perceptual_hash"]).astype(object)
    return train.assign(
        sha256=hashes["sha256"].fillna(train["image_id"]), perceptual_hash=hashes["perceptual_hash"].fillna("")
    )


def _listed(run: Config, half: Half, manifest: Path, threads: int, together: Together) -> pd.DataFrame:
    """One half's images with ``width`` and ``height``, if readable; from its manifest if the source is missing."""
    gone = missing(run.data, half)
    if gone and manifest.is_file():
        log.warning("%s; using the %s images of the last run", "; ".join(gone), half)
        return read_manifest(str(manifest))
    with TemporaryDirectory() as export:
        images = list_images(run.data, half, run.seed, Path(export), together)
        known = images.merge(_known(manifest), on="image_id")
        new = images[~images["image_id"].isin(known["image_id"])]
        found = _measured(new, half, threads, together)
        return pd.concat([each for each in (known, found) if len(each)], ignore_index=True)


def _measured(images: pd.DataFrame, half: Half, threads: int, together: Together) -> pd.DataFrame:
    """Inspect images in full; if there are too many, read only their sizes."""
    if len(images) <= MOST_IMAGES and sum(map(file_size, images["path"])) <= MOST_BYTES:
        return inspected(images, threads, together)
    log.warning(
        "data.%s: only the first bytes of %d images were read. A run reads them in full before training, and only "
        "then finds truncated images and byte-identical images with different labels",
        half,
        len(images),
    )
    sizes = for_each_image(size_of, images["path"], threads, "Reading sizes", together=together)
    width, height = zip(*(size or (None, None) for size in sizes), strict=True)
    return images.assign(width=width, height=height)


def _known(manifest: Path) -> pd.DataFrame:
    """The ids and ``INSPECTED`` columns of a manifest's images that have not changed since it was made."""
    columns = ["image_id", *INSPECTED]
    if not manifest.is_file():
        return pd.DataFrame(columns=columns, dtype=object)
    known, made = read_manifest(str(manifest)), manifest.stat().st_mtime
    return known.loc[[os.path.isfile(path) and os.path.getmtime(path) <= made for path in known["path"]], columns]
