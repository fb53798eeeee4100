"""List datasets that come with libraries. Images that are not files yet are written to disk."""

from __future__ import annotations

import inspect
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from PIL import Image

from kfold_ens import config
from kfold_ens.data.listings import COLUMNS, limited
from kfold_ens.errors import DataError, listing

HELD_OUT = 0.2  # share that becomes the test set of a dataset without a test split


def from_digits(data: config.Digits, half: config.Half, seed: int, export: Path) -> pd.DataFrame:
    """List scikit-learn's 8x8 digits, with their 17 grey levels scaled to 0 to 255."""
    from sklearn.datasets import load_digits

    digits = load_digits()
    pixels = (digits.images * (255 / 16)).round().astype(np.uint8)
    items = [(Image.fromarray(image), str(target)) for image, target in zip(pixels, digits.target, strict=True)]
    return _export({"": items}, data, half, seed, export)


def from_torchvision(data: config.Torchvision, half: config.Half, seed: int, export: Path) -> pd.DataFrame:
    """List a torchvision dataset by its class name. Images that it keeps as files are used in place.

    Raises:
        DataError: if torchvision has no such dataset, cannot read it, or it is not for classification.
    """
    from torchvision import datasets

    kind = getattr(datasets, data.name, None)
    if not (inspect.isclass(kind) and issubclass(kind, datasets.VisionDataset)):
        raise DataError(f"data.name: torchvision has no dataset {data.name!r}; see torchvision.datasets for the names")
    splits = {split: _TorchvisionItems(parts) for split, parts in _opened(kind, data).items()}
    return _export(splits, data, half, seed, export)


def _opened(kind: type, data: config.Torchvision) -> dict[str, list[Any]]:
    """A dataset's parts by split, with validation images under "train"; all under "" if it has no splits."""
    parameters = inspect.signature(kind).parameters
    options: dict[str, Any] = {"download": data.download} if "download" in parameters else {}
    if "loader" in parameters:
        options["loader"] = Path  # keep the path instead of opening the image
    try:
        if "train" in parameters:
            return {split: [kind(root=data.root, train=split == "train", **options)] for split in ("train", "test")}
        if "split" in parameters:
            return _named_parts(kind, data.root, options)
        return {"": [kind(root=data.root, **options)]}
    except (RuntimeError, OSError) as error:
        raise DataError(
            f"data.root: torchvision cannot read {data.name} in {data.root}: {error}{_too_deep(data)}\n"
            f"  If this machine is offline, download the files of {data.name} elsewhere and copy them there; "
            "torchvision's documentation lists them."
        ) from None
    except (TypeError, ValueError, ModuleNotFoundError) as error:
        raise DataError(f"data.name: {data.name} cannot be loaded: {error}; choose another data set") from None


def _too_deep(data: config.Torchvision) -> str:
    """Suggest the parent folder if ``root`` is the folder of the dataset itself."""
    root = Path(data.root)
    if root.name.casefold() != data.name.casefold():
        return ""
    return f"\n  data.root must be the folder that contains {root.name}; write root: {root.parent}"


def _named_parts(kind: type, root: str, options: dict[str, Any]) -> dict[str, list[Any]]:
    parts, refusals = {}, {}
    for name in ("trainval", "train", "test", "val", "valid"):
        try:
            parts[name] = kind(root=root, split=name, **options)
        except ValueError as refusal:  # raised for a split that the dataset lacks or cannot download
            refusals[name] = str(refusal)
    if not parts and options.get("download"):
        return _named_parts(kind, root, options | {"download": False})
    test = next((name for name in ("test", "val", "valid") if name in parts), None)
    train = ["trainval"] if "trainval" in parts else [name for name in ("train", "val", "valid") if name in parts]
    train = [name for name in train if name != test]
    if not (train and test):
        raise DataError(
            f"data.name: {kind.__name__} needs a training split and a test split; found {list(parts)}\n"
            f"{listing(f'{name}: {refusal}' for name, refusal in refusals.items())}"
        )
    return {"train": [parts[name] for name in train], "test": [parts[test]]}


class _TorchvisionItems:
    """Concatenate datasets into a sequence of (image or path, label)."""

    def __init__(self, parts: list[Any]) -> None:
        self._parts = parts
        self._places = [(part, index) for part in parts for index in range(len(part))]

    def __len__(self) -> int:
        return len(self._places)

    def __getitem__(self, position: int) -> tuple[Image.Image | Path, str]:
        part, index = self._places[position]
        image, target = part[index]
        if not isinstance(target, int | np.integer):
            raise DataError(
                f"data.name: {type(part).__name__} has no class labels; choose a dataset for classification"
            )
        classes = getattr(part, "classes", None)
        label = classes[int(target)] if classes else int(target)
        return image, label[0] if isinstance(label, tuple) else str(label)  # a tuple holds several names of one class


def _export(splits: dict[str, Any], data: config.Source, half: config.Half, seed: int, export: Path) -> pd.DataFrame:
    """List one half of a library's items, and write those that are not files yet as PNG."""
    tables = [_item_rows(split, items) for split, items in splits.items()]
    images = limited(_hold_out(pd.concat(tables, ignore_index=True)), data, seed)
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
        from sklearn.model_selection import train_test_split  # slow to import, and few jobs need it

        try:
            _, test = train_test_split(images.index, test_size=HELD_OUT, stratify=images["label"], random_state=0)
        except ValueError as error:
            raise DataError(
                f"data: cannot hold out {HELD_OUT:.0%} of the images as a test set: {error}; "
                "add images, or use a source that has a test set"
            ) from None
        images["split"] = np.where(images.index.isin(test), "test", "train")
    return images.assign(image_id=images["split"] + "/" + images["name"])


def _rows(images: pd.DataFrame) -> Iterator[Any]:
    return (row for row in images[["origin", "index", "name"]].itertuples(index=False))


def _as_file(image: Image.Image | Path, path: Path) -> str:
    if isinstance(image, Path):
        return str(image)
    image.save(path)
    return str(path)
