"""Infer from a sample submission what a row holds: one label, k labels, or a probability per class."""

from __future__ import annotations

import logging
from collections import Counter
from collections.abc import Collection, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd

from kfold_ens.config import Submission
from kfold_ens.errors import DataError, listing
from kfold_ens.metrics import as_number
from kfold_ens.nearest import with_suggestions

log = logging.getLogger(__name__)

SEPARATORS = (" ", ",", ", ", ";", "|", "/", "\t")  # of the labels of one cell


@dataclass(frozen=True)
class Sample:
    """A sample submission without its ids, with the section ``submission`` of config.yaml and the classes."""

    path: str
    cells: pd.DataFrame
    submission: Submission
    classes: Sequence[str]

    @property
    def columns(self) -> list[str]:
        return list(self.cells)

    @property
    def values(self) -> list[str]:
        """The distinct non-empty cells of the first column."""
        return sorted(set(self.cells.iloc[:, 0]) - {""})

    def refusal(self, key: str, written: object, found: str) -> DataError:
        """Return the error for a key in which config.yaml and the sample differ."""
        return DataError(
            f"submission.{key}: config.yaml has {written!r}, but submission.sample: {self.path} has {found}; change one"
        )


# --- one column ------------------------------------------------------------------------------------------


def of_labels(sample: Sample) -> dict[str, Any]:
    """Read a sample with one label per row. Any value is accepted, since samples often repeat one placeholder.

    Logs a warning if no value is a class.

    Raises:
        DataError: if the values are fractions and submission.kind is not set.
    """
    column = _only_column(sample)
    if sample.submission.kind == "label" and splits_into_labels(sample):
        raise sample.refusal("kind", "label", f"several labels per row: {sample.values[0]!r}")
    if sample.submission.kind is None and _are_fractions(sample):
        raise DataError(
            f"submission.sample: {sample.path}: its column {column!r} holds fractions such as {sample.values[0]}, "
            "which are not classes. For labels, write submission.kind: label; for probabilities, use a sample with a "
            f"column for each of the {len(sample.classes)} classes"
        )
    if sample.values and not set(sample.values) & set(sample.classes):
        log.warning(
            "submission.sample: %s: its column %r has %s, which are not classes. They are taken for placeholders: each "
            "row of the submission will hold one of the classes %s",
            *(sample.path, column, short(sample.values, 3), short(sample.classes, 3)),
        )
    return {"columns": (column,)}


def of_top_k(sample: Sample) -> dict[str, Any]:
    """Read a sample with k labels per row.

    Raises:
        DataError: if submission.k is not set and rows do not all have the same number of known labels, or if
            submission.k differs from their number.
    """
    column, separator = _only_column(sample), _separator(sample)
    counts = {len(value.split(separator)) for value in sample.values} if _all_known(sample, separator) else set()
    k = sample.submission.k
    if len(counts) > 1 or not (counts or k):
        found = f"from {min(counts)} to {max(counts)}" if counts else "no known"
        raise DataError(
            f"submission.sample: {sample.path}: its column {column!r} has {found} labels per row, so k is unknown; "
            f"set submission.k{_unknown(sample, separator)}"
        )
    if k and counts - {k}:
        raise sample.refusal("k", k, f"{counts.pop()} labels per row")
    return {"columns": (column,), "k": k or counts.pop(), "separator": separator}


def splits_into_labels(sample: Sample) -> bool:
    """Whether a sample's only column holds several labels per cell, by its values or by keys of config.yaml.

    Values that are a class are ignored: a label may contain a separator.
    """
    values = [value for value in sample.values if value not in sample.classes]
    asked = sample.submission
    written = asked.k is not None or asked.separator is not None
    return written or any(_some_known(values, separator, sample.classes) for separator in SEPARATORS)


def _some_known(values: Sequence[str], separator: str, classes: Sequence[str]) -> bool:
    rows = [value.split(separator) for value in values]
    return bool(rows) and all(len(row) > 1 for row in rows) and any(set(row) & set(classes) for row in rows)


