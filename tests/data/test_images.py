import io
import os
import struct
import tracemalloc
import zlib
from collections.abc import Callable

import numpy as np
import pytest
from PIL import Image, ImageOps, PngImagePlugin

from kfold_ens.data.images import MAX_PIXELS, ImageError, inspect, read_rgb
from kfold_ens.files import sha256_of

WHITE, RED, GREEN, BLUE = (255, 255, 255), (255, 0, 0), (0, 255, 0), (0, 0, 255)
UPRIGHT = np.array([[RED, GREEN, BLUE], [WHITE, (0, 0, 0), (0, 0, 0)]], dtype=np.uint8).repeat(16, 0).repeat(16, 1)
# How a camera stores an upright image, by EXIF orientation.
STORED: dict[int, Callable[[np.ndarray], np.ndarray]] = {
    1: lambda a: a,
    2: lambda a: a[:, ::-1],
    3: lambda a: a[::-1, ::-1],
    4: lambda a: a[::-1],
    5: lambda a: a.swapaxes(0, 1),
    6: lambda a: np.rot90(a, 1),
    7: lambda a: a[::-1, ::-1].swapaxes(0, 1),
    8: lambda a: np.rot90(a, -1),
}
ENDINGS = ["jpg", "png", "webp", "tiff"]


def encoded(image: Image.Image, ending: str, **options: object) -> bytes:
    file = io.BytesIO()
    image.save(file, {"jpg": "JPEG", "tif": "TIFF"}.get(ending, ending), **options)
    return file.getvalue()


def turned(orientation: int) -> Image.Exif:
    exif = Image.Exif()
    exif[0x0112] = orientation
    return exif


def oriented(orientation: int, ending: str) -> bytes:
    lossless = {"webp": {"lossless": True}, "jpg": {"quality": 100, "subsampling": 0}}
    image = Image.fromarray(np.ascontiguousarray(STORED[orientation](UPRIGHT)))
    return encoded(image, ending, exif=turned(orientation), **lossless.get(ending, {}))


def noise(width: int = 60, height: int = 40) -> Image.Image:
    return Image.fromarray(np.random.default_rng(0).integers(0, 256, (height, width, 3), dtype=np.uint8))


def read(path) -> np.ndarray:
    """Decode a file, and check that ``inspect`` finds the same size and hash."""
    found = inspect(path)
    image = read_rgb(path, found.sha256)
    assert image.mode == "RGB"
    assert (found.width, found.height) == image.size
    assert found.sha256 == sha256_of(path)
    return np.asarray(image)


@pytest.mark.parametrize("ending", ENDINGS)
@pytest.mark.parametrize("orientation", STORED)
def test_images_are_turned_the_right_way_up(tmp_path, orientation, ending):
    path = tmp_path / f"image.{ending}"
    path.write_bytes(oriented(orientation, ending))
    pixels = read(path).astype(int)
    assert pixels.shape == UPRIGHT.shape
    assert np.abs(pixels - UPRIGHT)[8::16, 8::16].max() < 8  # a JPEG's edges are not sharp


@pytest.mark.parametrize("orientation", [0, 9, 65535])
def test_an_invalid_orientation_is_ignored(tmp_path, orientation):
    (tmp_path / "image.png").write_bytes(encoded(Image.fromarray(UPRIGHT), "png", exif=turned(orientation)))
    np.testing.assert_array_equal(read(tmp_path / "image.png"), UPRIGHT)


def palette(**info: object) -> Image.Image:
    image = Image.new("P", (2, 1))
    image.putpalette([*RED, *BLUE])
    image.putpixel((1, 0), 1)
    image.info.update(info)
    return image


def pixels_of(mode: str, *values: object) -> Image.Image:
    image = Image.new(mode, (len(values), 1))
    image.putdata(values)
    return image


def grey_16(*values: int) -> Image.Image:
    return Image.fromarray(np.array([values], dtype=np.uint16))


def grey(*values: int) -> list[tuple[int, int, int]]:
    return [(value,) * 3 for value in values]


