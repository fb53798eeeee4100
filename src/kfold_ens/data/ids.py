"""Find the one image file that each id of a user's table refers to."""

from __future__ import annotations

import logging
import os
import unicodedata
from collections import Counter, defaultdict
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from functools import cache, cached_property, partial
from itertools import islice
from pathlib import Path

from kfold_ens.data.image_files import files_below, readable_endings
from kfold_ens.errors import DataError, listing
from kfold_ens.nearest import shown, with_suggestions

log = logging.getLogger(__name__)

MOST_NAMES = 500_000  # files searched for suggestions when an id is wrong


@dataclass(frozen=True)
class Found:
    """The files that match an id: their paths by file identity, which is the same for two names of one file.

    ``relative`` is the id as a path below the folder of images; None if it leads outside.
    """

    name: str
    relative: str | None
    files: dict[tuple, str]


def find_images(ids: Iterable[str], folder: str, table: str) -> list[Found]:
    """Find the one image of each id: a file name with or without its extension, or a longer path to the file.

    Raises:
        DataError: listing ids that match no file, several files or a file outside the folder, repeated ids, and ids
            of the same file.
    """
    if not os.path.isdir(folder):
        raise DataError(f"{table}: there is no folder {folder} for its images (looked in {Path.cwd()})")
    found = [*found_in(folder)(ids)]
    refusals = list(_refusals(found, folder, table))
    if refusals:
        raise DataError("\n".join(refusals))
    spaced = [repr(each.name) for each in found if each.name != each.name.strip()]
    if spaced:
        log.warning("%s: these ids, like their files, start or end with whitespace:\n%s", table, listing(spaced))
    return found


def found_in(folder: str) -> Callable[[Iterable[str]], Iterator[Found]]:
    """Return a function that looks for ids in a folder and refuses nothing. It lists each subfolder once."""
    return partial(map, _Images(folder).find)


def _refusals(found: Sequence[Found], folder: str, table: str) -> Iterator[str]:
    repeated = sorted(name for name, times in Counter(each.name for each in found).items() if times > 1)
    if repeated:
        yield f"{table} lists these images more than once; keep one row of each:\n{listing(map(shown, repeated))}"
    outside = [shown(each.name) for each in found if each.relative is None]
    if outside:
        yield (
            f"{table} lists images outside {folder}; move them into it, or change data.images (data.test_images):\n"
            f"{listing(outside)}"
        )
    missing = [each.name for each in found if each.relative is not None and not each.files]
    if missing:
        known = sorted(set(_names_below(folder)).difference(missing))  # a broken link exists, but is not a file
        lines = with_suggestions(missing, known)
        yield f"{table} lists images that are not in {folder}; add or rename them:\n{listing(lines)}"
    doubtful = [f"{shown(each.name)}: {' or '.join(each.files.values())}" for each in found if len(each.files) > 1]
    if doubtful:
        yield f"{table} lists ids that match several files; rename or remove all but one:\n{listing(doubtful)}"
    shared = _shared(found)
    if shared:
        yield f"{table} lists one image under two ids; keep one row of each:\n{listing(shared)}"


def _shared(found: Sequence[Found]) -> list[str]:
    """Different ids of the same file."""
    first: dict[tuple, Found] = {}
    shared = []
    for each in (each for each in found if len(each.files) == 1):
        ((identity, path),) = each.files.items()
        other = first.setdefault(identity, each)
        if other.name != each.name:
            shared.append(f"{shown(other.name)} and {shown(each.name)}: {path}")
    return shared


def _names_below(folder: str) -> Iterator[str]:
    start = len(_prefix(Path(folder)))
    return (str(path)[start:] for path in islice(files_below(Path(folder)), MOST_NAMES) if path.name[0] != ".")


def _prefix(folder: Path) -> str:
    """The prefix of paths of files in a folder."""
    return "" if str(folder) == "." else os.path.join(folder, "")


