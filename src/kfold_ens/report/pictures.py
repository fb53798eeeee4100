"""Small copies of images that a page can hold."""

from __future__ import annotations

import base64
import io

import numpy as np
from PIL import Image

from kfold_ens.data.pixels import PixelStore, PixelStores
from kfold_ens.report.pages import Picture

SIDE = 96  # pixels: what a gallery shows, and some 2 kB
TINY = 64  # an image this small is kept as it is, without loss, and enlarged pixel by pixel


def picture(pixels_hwc: np.ndarray, alt: str, *lines: str) -> Picture:
    """A picture of an image (H, W, 3) uint8."""
    image = Image.fromarray(pixels_hwc)
    image.thumbnail((SIDE, SIDE))
    tiny = max(image.size) <= TINY
    buffer = io.BytesIO()
    image.save(buffer, "WEBP", lossless=tiny, quality=75)
    uri = f"data:image/webp;base64,{base64.b64encode(buffer.getvalue()).decode()}"
    return Picture(uri, alt, lines, tiny)


def of_store(store: PixelStore | PixelStores, image_id: str, *lines: str) -> Picture:
    """A picture of an image of the manifest."""
    return picture(store.image(image_id), image_id, *lines)
