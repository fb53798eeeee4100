"""The classes that training labels make, and what about them is hardly meant."""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Callable, Mapping, Sequence

import pandas as pd

from kfold_ens.errors import DataError, listing

SPLITS = {"train", "training", "val", "valid", "validation", "test", "testing"}
SHOWN = 8  # classes named in one line
NAMED = 40  # characters of a name
NUMBER = re.compile(r"0*([0-9]+)(?:\.0*)?")  # a whole number, as text
FEW = 10  # images: of fewer, that all have one size says nothing


def class_labels(labels: pd.Series) -> list[str]:
    """The training labels in the order a person would list them: "2" before "10".

    Raises:
        DataError: if there are fewer than two, or two that look the same.
    """
    classes = sorted(labels.unique(), key=natural_key)
    if len(classes) < 2:
        raise DataError(f"data.train: there is only the class {classes[0]!r}; a classifier needs two or more")
    _refuse_equal_looks(labels.value_counts())
    return classes


def natural_key(label: str) -> tuple:
    """Sort digits by their number and everything else as text; "07" and "7" differ by their text."""
    parts = re.split(r"([0-9]+)", label)
    return [(int(part), "") if part[0] in "0123456789" else (-1, part) for part in parts if part], label


def _refuse_equal_looks(counts: pd.Series) -> None:
    if groups := _grouped(counts.index, _look):
        lines = [" and ".join(f"{_spelt(label)} ({_images(counts[label])})" for label in labels) for labels in groups]
        raise DataError(
            "data.train: these labels look the same, but differ in white space, invisible characters or Unicode "
            f"form; give each class one spelling:\n{listing(lines)}"
        )


def _look(label: str) -> str:
    """What one sees of a label."""
    visible = "".join(letter for letter in label if unicodedata.category(letter) != "Cf" or letter in "\u200c\u200d")
    return " ".join(unicodedata.normalize("NFC", visible).split())


def _sound(label: str) -> str:
    """A label without case and width; a number without zeros that do not count, as a table may have 1.0 for 1."""
    sound = unicodedata.normalize("NFKC", _look(label)).casefold()
    number = NUMBER.fullmatch(sound)
    return number[1] if number else sound


def _grouped(labels: Sequence[str], key: Callable[[str], str]) -> list[list[str]]:
    """Labels of the same key, where there are several."""
    groups: dict[str, list[str]] = {}
    for label in labels:
        groups.setdefault(key(label), []).append(label)
    return [sorted(group) for group in groups.values() if len(group) > 1]


def _spelt(label: str) -> str:
    """A label in which everything can be seen."""
    return repr(label) if label.isascii() or _look(label) == label else ascii(label)


def describe(counts: Mapping[str, int]) -> str:
    """The classes in a line: how many, their names, and how many images they have."""
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
    """What is hardly meant about the classes of training images, each with what to do about it.

    ``in_class_folders`` says that images' names are paths below the folder of their class.
    """
    deeper = _deeper(train) if in_class_folders else []
    return [*_similar(train["label"]), *_splits(train["label"]), *deeper, *_of_one_size(train)]


def _similar(labels: pd.Series) -> list[str]:
    pairs = [" and ".join(map(repr, group)) for group in _grouped(sorted(labels.unique()), _sound)]
    if not pairs:
        return []
    return [
        "data.train: these classes differ only by case, by the form of their letters, or by the zeros of a number:\n"
        f"{listing(pairs)}"
    ]


def _splits(labels: pd.Series) -> list[str]:
    names = sorted(label for label in labels.unique() if label.casefold() in SPLITS)
    if not names:
        return []
    return [
        f"data.train: {', '.join(names)} stands among the classes. If it is a part of the data, write its folder into "
        "config.yaml, as data.train: data/train"
    ]


def _deeper(train: pd.DataFrame) -> list[str]:
    """Every class folder holds the same folders, and those hold the images: these may be the classes."""
    folder, separator, _ = (train["name"].str.partition("/")[column] for column in range(3))
    inner = folder.where(separator != "", "").groupby(train["label"]).agg(frozenset)
    names = inner.iloc[0]
    if "" in names or len(names) < 2 or any(each != names for each in inner):
        return []
    return [
        f"data.train: each class folder holds the folders {', '.join(sorted(names)[:SHOWN])}. If these are the "
        "classes, data.train is one level too high: list its folders there"
    ]


def _of_one_size(train: pd.DataFrame) -> list[str]:
    if "width" not in train:
        return []
    sizes = train["width"].astype(str) + " x " + train["height"].astype(str)
    counts, images = sizes.groupby(train["label"]).nunique(), train["label"].value_counts()
    single = [label for label in counts.index[counts == 1] if images[label] >= FEW]
    if not single or 2 * len(single) > len(counts):
        return []
    lines = [f"{label}: all {images[label]} are {sizes[train['label'] == label].iloc[0]}" for label in single]
    return [
        "data.train: all images of these classes have one size, and those of the others have several, so a network "
        "can tell these classes by their size alone. If the size is no property of the class, crop the files alike:\n"
        f"{listing(lines)}"
    ]
