"""What a source's folders and tables hold, and whether they are there. Snakemake reads this with the Snakefile."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from kfold_ens.config import Half, Source
from kfold_ens.data.image_files import could_be_image, files_below
from kfold_ens.files import read_json, sha256_of


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
    images = (path for root in roots for path in files_below(Path(root)) if could_be_image(path))
    listing = sorted((os.fsencode(path), _size(path)) for path in images)
    return hashlib.sha256(repr(listing).encode()).hexdigest()


def _size(path: Path) -> int:
    try:
        return path.stat().st_size
    except OSError:  # the manifest will say so
        return -1
