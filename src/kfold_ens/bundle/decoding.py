"""Decode files in batches while earlier batches are predicted. Imports no torch."""

from __future__ import annotations

from collections import deque
from collections.abc import Collection, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import partial
from itertools import islice

import numpy as np

from kfold_ens.config import IntensityRange
from kfold_ens.data.images import ImageError, read_new
from kfold_ens.data.pixels import stored_shape

AHEAD = 2  # batches decoded while one is predicted


@dataclass(frozen=True)
class Decoded:
    """The hash of an image, and its pixels (height, width, 3) uint8 by stored short side."""

    sha256: str
    pixels: dict[int, np.ndarray]


@dataclass(frozen=True)
class Batch:
    """The decoded images of a batch, and the reasons for unreadable ones, by name and in the order of the batch."""

    images: dict[str, Decoded]
    failed: dict[str, str]


class Stored:
    """The images of a batch, with the interface of a pixel store that ``EvaluationViews`` needs."""

    def __init__(self, images: Sequence[Decoded], short_side: int) -> None:
        self._images, self._short_side = images, short_side

    def sha256(self, image_ids: np.ndarray) -> np.ndarray:
        """Return the hashes of the files: (N,) hexadecimal text."""
        return np.array([image.sha256 for image in self._images])

    def rows(self, image_ids: np.ndarray) -> np.ndarray:
        """Return the positions of the images: (N,) int64."""
        return np.arange(len(self._images))

    def __getitem__(self, row: int) -> np.ndarray:
        return self._images[row].pixels[self._short_side]


def decode(name: str, short_sides: Collection[int], intensity_range: IntensityRange) -> Decoded | str:
    """Decode one file and shrink it as ``write_pixels`` does; return the reason if it is unreadable."""
    pixels = {}
    try:
        for short_side in short_sides:
            sha256, image = read_new(name, partial(stored_shape, short_side=short_side), intensity_range)
            pixels[short_side] = np.asarray(image)
    except ImageError as error:
        return str(error)
    return Decoded(sha256, pixels)


def decoded_batches(
    names: Sequence[str],
    batch_size: int,
    short_sides: Collection[int],
    intensity_range: IntensityRange,
    threads: int,
) -> Iterator[Batch]:
    """Decode all images in order, in threads. Holds at most ``AHEAD`` batches besides the one in use."""
    read = partial(decode, short_sides=short_sides, intensity_range=intensity_range)
    parts = (names[start : start + batch_size] for start in range(0, len(names), batch_size))
    with ThreadPoolExecutor(threads) as pool:
        coming = deque((part, [pool.submit(read, name) for name in part]) for part in islice(parts, AHEAD))
        while coming:
            coming.extend((part, [pool.submit(read, name) for name in part]) for part in islice(parts, 1))
            part, futures = coming.popleft()
            yield _batch(dict(zip(part, (future.result() for future in futures), strict=True)))


def _batch(results: dict[str, Decoded | str]) -> Batch:
    return Batch(
        {name: result for name, result in results.items() if isinstance(result, Decoded)},
        {name: result for name, result in results.items() if isinstance(result, str)},
    )
