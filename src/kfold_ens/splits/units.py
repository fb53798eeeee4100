"""Find images that stay together in the split: copies, groups and, if configured, near-duplicates."""

from __future__ import annotations

import logging
from collections.abc import Callable, Sequence

import numpy as np
import pandas as pd
from scipy.sparse import coo_array
from scipy.sparse.csgraph import connected_components

from kfold_ens.data.look_alikes import SMALLEST, look_alikes

log = logging.getLogger(__name__)


def is_grouped(images: pd.DataFrame, keep_together: str) -> bool:
    """Whether images other than copies stay together."""
    return "group" in images or keep_together != "none"


def kept_together(images: pd.DataFrame, keep_together: str) -> np.ndarray:
    """Number the images (N,): images that must stay together share a number.

    These are byte-identical images, images of one group, near-duplicates if ``keep_together`` says so, and all images
    that such pairs connect.
    """
    keys = [images["group"]] if "group" in images else []
    return _connected(images["sha256"], [*keys, *LINKS[keep_together](images)])


def _look_alikes(images: pd.DataFrame) -> list[pd.Series]:
    unhashed = (images["perceptual_hash"] == "").sum()
    if unhashed:
        log.warning(
            "keep_together: %d images have a side below %d pixels and are not checked for near-duplicates",
            unhashed,
            SMALLEST,
        )
    alike = look_alikes(images).set_index("image_id")["group"].astype(str)
    return [images["image_id"].map(alike).astype(object).fillna("")]


LINKS: dict[str, Callable[[pd.DataFrame], list[pd.Series]]] = {
    "none": lambda images: [],
    "near_duplicates": _look_alikes,
}


def _connected(first: pd.Series, keys: Sequence[pd.Series]) -> np.ndarray:
    """Number the rows (N,) by connected component: rows that share a value of any key are connected.

    The values are the nodes of a graph, and each row links its values. Empty text is ignored; ``first`` is never empty.
    """
    start, _ = pd.factorize(first)
    ends, offset = [np.empty((2, 0), dtype=np.int64)], start.max(initial=-1) + 1
    for key in keys:
        has_value = (key != "").to_numpy()
        codes, values = pd.factorize(key[has_value])
        ends.append(np.stack([start[has_value], offset + codes]))
        offset += len(values)
    one, other = np.concatenate(ends, axis=1)
    links = coo_array((np.ones(len(one), dtype=np.int8), (one, other)), shape=(offset, offset))
    return connected_components(links, directed=False)[1][start]
