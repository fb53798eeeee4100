"""A look at the data before a run: all that is found, and all that is wrong, at once."""

from __future__ import annotations

import logging
import os
from collections.abc import Callable, Mapping
from pathlib import Path
from tempfile import TemporaryDirectory

import pandas as pd

from kfold_ens.config import HALVES, Config, Half
from kfold_ens.data.classes import class_labels
from kfold_ens.data.images import size_of
from kfold_ens.data.listings import COLUMNS
from kfold_ens.data.manifest import for_each_image, read_manifest, tell_training_images
from kfold_ens.data.sources import list_images
from kfold_ens.errors import DataError, Together
from kfold_ens.naming import submission_names

log = logging.getLogger(__name__)


def check_data(
    run: Config, threads: int, manifests: Mapping[Half, Path], also: Callable[[pd.DataFrame, Config], None]
) -> None:
    """Log what the data are and what is doubtful about them; ``also`` checks the listing of both halves.

    Images that ``manifests`` hold were read to their end before; of others the first bytes are read.

    Raises:
        DataError: listing everything that a run would refuse, as far as that can be told without reading all pixels.
    """
    together, halves = Together(DataError), {}
    for half in HALVES:
        halves[half] = pd.DataFrame(columns=COLUMNS)
        with together.gather():
            halves[half] = _with_sizes(run, half, manifests[half], threads, together)
    train, test = halves.values()
    if len(train):
        tell_training_images(train, run)
        with together.gather():
            class_labels(train["label"])
    with together.gather():
        submission_names(test, run.submission_names)
        also(pd.concat([train, test]), run)
    log.info("%d test images", len(test))
    together.raise_all()


def _with_sizes(run: Config, half: Half, manifest: Path, threads: int, together: Together) -> pd.DataFrame:
    """A half's images with ``width`` and ``height``, where these can be read."""
    with TemporaryDirectory() as export:
        images = list_images(run.data, half, run.seed, Path(export), together)
        known = _known(manifest)
        new = ~images["image_id"].isin(known["image_id"])
        with together.gather():
            sizes = for_each_image(size_of, images.loc[new, "path"], threads, "Looking")
            found = images[new].assign(**dict(zip(("width", "height"), zip(*sizes, strict=True), strict=False)))
            return pd.concat([known[known["image_id"].isin(images["image_id"])], found])
    return images


def _known(manifest: Path) -> pd.DataFrame:
    """The images of a manifest that were not changed after it was made."""
    if not manifest.is_file():
        return pd.DataFrame(columns=COLUMNS)
    known, made = read_manifest(str(manifest)), manifest.stat().st_mtime
    return known[[os.path.isfile(path) and os.path.getmtime(path) <= made for path in known["path"]]]
