"""See which images and tables lie in a folder, and what their names say they are."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path, PurePosixPath
from typing import Literal

from kfold_ens.data.image_files import could_be_image, files_below
from kfold_ens.errors import DataError
from kfold_ens.text_files import is_utf8

Role = Literal["sample", "val", "train", "test"]

MADE_BY_RUNS = {"results", "resources", "state", "trained", "logs"}
TABLE = re.compile(r"\.(csv|tsv)(\.(gz|bz2|xz|zip))?$", re.IGNORECASE)
WORDS: dict[Role, str] = {  # in names; a sample may be called sample_test.csv
    "sample": "sample|submission|submit|example|prediction|template",
    "val": "val|valid|validation|dev",
    "train": "train|training",
    "test": "test|testing",
}
ROLES = {role: re.compile(rf"(?<![a-z])({words})(set|data|imgs?|images?)?(?![a-z])") for role, words in WORDS.items()}


@dataclass
class Folder:
    """A folder with images, by its path below the project, and the folders in it."""

    path: str
    names: list[str] = field(default_factory=list)  # of the images directly in it
    folders: dict[str, Folder] = field(default_factory=dict)

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

    def images(self) -> list[str]:
        """Paths of all images, relative to this folder, in order."""
        start = 0 if self.path == "." else len(self.path) + 1
        return sorted(f"{_prefix(each.path)}{name}"[start:] for each in self.all() for name in each.names)


def _prefix(path: str) -> str:
    return "" if path == "." else f"{path}/"


def role_of(path: str) -> Role | None:
    """What the name of a file or folder says it is, or that of the closest folder above; None if none does."""
    for name in reversed(PurePosixPath(path).parts):
        found = [role for role, words in ROLES.items() if words.search(name.lower())]
        if found:
            return found[0] if len(found) == 1 or found[0] == "sample" else None
    return None


def outermost(folder: Folder, wanted: Callable[[Folder], bool]) -> list[Folder]:
    """Find the folders with images that are wanted, without those in another such folder."""
    if folder.path != "." and wanted(folder):
        return [folder]
    return [found for each in folder.filled for found in outermost(each, wanted)]


def survey() -> tuple[Folder, list[str]]:
    """List the images and the tables below the working directory, without what a run makes.

    Raises:
        DataError: if a folder cannot be read, or a name is not UTF-8.
    """
    top, tables = Folder("."), []
    for path in files_below(Path("."), _refuse):
        if path.parts[0] in MADE_BY_RUNS:
            continue
        _refuse_other_encodings(path)
        if could_be_image(path):
            _folder_of(path, top).names.append(path.name)
        elif TABLE.search(path.name) and not path.name.startswith("."):
            tables.append(path.as_posix())
    return top, sorted(tables)


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
