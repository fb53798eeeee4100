"""Where images come from: every source becomes one table of images, with the label its user gave it.

A listing has a row an image: ``image_id`` (unique, the same on every machine), ``name`` (what the user calls it),
``path``, ``split`` (train or test) and ``label`` (the user's own string, empty where unknown).
"""

from __future__ import annotations

import inspect
import logging
import os
from collections.abc import Callable, Iterator
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from PIL import Image

from kfold_ens import config
from kfold_ens.data.folders import EXTENSIONS, files_below, is_image_name
from kfold_ens.errors import DataError, listing
from kfold_ens.files import read_table

log = logging.getLogger(__name__)

COLUMNS = ["image_id", "name", "path", "split", "label"]
HELD_OUT = 0.2  # the share of a dataset without a test split that becomes its test set


def list_images(data: config.Data, half: config.Half, seed: int, export: Path) -> pd.DataFrame:
    """List the training or the test images of a source; those that are no files yet are written below ``export``.

    Raises:
        DataError: naming every folder, table, image or label at fault.
    """
    images = SOURCES[data.source](data, half, seed, export)
    if images.empty:
        raise DataError(f"data: there are no {half} images. Readable are files named {', '.join(EXTENSIONS)}.")
    return images.reset_index(drop=True)


# --- folders ---------------------------------------------------------------------------------------------


def from_folders(data: config.ImageFolder, half: config.Half, seed: int, export: Path) -> pd.DataFrame:
    """Training folders of class folders, merged, or a test folder read with everything below it."""
    if half == "test":
        _refuse_shared_files(data)
        return _image_rows(Path(data.test), "test", "test", label=None)
    train = pd.concat([_class_folders(Path(root), prefix) for root, prefix in _prefixes(data.folders("train"))])
    _refuse_empty_classes(data.train, train)
    return _limit(train, data, seed)


def _prefixes(roots: list[str]) -> list[tuple[str, str]]:
    """A prefix for the ids of each training folder, so that equal file names in two of them stay apart."""
    if len(roots) == 1:
        return [(roots[0], "train")]
    if len(set(map(os.path.realpath, roots))) < len(roots):
        raise DataError(f"data.train lists a folder twice: {', '.join(roots)}")
    names = [Path(root).name for root in roots]
    distinct = len(set(names)) == len(names)
    return [(root, f"train/{name if distinct else root}") for root, name in zip(roots, names, strict=True)]


def _class_folders(root: Path, prefix: str) -> pd.DataFrame:
    folders = _subfolders(root)
    if not folders:
        raise DataError(f"data.train: {root} holds no class folders; put images into {root}/<class>/")
    stray = [entry for entry in os.scandir(root) if entry.is_file()]
    if stray:
        log.info("%d files beside the class folders of %s are ignored", len(stray), root)
    return pd.concat([_image_rows(root / name, f"{prefix}/{name}", "train", name) for name in folders])


def _subfolders(root: Path) -> list[str]:
    if not root.is_dir():
        raise DataError(f"data: there is no folder {root} (looked in {Path.cwd()})")
    folders = (entry for entry in os.scandir(root) if entry.is_dir() and not entry.name.startswith("."))
    return sorted(_utf8(Path(entry.name)) for entry in folders)


def _image_rows(root: Path, prefix: str, split: str, label: str | None) -> pd.DataFrame:
    files = sorted(_files_below(root))
    names = [name for name in files if is_image_name(Path(name).name)]
    if len(names) < len(files):
        log.info("%d files below %s are ignored: hidden, or no images by their names", len(files) - len(names), root)
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
    """Paths of all files below a folder, relative to it."""
    if not root.is_dir():
        raise DataError(f"data: there is no folder {root} (looked in {Path.cwd()})")
    for path in files_below(root, _refuse_unreadable):
        yield _utf8(path.relative_to(root))


def _refuse_unreadable(error: OSError) -> None:
    raise DataError(f"data: the folder {error.filename} cannot be read: {error.strerror}")


def _utf8(path: Path) -> str:
    text = path.as_posix()
    try:
        text.encode()
    except UnicodeEncodeError:
        raise DataError(f"data: the file name {text!r} is not UTF-8; rename it") from None
    return text


def _refuse_shared_files(data: config.ImageFolder) -> None:
    """Refuse one folder given for both halves, or one inside the other. A folder that is gone shares nothing."""
    train, test = ({path for root in data.folders(half) for path in _real_paths(Path(root))} for half in config.HALVES)
    if shared := sorted(train & test):
        raise DataError(f"data.test lies inside a training folder; it shares\n{listing(shared)}")


