"""Read the folds that the user gives: a column of the table of images, or a table of images and folds."""

from __future__ import annotations

import logging
import re
from collections.abc import Callable, Iterator
from pathlib import PurePosixPath

import pandas as pd

from kfold_ens.config import Config, Csv
from kfold_ens.data.listings import is_extra
from kfold_ens.errors import DataError, Together, listing
from kfold_ens.nearest import shown, with_suggestions
from kfold_ens.splits.assign import TRAINS_ONLY
from kfold_ens.user_tables import read_user_table

log = logging.getLogger(__name__)

FOLD = re.compile(r"\s*(-?[0-9]+)(\.0*)?\s*")  # pandas writes 1.0 for 1 if a cell of the column was empty


def has_given_folds(train: pd.DataFrame, run: Config) -> bool:
    """Whether the user gives the folds of these training images."""
    return run.data.folds is not None or "fold" in train


def given_folds(train: pd.DataFrame, run: Config) -> pd.Series | None:
    """The fold (N,) that the user gives each training image, -1 to train only; None if no folds are given.

    Raises:
        DataError: listing images that the table lacks, repeats or misspells, and invalid folds.
    """
    if not has_given_folds(train, run):
        return None
    held_out = ~is_extra(train).to_numpy()
    where, given = _read(train[held_out], train[~held_out], run)
    folds = _counted_from_zero(_numbers(given, train["name"][held_out], where), where, run.num_folds)
    _refuse_other_folds(folds, where, run.num_folds)
    _warn_of_ignored_settings(where, run)
    every = pd.Series(TRAINS_ONLY, train.index)
    every[held_out] = folds.to_numpy()
    return every


def _warn_of_ignored_settings(where: str, run: Config) -> None:
    """Warn about settings of config.yaml that have no effect on given folds."""
    if run.repeats > 1:
        log.warning("%s: all %d repeats use these folds, and differ only in training", where, run.repeats)
    if run.rare_classes != "refuse":
        log.warning("%s: rare_classes: %s has no effect on given folds", where, run.rare_classes)


def _read(train: pd.DataFrame, extra: pd.DataFrame, run: Config) -> tuple[str, pd.Series]:
    """Where the folds are given, for messages, and the text given for each image (N,) of ``train``."""
    if (file := run.data.folds) is None:
        assert isinstance(run.data, Csv)  # only its tables have a column of folds
        return f"data.fold_column: {run.data.train}", train["fold"]
    where = f"data.folds: {file}"
    columns = {"data.folds, images": "image", "data.folds, folds": "fold"}
    table = read_user_table(file, columns, "data.folds")
    names = _names_in(table["image"], train)
    table = table[~_is_of_extra(table, extra)]
    if run.data.limit_per_class:  # images are skipped on purpose
        table = table[table["image"].isin(names)]
    _refuse_other_images(table["image"], names, where)
    return where, names.map(table.set_index("image")["fold"])


# --- names -------------------------------------------------------------------------------------------------


def _below(path: str) -> str:
    """An id without its first part, train or test."""
    return path.partition("/")[2]


def _without_ending(path: str) -> str:
    return str(PurePosixPath(path).with_suffix("")) if PurePosixPath(path).name else path


FORMS: dict[str, Callable[[pd.DataFrame], pd.Series]] = {
    "name": lambda train: train["name"],
    "path below the folders": lambda train: train["image_id"].map(_below),
    "image_id": lambda train: train["image_id"],
    "path": lambda train: train["path"],
    "file": lambda train: train["name"].map(lambda name: PurePosixPath(name).name),
}


def _forms(train: pd.DataFrame) -> Iterator[pd.Series]:
    """Yield the names of all training images in each form in which they are unique."""
    for form in FORMS.values():
        names = form(train)
        for each in (names, names.map(_without_ending)):
            if each.is_unique:
                yield each


def _names_in(given: pd.Series, train: pd.DataFrame) -> pd.Series:
    """The names of training images as the table writes them: in the form that matches most of its rows."""
    known = set(given)
    return max(_forms(train), key=lambda names: names.isin(known).sum())


def _is_of_extra(table: pd.DataFrame, extra: pd.DataFrame) -> pd.Series:
    """Whether each row gives an extra image the fold -1. Such rows are optional."""
    names = [form(extra) for form in FORMS.values()]
    known = {name for each in names for name in (*each, *each.map(_without_ending))}
    return table["image"].isin(known) & (table["fold"].str.strip() == str(TRAINS_ONLY))


def _refuse_other_images(given: pd.Series, names: pd.Series, where: str) -> None:
    together = Together(DataError)
    unknown, lacking = sorted(set(given) - set(names)), sorted(set(names) - set(given))
    repeated = sorted(set(given[given.duplicated()]))
    with together.gather():
        if unknown:
            lines = listing(with_suggestions(unknown, names))
            raise DataError(
                f"{where} holds images that are not training images ({len(unknown)}); correct or remove:\n{lines}"
            )
    with together.gather():
        if lacking:
            lines = listing(map(shown, lacking))
            raise DataError(
                f"{where} lacks {len(lacking)} of {len(names)} training images; add them, with fold -1 if they only "
                f"train:\n{lines}"
            )
    with together.gather():
        if repeated:
            raise DataError(f"{where} has images more than once; keep one row of each:\n{listing(repeated)}")
    together.raise_all()


# --- numbers -----------------------------------------------------------------------------------------------


def _numbers(given: pd.Series, names: pd.Series, where: str) -> pd.Series:
    matches = given.map(FOLD.fullmatch)
    wrong = [f"{shown(names[row])}: {given[row]!r}" for row in given.index[matches.isna()]]
    if wrong:
        raise DataError(
            f"{where}: a fold must be a whole number from 0, or -1 for an image that only trains; correct these:\n"
            f"{listing(wrong)}"
        )
    return matches.map(lambda match: int(match[1]))


def _counted_from_zero(folds: pd.Series, where: str, num_folds: int) -> pd.Series:
    """Folds counted from 0, if exactly the folds 1, ..., ``num_folds`` are given."""
    if set(folds) - {TRAINS_ONLY} != set(range(1, num_folds + 1)):
        return folds
    log.info("%s counts folds from 1; its fold 1 is fold 0 here, and so on", where)
    return folds.where(folds < 0, folds - 1)


def _refuse_other_folds(folds: pd.Series, where: str, num_folds: int) -> None:
    found = sorted(set(folds) - {TRAINS_ONLY})
    if found == list(range(num_folds)):
        return
    shown_folds = ", ".join(map(str, found[:30])) + (", ..." if len(found) > 30 else "")
    fits = len(found) > 1 and found in (list(range(len(found))), list(range(1, len(found) + 1)))
    advice = f"write num_folds: {len(found)}" if fits else f"assign images to each of the folds 0 to {num_folds - 1}"
    raise DataError(
        f"{where} has {'the folds ' + shown_folds if found else 'no folds'}, but num_folds is {num_folds}; {advice} "
        "(-1 is for images that only train)"
    )
