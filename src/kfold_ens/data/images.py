"""Decode image files safely: allowed formats only, a pixel limit, three channels, the right way up."""

from __future__ import annotations

import hashlib
import io
import os
import stat
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO

import numpy as np
from PIL import Image, ImageFile, ImageOps, PngImagePlugin, UnidentifiedImageError

from kfold_ens.config import IntensityRange
from kfold_ens.data.image_files import RAW, readable_formats
from kfold_ens.data.look_alikes import SMALLEST, perceptual_hash

MAX_PIXELS = 100_000_000  # 300 MB as RGB; larger images are refused before they are decoded
BACKGROUND = (255, 255, 255)  # shows through transparent pixels

ImageFile.LOAD_TRUNCATED_IMAGES = False
# Pillow refuses PNG texts and colour profiles above 1 MB, though they are valid: use its limit for their sum, 64 MB.
PngImagePlugin.MAX_TEXT_CHUNK = PngImagePlugin.MAX_TEXT_MEMORY


class ImageError(ValueError):
    """A file cannot be used as an image; the message says why."""


@dataclass(frozen=True)
class Inspection:
    """What the manifest records of an image: its hashes, and its upright size in pixels.

    ``has_pages`` is not recorded: whether a TIFF holds further images, which are not read.
    """

    sha256: str
    width: int
    height: int
    perceptual_hash: str
    has_pages: bool


def inspect(path: str | Path) -> Inspection:
    """Read one image in full, as cheaply as its format allows.

    Raises:
        ImageError: if the file is not a complete image of an allowed format and size.
    """
    content = _read(path)
    with _opened(io.BytesIO(content)) as image:
        width, height = image.size[::-1] if _on_its_side(image) else image.size
        image.draft(None, (SMALLEST, SMALLEST))  # JPEG: decoding at an eighth of the size still reads every byte
        image.load()
        looks = perceptual_hash(_rgb(ImageOps.exif_transpose(image)))
        pages = image.format == "TIFF" and getattr(image, "is_animated", False)
    return Inspection(hashlib.sha256(content).hexdigest(), width, height, looks, pages)


def size_of(path: str | Path) -> tuple[int, int]:
    """The upright width and height of an image, from its first bytes alone: the rest may be broken.

    Raises:
        ImageError: as ``inspect``, as far as these bytes show it.
    """
    with _reading(path) as file:
        _refuse_by_start(file, path)
        with _opened(file) as image:
            return image.size[::-1] if _on_its_side(image) else image.size


def read_rgb(
    path: str | Path, sha256: str, shape: tuple[int, int] | None = None, intensity_range: IntensityRange = "full"
) -> Image.Image:
    """Decode one image to RGB: the first frame, rotated by its EXIF orientation, transparency on white.

    ``shape`` is the (height, width) to shrink it to; ``intensity_range`` is as in ``config.Source``. If that affected
    the pixels, ``info["intensity_range"]`` of the result holds it.

    Raises:
        ImageError: as ``inspect``, and if the hash of the file is not ``sha256``.
    """
    content = _read(path)
    if hashlib.sha256(content).hexdigest() != sha256:
        raise ImageError("changed since the manifest was made")
    return _shrunk(content, shape, intensity_range)


def read_new(
    path: str | Path, shape_of: Callable[[int, int], tuple[int, int]], intensity_range: IntensityRange = "full"
) -> tuple[str, Image.Image]:
    """Hash and decode an image that no manifest lists, as ``read_rgb`` does; return the SHA-256 and the image.

    ``shape_of`` maps the upright height and width to the (height, width) to shrink the image to.

    Raises:
        ImageError: as ``inspect``.
    """
    content = _read(path)
    with _opened(io.BytesIO(content)) as image:
        width, height = image.size[::-1] if _on_its_side(image) else image.size
    shape = shape_of(height, width)
    return hashlib.sha256(content).hexdigest(), _shrunk(content, shape, intensity_range)


def _shrunk(content: bytes, shape: tuple[int, int] | None, intensity_range: IntensityRange) -> Image.Image:
    size = shape[::-1] if shape else None
    with _opened(io.BytesIO(content)) as image:
        whole = _decoded(image, size) if size else image
        whole.load()
        rgb = _rgb(ImageOps.exif_transpose(whole), intensity_range)
        return rgb if size in (None, rgb.size) else rgb.resize(size, Image.Resampling.BILINEAR)


