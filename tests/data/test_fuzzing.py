"""Ten thousand mutated image files: each is decoded or cleanly refused, quickly and in bounded memory."""

from __future__ import annotations

import faulthandler
import io
import json
import sys
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from measured import peak_bytes, run_alone
from PIL import Image

from kfold_ens.data.image_files import FORMATS
from kfold_ens.data.images import ImageError, inspect, read_rgb
from kfold_ens.files import sha256_of

MUTANTS = 10_000
SECONDS = 20  # per file, before it counts as hanging
MEGABYTES = 2_000  # for any file of at most MAX_PIXELS: a few copies of 100 million pixels


def seeds() -> Iterator[bytes]:
    """A small image in every supported format, mode and compression."""
    random = np.random.default_rng(0)
    rgb = Image.fromarray(random.integers(0, 256, (24, 40, 3), dtype=np.uint8)).resize((60, 48))
    grey16 = Image.fromarray(random.integers(0, 65536, (24, 40), dtype=np.uint16))
    rgba, palette = rgb.copy(), rgb.quantize(16)
    rgba.putalpha(rgb.convert("L"))
    exif = Image.Exif()
    exif[0x0112], exif[0x010E] = 6, "a description"
    for image, kind, options in [
        (rgb, "JPEG", {"exif": exif}),
        (rgb, "JPEG", {"progressive": True}),
        (rgb.convert("L"), "JPEG", {}),
        (rgb.convert("CMYK"), "JPEG", {}),
        (rgb, "PNG", {"exif": exif}),
        (rgba, "PNG", {}),
        (palette, "PNG", {"transparency": 3}),
        (grey16, "PNG", {}),
        (rgb.convert("1"), "PNG", {}),
        (rgb, "WEBP", {"exif": exif}),
        (rgba, "WEBP", {"lossless": True}),
        (rgb, "WEBP", {"save_all": True, "append_images": [rgba]}),
        (rgb, "BMP", {}),
        (palette, "BMP", {}),
        (palette, "GIF", {"save_all": True, "append_images": [palette.rotate(90)], "transparency": 1}),
        *(
            (rgb, "TIFF", {"compression": each})
            for each in ("raw", "tiff_lzw", "tiff_adobe_deflate", "jpeg", "packbits")
        ),
        (grey16, "TIFF", {"exif": exif}),
        (rgb.convert("1"), "TIFF", {"compression": "group4"}),
        (rgb, "PPM", {}),
        (rgb.convert("L"), "PPM", {}),
        (rgb.convert("1"), "PPM", {}),
        (rgb, "AVIF", {}),
        (rgba, "AVIF", {"exif": exif}),
        (rgb, "JPEG2000", {}),
        (rgb.convert("L"), "JPEG2000", {"irreversible": True}),
    ]:
        file = io.BytesIO()
        image.save(file, kind, **options)
        yield file.getvalue()


def mutated(content: bytes, random: np.random.Generator) -> bytes:
    """Make one to four changes, more often in headers than in pixels."""
    changed = bytearray(content)
    for _ in range(random.integers(1, 5)):
        end = len(changed) if random.random() < 0.5 else min(len(changed), 64)
        start, length = int(random.integers(0, max(1, end))), int(random.integers(1, 9))
        match random.integers(6):
            case 0:  # other bytes
                changed[start : start + length] = random.bytes(length)
            case 1:  # flip one bit
                changed[start : start + 1] = bytes(
                    byte ^ 1 << random.integers(8) for byte in changed[start : start + 1]
                )
            case 2:  # extreme numbers
                changed[start : start + length] = bytes([int(random.choice([0, 127, 128, 255]))]) * length
            case 3:  # remove a piece
                del changed[start : start + length]
            case 4:  # repeat a piece
                changed[start:start] = changed[start : start + 4 * length]
            case 5:  # cut off the end
                del changed[int(random.integers(start, len(changed) + 1)) :]
    return bytes(changed)


def outcome(path: Path) -> str:
    """Inspect a file as for the manifest, then decode it."""
    try:
        seen = inspect(path)
    except ImageError:
        return "refused"
    try:
        image = read_rgb(path, sha256_of(path))
    except ImageError:
        return "refused late"
    assert (image.mode, image.size) == ("RGB", (seen.width, seen.height))
    return "read"


def fuzz(path: Path, mutants: int) -> None:
    """Run in a separate process: print the outcomes of the mutants, and the peak memory, as JSON."""
    random, whole = np.random.default_rng(0), list(seeds())
    outcomes: Counter[str] = Counter(outcome(path) for content in whole if path.write_bytes(content))
    assert outcomes == {"read": len(whole)}, outcomes
    for number in range(mutants):
        faulthandler.dump_traceback_later(SECONDS, exit=True)
        path.write_bytes(mutated(whole[number % len(whole)], random))
        outcomes[outcome(path)] += 1
    print(json.dumps({"outcomes": outcomes, "megabytes": peak_bytes() / 2**20}))


def test_the_seeds_cover_every_format():
    assert {Image.open(io.BytesIO(content)).format for content in seeds()} - {"MPO"} == set(FORMATS)


@pytest.mark.parametrize("mutants", [500, pytest.param(MUTANTS, marks=pytest.mark.slow)])
def test_a_mutated_image_is_read_or_refused(tmp_path, mutants):
    result = run_alone(__file__, str(tmp_path / "image.jpg"), str(mutants))
    assert result["megabytes"] < MEGABYTES
    assert min(result["outcomes"]["read"], result["outcomes"]["refused"]) > mutants / 20
    assert result["outcomes"].get("refused late", 0) == 0  # every fault is found before training


if __name__ == "__main__":
    fuzz(Path(sys.argv[1]), int(sys.argv[2]))