def _separator(sample: Sample) -> str:
    """Return the separator that splits all values into labels; a space if no separator does or no value needs one.

    Raises:
        DataError: if config.yaml sets another separator.
    """
    several = any(value not in sample.classes for value in sample.values)
    fitting = [each for each in SEPARATORS if several and _all_known(sample, each)]
    written = sample.submission.separator
    if written and fitting and not _all_known(sample, written):
        raise sample.refusal("separator", written, f"labels separated by {fitting[0]!r}")
    return written or (fitting or [" "])[0]


def _all_known(sample: Sample, separator: str) -> bool:
    parts = {part for value in sample.values for part in value.split(separator)}
    return bool(parts) and parts <= set(sample.classes)


def _unknown(sample: Sample, separator: str) -> str:
    """List the parts of the values that are not labels, one per line."""
    parts = {part for value in sample.values for part in value.split(separator)}
    unknown = sorted(parts - set(sample.classes))
    return f":\n{listing(with_suggestions(unknown, sample.classes, 'no class has this name'))}" if unknown else ""


def _only_column(sample: Sample) -> str:
    """Return the only column besides the ids.

    Raises:
        DataError: if there are several or none, or config.yaml names another one.
    """
    if len(sample.columns) != 1:
        kind = sample.submission.kind
        raise sample.refusal("kind", kind, f"{len(sample.columns)} columns besides the ids: {short(sample.columns)}")
    (column,) = sample.columns
    written = sample.submission.stated("label_column")
    if written not in (None, column):
        raise sample.refusal("label_column", written, f"the column {column!r}")
    return column


def _are_fractions(sample: Sample) -> bool:
    """Whether all values are numbers, but neither all integers nor all classes."""
    values = [as_number(value) for value in sample.values]
    known = {as_number(name) for name in sample.classes}
    are_numbers = np.isfinite(values).all() if values else False
    return bool(are_numbers) and not all(map(float.is_integer, values)) and not set(values) <= known


# --- a column per class ----------------------------------------------------------------------------------


def of_classes(sample: Sample) -> dict[str, Any]:
    """Read a sample with a column per class.

    Raises:
        DataError: if a class has no column or a column is not a class; it lists them.
    """
    prefix = _class_prefix(sample)
    names = {f"{prefix}{label}": label for label in sample.classes}
    foreign = [column for column in sample.columns if column not in names]
    findings = with_suggestions(foreign, names, "a column that is not a class")
    findings += [f"{name}: a class without a column" for name in names if name not in sample.columns]
    if findings:
        raise DataError(
            f"submission.sample: {sample.path}: probabilities need a column for each of the {len(sample.classes)} "
            f"classes. Besides the ids, the sample has the columns {short(sample.columns)}; the classes are "
            f"{short(sample.classes)}{_advice(sample, names)}:\n{listing(findings)}"
        )
    return {"columns": tuple(sample.columns), "classes": tuple(names[column] for column in sample.columns)}


def _class_prefix(sample: Sample) -> str:
    """Return config.yaml's prefix of columns of classes, or else the text before the class in most columns."""
    if sample.submission.class_prefix is not None:
        return sample.submission.class_prefix
    known = set(sample.classes)
    columns = sample.columns
    found = Counter(name[:end] for name in columns for end in range(len(name)) if name[end:] in known)
    return min(found, key=lambda prefix: (-found[prefix], len(prefix)), default="")


def _advice(sample: Sample, names: Collection[str]) -> str:
    if sample.submission.class_prefix is not None:
        return f" (config.yaml has submission.class_prefix: {sample.submission.class_prefix!r})"
    if len(sample.columns) == 1 and len(sample.classes) == 2:
        return ". With two classes, both need a column: add the other class to the sample"
    if sample.submission.kind is None and not set(sample.columns) & set(names):
        return ". If the submission takes labels, keep only the columns of ids and labels"
    return ""


def short(names: Sequence[str], most: int = 6) -> str:
    """Join the first ``most`` names and say how many more there are."""
    return ", ".join(map(repr, names[:most])) + (f" and {len(names) - most} more" if len(names) > most else "")
