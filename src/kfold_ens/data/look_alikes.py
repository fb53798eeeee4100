"""Images that look alike without being equal byte by byte: saved again, in another size or format.

A perceptual hash (https://www.hackerfactor.com/blog/index.php?/archives/432-Looks-Like-It.html, as ImageHash has it)
is 64 bits of an image's coarse structure; images that look alike differ in few of them.
"""

from __future__ import annotations

from collections.abc import Iterator

import imagehash
import numpy as np
import pandas as pd
from PIL import Image
from scipy.sparse import coo_array
from scipy.sparse.csgraph import connected_components

SMALLEST = 32  # pixels: what the hash looks at; of smaller images it says too little
BITS = 64
APART = 4  # bits in which images that look alike may differ
CHUNK = 1024


def perceptual_hash(image: Image.Image) -> str:
    """16 hexadecimal digits; empty for an image with a side below ``SMALLEST``."""
    return str(imagehash.phash(image)) if min(image.size) >= SMALLEST else ""


def look_alikes(manifest: pd.DataFrame) -> list[pd.DataFrame]:
    """The rows of images that look alike, a table for each such group, in which byte-identical images are one."""
    distinct = manifest.drop_duplicates("duplicate_group")
    hashed = distinct[distinct["perceptual_hash"] != ""]
    values = np.array([int(text, 16) for text in hashed["perceptual_hash"]], dtype=np.uint64)
    hashes, place = np.unique(values, return_inverse=True)
    group = _linked(hashes)[place]
    alike = np.bincount(group)[group] > 1
    return [images for _, images in hashed[alike].groupby(group[alike], sort=False)]


def _linked(hashes_n: np.ndarray) -> np.ndarray:
    """A group's number (N,) for each of these different hashes: one for all that close pairs lead to."""
    pairs = np.concatenate([np.empty((2, 0), dtype=np.int64), *_close_pairs(hashes_n)], axis=1)
    links = coo_array((np.ones(pairs.shape[1]), (pairs[0], pairs[1])), shape=(len(hashes_n), len(hashes_n)))
    return connected_components(links, directed=False)[1]


def _close_pairs(hashes_n: np.ndarray) -> Iterator[np.ndarray]:
    """Positions (2, P) of hashes at most ``APART`` bits apart: of APART + 1 blocks of bits, they share one."""
    for bits in np.array_split(np.arange(BITS, dtype=np.uint64), APART + 1):
        block = hashes_n & np.bitwise_or.reduce(np.uint64(1) << bits)
        order = np.argsort(block, kind="stable")
        for bucket in np.split(order, np.flatnonzero(np.diff(block[order])) + 1):
            for start in range(0, len(bucket) - 1, CHUNK):
                some = bucket[start : start + CHUNK]
                differing = np.bitwise_count(hashes_n[some, None] ^ hashes_n[None, bucket[start:]])
                near, far = np.nonzero(differing <= APART)
                yield np.stack([some[near], bucket[start:][far]])[:, near < far]
