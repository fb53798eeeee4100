"""Find missing or changed folders and tables of a source. Snakemake imports this with the Snakefile."""

from __future__ import annotations

import hashlib
import os
import re
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from kfold_ens.config import Half, Source
from kfold_ens.data.image_files import could_be_image, files_below
from kfold_ens.files import read_json, sha256_of


def missing(data: Source, half: Half) -> list[str]:
    """List missing or unusable folders and tables of one half, by key. Empty folders count: they may not be mounted."""
    tables = data.tables(half)
    faults = [
        (key, file_fault(place, "table") if place in tables else folder_fault(place))
        for key, places in data.places(half).items()
        for place in places
    ]
    return [f"{key}: {fault}" for key, fault in faults if fault]


def file_fault(path: str, what: str = "file") -> str | None:
    """Say why a file of the user cannot be used; None if it can."""
    if os.path.isdir(path):
        return f"{path} is a folder, not a {what}"
    if not os.path.exists(path):
        return f"there is no {what} {path}{_why(path)}"
    if not os.path.isfile(path):
        return f"{path} is not a regular file"
    return None if os.access(path, os.R_OK) else f"the {what} {path} cannot be read: permission denied"


def folder_fault(path: str) -> str | None:
    """Say why a folder of the user cannot be used; None if it can."""
    if os.path.isfile(path):
        return f"{path} is a file, not a folder"
    if not os.path.isdir(path):
        return f"there is no folder {path}{_why(path)}"
    if not os.access(path, os.R_OK | os.X_OK):
        return f"the folder {path} cannot be read: permission denied"
    return None if os.listdir(path) else f"the folder {path} is empty"


def _why(path: str) -> str:
    """Reasons why a path may not exist: an unset variable, an unknown home folder, a broken link."""
    names = (name.strip("{}") for name in re.findall(r"\$(\w+|\{\w+\})", path))
    reasons = [f"the environment variable {name} is not set" for name in names if name not in os.environ]
    if path.startswith("~"):
        reasons.append(f"{path.split('/')[0]} has no home folder")
    if os.path.islink(path):
        reasons.append(f"it is a link to {os.readlink(path)}, which does not exist")
    return "".join(f"; {reason}" for reason in reasons)


def source_of(data: Source, half: Half, seed: int, version: int) -> dict[str, Any]:
    """Describe what a half's manifest is made from, apart from images: the settings, and the SHA-256 of each table."""
    return {
        "data": data.of_half(half),
        "seed": seed if data.limit_per_class else None,  # the seed decides which images are drawn
        "tables": {table: sha256_of(table) for table in data.tables(half) if not file_fault(table)},
        "version": version,
    }


def is_source_of(manifest: Path, data: Source, half: Half, seed: int, version: int) -> bool:
    """Whether a manifest was made from this source, by the description beside it. Missing tables are not compared."""
    described = manifest.with_name(f"{half}.source.json")
    if not (manifest.is_file() and described.is_file()):
        return False
    now = source_of(data, half, seed, version)
    try:
        then = read_json(described)
        return then | {"tables": None} == now | {"tables": None} and now["tables"].items() <= then["tables"].items()
    except (ValueError, LookupError, TypeError, AttributeError):  # a damaged description matches nothing
        return False


def images_fingerprint(roots: Iterable[str]) -> str:
    """Hash the paths and sizes of all images below some folders, to notice added, removed or changed images."""
    images = (path for root in roots for path in files_below(Path(root)) if could_be_image(path))
    listing = sorted((os.fsencode(path), file_size(path)) for path in images)
    return hashlib.sha256(repr(listing).encode()).hexdigest()


def file_size(path: str | Path) -> int:
    """The size of a file in bytes; -1 if it cannot be read, which is reported when its content is read."""
    try:
        return os.stat(path).st_size
    except OSError:
        return -1