def _decoded(image: Image.Image, size: tuple[int, int]) -> Image.Image:
    """Shrink a JPEG to ``size`` while decoding it, if its sides are at least four times as long; else return it as is.

    libjpeg decodes such a JPEG several times faster at 1/2, 1/4 or 1/8 of its size, here at least twice ``size``.
    """
    size = size[::-1] if _on_its_side(image) else size
    before = image.size
    drafted = image.draft(None, (2 * size[0], 2 * size[1]))
    if drafted is None or image.size == before:
        return image
    return image.resize(size, Image.Resampling.BILINEAR, box=drafted[1])


def _read(path: str | Path) -> bytes:
    with _reading(path) as file:
        _refuse_by_start(file, path)
        return file.read()


@contextmanager
def _reading(path: str | Path) -> Iterator[BinaryIO]:
    try:
        if stat.S_ISFIFO(os.stat(path).st_mode):  # to open it would wait for a writer
            raise ImageError("a pipe, not a file")
        with open(path, "rb") as file:
            yield file
    except OSError as error:
        if os.path.islink(path) and not os.path.exists(path):
            raise ImageError(f"a link to {os.readlink(path)}, which does not exist") from None
        raise ImageError(error.strerror or str(error)) from None


def _refuse_by_start(file: BinaryIO, path: str | Path) -> None:
    start = file.read(32)
    file.seek(0)
    if not start:
        raise ImageError("the file is empty")
    if start.startswith(b"version https://git-lfs"):
        raise ImageError("a Git LFS pointer, not the image; run 'git lfs pull'")
    if str(path).lower().endswith(RAW):
        raise ImageError("a camera raw file; convert it to JPEG or PNG")


@contextmanager
def _opened(file: BinaryIO) -> Iterator[Image.Image]:
    """Open an image of an allowed format and size. Any error while it is used becomes an ImageError."""
    try:
        with Image.open(file, formats=readable_formats()) as image:
            if image.width * image.height > MAX_PIXELS:
                raise ImageError(f"{image.width} x {image.height} is more than {MAX_PIXELS:,} pixels; shrink it")
            yield image
    except (ImageError, ImportError):  # a missing package is not the image's fault
        raise
    except UnidentifiedImageError:
        raise ImageError(f"not an image of a known format ({', '.join(readable_formats())})") from None
    except Image.DecompressionBombError:
        raise ImageError(f"more than {MAX_PIXELS:,} pixels; shrink it") from None
    except Exception as error:  # Pillow's parsers may raise anything on broken bytes
        raise ImageError(f"broken: {error}") from None


def _on_its_side(image: Image.Image) -> bool:
    """Whether the EXIF orientation swaps width and height. For a TIFF, Pillow swaps them itself."""
    return image.format != "TIFF" and image.getexif().get(0x0112, 1) in (5, 6, 7, 8)


def _rgb(image: Image.Image, intensity_range: IntensityRange = "full") -> Image.Image:
    if image.mode.startswith("I"):
        return _from_16_bit(image, intensity_range)
    if image.mode == "F":
        raise ImageError("floating-point pixels have no fixed range; save it with 8 or 16 bits")
    if image.has_transparency_data:
        image = image.convert("RGBA")
        background = Image.new("RGBA", image.size, BACKGROUND)
        return Image.alpha_composite(background, image).convert("RGB")
    return image.convert("RGB")


def _from_16_bit(image: Image.Image, intensity_range: IntensityRange) -> Image.Image:
    values = np.asarray(image).astype(np.int32)
    if values.min() < 0 or values.max() > 65535:
        raise ImageError("more than 16 bits per pixel; save it with 8 or 16 bits")
    low, high = _levels(values, intensity_range)
    width = max(1, high - low)  # avoids 0 / 0 in an image of one colour
    np.clip(values, low, high, out=values)  # in place: an image may have 100 million pixels
    values -= low
    values *= 255
    values += width // 2  # rounds to nearest
    values //= width
    rgb = Image.fromarray(values.astype(np.uint8)).convert("RGB")
    rgb.info["intensity_range"] = intensity_range
    return rgb


def _levels(values: np.ndarray, intensity_range: IntensityRange) -> tuple[int, int]:
    """The values that become black and white."""
    if intensity_range == "full":
        return 0, 65535
    if intensity_range == "per_image":
        return int(values.min()), int(values.max())
    return intensity_range