@pytest.mark.parametrize(
    ("image", "ending", "options", "expected"),
    [
        (pixels_of("RGB", RED, BLUE), "png", {}, [RED, BLUE]),
        (pixels_of("1", 0, 255), "png", {}, grey(0, 255)),
        (pixels_of("L", 0, 77, 255), "png", {}, grey(0, 77, 255)),
        (pixels_of("L", 0, 77, 255), "pgm", {}, grey(0, 77, 255)),
        (pixels_of("L", 0, 77, 255), "bmp", {}, grey(0, 77, 255)),
        (pixels_of("L", 0, 77, 255), "png", {"transparency": 77}, grey(0, 255, 255)),
        (pixels_of("RGB", RED, BLUE), "png", {"transparency": BLUE}, [RED, WHITE]),
        (pixels_of("LA", (0, 255), (77, 0), (0, 128)), "png", {}, grey(0, 255, 127)),
        (pixels_of("RGBA", (*RED, 255), (*RED, 0), (*RED, 128)), "png", {}, [RED, WHITE, (255, 127, 127)]),
        (pixels_of("RGBA", (*RED, 255), (*RED, 0)), "webp", {"lossless": True, "exact": True}, [RED, WHITE]),
        (pixels_of("RGBA", (*RED, 255), (*RED, 0)), "tiff", {}, [RED, WHITE]),
        (palette(), "png", {}, [RED, BLUE]),
        (palette(), "png", {"transparency": 1}, [RED, WHITE]),
        (palette(), "png", {"transparency": bytes([128, 255])}, [(255, 127, 127), BLUE]),
        (palette(), "gif", {}, [RED, BLUE]),
        (palette(), "gif", {"transparency": 0}, [WHITE, BLUE]),
        (grey_16(0, 257, 32768, 65535), "png", {}, grey(0, 1, 128, 255)),
        (grey_16(0, 100, 200, 65535), "tiff", {}, grey(0, 0, 1, 255)),
        (grey_16(0, 257, 65535), "pgm", {}, grey(0, 1, 255)),
        (pixels_of("CMYK", (0, 255, 255, 0), (255, 255, 0, 0)), "tiff", {}, [RED, BLUE]),
    ],
)
def test_every_mode_becomes_three_correct_channels(tmp_path, image, ending, options, expected):
    path = tmp_path / f"image.{ending}"
    path.write_bytes(encoded(image, "ppm" if ending == "pgm" else ending, **options))
    assert [tuple(pixel) for pixel in read(path)[0].tolist()] == expected


def test_a_cmyk_jpeg_keeps_its_colours(tmp_path):
    image = Image.fromarray(UPRIGHT).convert("CMYK")
    (tmp_path / "image.jpg").write_bytes(encoded(image, "jpg", quality=100, subsampling=0))
    assert np.abs(read(tmp_path / "image.jpg").astype(int) - UPRIGHT)[8::16, 8::16].max() < 8


@pytest.mark.parametrize("ending", ["gif", "webp", "tiff", "png"])
def test_the_first_frame_of_an_animation_is_read(tmp_path, ending):
    frames = [Image.new("RGB", (6, 4), colour) for colour in (RED, GREEN, BLUE)]
    lossless = {"lossless": True} if ending == "webp" else {}
    content = encoded(frames[0], ending, save_all=True, append_images=frames[1:], **lossless)
    (tmp_path / f"image.{ending}").write_bytes(content)
    assert (read(tmp_path / f"image.{ending}") == RED).all()


@pytest.mark.parametrize("size", [(1, 1), (1, 5000), (5000, 1)])
@pytest.mark.parametrize("ending", ENDINGS)
def test_extreme_shapes_are_read(tmp_path, size, ending):
    (tmp_path / f"image.{ending}").write_bytes(encoded(Image.new("RGB", size, WHITE), ending))
    pixels = read(tmp_path / f"image.{ending}")
    assert pixels.shape == (*size[::-1], 3)
    assert pixels.min() >= 250