def _real_paths(root: Path) -> Iterator[str]:
    """The images below a folder, where they are when the links among their folders are followed."""
    real = cache(os.path.realpath)
    images = (path for path in files_below(root) if is_image_name(path.name))
    return (os.path.join(real(path.parent), path.name) for path in images)


def _refuse_empty_classes(roots: list[str], train: pd.DataFrame) -> None:
    classes = {name for root in roots for name in _subfolders(Path(root))}
    empty = sorted(classes - set(train["label"]))
    if empty:
        raise DataError(f"data.train: these class folders hold no image; fill or remove them:\n{listing(empty)}")


# --- tables ----------------------------------------------------------------------------------------------


def from_tables(data: config.Csv, half: config.Half, seed: int, export: Path) -> pd.DataFrame:
    """A table of image ids, for training with labels, and the folder the ids are files of."""
    (file,), (folder,) = data.tables(half), data.folders(half)
    if half == "test":
        return _table_rows(read_table(file, [data.id_column])[data.id_column], "test", folder, file, "")
    table = read_table(file, [data.id_column, data.label_column])
    _refuse_unlabelled(table, data)
    rows = _table_rows(table[data.id_column], "train", folder, file, table[data.label_column])
    return _limit(rows.sort_values("image_id"), data, seed)


def _refuse_unlabelled(train: pd.DataFrame, data: config.Csv) -> None:
    unlabelled = train.loc[train[data.label_column] == "", data.id_column]
    if len(unlabelled):
        raise DataError(f"{data.train}: these images have no label:\n{listing(unlabelled)}")


def _table_rows(ids: pd.Series, split: str, folder: str, table: str, labels: Any) -> pd.DataFrame:
    repeated = sorted(ids[ids.duplicated()].unique())
    if repeated:
        raise DataError(f"{table} lists these images more than once:\n{listing(repeated)}")
    paths = [_find(Path(folder), name) for name in ids]
    missing = [name for name, path in zip(ids, paths, strict=True) if path is None]
    if missing:
        raise DataError(f"{table} lists images that are not in {folder}:\n{listing(missing)}")
    rows = {"image_id": [f"{split}/{name}" for name in ids], "name": list(ids), "path": paths, "split": split}
    return pd.DataFrame(rows, dtype=object).assign(label=getattr(labels, "array", labels))


def _find(folder: Path, name: str) -> str | None:
    """The file an id means: the id itself, or the id and an image's extension. Never one outside the folder."""
    if not name or Path(name).is_absolute() or ".." in Path(name).parts:
        return None
    endings = ("", *EXTENSIONS, *map(str.upper, EXTENSIONS))
    candidates = (folder / f"{name}{ending}" for ending in endings)
    return next((str(path) for path in candidates if os.path.isfile(path)), None)


# --- datasets of libraries -------------------------------------------------------------------------------


def from_digits(data: config.Digits, half: config.Half, seed: int, export: Path) -> pd.DataFrame:
    """scikit-learn's 8x8 digits, whose 17 grey levels are spread over 0 to 255."""
    from sklearn.datasets import load_digits

    digits = load_digits()
    pixels = (digits.images * (255 / 16)).round().astype(np.uint8)
    items = [(Image.fromarray(image), str(target)) for image, target in zip(pixels, digits.target, strict=True)]
    return _export({"": items}, data, half, seed, export)


def from_torchvision(data: config.Torchvision, half: config.Half, seed: int, export: Path) -> pd.DataFrame:
    """A torchvision dataset by its class name; images it keeps as files are used where they are."""
    from torchvision import datasets

    kind = getattr(datasets, data.name, None)
    if not (inspect.isclass(kind) and issubclass(kind, datasets.VisionDataset)):
        raise DataError(f"data.name: torchvision has no dataset {data.name!r}; see torchvision.datasets for the names")
    splits = {split: _TorchvisionItems(parts) for split, parts in _opened(kind, data).items()}
    return _export(splits, data, half, seed, export)


def _opened(kind: type, data: config.Torchvision) -> dict[str, list[Any]]:
    """A dataset's parts by split, validation images among the training images; all under "" where it has no split."""
    parameters = inspect.signature(kind).parameters
    options: dict[str, Any] = {"download": data.download} if "download" in parameters else {}
    if "loader" in parameters:
        options["loader"] = Path  # the image stays the file it is
    try:
        if "train" in parameters:
            return {split: [kind(root=data.root, train=split == "train", **options)] for split in ("train", "test")}
        if "split" in parameters:
            return _named_parts(kind, data.root, options)
        return {"": [kind(root=data.root, **options)]}
    except (RuntimeError, OSError) as error:
        raise DataError(
            f"data: torchvision cannot read {data.name} below {data.root}: {error}\n"
            f"  Without a network, put its files there by hand: torchvision's documentation of {data.name} names them."
        ) from None
    except (TypeError, ValueError, ModuleNotFoundError) as error:
        raise DataError(f"data.name: {data.name} cannot be used here: {error}") from None


