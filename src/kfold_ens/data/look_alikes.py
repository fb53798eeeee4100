"""Find near-duplicates: images that look the same but differ in bytes, because they were resized or saved again.

A perceptual hash (https://www.hackerfactor.com/blog/index.php?/archives/432-Looks-Like-It.html, in the version of
ImageHash) is 64 bits of an image's coarse structure. Near-duplicates differ in few of these bits.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import numpy as np
import pandas as pd
from PIL import Image
from scipy.sparse import coo_array
from scipy.sparse.csgraph import connected_components

SMALLEST = 32  # pixels; the hash shrinks images to this side, and smaller ones hold too little detail
BITS = 64
APART = 4  # most bits in which near-duplicates may differ
BUCKET = 512  # hashes compared with each other at once; must exceed 2 ** APART, or buckets could not be divided
PAIRS = 1_000_000  # close pairs collected before they are merged into groups


def perceptual_hash(image: Image.Image) -> str:
    """Hash the coarse structure of an image: 16 hexadecimal digits; empty if a side is below ``SMALLEST``."""
    import imagehash  # imported here because benchmarks/gpu.py runs without it

    return str(imagehash.phash(image)) if min(image.size) >= SMALLEST else ""


def look_alikes(manifest: pd.DataFrame) -> pd.DataFrame:
    """Group near-duplicates: a table ``group, image_id, split, label``, with groups counted from 1.

    ``manifest`` covers both halves. Byte-identical copies alone form no group, but are listed in the group of their
    image.
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
    """Number the groups (N,) of distinct hashes: hashes connected through close pairs share a number."""
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
    """Merge the groups (N,) that pairs of positions, each (2, P), connect."""
    one, other = group_n[np.concatenate([np.empty((2, 0), dtype=np.int64), *pairs], axis=1)]
    links = coo_array((np.ones(len(one), dtype=np.int8), (one, other)), shape=(len(group_n), len(group_n)))
    return connected_components(links, directed=False)[1][group_n]


def _buckets(hashes_n: np.ndarray, positions: np.ndarray) -> Iterator[np.ndarray]:
    """Yield buckets of at most ``BUCKET`` positions, such that close hashes share at least one bucket.

    Divides the bits in which hashes differ into APART + 1 blocks: hashes at most APART bits apart agree in one block.
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