@pytest.mark.parametrize("ending", ["jpg", "png"])
def test_pixels_equal_pillows_whatever_the_file_name(tmp_path, ending):
    content = encoded(noise(), ending)
    (tmp_path / "image.bmp").write_bytes(content)
    expected = ImageOps.exif_transpose(Image.open(io.BytesIO(content))).convert("RGB")
    np.testing.assert_array_equal(read(tmp_path / "image.bmp"), np.asarray(expected))


def half(content: bytes) -> bytes:
    return content[: len(content) // 2]


POINTER = b"version https://git-lfs.github.com/spec/v1\noid sha256:4d7a2146\nsize 12345\n"
FAULTS = {
    "empty": (b"", "the file is empty"),
    "HTML": (b"<!DOCTYPE html><html><body>404 Not Found</body></html>", "not an image of a known format"),
    "LFS pointer": (POINTER, "git lfs pull"),
    "text": (b"Thumbs", "not an image of a known format"),
    "format not allowed": (encoded(Image.new("RGB", (8, 8)), "ico"), "not an image of a known format"),
    "no pixels": (encoded(noise(), "png")[:33], "not an image of a known format"),
    "a JPEG's last bytes": (encoded(noise(), "jpg")[:-20], "broken"),
    **{f"half a {ending}": (half(encoded(noise(), ending)), "broken") for ending in (*ENDINGS, "gif", "bmp", "ppm")},
    **{
        f"half a {ending} on its side": (half(encoded(noise(), ending, exif=turned(6))), "broken") for ending in ENDINGS
    },
}


@pytest.mark.parametrize(("content", "message"), FAULTS.values(), ids=FAULTS)
def test_an_incomplete_image_is_refused(tmp_path, content, message):
    path = tmp_path / "image.jpg"
    path.write_bytes(content)
    with pytest.raises(ImageError, match=message):
        inspect(path)
    with pytest.raises(ImageError, match=message):
        read_rgb(path, sha256_of(path))


@pytest.mark.parametrize("make", [lambda path: None, lambda path: path.mkdir(), lambda path: path.symlink_to("gone")])
def test_a_missing_file_or_a_folder_is_refused(tmp_path, make):
    make(tmp_path / "image.jpg")
    with pytest.raises(ImageError, match=r"No such file|Is a directory|a link to gone, which does not exist"):
        inspect(tmp_path / "image.jpg")


def png_claiming(width: int, height: int) -> bytes:
    """A PNG of a few bytes whose header claims a large size."""

    def chunk(kind: bytes, data: bytes) -> bytes:
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))

    header = struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    chunks = chunk(b"IHDR", header), chunk(b"IDAT", zlib.compress(bytes(1000))), chunk(b"IEND", b"")
    return b"\x89PNG\r\n\x1a\n" + b"".join(chunks)


@pytest.mark.parametrize("size", [(10_001, 10_000), (12_000, 12_000), (60_000, 60_000), (2**31 - 1, 2**31 - 1)])
@pytest.mark.filterwarnings("ignore::PIL.Image.DecompressionBombWarning")
def test_a_decompression_bomb_is_refused_before_it_takes_memory(tmp_path, size):
    path = tmp_path / "bomb.png"
    path.write_bytes(png_claiming(*size))
    tracemalloc.start()
    try:
        with pytest.raises(ImageError, match=f"more than {MAX_PIXELS:,} pixels"):
            inspect(path)
        with pytest.raises(ImageError, match="more than"):
            read_rgb(path, sha256_of(path))
        assert tracemalloc.get_traced_memory()[1] < 10**6
    finally:
        tracemalloc.stop()