def _named_parts(kind: type, root: str, options: dict[str, Any]) -> dict[str, list[Any]]:
    parts, refusals = {}, {}
    for name in ("trainval", "train", "test", "val", "valid"):
        try:
            parts[name] = kind(root=root, split=name, **options)
        except ValueError as refusal:  # torchvision's answer to a split that it does not have, or cannot download
            refusals[name] = str(refusal)
    if not parts and options.get("download"):
        return _named_parts(kind, root, options | {"download": False})
    test = next((name for name in ("test", "val", "valid") if name in parts), None)
    train = ["trainval"] if "trainval" in parts else [name for name in ("train", "val", "valid") if name in parts]
    train = [name for name in train if name != test]
    if not (train and test):
        raise DataError(
            f"data.name: {kind.__name__} has no split for training and one for testing; it has {list(parts)}\n"
            f"{listing(f'{name}: {refusal}' for name, refusal in refusals.items())}"
        )
    return {"train": [parts[name] for name in train], "test": [parts[test]]}


class _TorchvisionItems:
    """Datasets, one after the other, as a sequence of (image or path, label)."""

    def __init__(self, parts: list[Any]) -> None:
        self._parts = parts
        self._places = [(part, index) for part in parts for index in range(len(part))]

    def __len__(self) -> int:
        return len(self._places)

    def __getitem__(self, position: int) -> tuple[Image.Image | Path, str]:
        part, index = self._places[position]
        image, target = part[index]
        if not isinstance(target, int | np.integer):
            raise DataError(f"data.name: the targets of {type(part).__name__} are no class labels")
        classes = getattr(part, "classes", None)
        label = classes[int(target)] if classes else int(target)
        return image, label[0] if isinstance(label, tuple) else str(label)  # a tuple is of one class's names


def _export(splits: dict[str, Any], data: config.Source, half: config.Half, seed: int, export: Path) -> pd.DataFrame:
    """List one half of a library's items, and write those that are no files yet as PNG."""
    tables = [_item_rows(split, items) for split, items in splits.items()]
    images = _limit(_hold_out(pd.concat(tables, ignore_index=True)), data, seed)
    images = images[images["split"] == half].copy()
    images["path"] = [_as_file(splits[row.origin][row.index][0], export / row.name) for row in _rows(images)]
    return images[COLUMNS]


def _item_rows(split: str, items: Any) -> pd.DataFrame:
    indices = range(len(items))
    names = [f"{split or 'image'}-{index:06d}.png" for index in indices]
    labels = [items[index][1] for index in indices]
    return pd.DataFrame({"origin": split, "index": indices, "name": names, "split": split, "label": labels})


def _hold_out(images: pd.DataFrame) -> pd.DataFrame:
    if (images["split"] == "").any():
        from sklearn.model_selection import train_test_split  # every job would pay for it

        try:
            _, test = train_test_split(images.index, test_size=HELD_OUT, stratify=images["label"], random_state=0)
        except ValueError as error:
            raise DataError(f"data: no fifth of the images can be held out as a test set: {error}") from None
        images["split"] = np.where(images.index.isin(test), "test", "train")
    return images.assign(image_id=images["split"] + "/" + images["name"])


def _rows(images: pd.DataFrame) -> Iterator[Any]:
    return (row for row in images[["origin", "index", "name"]].itertuples(index=False))


def _as_file(image: Image.Image | Path, path: Path) -> str:
    if isinstance(image, Path):
        return str(image)
    image.save(path)
    return str(path)


def _limit(images: pd.DataFrame, data: config.Source, seed: int) -> pd.DataFrame:
    """At most ``limit_per_class`` images of each class and split, drawn by the seed."""
    if data.limit_per_class is None:
        return images
    shuffled = images.sort_values("image_id").sample(frac=1, random_state=seed)
    kept = shuffled.groupby(["split", "label"], sort=False).head(data.limit_per_class)
    return images.loc[images["image_id"].isin(kept["image_id"])].copy()


SOURCES: dict[str, Callable[[Any, config.Half, int, Path], pd.DataFrame]] = {
    "digits": from_digits,
    "imagefolder": from_folders,
    "csv": from_tables,
    "torchvision": from_torchvision,
}
