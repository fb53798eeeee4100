"""Derive the classes from the training labels, and warn about suspicious ones."""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Callable, Mapping, Sequence

import pandas as pd

from kfold_ens.errors import DataError, listing

SPLITS = {"train", "training", "val", "valid", "validation", "test", "testing"}
SHOWN = 8  # classes named in one line
NAMED = 40  # characters shown of a name
NUMBER = re.compile(r"0*([0-9]+)(?:\.0*)?")  # a whole number, as text
FEW = 10  # images; a class with fewer may have a single size by chance


def class_labels(labels: pd.Series) -> list[str]:
    """The training labels in the order a person would list them: "2" before "10".

    Raises:
        DataError: if there are fewer than two classes, or two labels look the same.
    """
    classes = sorted(labels.unique(), key=natural_key)
    if len(classes) < 2:
        raise DataError(f"data.train: found only one class, {classes[0]!r}; a classifier needs at least two")
    _refuse_equal_looks(labels.value_counts())
    return classes


def natural_key(label: str) -> tuple:
    """Sort key that compares digits as numbers and the rest as text; the text decides between "07" and "7"."""
    parts = re.split(r"([0-9]+)", label)
    return [(int(part), "") if part[0] in "0123456789" else (-1, part) for part in parts if part], label


def _refuse_equal_looks(counts: pd.Series) -> None:
    if groups := _grouped(counts.index, _look):
        lines = [" and ".join(f"{_spelt(label)} ({_images(counts[label])})" for label in labels) for labels in groups]
        raise DataError(
            "data.train: these labels look the same, but differ in whitespace, invisible characters or Unicode "
            f"form; give each class one spelling:\n{listing(lines)}"
        )


def _look(label: str) -> str:
    """A label as it looks: without invisible characters, with whitespace collapsed."""
    visible = "".join(letter for letter in label if unicodedata.category(letter) != "Cf" or letter in "\u200c\u200d")
    return " ".join(unicodedata.normalize("NFC", visible).split())


def _sound(label: str) -> str:
    """A label without case or character width; a number without redundant zeros, since a table may hold 1.0 for 1."""
    sound = unicodedata.normalize("NFKC", _look(label)).casefold()
    number = NUMBER.fullmatch(sound)
    return number[1] if number else sound


def _grouped(labels: Sequence[str], key: Callable[[str], str]) -> list[list[str]]:
    """Groups of two or more labels with the same key."""
    groups: dict[str, list[str]] = {}
    for label in labels:
        groups.setdefault(key(label), []).append(label)
    return [sorted(group) for group in groups.values() if len(group) > 1]


def _spelt(label: str) -> str:
    """A label in quotes, with invisible characters escaped."""
    return repr(label) if label.isascii() or _look(label) == label else ascii(label)


def describe(counts: Mapping[str, int]) -> str:
    """Describe the classes in one line: their number, names and image counts."""
    names = [_cut(label) for label in sorted(counts, key=natural_key)]
    shown = ", ".join(names[:SHOWN]) + (", ..." if len(names) > SHOWN else "")
    low, high = min(counts.values()), max(counts.values())
    images = _images(high) if low == high else f"from {low} to {high} images"
    return f"{len(counts)} classes: {shown} ({images} each)"


def _images(count: int) -> str:
    return f"{count} image" if count == 1 else f"{count} images"


def _cut(name: str) -> str:
    line = " ".join(name.split()) or repr(name)
    return line if len(line) <= NAMED else f"{line[: NAMED - 1]}…"


def doubts(train: pd.DataFrame, in_class_folders: bool) -> list[str]:
    """Warnings about the classes of training images, each with what to do about it.

    ``in_class_folders``: the images' names are paths relative to the folder of their class.
    """
    deeper = _deeper(train) if in_class_folders else []
    return [*_similar(train["label"]), *_splits(train["label"]), *deeper, *_of_one_size(train)]


def _similar(labels: pd.Series) -> list[str]:
    pairs = [" and ".join(map(repr, group)) for group in _grouped(sorted(labels.unique()), _sound)]
    if not pairs:
        return []
    return [
        "data.train: these classes differ only in case, Unicode form, or the zeros of a number. If they are one class, "
        f"give them one name:\n{listing(pairs)}"
    ]


def _splits(labels: pd.Series) -> list[str]:
    names = sorted(label for label in labels.unique() if label.casefold() in SPLITS)
    if not names:
        return []
    return [
        f"data.train: found classes named {', '.join(names)}. If these are splits of the data, not classes, write the "
        "folder of the training split into config.yaml, such as data.train: data/train"
    ]


def _deeper(train: pd.DataFrame) -> list[str]:
    """Warn if all class folders hold the same subfolders of images: those may be the classes."""
    folder, separator, _ = (train["name"].str.partition("/")[column] for column in range(3))
    inner = folder.where(separator != "", "").groupby(train["label"]).agg(frozenset)
    names = inner.iloc[0]
    if "" in names or len(names) < 2 or any(each != names for each in inner):
        return []
    return [
        f"data.train: each class folder holds the folders {', '.join(sorted(names)[:SHOWN])}. If these are the "
        "classes, data.train is one level too high: list the folders inside it instead"
    ]


def _of_one_size(train: pd.DataFrame) -> list[str]:
    if "width" not in train:
        return []
    sizes = train["width"].astype(str) + " x " + train["height"].astype(str)
    counts, images = sizes.groupby(train["label"]).nunique(), train["label"].value_counts()
    single = [label for label in counts.index[counts == 1] if images[label] >= FEW]
    if not single or 2 * len(single) > len(counts):
        return []
    lines = [f"{label}: all {images[label]} images are {sizes[train['label'] == label].iloc[0]}" for label in single]
    return [
        "data.train: each of these classes has a single image size, and the others have several, so a network can "
        "recognize these classes by size alone. Unless size is a property of the class, crop all files the same way:\n"
        f"{listing(lines)}"
    ]