@pytest.mark.parametrize(
    ("intensity_range", "expected"),
    [
        ("full", [0, 4, 8, 16]),
        ("per_image", [0, 64, 128, 255]),
        ([0, 4095], [0, 64, 128, 255]),
        ([1024, 2048], [0, 0, 255, 255]),
        ([0, 65535], [0, 4, 8, 16]),
    ],
)
def test_the_intensity_range_sets_black_and_white_in_16_bits(tmp_path, intensity_range, expected):
    path = tmp_path / "image.png"
    Image.fromarray(np.array([[0, 1024, 2048, 4095]], dtype=np.uint16)).save(path)
    pixels = np.asarray(read_rgb(path, sha256_of(path), intensity_range=intensity_range))
    np.testing.assert_array_equal(pixels[0], np.repeat(expected, 3).reshape(4, 3))


@pytest.mark.parametrize("intensity_range", ["per_image", [0, 100]])
def test_the_intensity_range_allows_8_bits_and_images_of_one_colour(tmp_path, intensity_range):
    Image.fromarray(np.array([[3, 200]], dtype=np.uint8)).save(tmp_path / "8.png")
    Image.fromarray(np.full((1, 2), 7, dtype=np.uint16)).save(tmp_path / "16.png")
    eight, sixteen = (
        np.asarray(read_rgb(path, sha256_of(path), intensity_range=intensity_range))[0, :, 0].tolist()
        for path in (tmp_path / "8.png", tmp_path / "16.png")
    )
    assert eight == [3, 200]
    assert sixteen == ([0, 0] if intensity_range == "per_image" else [18, 18])


@pytest.mark.parametrize("value", [-1, 65536])
def test_more_than_16_bits_are_refused(tmp_path, value):
    Image.fromarray(np.array([[0, value]], dtype=np.int32)).save(tmp_path / "image.tiff")
    with pytest.raises(ImageError, match="more than 16 bits"):
        read_rgb(tmp_path / "image.tiff", sha256_of(tmp_path / "image.tiff"))


def test_floating_point_is_refused(tmp_path):
    Image.fromarray(np.array([[0, 0.5]], dtype=np.float32)).save(tmp_path / "image.tiff")
    with pytest.raises(ImageError, match="save it with 8 or 16 bits"):
        read_rgb(tmp_path / "image.tiff", sha256_of(tmp_path / "image.tiff"))


def test_a_changed_image_is_refused(tmp_path):
    noise().save(tmp_path / "image.png")
    before = inspect(tmp_path / "image.png")
    noise(61).save(tmp_path / "image.png")
    with pytest.raises(ImageError, match="changed since the manifest was made"):
        read_rgb(tmp_path / "image.png", before.sha256)


# --- what cameras and programs add to the pixels --------------------------------------------------------


@pytest.mark.parametrize("kind", ["text", "profile"])
def test_png_texts_and_profiles_above_a_megabyte_are_accepted(tmp_path, kind):
    """python-pillow/Pillow#8363: Pillow takes them for an attack; other programs open the image."""
    path, notes = tmp_path / "a.png", PngImagePlugin.PngInfo()
    notes.add_text("prompt", "a" * 3_000_000, zip=True)
    more = {"pnginfo": notes} if kind == "text" else {"icc_profile": bytes(3_000_000)}
    Image.new("RGB", (20, 10), (1, 2, 3)).save(path, **more)
    seen = inspect(path)
    assert (seen.width, seen.height) == (20, 10)
    assert (np.asarray(read_rgb(path, seen.sha256)) == (1, 2, 3)).all()


def test_a_jpeg_with_an_embedded_preview_is_read_as_the_photograph(tmp_path):
    """python-pillow/Pillow#4603: Pillow calls such a JPEG an MPO."""
    path = tmp_path / "a.jpg"
    photograph, preview = Image.new("RGB", (20, 10), (200, 0, 0)), Image.new("RGB", (8, 4))
    photograph.save(path, "MPO", save_all=True, append_images=[preview])
    seen = inspect(path)
    assert not seen.has_pages
    assert read_rgb(path, seen.sha256).size == (20, 10)


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="needs named pipes")
def test_a_pipe_is_refused_without_waiting_for_a_writer(tmp_path):
    os.mkfifo(tmp_path / "pipe.png")
    with pytest.raises(ImageError, match="^a pipe, not a file$"):
        inspect(tmp_path / "pipe.png")
