"""Decode all images once, into one flat file that every fold and epoch maps into memory."""

from __future__ import annotations

import logging
import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from kfold_ens.config import IntensityRange
from kfold_ens.data.images import read_rgb
from kfold_ens.data.manifest import for_each_image
from kfold_ens.data.outliers import brightness, outliers
from kfold_ens.errors import listing
from kfold_ens.files import atomic, canonical, require_space

log = logging.getLogger(__name__)


class PixelStore:
    """Read pixels by ``image_id``; the bytes stay on disk and are shared between processes.

    ``decoding`` holds the options that affected decoding, as text, without defaults.
    """

    def __init__(self, pixels: str | Path, index: str | Path) -> None:
        self._files = (pixels, index)
        with np.load(index, allow_pickle=False) as columns:
            self.image_id = columns["image_id"]
            self._sha256 = columns["sha256"]
            self._offset, self._height, self._width = columns["offset"], columns["height"], columns["width"]
            self.decoding = {name: str(columns[name]) for name in ("intensity_range",) if name in columns}
            self._looks = {name: columns[name] for name in ("mean", "contrast") if name in columns}
        self._bytes = np.memmap(pixels, dtype=np.uint8, mode="r")
        self._row = {image_id: row for row, image_id in enumerate(self.image_id.tolist())}

    def __reduce__(self) -> tuple:
        return PixelStore, self._files  # a spawned loader worker opens the files itself

    def rows(self, image_ids: np.ndarray) -> np.ndarray:
        """The row numbers of these images: (N,) int64."""
        return np.array([self._row[image_id] for image_id in image_ids], dtype=np.int64)

    def sha256(self, image_ids: np.ndarray) -> np.ndarray:
        """The hashes of these images' files: (N,) hexadecimal text."""
        return self._sha256[self.rows(image_ids)]

    def looks(self) -> pd.DataFrame:
        """The images' ``mean`` and ``contrast`` in grey levels, by image id; empty for stores of an old version."""
        return pd.DataFrame(self._looks, index=self.image_id if self._looks else [], columns=["mean", "contrast"])

    def image(self, image_id: str) -> np.ndarray:
        """One image's pixels by its id: (height, width, 3) uint8, RGB, read-only."""
        return self[self._row[image_id]]

    def __contains__(self, image_id: str) -> bool:
        return image_id in self._row

    def __getitem__(self, row: int) -> np.ndarray:
        """One image's pixels: (height, width, 3) uint8, RGB, read-only."""
        height, width = int(self._height[row]), int(self._width[row])
        start = int(self._offset[row])
        return self._bytes[start : start + height * width * 3].reshape(height, width, 3)


class PixelStores:
    """Several stores, read by image id as if they were one."""

    def __init__(self, pixels: Sequence[str], indices: Sequence[str]) -> None:
        self._stores = [PixelStore(*files) for files in zip(pixels, indices, strict=True)]

    def looks(self) -> pd.DataFrame:
        """As ``PixelStore.looks``, of all stores."""
        return pd.concat([store.looks() for store in self._stores])

    def image(self, image_id: str) -> np.ndarray:
        """One image's pixels by its id: (height, width, 3) uint8, RGB, read-only."""
        return next(store for store in self._stores if image_id in store).image(image_id)


def write_pixels(
    manifest: pd.DataFrame,
    short_side: int,
    pixels: Path,
    index: Path,
    threads: int,
    intensity_range: IntensityRange = "full",
) -> None:
    """Decode every image of the manifest, and shrink its short side to ``short_side`` pixels if it is longer.

    ``intensity_range`` is as in ``config.Source``.

    Raises:
        DataError: listing the images that are missing, or have changed since the manifest was made.
        KfoldError: if the disk lacks space.
    """
    shapes = [stored_shape(*size, short_side) for size in zip(manifest["height"], manifest["width"], strict=True)]
    heights, widths = np.array(shapes, dtype=np.int64).T
    ends = np.cumsum(heights * widths * 3)
    offsets = np.concatenate([[0], ends[:-1]])
    require_space(pixels.parent, int(ends[-1]), f"decoding {len(manifest):,} images")
    with atomic(pixels) as temporary, open(temporary, "wb") as file:

        def decode(path: str, sha256: str, offset: int, shape: tuple[int, int]) -> tuple[float, float, bool]:
            image = read_rgb(path, sha256, shape, intensity_range)
            decoded = np.asarray(image)
            _write_at(file.fileno(), decoded.tobytes(), offset)
            return *brightness(decoded), "intensity_range" in image.info

        more = manifest["sha256"], offsets.tolist(), shapes
        *measured, decided = np.array(for_each_image(decode, manifest["path"], threads, "Decoding", *more)).T
    with atomic(index) as temporary, open(temporary, "wb") as file:
        identity = {name: manifest[name].to_numpy(dtype=np.str_) for name in ("image_id", "sha256")}
        # These two were added without a new VERSION, which would retrain every fold: training does not use them.
        looks = dict(zip(("mean", "contrast"), measured, strict=True))
        changed = intensity_range != "full" and decided.any()
        decoding = {"intensity_range": canonical(intensity_range)} if changed else {}
        arrays: dict[str, Any] = identity | looks | decoding
        np.savez(file, **arrays, offset=offsets, height=heights, width=widths)
    _warn_of_outliers(manifest.assign(**looks))


def _warn_of_outliers(images: pd.DataFrame) -> None:
    reasons = outliers(images.set_index("image_id"))
    if len(reasons):
        some = listing((f"{image_id}: {why}" for image_id, why in reasons.items()), most=10)
        log.warning("outliers: %d images; see the report\n%s", len(reasons), some)


def _write_at(handle: int, block: bytes, offset: int) -> None:
    """Write from any thread. A full disk raises OSError; writing to mapped memory would kill the process instead."""
    while block:
        written = os.pwrite(handle, block, offset)
        block, offset = block[written:], offset + written


def stored_shape(height: int, width: int, short_side: int) -> tuple[int, int]:
    """Scale (height, width) down to a short side of ``short_side``, keeping the aspect ratio; never scale up."""
    scale = min(1, short_side / min(height, width))
    return max(1, round(height * scale)), max(1, round(width * scale))
