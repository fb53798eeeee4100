"""One image file to pixels, safely: allowed formats, a pixel limit, and always three channels the right way up."""

from __future__ import annotations

import hashlib
import io
import os
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

MAX_PIXELS = 100_000_000  # 300 MB as RGB; larger ones are refused before they are decoded
BACKGROUND = (255, 255, 255)  # what shows through transparent pixels

ImageFile.LOAD_TRUNCATED_IMAGES = False
# Bytes of a PNG's notes or colour profile: Pillow's limit for all of them (64 MB), as large ones are no fault.
PngImagePlugin.MAX_TEXT_CHUNK = PngImagePlugin.MAX_TEXT_MEMORY


class ImageError(ValueError):
    """This file cannot be used as an image; the message says why."""


@dataclass(frozen=True)
class Inspection:
    """What the manifest keeps of an image: its hashes, and its size in pixels when the right way up.

    ``has_pages`` is not kept: whether a TIFF holds further images, which are not read.
    """

    sha256: str
    width: int
    height: int
    perceptual_hash: str
    has_pages: bool


def inspect(path: str | Path) -> Inspection:
    """Read one image to its end, as cheaply as its format allows.

    Raises:
        ImageError: where the file is not a whole image of an allowed format and size.
    """
    content = _read(path)
    with _opened(io.BytesIO(content)) as image:
        width, height = image.size[::-1] if _on_its_side(image) else image.size
        image.draft(None, (SMALLEST, SMALLEST))  # JPEG: down to an eighth of its size still reads every byte
        image.load()
        looks = perceptual_hash(_rgb(ImageOps.exif_transpose(image)))
        pages = image.format == "TIFF" and image.is_animated
    return Inspection(hashlib.sha256(content).hexdigest(), width, height, looks, pages)


def size_of(path: str | Path) -> tuple[int, int]:
    """The width and height of an image when the right way up, by its first bytes alone: the rest may be broken.

    Raises:
        ImageError: as ``inspect``, as far as these bytes tell.
    """
    with _reading(path) as file:
        _refuse_by_start(file, path)
        with _opened(file) as image:
            return image.size[::-1] if _on_its_side(image) else image.size


def read_rgb(
    path: str | Path, sha256: str, shape: tuple[int, int] | None = None, intensity_range: IntensityRange = "full"
) -> Image.Image:
    """Decode one image to RGB: the first frame, turned by its EXIF orientation, transparency on white.

    ``shape`` is the (height, width) to shrink it to; ``intensity_range`` is as in ``config.Source``. Where that decided
    about the pixels, ``info["intensity_range"]`` of the result holds it.

    Raises:
        ImageError: as ``inspect`` does, and where the file is not the one whose hash the manifest holds.
    """
    content = _read(path)
    if hashlib.sha256(content).hexdigest() != sha256:
        raise ImageError("changed since the manifest was made")
    return _shrunk(content, shape, intensity_range)


def read_new(
    path: str | Path, shape_of: Callable[[int, int], tuple[int, int]], intensity_range: IntensityRange = "full"
) -> tuple[str, Image.Image]:
    """The SHA-256 of a file that no manifest lists, and the image, decoded as ``read_rgb`` does.

    ``shape_of`` gives the (height, width) to shrink it to, from those that it has when the right way up.

    Raises:
        ImageError: as ``inspect`` does.
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
    """An image that is to be shrunk to ``size``; of a JPEG with sides from four times as long on, already of that size.

    libjpeg decodes those at a half, a quarter or an eighth, twice as large as is wanted or more, several times as fast.
    """
    size = size[::-1] if _on_its_side(image) else size
    before = image.size
    drafted = image.draft(None, (2 * size[0], 2 * size[1]))
    return image if image.size == before else image.resize(size, Image.Resampling.BILINEAR, box=drafted[1])


def _read(path: str | Path) -> bytes:
    with _reading(path) as file:
        _refuse_by_start(file, path)
        return file.read()


@contextmanager
def _reading(path: str | Path) -> Iterator[BinaryIO]:
    try:
        with open(path, "rb") as file:
            yield file
    except OSError as error:
        if os.path.islink(path) and not os.path.exists(path):
            raise ImageError(f"a link to {os.readlink(path)}, which is not there") from None
        raise ImageError(error.strerror or str(error)) from None


def _refuse_by_start(file: BinaryIO, path: str | Path) -> None:
    start = file.read(32)
    file.seek(0)
    if not start:
        raise ImageError("the file is empty")
    if start.startswith(b"version https://git-lfs"):
        raise ImageError("a Git LFS pointer, not the image; run 'git lfs pull'")
    if str(path).lower().endswith(RAW):
        raise ImageError("a camera's raw file; convert it to JPEG or PNG")


@contextmanager
def _opened(file: BinaryIO) -> Iterator[Image.Image]:
    """An image of an allowed format and size; whatever goes wrong while it is used is an ImageError."""
    try:
        with Image.open(file, formats=readable_formats()) as image:
            if image.width * image.height > MAX_PIXELS:
                raise ImageError(f"{image.width} x {image.height} is more than {MAX_PIXELS:,} pixels")
            yield image
    except (ImageError, ImportError):  # a package that is missing is no fault of the image
        raise
    except UnidentifiedImageError:
        raise ImageError(f"not an image of a known format ({', '.join(readable_formats())})") from None
    except Image.DecompressionBombError:
        raise ImageError(f"more than {MAX_PIXELS:,} pixels") from None
    except Exception as error:  # Pillow's parsers raise whatever broken bytes lead them to
        raise ImageError(f"broken: {error}") from None


def _on_its_side(image: Image.Image) -> bool:
    """Whether the orientation swaps width and height; Pillow swaps those of a TIFF itself."""
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
        raise ImageError("more than 16 bits per pixel")
    low, high = _levels(values, intensity_range)
    width = max(1, high - low)  # 1: an image of one colour
    np.clip(values, low, high, out=values)  # in place: an image may have 100 million pixels
    values -= low
    values *= 255
    values += width // 2  # to the nearest
    values //= width
    rgb = Image.fromarray(values.astype(np.uint8)).convert("RGB")
    rgb.info["intensity_range"] = intensity_range
    return rgb


def _levels(values: np.ndarray, intensity_range: IntensityRange) -> tuple[int, int]:
    """What becomes black and white."""
    if intensity_range == "full":
        return 0, 65535
    if intensity_range == "per_image":
        return int(values.min()), int(values.max())
    return intensity_range
