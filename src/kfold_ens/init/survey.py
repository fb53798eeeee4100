"""See which images and tables lie in a folder, and what their names say they are."""

from __future__ import annotations

import os
import re
from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from functools import cached_property, partial
from pathlib import Path, PurePosixPath

from kfold_ens.data.image_files import could_be_image, files_below
from kfold_ens.errors import DataError
from kfold_ens.init.findings import counted
from kfold_ens.init.names import Half, halves_among
from kfold_ens.text_files import is_utf8

MADE_BY_RUNS = {"results", "resources", "state", "trained", "logs"}
TABLE = re.compile(r"\.(csv|tsv)(\.(gz|bz2|xz|zip))?$", re.IGNORECASE)
INSTALLED = {"node_modules", "site-packages", "dist-packages"}
ENVIRONMENT = ("pyvenv.cfg", "conda-meta")  # what an environment's folder holds


@dataclass
class Folder:
    """A folder with images, by its path below the project, and the folders in it."""

    path: str
    names: list[str] = field(default_factory=list)  # of the images directly in it
    folders: dict[str, Folder] = field(default_factory=dict)
    half: Half | None = None  # that it belongs to, by its name or that of the closest folder above
    is_named: bool = False  # whether its own name says which half

    @property
    def name(self) -> str:
        """The last part of its path."""
        return PurePosixPath(self.path).name

    @cached_property
    def filled(self) -> list[Folder]:
        """The folders in it that hold images, at any depth."""
        return [folder for _, folder in sorted(self.folders.items()) if folder.count]

    @cached_property
    def count(self) -> int:
        """The number of images, at any depth."""
        return len(self.names) + sum(folder.count for folder in self.folders.values())

    def all(self) -> Iterator[Folder]:
        """This folder and all below it that hold images."""
        yield self
        for folder in self.filled:
            yield from folder.all()

    def holds(self, other: Folder) -> bool:
        """Whether the other folder lies below this one, or is this one."""
        return self.path == "." or PurePosixPath(other.path).is_relative_to(self.path)

    @property
    def holds_leaves(self) -> bool:
        """Whether it holds several folders, and each of these holds images directly, as class folders do."""
        return len(self.filled) > 1 and all(each.names for each in self.filled)

    def images(self) -> list[str]:
        """Paths of all images, relative to this folder, in order."""
        start = 0 if self.path == "." else len(self.path) + 1
        return sorted(f"{_prefix(each.path)}{name}"[start:] for each in self.all() for name in each.names)


def _prefix(path: str) -> str:
    return "" if path == "." else f"{path}/"


def outermost(folder: Folder, wanted: Callable[[Folder], bool]) -> list[Folder]:
    """Find the folders with images that are wanted, without those in another such folder."""
    if folder.path != "." and wanted(folder):
        return [folder]
    return [found for each in folder.filled for found in outermost(each, wanted)]


def survey() -> tuple[Folder, list[str], dict[str, str]]:
    """List the images and the tables below the working directory. Also say why folders are skipped, by path.

    Raises:
        DataError: if a folder cannot be read, or a name is not UTF-8.
    """
    top, tables = Folder("."), []
    skipped: dict[str, str] = {}
    made: Counter[str] = Counter()
    for path in files_below(Path("."), _refuse, partial(_is_installed, skipped)):
        if path.parts[0] in MADE_BY_RUNS and len(path.parts) > 1:
            made[path.parts[0]] += could_be_image(path) or _is_table(path)
            continue
        _refuse_other_encodings(path)
        if could_be_image(path):
            _folder_of(path, top).names.append(path.name)
        elif _is_table(path):
            tables.append(path.as_posix())
    _name_halves(top)
    return top, sorted(tables), skipped | _where_runs_write(made)


def _is_installed(skipped: dict[str, str], folder: Path) -> bool:
    """Whether a folder holds installed programs instead of data. Notes it in ``skipped``."""
    if folder.name in INSTALLED or any(os.path.lexists(folder / sign) for sign in ENVIRONMENT):
        skipped[folder.as_posix()] = "holds installed programs"
        return True
    return False


def _is_table(path: Path) -> bool:
    return bool(TABLE.search(path.name)) and not path.name.startswith(".")


def _where_runs_write(files: Mapping[str, int]) -> dict[str, str]:
    return {
        name: f"holds {counted(count, 'image or table', 'images and tables')}, but a run writes its own files there; "
        "rename it if it is your data"
        for name, count in sorted(files.items())
        if count
    }


def _name_halves(folder: Folder) -> None:
    """Set the half of each folder below. A name says nothing among class folders of a half, such as train/test_tube."""
    named = halves_among(each.name for each in folder.filled)
    if folder.half and len(named) < len(folder.filled) and (folder.holds_leaves or len(set(named.values())) < 2):
        named = {}
    for each in folder.filled:
        each.half, each.is_named = named.get(each.name, folder.half), each.name in named
        _name_halves(each)


def _folder_of(path: Path, top: Folder) -> Folder:
    folder = top
    for part in path.parts[:-1]:
        folder = folder.folders.setdefault(part, Folder(f"{_prefix(folder.path)}{part}"))
    return folder


def _refuse(error: OSError) -> None:
    raise DataError(f"the folder {error.filename} cannot be read: {error.strerror}")


def _refuse_other_encodings(path: Path) -> None:
    if not is_utf8(str(path)):
        raise DataError(f"the file name {str(path)!r} is not UTF-8; rename it")
