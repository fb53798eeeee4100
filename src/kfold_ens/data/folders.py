"""What lies below a folder. Snakemake reads this module with the Snakefile, so it imports next to nothing."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import Any

from kfold_ens.config import Half, Source
from kfold_ens.files import read_json, sha256_of

EXTENSIONS = (".jpg", ".jpeg", ".png", ".webp", ".bmp", ".gif", ".tif", ".tiff", ".ppm", ".pgm", ".pbm")


def files_below(root: Path, onerror: Callable[[OSError], None] | None = None) -> Iterator[Path]:
    """All files below a folder; links are followed, loops and hidden folders are not."""
    seen = set()
    for folder, subfolders, files in os.walk(root, followlinks=True, onerror=onerror):
        if os.path.realpath(folder) in seen:
            subfolders.clear()
            continue
        seen.add(os.path.realpath(folder))
        subfolders[:] = sorted(name for name in subfolders if not name.startswith("."))
        yield from (Path(folder, name) for name in files)


def is_image_name(name: str) -> bool:
    """Whether a file is an image by its name, and not hidden."""
    return name.lower().endswith(EXTENSIONS) and not name.startswith(".")


def missing(tables: Iterable[str], folders: Iterable[str]) -> list[str]:
    """Those of a source's tables and folders that are not there, in words; an empty folder is as one not mounted."""
    absent = [f"there is no table {table}" for table in tables if not os.path.isfile(table)]
    for folder in folders:
        if not os.path.isdir(folder):
            absent.append(f"there is no folder {folder}")
        elif os.access(folder, os.R_OK) and not os.listdir(folder):
            absent.append(f"the folder {folder} is empty")
    return absent


def source_of(data: Source, half: Half, seed: int, version: int) -> dict[str, Any]:
    """What a half's manifest is made from, but for the images: of tables, those that are there, the SHA-256."""
    return {
        "data": data.of_half(half),
        "seed": seed if data.limit_per_class else None,  # it draws those images
        "tables": {table: sha256_of(table) for table in data.tables(half) if os.path.isfile(table)},
        "version": version,
    }


def is_source_of(manifest: Path, data: Source, half: Half, seed: int, version: int) -> bool:
    """Whether a manifest lies beside the description of just this source; tables that are gone may be any."""
    described = manifest.with_name(f"{half}.source.json")
    if not (manifest.is_file() and described.is_file()):
        return False
    now = source_of(data, half, seed, version)
    try:
        then = read_json(described)
        return then | {"tables": None} == now | {"tables": None} and now["tables"].items() <= then["tables"].items()
    except (ValueError, LookupError, TypeError, AttributeError):  # a damaged description is none
        return False


def images_fingerprint(roots: Iterable[str]) -> str:
    """A hash over the names and sizes of all images below some folders: it changes when images come, go or differ."""
    images = (path for root in roots for path in files_below(Path(root)) if is_image_name(path.name))
    listing = sorted((os.fsencode(path), _size(path)) for path in images)
    return hashlib.sha256(repr(listing).encode()).hexdigest()


def _size(path: Path) -> int:
    try:
        return path.stat().st_size
    except OSError:  # the manifest will say so
        return -1