class _Images:
    """The images below a folder. Lists a subfolder once, when the first id leads there."""

    def __init__(self, root: str) -> None:
        self._root = root
        self._subfolder = cache(lambda name: _Subfolder(Path(root, name)))

    def find(self, name: str) -> Found:
        relative = self._relative(name)
        subfolder, _, last = (relative or "").rpartition("/")
        return Found(name, relative, self._subfolder(subfolder).matching(last) if last else {})

    def _relative(self, name: str) -> str | None:
        """An id as a path below the folder, even if it is absolute or contains ``..``; None if it leads outside."""
        up = ".." in name and ".." in name.split("/")
        if not up and not name.startswith("/"):
            return name
        root = os.path.abspath(self._root)
        folder, last = os.path.split(os.path.join(root, name))
        if last == "..":
            folder, last = os.path.join(folder, last), ""
        real = _below(os.path.realpath(root), os.path.join(os.path.realpath(folder), last))
        return _below(root, name) if real is None and not up else real  # a link inside the folder may point outside it


def _below(root: str, path: str) -> str | None:
    """A path relative to a folder; None if it is not inside."""
    start = root.rstrip("/") + "/"
    return path[len(start) :].lstrip("/") if path.startswith(start) else None


class _Subfolder:
    """The files of one folder, by name with and without an image extension."""

    def __init__(self, path: Path) -> None:
        self._prefix = _prefix(path)
        self._names = set(_files_in(path))
        self._by_stem = defaultdict(list)
        for name in sorted(filter(_has_ending, self._names)):
            self._by_stem[name.rpartition(".")[0]].append(name)
        self._identity = (os.stat(path).st_dev, os.stat(path).st_ino) if self._names else None

    def matching(self, name: str) -> dict[tuple, str]:
        """Paths of the files that match a name, by identity. A name with an image extension matches only that file."""
        if name in self._names and _has_ending(name):
            return self._found({name: name})
        listed = [*({name} & self._names), *self._by_stem.get(name, [])]
        return self._found({each: each for each in listed} or self._spelled_otherwise(name))

    def _found(self, spelled: dict[str, str]) -> dict[tuple, str]:
        """Drop repeated files. ``spelled`` maps listed names to the spelling that opens the file."""
        found = {(self._identity, listed): self._prefix + spelling for listed, spelling in spelled.items()}
        return found if len(found) < 2 else _distinct(found)

    def _spelled_otherwise(self, name: str) -> dict[str, str]:
        """Files listed under another spelling that open under this one: some disks ignore case or Unicode form."""
        near = self._folded.get(_folded(name), [])
        spelled = {listed: name + (os.path.splitext(listed)[1] if is_stem else "") for listed, is_stem in near}
        return {listed: each for listed, each in spelled.items() if os.path.isfile(self._prefix + each)}

    @cached_property
    def _folded(self) -> dict[str, list[tuple[str, bool]]]:
        folded = defaultdict(list)
        for name in sorted(self._names):
            folded[_folded(name)].append((name, False))
        for stem, names in self._by_stem.items():
            folded[_folded(stem)] += [(name, True) for name in names]
        return folded


def _distinct(found: dict[tuple, str]) -> dict[tuple, str]:
    """Drop links to a file that is already there."""
    distinct: dict[tuple, str] = {}
    for identity, path in found.items():
        if not any(os.path.samefile(path, other) for other in distinct.values()):
            distinct[identity] = path
    return distinct


def _files_in(path: Path) -> Iterator[str]:
    try:
        with os.scandir(path) as entries:
            yield from (entry.name for entry in entries if _is_file(entry))
    except PermissionError as error:
        raise DataError(f"data: the folder {path} cannot be read: {error.strerror}") from None
    except OSError:  # not a folder, or not a valid name: it holds no files
        return


def _has_ending(name: str) -> bool:
    return os.path.splitext(name.lower())[1] in readable_endings()


def _is_file(entry: os.DirEntry) -> bool:
    try:
        return entry.is_file()
    except OSError:  # a link to itself
        return False


def _folded(name: str) -> str:
    return unicodedata.normalize("NFC", name).casefold()
