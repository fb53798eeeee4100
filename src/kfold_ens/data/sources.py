"""List the images of any source. Sources that read the user's own files are defined here."""

from __future__ import annotations

import logging
import os
from collections.abc import Callable, Iterator, Mapping
from contextlib import nullcontext
from functools import cache
from pathlib import Path
from typing import Any

import pandas as pd

from kfold_ens import config
from kfold_ens.data.datasets import from_digits, from_torchvision
from kfold_ens.data.extra import refuse_foreign_classes
from kfold_ens.data.groups import refuse_ungrouped, with_groups
from kfold_ens.data.ids import find_images
from kfold_ens.data.image_files import FORMATS, could_be_image, files_below, is_ignored_folder, summary, why_ignored
from kfold_ens.data.listings import COLUMNS, limited, with_extra
from kfold_ens.errors import DataError, Together, listing
from kfold_ens.text_files import is_utf8
from kfold_ens.user_tables import read_user_table

log = logging.getLogger(__name__)


def list_images(
    data: config.Data, half: config.Half, seed: int, export: Path, together: Together | None = None
) -> pd.DataFrame:
    """List the training or test images of a source. Images that are not files yet are written below ``export``.

    Raises:
        DataError: naming every folder, table, image or label at fault. ``together`` gathers the faults that leave the
            listing complete.
    """
    images = with_groups(SOURCES[data.source](data, half, seed, export), data)
    for check in (*CHECKS.get(data.source, ()), refuse_ungrouped, refuse_foreign_classes):
        with together.gather() if together else nullcontext():
            check(images, data, half)
    if images.empty:
        raise DataError(f"data: there are no {half} images. Supported formats: {', '.join(FORMATS)}.")
    return images.reset_index(drop=True)


# --- folders ---------------------------------------------------------------------------------------------


def from_folders(data: config.ImageFolder, half: config.Half, seed: int, export: Path) -> pd.DataFrame:
    """List training folders of class folders, merged, or a test folder with everything below it."""
    if half == "test":
        return _image_rows(Path(data.test), "test", "test", label=None)
    train = limited(_labelled_folders(data.train, "train"), data, seed)
    return with_extra(train, limited(_labelled_folders(data.extra, "extra"), data, seed)) if data.extra else train


def check_folders(images: pd.DataFrame, data: config.ImageFolder, half: config.Half) -> None:
    """Refuse class folders without images, and a test folder that overlaps a training folder."""
    if half == "test":
        _refuse_shared_files(data)
    else:
        _refuse_empty_classes(images, {"data.train": data.train, "data.extra": data.extra})


def _labelled_folders(roots: list[str], key: str) -> pd.DataFrame:
    """List the images of folders of class folders; ``key`` is their key below ``data`` in config.yaml."""
    return pd.concat([_class_folders(Path(root), prefix, f"data.{key}") for root, prefix in _prefixes(roots, key)])


def _prefixes(roots: list[str], key: str) -> list[tuple[str, str]]:
    """An id prefix for each training folder, so that equal file names in two folders stay distinct."""
    if len(roots) == 1:
        return [(roots[0], key)]
    if len(set(map(os.path.realpath, roots))) < len(roots):
        raise DataError(f"data.{key} lists a folder twice: {', '.join(roots)}")
    names = [Path(root).name for root in roots]
    distinct = len(set(names)) == len(names)
    return [(root, f"{key}/{name if distinct else root}") for root, name in zip(roots, names, strict=True)]


def _class_folders(root: Path, prefix: str, key: str) -> pd.DataFrame:
    folders = _subfolders(root)
    if not folders:
        raise DataError(f"{key}: {root} holds no class folders; put images into {root}/<class>/")
    _warn_of_stray_images(root, key)
    return pd.concat([_image_rows(root / name, f"{prefix}/{name}", "train", name) for name in folders])


def _warn_of_stray_images(root: Path, key: str) -> None:
    stray = sorted(_utf8(Path(entry.name)) for entry in os.scandir(root) if entry.is_file())
    images = [name for name in stray if could_be_image(root / name)]
    if images:
        log.warning(
            "%s: images directly in %s are skipped; move them into class folders:\n%s", key, root, listing(images)
        )


def _subfolders(root: Path) -> list[str]:
    if not root.is_dir():
        raise DataError(f"data: there is no folder {root} (looked in {Path.cwd()})")
    folders = (entry for entry in os.scandir(root) if entry.is_dir() and not is_ignored_folder(entry.name))
    return sorted(_utf8(Path(entry.name)) for entry in folders)


def _image_rows(root: Path, prefix: str, split: str, label: str | None) -> pd.DataFrame:
    files = sorted(_files_below(root))
    reasons = {name: why_ignored(root / name) for name in files}
    names = [name for name, reason in reasons.items() if reason is None]
    if len(names) < len(files):
        log.info("%s: %s", root, summary(len(names), ((why, name) for name, why in reasons.items() if why)))
    return pd.DataFrame(
        {
            "image_id": [f"{prefix}/{name}" for name in names],
            "name": names,
            "path": [str(root / name) for name in names],
            "split": split,
            "label": label or "",
        },
        columns=COLUMNS,
        dtype=object,
    )


