"""List the images that arguments name: files, folders, tables of paths, and patterns. Imports no torch."""

from __future__ import annotations

import glob
import logging
import os
from collections.abc import Iterable, Sequence
from pathlib import Path

from kfold_ens.data.image_files import FORMATS, could_be_image, files_below, summary, why_ignored
from kfold_ens.errors import DataError, Together, counted, listing
from kfold_ens.text_files import is_utf8
from kfold_ens.user_tables import read_user_table

log = logging.getLogger(__name__)

TABLES = (".csv", ".tsv", ".csv.gz")
COLUMNS = ("image", "path")  # the first of these in a table holds the paths; without any, its first column does
NOT_IN_A_ROW = "\n\r\0"


def list_inputs(arguments: Sequence[str]) -> list[str]:
    """List the paths of all images, each once: files as given, folders sorted by name, tables in their order.

    Raises:
        DataError: if a path is missing, a folder has no images, or a name fits in no row of a CSV; it lists all errors.
    """
    together, found = Together(DataError), []
    for argument in arguments:
        with together.gather():
            found += _images_of(argument)
    with together.gather():
        _refuse_names(found)
    together.raise_all()
    return list(dict.fromkeys(found))


def _images_of(argument: str) -> list[str]:
    if os.path.isdir(argument):
        return _below(argument)
    if os.path.lexists(argument):
        return _paths_in(argument) if argument.lower().endswith(TABLES) else [argument]
    if glob.has_magic(argument):
        return _matching(argument)
    raise DataError(f"there is no file or folder {argument!r} (looked in {Path.cwd()})")


def _below(folder: str) -> list[str]:
    """List the images below a folder, in the order of the workflow."""
    files = {path.relative_to(folder).as_posix(): path for path in files_below(Path(folder), _refuse_unreadable)}
    images, ignored = [], []
    for name in sorted(files):
        reason = why_ignored(files[name])
        ignored += [(reason, name)] if reason else []
        images += [] if reason else [str(files[name])]
    counted = summary(len(images), ignored)
    if not images:
        raise DataError(f"{folder} holds no images ({counted}). Supported formats: {', '.join(FORMATS)}")
    if ignored:
        log.info("%s: %s", folder, counted)
    return images


def _refuse_unreadable(error: OSError) -> None:
    raise DataError(f"the folder {error.filename} cannot be read: {error.strerror}")


def _paths_in(table: str) -> list[str]:
    """Read the paths in a table, relative to the current folder."""
    rows = read_user_table(table, {}, "IMAGES")
    column = next((name for name in COLUMNS if name in rows), rows.columns[0])
    if column not in COLUMNS and could_be_image(Path(column)):
        raise DataError(f"IMAGES: {table} has no header: its first line is {column!r}; add the line `image` above it")
    paths = rows[column].tolist()
    if empty := sum(not path.strip() for path in paths):
        raise DataError(
            f"IMAGES: {table} has {counted(empty, 'row')} without a path in its column {column!r}; delete these rows"
        )
    if not any(map(os.path.lexists, paths)):
        raise DataError(_none_there(table, column, paths))
    return paths


def _none_there(table: str, column: str, paths: Sequence[str]) -> str:
    folder = os.path.dirname(table)
    words = f"IMAGES: {table}: none of the files in its column {column!r} exists; the first is {paths[0]!r}"
    if any(os.path.lexists(os.path.join(folder, path)) for path in paths):
        return f"{words}. The paths are relative to the table: run the command in {os.path.abspath(folder)}"
    return f"{words} (looked in {Path.cwd()}). Name the column of paths 'image' or 'path', or put it first"


def _matching(pattern: str) -> list[str]:
    """List the images that a pattern matches, and those below folders that it matches."""
    found = sorted(glob.glob(pattern, recursive=True))
    images = [path for path in found if os.path.isfile(path) and why_ignored(Path(path)) is None]
    folders = [path for path in found if os.path.isdir(path)]
    images += [path for folder in folders for path in _below(folder)]
    if not images:
        raise DataError(f"no image matches {pattern!r} (looked in {Path.cwd()})")
    return images


def _refuse_names(paths: Iterable[str]) -> None:
    """Refuse names that do not fit in one line of a CSV in UTF-8."""
    wrong = [repr(path) for path in paths if not is_utf8(path) or set(NOT_IN_A_ROW) & set(path)]
    if wrong:
        raise DataError(
            "these file names contain a line break or are not UTF-8, so a CSV cannot hold them; "
            f"rename the files:\n{listing(wrong)}"
        )
