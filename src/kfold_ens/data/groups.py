"""Find the groups that config.yaml defines: images of one group stay together in the split."""

from __future__ import annotations

import logging
import re
from typing import NamedTuple

import pandas as pd

from kfold_ens.config import Csv, Half, ImageFiles, Source
from kfold_ens.data.listings import is_extra
from kfold_ens.errors import DataError, listing
from kfold_ens.nearest import shown

log = logging.getLogger(__name__)


def with_groups(images: pd.DataFrame, data: Source) -> pd.DataFrame:
    """Add the column ``group``: what ``data.groups`` finds in each image's name, or empty text."""
    if not isinstance(data, ImageFiles) or data.groups is None:
        return images
    pattern = re.compile(data.groups)
    found = [pattern.search(name) for name in images["name"]]
    return images.assign(group=pd.Series([(each and each[1]) or "" for each in found], images.index, dtype=object))


def refuse_ungrouped(images: pd.DataFrame, data: Source, half: Half) -> None:
    """Refuse training images without a group, except those that are never held out.

    Raises:
        DataError: with the number of these images, and the names of some.
    """
    if half == "test" or "group" not in images:
        return
    listed = images[~is_extra(images)]
    names = [shown(name) for name in listed.loc[listed["group"] == "", "name"]]
    if not names:
        return
    assert isinstance(data, ImageFiles)  # only these have groups
    where, what = _where(data)
    raise DataError(
        f"{where} for {len(names)} of {len(listed)} training images; {what} (unrelated images need "
        f"a unique group each):\n{listing(names)}"
    )


def _where(data: ImageFiles) -> tuple[str, str]:
    if isinstance(data, Csv) and data.group_column:
        column = f"data.group_column: {data.train}: the column {data.group_column!r} is empty"
        return column, "fill in the group of each image"
    return f"data.groups: {data.groups!r} finds no group", "change the regular expression or the file names"


class SharedGroups(NamedTuple):
    """Groups that occur in both the training and the test images."""

    names: list[str]
    groups: int  # of test images
    images: int  # test images of shared groups

    def __str__(self) -> str:
        return (
            f"{len(self.names):,} of {self.groups:,} groups of test images also occur in the training images "
            f"({self.images:,} test images)"
        )


def shared_groups(train: pd.DataFrame, test: pd.DataFrame) -> SharedGroups | None:
    """The groups that training and test images share; None if a half has no known groups."""
    known, asked = (set(half.get("group", pd.Series(dtype=str)).dropna()) - {""} for half in (train, test))
    if not known or not asked:
        return None
    names = sorted(known & asked)
    return SharedGroups(names, len(asked), int(test["group"].isin(names).sum()))


def tell_shared_groups(train: pd.DataFrame, test: pd.DataFrame) -> None:
    """Log how many groups of the test images also occur in the training images."""
    if shared := shared_groups(train, test):
        log.info("%s%s", shared, f":\n{listing(map(shown, shared.names))}" if shared.names else "")
