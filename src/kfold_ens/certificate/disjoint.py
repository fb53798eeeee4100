"""Check what other labels cannot show: that no image is both held out and, in another form, trained on.

Imports no torch.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import pandas as pd

from kfold_ens.data.listings import is_extra
from kfold_ens.errors import counted

SHOWN = 5  # examples per check


@dataclass(frozen=True)
class Check:
    """What a check found. A leak fails the certificate; anything else is a remark."""

    name: str
    found: int  # groups or images
    is_leak: bool
    words: str = ""  # what was found, and what to do; empty if nothing was
    examples: tuple[str, ...] = ()

    @property
    def finding(self) -> str:
        return f"{self.name}: {self.words} ({'; '.join(self.examples)})"

    def as_json(self) -> dict[str, Any]:
        return asdict(self) | {"examples": list(self.examples)}


def check_images(splits: Sequence[pd.DataFrame], manifest: pd.DataFrame, alike: pd.DataFrame) -> list[Check]:
    """Check each repeat's split, then training against test images.

    Arguments:
        splits: tables ``image_id, sha256, label, fold``, one per repeat.
        manifest: of both halves.
        alike: near-duplicates, ``group, image_id, split, label``.
    """
    train, test = (manifest[manifest["split"] == half] for half in ("train", "test"))
    checks = [check for repeat, split in enumerate(splits) for check in _of_split(split, train, alike, repeat)]
    return [*checks, _copies_in_test(train, test), _alike_in_test(alike)]


def _of_split(split: pd.DataFrame, train: pd.DataFrame, alike: pd.DataFrame, repeat: int) -> Iterator[Check]:
    images = split.set_index("image_id")
    fold, where = images["fold"].astype(int), f" of repeat {repeat}" if repeat else ""
    keys = {
        "copies": (images["sha256"], "byte-identical images are in several folds; correct the given folds"),
        "groups": (_groups(train), "groups are in several folds; correct the given folds"),
        "near-duplicates": (
            alike[alike["split"] == "train"].set_index("image_id")["group"],
            "groups of near-duplicates are in several folds; write keep_together: near_duplicates into config.yaml",
        ),
    }
    for name, (key, words) in keys.items():
        yield _parted(f"{name} across folds{where}", key, fold, words)
    extra = train.loc[is_extra(train).to_numpy(), "image_id"]
    held_out = [f"{image} (fold {fold[image]})" for image in extra if fold.get(image, -1) >= 0]
    yield _check(f"extra images held out{where}", held_out, "images of data.extra must have fold -1", "image")


def _groups(train: pd.DataFrame) -> pd.Series:
    groups = train.set_index("image_id").get("group", pd.Series(dtype=object))
    return groups[groups.fillna("") != ""]


def _parted(name: str, key: pd.Series, fold: pd.Series, words: str) -> Check:
    """Find keys whose images are in several folds; images of fold -1 train in all of them."""
    images = pd.DataFrame({"key": key.astype(str), "fold": fold.reindex(key.index)}).dropna()
    folds = images.groupby("key")["fold"].nunique()
    parted = images[images["key"].isin(folds.index[folds > 1])].sort_index()
    examples = [
        ", ".join(f"{row.Index} in {_place(row.fold)}" for row in group.drop_duplicates("fold").head(2).itertuples())
        for _, group in parted.groupby("key", sort=False)
    ]
    return _check(name, examples, words, "case")


def _place(fold: float) -> str:
    return "every fold's training" if fold < 0 else f"fold {fold:.0f}"


def _check(name: str, found: Sequence[str], words: str, noun: str, is_leak: bool = True) -> Check:
    if not found:
        return Check(name, 0, is_leak)
    return Check(name, len(found), is_leak, f"{counted(len(found), noun)}: {words}", tuple(found[:SHOWN]))


def _copies_in_test(train: pd.DataFrame, test: pd.DataFrame) -> Check:
    found = test.loc[test["sha256"].isin(train["sha256"]), "image_id"].tolist()
    words = "test images are byte-identical to training images, so the test score is too high. No fold's score is"
    return _check("test images that are training images", found, words, "image", is_leak=False)


def _alike_in_test(alike: pd.DataFrame) -> Check:
    both = alike.groupby("group")["split"].nunique()
    found = alike[alike["group"].isin(both.index[both > 1]) & (alike["split"] == "test")]["image_id"].tolist()
    words = "test images are near-duplicates of training images, so the test score may be too high. No fold's score is"
    return _check("test images that look like training images", found, words, "image", is_leak=False)
