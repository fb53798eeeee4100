"""Tell image files from others, by name or content. Every other file is ignored for a stated reason.

Snakemake imports this module with the Snakefile, so Pillow is imported only for uncommon names.
"""

from __future__ import annotations

import mimetypes
import os
from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from functools import cache
from pathlib import Path

FORMATS = (
    "JPEG",
    "PNG",
    "WEBP",
    "BMP",
    "GIF",
    "TIFF",
    "PPM",
    "AVIF",
    "JPEG2000",
)  # the formats that are read, by Pillow's names
COMMON = (".jpg", ".jpeg", ".png", ".webp", ".bmp", ".gif", ".tif", ".tiff", ".ppm", ".pgm", ".pbm")
# Camera raw files. Many are TIFF files whose first image is a thumbnail.
RAW = (
    *(".3fr", ".arw", ".cr2", ".cr3", ".dng", ".erf", ".kdc", ".mrw", ".nef", ".nrw", ".orf", ".pef"),
    *(".raf", ".raw", ".rw2", ".sr2", ".srw", ".x3f"),
)
FOREIGN = (".dcm", ".exr", ".heic", ".heif", ".jxl", ".svg")  # images that Pillow cannot read
LITTER = {"thumbs.db", "ehthumbs.db", "desktop.ini", "icon\r"}
SYSTEM_FOLDERS = {
    *("__macosx", "__pycache__", "@eadir", "#recycle", "@recycle", "$recycle.bin"),
    *("system volume information", "lost+found"),
}
# First bytes of files in these formats, except PPM, which can begin like text.
SIGNATURES = (
    *(b"\xff\xd8\xff", b"\x89PNG", b"GIF8", b"RIFF", b"BM", b"II*\0", b"MM\0*", b"II+\0", b"MM\0+"),
    *(b"\0\0\0\x0cjP  ", b"\xff\x4f\xff\x51"),
)
HEIF = (b"avif", b"avis", b"heic", b"heix", b"hevc", b"mif1", b"msf1")  # brands, in bytes 8 to 12 of the file


def files_below(
    root: Path,
    onerror: Callable[[OSError], None] | None = None,
    is_skipped: Callable[[Path], bool] = lambda folder: False,
) -> Iterator[Path]:
    """All files below a folder. Follows links, but not loops; skips hidden folders and system folders."""
    seen = set()
    for folder, subfolders, files in os.walk(root, followlinks=True, onerror=onerror):
        if os.path.realpath(folder) in seen:
            subfolders.clear()
            continue
        seen.add(os.path.realpath(folder))
        wanted = (name for name in subfolders if not is_ignored_folder(name) and not is_skipped(Path(folder, name)))
        subfolders[:] = sorted(wanted)
        yield from (Path(folder, name) for name in files)


def is_ignored_folder(name: str) -> bool:
    """Whether a folder is hidden, or made by an operating system, an editor or a sync program."""
    return name.startswith(".") or name.lower() in SYSTEM_FOLDERS


def could_be_image(path: Path) -> bool:
    """Whether to read a file as an image. A file that then turns out to be unreadable is refused by name."""
    return why_ignored(path) is None


def why_ignored(path: Path) -> str | None:
    """Say why a file is not read as an image; None if it could be one, by name or content."""
    name = path.name.lower()
    if name.startswith("."):
        return "hidden"
    if name in LITTER:
        return "made by the system"
    if name.endswith(COMMON) or _is_named_as_image(name) or _starts_as_image(path):
        return None
    return _mime_types().guess_type(name)[0] or "not images by name or content"


def _is_named_as_image(name: str) -> bool:
    kind, _ = _mime_types().guess_type(name)
    if kind:
        return kind.startswith("image/")
    return os.path.splitext(name)[1] in {*RAW, *FOREIGN, *_pillow_names()}


@cache
def _mime_types() -> mimetypes.MimeTypes:
    return mimetypes.MimeTypes()  # Python's built-in table; the module's functions would add the machine's


@cache
def _pillow_names() -> frozenset[str]:
    """The file extensions of all formats that Pillow opens."""
    from PIL import Image

    return frozenset(ending for ending, kind in Image.registered_extensions().items() if kind in Image.OPEN)


def _starts_as_image(path: Path) -> bool:
    """Whether a file begins like an image. A file that cannot be opened counts as one."""
    if not path.is_file():
        return False
    try:
        with open(path, "rb") as file:
            start = file.read(12)
    except OSError:
        return True
    return start[4:8] == b"ftyp" and start[8:] in HEIF or start.startswith(SIGNATURES) and _opens(path)


def _opens(path: Path) -> bool:
    """Whether Pillow recognizes a file as an image, intact or broken."""
    from PIL import Image, UnidentifiedImageError

    try:
        with Image.open(path, formats=readable_formats()):
            return True
    except UnidentifiedImageError:
        return False
    except Exception:  # Pillow's parsers may raise anything on broken bytes
        return True


@cache
def readable_formats() -> tuple[str, ...]:
    """The ``FORMATS`` that the installed Pillow can read."""
    from PIL import Image

    Image.init()
    return tuple(name for name in FORMATS if name in Image.OPEN)


@cache
def readable_endings() -> frozenset[str]:
    """The file extensions of the readable formats; an id may omit them."""
    from PIL import Image

    formats = readable_formats()
    return frozenset({*COMMON, *(end for end, kind in Image.registered_extensions().items() if kind in formats)})


def summary(images: int, ignored: Iterable[tuple[str, str]]) -> str:
    """Summarize the files seen: how many images, and how many were ignored, from pairs of reason and name."""
    ignored = list(ignored)
    counts = Counter(reason for reason, _ in ignored)
    examples = dict(reversed(ignored))
    reasons = [f"{count} {reason} (such as {examples[reason]})" for reason, count in counts.most_common()]
    return f"{images + len(ignored)} files: {images} images" + (f"; ignored: {', '.join(reasons)}" if reasons else "")
