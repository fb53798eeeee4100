"""Small copies of images, embedded in pages."""

from __future__ import annotations

import base64
import io

import numpy as np
from PIL import Image

from kfold_ens.data.pixels import PixelStore, PixelStores
from kfold_ens.report.pages import Picture

SIDE = 96  # pixels, about 2 kB per picture
TINY = 64  # pixels; images up to this size are stored losslessly and enlarged without interpolation


def picture(pixels_hwc: np.ndarray, alt: str, *lines: str) -> Picture:
    """Make a picture of an image (H, W, 3) uint8."""
    image = Image.fromarray(pixels_hwc)
    image.thumbnail((SIDE, SIDE))
    tiny = max(image.size) <= TINY
    buffer = io.BytesIO()
    image.save(buffer, "WEBP", lossless=tiny, quality=75)
    uri = f"data:image/webp;base64,{base64.b64encode(buffer.getvalue()).decode()}"
    return Picture(uri, alt, lines, tiny)


def of_store(store: PixelStore | PixelStores, image_id: str, *lines: str) -> Picture:
    """Make a picture of an image of the manifest."""
    return picture(store.image(image_id), image_id, *lines)
