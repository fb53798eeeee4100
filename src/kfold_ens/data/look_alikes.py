"""Images that look alike without being equal byte by byte: saved again, in another size or format.

A perceptual hash (https://www.hackerfactor.com/blog/index.php?/archives/432-Looks-Like-It.html, as ImageHash has it)
is 64 bits of an image's coarse structure; images that look alike differ in few of them.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import numpy as np
import pandas as pd
from PIL import Image
from scipy.sparse import coo_array
from scipy.sparse.csgraph import connected_components

SMALLEST = 32  # pixels: what the hash looks at; of smaller images it says too little
BITS = 64
APART = 4  # bits in which images that look alike may differ
BUCKET = 512  # hashes compared with each other at a time; more than 2 ** APART, or buckets could not be divided
PAIRS = 1_000_000  # close pairs that are kept before they become groups


def perceptual_hash(image: Image.Image) -> str:
    """16 hexadecimal digits; empty for an image with a side below ``SMALLEST``."""
    import imagehash  # here: benchmarks/gpu.py runs without it

    return str(imagehash.phash(image)) if min(image.size) >= SMALLEST else ""


def look_alikes(manifest: pd.DataFrame) -> pd.DataFrame:
    """``group, image_id, split, label`` of all images that look like another; groups are counted from 1.

    ``manifest`` is that of both halves. Copies, byte by byte, of one image make no group, and are listed in one.
    """
    hashed = manifest[manifest["perceptual_hash"] != ""]
    values = np.array([int(text, 16) for text in hashed["perceptual_hash"]], dtype=np.uint64)
    hashes, place = np.unique(values, return_inverse=True)
    group = pd.Series(_linked(hashes)[place], hashed.index)
    different = hashed["sha256"].groupby(group).transform("nunique")
    alike = hashed.loc[different > 1, ["image_id", "split", "label"]]
    alike.insert(0, "group", group[alike.index].factorize()[0] + 1)
    return alike.sort_values("group", kind="stable", ignore_index=True)


def _linked(hashes_n: np.ndarray) -> np.ndarray:
    """A group's number (N,) for each of these different hashes: one for all that close pairs lead to."""
    group, pairs, held = np.arange(len(hashes_n)), [], 0
    for bucket in _buckets(hashes_n, group):
        if (group[bucket] == group[bucket[:1]]).all():
            continue
        near, far = np.nonzero(np.bitwise_count(hashes_n[bucket, None] ^ hashes_n[bucket]) <= APART)
        pairs.append(bucket[np.stack([near, far])[:, near < far]])
        held += pairs[-1].shape[1]
        if held > PAIRS:
            group, pairs, held = _joined(group, pairs), [], 0
    return _joined(group, pairs)


def _joined(group_n: np.ndarray, pairs: Sequence[np.ndarray]) -> np.ndarray:
    """The groups' numbers (N,) after joining those that pairs of positions, each (2, P), lead to."""
    one, other = group_n[np.concatenate([np.empty((2, 0), dtype=np.int64), *pairs], axis=1)]
    links = coo_array((np.ones(len(one), dtype=np.int8), (one, other)), shape=(len(group_n), len(group_n)))
    return connected_components(links, directed=False)[1][group_n]


def _buckets(hashes_n: np.ndarray, positions: np.ndarray) -> Iterator[np.ndarray]:
    """Positions, at most ``BUCKET`` at a time, such that close hashes are together at least once.

    Of APART + 1 blocks of the bits in which hashes differ at all, those at most APART bits apart share one.
    """
    if len(positions) <= BUCKET:
        yield positions
        return
    hashes = hashes_n[positions]
    differing = np.bitwise_or.reduce(hashes ^ hashes[0])
    bits = np.uint64(1) << np.arange(BITS, dtype=np.uint64)
    for some in np.array_split(bits[bits & differing > 0], APART + 1):
        block = hashes & np.bitwise_or.reduce(some)
        order = np.argsort(block, kind="stable")
        for bucket in np.split(positions[order], np.flatnonzero(np.diff(block[order])) + 1):
            if len(bucket) > 1:
                yield from _buckets(hashes_n, bucket)
