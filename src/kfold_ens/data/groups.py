"""The groups of images that config.yaml names: images of one group stay together in the split."""

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
    """A listing with what ``data.groups`` finds in each image's name, as the column ``group``; empty if nothing."""
    if not isinstance(data, ImageFiles) or data.groups is None:
        return images
    pattern = re.compile(data.groups)
    found = [pattern.search(name) for name in images["name"]]
    return images.assign(group=pd.Series([(each and each[1]) or "" for each in found], images.index, dtype=object))


def refuse_ungrouped(images: pd.DataFrame, data: Source, half: Half) -> None:
    """Refuse training images without a group, but for those that are never held out.

    Raises:
        DataError: saying how many there are, and naming some.
    """
    if half == "test" or "group" not in images:
        return
    listed = images[~is_extra(images)]
    names = [shown(name) for name in listed.loc[listed["group"] == "", "name"]]
    if not names:
        return
    where, what = _where(data)
    raise DataError(
        f"{where} for {len(names)} of {len(listed)} training images; {what}. An image that belongs to no other "
        f"is a group of its own:\n{listing(names)}"
    )


def _where(data: Source) -> tuple[str, str]:
    if isinstance(data, Csv) and data.group_column:
        column = f"data.group_column: {data.train}: the column {data.group_column!r} is empty"
        return column, "write the group of each image"
    return f"data.groups: {data.groups!r} finds no group", "change the expression, or the names"


class SharedGroups(NamedTuple):
    """The groups of test images that are groups of training images too, and the numbers of them."""

    names: list[str]
    groups: int  # of test images
    images: int  # test images of shared groups

    def __str__(self) -> str:
        return (
            f"{len(self.names):,} of {self.groups:,} groups of test images are groups of training images too "
            f"({self.images:,} test images)"
        )


def shared_groups(train: pd.DataFrame, test: pd.DataFrame) -> SharedGroups | None:
    """The groups that training and test images share; None if the groups of a half are not known."""
    known, asked = (set(half.get("group", pd.Series(dtype=str)).dropna()) - {""} for half in (train, test))
    if not known or not asked:
        return None
    names = sorted(known & asked)
    return SharedGroups(names, len(asked), int(test["group"].isin(names).sum()))


def tell_shared_groups(train: pd.DataFrame, test: pd.DataFrame) -> None:
    """Log how many groups of the test images are groups of training images too."""
    if shared := shared_groups(train, test):
        log.info("%s%s", shared, f":\n{listing(map(shown, shared.names))}" if shared.names else "")