def _files_below(root: Path) -> Iterator[str]:
    """Relative paths of all files below a folder."""
    if not root.is_dir():
        raise DataError(f"data: there is no folder {root} (looked in {Path.cwd()})")
    for path in files_below(root, _refuse_unreadable):
        yield _utf8(path.relative_to(root))


def _refuse_unreadable(error: OSError) -> None:
    raise DataError(f"data: the folder {error.filename} cannot be read: {error.strerror}")


def _utf8(path: Path) -> str:
    text = path.as_posix()
    if not is_utf8(text):
        raise DataError(f"data: the file name {text!r} is not UTF-8; rename it")
    return text


def _refuse_shared_files(data: config.ImageFolder) -> None:
    """Refuse training and test folders that overlap. A missing folder overlaps nothing."""
    train, test = ({path for root in data.folders(half) for path in _real_paths(Path(root))} for half in config.HALVES)
    if shared := sorted(train & test):
        raise DataError(f"data.test overlaps a training folder; separate them. Images in both:\n{listing(shared)}")


def _real_paths(root: Path) -> Iterator[str]:
    """Paths of the images below a folder, with links in the path of their folder resolved."""
    real = cache(os.path.realpath)
    images = (path for path in files_below(root) if could_be_image(path))
    return (os.path.join(real(path.parent), path.name) for path in images)


def _refuse_empty_classes(images: pd.DataFrame, roots: Mapping[str, list[str]]) -> None:
    """Refuse class folders without images; ``roots`` lists the folders of class folders by key."""
    for key, folders in roots.items():
        classes = {name for root in folders for name in _subfolders(Path(root))}
        empty = sorted(classes - set(images["label"]))
        if empty:
            raise DataError(f"{key}: these class folders have no images; fill or remove them:\n{listing(empty)}")


# --- tables ----------------------------------------------------------------------------------------------


def from_tables(data: config.Csv, half: config.Half, seed: int, export: Path) -> pd.DataFrame:
    """List the images whose ids a table contains; a training table has labels too."""
    if half == "test":
        return _test_rows(data)
    columns = {key: name for key in LISTED if (name := getattr(data, key))}
    rows = _labelled_rows(data, "data.train", data.train, columns)
    train = limited(rows.sort_values("image_id"), data, seed)
    return with_extra(train, limited(_extra_rows(data), data, seed)) if data.extra else train


def _extra_rows(data: config.Csv) -> pd.DataFrame:
    rows = pd.concat([_labelled_rows(data, "data.extra", file, {}) for file in data.extra])
    repeated = sorted(rows.loc[rows["image_id"].duplicated(), "name"])
    if repeated:
        raise DataError(f"data.extra lists these images more than once; keep one row of each:\n{listing(repeated)}")
    return rows.assign(image_id="extra/" + rows["image_id"].str.removeprefix("train/")).sort_values("image_id")


def _test_rows(data: config.Csv) -> pd.DataFrame:
    table = read_user_table(data.test, {"data.id_column": data.id_column}, "data.test")
    rows = _table_rows(table[data.id_column], "test", data.folders("test")[0], f"data.test: {data.test}", label="")
    if data.group_column and data.group_column not in table:
        log.info(
            "data.test: %s has no column %r, so the groups of test images are unknown", data.test, data.group_column
        )
    return rows.assign(**_columns(table, data)).drop(columns="fold", errors="ignore")


def _labelled_rows(data: config.Csv, key: str, file: str, columns: Mapping[str, str]) -> pd.DataFrame:
    """List the training images of a table; ``columns`` are further required columns, by key."""
    needed = {"id_column": data.id_column, "label_column": data.label_column, **columns}
    table = read_user_table(file, {f"data.{name}": column for name, column in needed.items()}, key)
    unlabelled = table.loc[table[data.label_column] == "", data.id_column]
    if len(unlabelled):
        raise DataError(
            f"{key}: {file}: these images have no label; add one, or remove the rows:\n{listing(unlabelled)}"
        )
    labels = table[data.label_column].array
    rows = _table_rows(table[data.id_column], "train", data.images, f"{key}: {file}", labels)
    return rows.assign(**_columns(table, data))


def _columns(table: pd.DataFrame, data: config.Csv) -> dict[str, Any]:
    """The optional columns that a user's table has, by their names in a listing."""
    return {name: table[column].array for key, name in LISTED.items() if (column := getattr(data, key)) in table}


def _table_rows(ids: pd.Series, split: str, folder: str, table: str, label: Any) -> pd.DataFrame:
    found = find_images(ids, folder, table)
    rows = {
        "image_id": [f"{split}/{each.relative}" for each in found],
        "name": list(ids),
        "path": [path for each in found for path in each.files.values()],
        "split": split,
    }
    return pd.DataFrame(rows, dtype=object).assign(label=label)


LISTED = {"group_column": "group", "fold_column": "fold"}  # keys of optional columns, and their names in a listing
CHECKS: dict[str, list[Callable[[pd.DataFrame, Any, config.Half], None]]] = {"imagefolder": [check_folders]}
SOURCES: dict[str, Callable[[Any, config.Half, int, Path], pd.DataFrame]] = {
    "digits": from_digits,
    "imagefolder": from_folders,
    "csv": from_tables,
    "torchvision": from_torchvision,
}
