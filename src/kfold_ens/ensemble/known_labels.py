"""The known labels of test images, and the groups of images. Both are used for scores alone."""

from __future__ import annotations

from collections.abc import Sequence

import pandas as pd

from kfold_ens.config import Submission
from kfold_ens.ensemble.forms import read_rows, written_columns
from kfold_ens.ensemble.ids import Ids, inferred_ids, written_ids
from kfold_ens.errors import DataError, listing
from kfold_ens.nearest import with_suggestions


def known_groups(manifest: pd.DataFrame) -> dict[str, str]:
    """Return the group of each image that has one, by image id."""
    groups = manifest.get("group", pd.Series("", manifest.index)).fillna("")
    return dict(zip(manifest["image_id"][groups != ""], groups[groups != ""], strict=True))


def known_labels(manifest: pd.DataFrame, test_labels: str | None, submission: Submission, names: str) -> dict[str, str]:
    """Return labels by image id: those of the manifest and those of the table ``test_labels``.

    The table names images as the submission does. With a sample submission, its form is inferred from the table.

    Raises:
        DataError: if the table lacks a column, repeats an image, names an image that is not a test image, or has a
            label that no training image has.
    """
    labels = dict(zip(manifest["image_id"], manifest["label"], strict=True))
    if test_labels is None:
        return labels
    table = read_rows(test_labels, _columns_of(submission), "data.test_labels")
    test = manifest[manifest["split"] == "test"]
    ids = _ids_of(table, submission, names, test)
    label_column = _label_column(table, ids, submission, test_labels)
    image_of = dict(zip(ids.wanted, test["image_id"], strict=True))
    given, known = table[ids.column].tolist(), set(manifest.loc[manifest["split"] == "train", "label"])
    _refuse_other_images(table[ids.column], image_of, test_labels)
    foreign = sorted(set(table[label_column]) - known - {""})
    if foreign:
        raise DataError(
            f"data.test_labels: {test_labels} has labels that no training image has; correct or delete these labels:\n"
            f"{listing(foreign)}"
        )
    return labels | {image_of[name]: label for name, label in zip(given, table[label_column], strict=True)}


def _columns_of(submission: Submission) -> dict[str, str]:
    """Return the columns that a table of test labels must have, by their keys in config.yaml."""
    if submission.sample:
        return written_columns(submission)
    columns = {"submission.id_column": submission.id_column, "submission.label_column": submission.label_column}
    return columns if submission.kind in (None, "label") else {"submission.id_column": submission.id_column}


def _ids_of(table: pd.DataFrame, submission: Submission, names: str, test: pd.DataFrame) -> Ids:
    if not submission.sample:
        return written_ids(submission, names, test)
    return inferred_ids(table, submission, names, test, of_all=False)


def _label_column(table: pd.DataFrame, ids: Ids, submission: Submission, path: str) -> str:
    """Return the column that config.yaml names, or else the only one besides the ids."""
    others = [column for column in table if column and column != ids.column]
    if submission.label_column in others:
        return submission.label_column
    if len(others) != 1 or submission.stated("label_column"):
        raise DataError(
            f"data.test_labels: {path} has no column {submission.label_column!r} (submission.label_column). Besides "
            f"the ids it has {others}; set submission.label_column to the column of labels"
        )
    return others[0]


def _refuse_other_images(ids: pd.Series, known: Sequence[str] | dict[str, str], path: str) -> None:
    unknown = sorted(set(ids) - set(known))
    if unknown:
        lines = listing(with_suggestions(unknown, known))
        raise DataError(f"data.test_labels: {path} names images that are not test images; remove them:\n{lines}")
    repeated = sorted(set(ids[ids.duplicated()]))
    if repeated:
        raise DataError(f"data.test_labels: {path} names images twice; keep one row each:\n{listing(repeated)}")
