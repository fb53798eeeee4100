"""Determine the form of the submission from config.yaml and from the sample submission, if there is one."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from typing import Any

import pandas as pd

from kfold_ens.config import OF_KIND, Submission
from kfold_ens.ensemble.ids import Ids, inferred_ids, rows_in_order, written_ids
from kfold_ens.ensemble.kinds import KINDS, Form
from kfold_ens.ensemble.samples import Sample, short
from kfold_ens.errors import DataError, Together, listing
from kfold_ens.user_tables import read_user_table

USAGES = {"Public", "Private", "Ignored"}

log = logging.getLogger(__name__)


def resolved(submission: Submission, names: str, test: pd.DataFrame, classes: Sequence[str]) -> Form:
    """Return the form of a submission for these test images and classes.

    ``names`` is how ids name images if neither config.yaml nor the sample decides.

    Raises:
        DataError: if sample, config.yaml, images and classes disagree; it lists all differences.
    """
    if submission.sample:
        return _from_sample(submission, names, test, classes)
    ids, kind = written_ids(submission, names, test), submission.kind or "label"
    found = KINDS[kind].written(submission, classes)
    form = _form(kind, ids, ids.wanted, test, {"classes": classes, "decimals": submission.decimals} | found)
    KINDS[kind].refuse(form)
    return form


def _form(kind: str, ids: Ids, rows: Sequence[str], test: pd.DataFrame, found: dict[str, Any]) -> Form:
    image_of = dict(zip(ids.wanted, test["image_id"], strict=True))
    rest = {key: value for key, value in found.items() if key != "columns"}
    header = rest.pop("header", (ids.column, *found["columns"]))
    return Form(
        kind=kind,
        header=tuple(dict.fromkeys(header)),
        id_column=ids.column,
        ids=tuple(rows),
        image_ids=tuple(image_of[row] for row in rows),
        **rest | {"classes": tuple(rest["classes"])},
    )


def _from_sample(submission: Submission, names: str, test: pd.DataFrame, classes: Sequence[str]) -> Form:
    path, together = str(submission.sample), Together(DataError)
    table = read_rows(path, written_columns(submission), "submission.sample")
    _refuse_nameless(table, path)
    ids = inferred_ids(table, submission, names, test)
    rows: Sequence[str] = ids.wanted
    with together.gather():
        rows = rows_in_order(table, ids, test["name"].tolist(), path)
    sample = Sample(path, table.drop(columns=ids.column), submission, classes)
    with together.gather():
        kind = submission.kind or _kind_of(sample)
        found = {"header": list(table), "classes": classes, "decimals": submission.decimals}
        found |= KINDS[kind].sampled(sample)
        KINDS[kind].refuse(_form(kind, ids, ids.wanted, test, found))
        _refuse_keys_of_other_kinds(sample, kind)
    together.raise_all()
    log.info("submission.sample: %s: %s", path, _inferred(submission, ids, kind, found))
    return _form(kind, ids, rows, test, found)


def read_rows(path: str, columns: dict[str, str], key: str) -> pd.DataFrame:
    """Read a user's table with one row per test image, without columns that no submission has.

    Those are columns without a name and values, which separators at line ends produce, and ``Usage``, which marks
    public and private rows in Kaggle's solutions. Logs each skipped column.
    """
    table = read_user_table(path, columns, key)
    values_of = [set(table.iloc[:, at]) for at in range(table.shape[1])]
    skipped = [
        at
        for at, (name, values) in enumerate(zip(table, values_of, strict=True))
        if (not name and values == {""}) or (name.casefold() == "usage" and values <= USAGES)
    ]
    for at in skipped:
        name = repr(table.columns[at]) if table.columns[at] else "without a name and values"
        log.info("%s: %s: skipped column %d, %s", key, path, at + 1, name)
    return table.iloc[:, [at for at in range(table.shape[1]) if at not in skipped]]


def _refuse_nameless(table: pd.DataFrame, path: str) -> None:
    nameless = [at for at, name in enumerate(table) if not name]
    if nameless:
        findings = [f"column {at + 1}, with the values {short(table.iloc[:, at].tolist(), 3)}" for at in nameless]
        raise DataError(
            f"submission.sample: {path} has columns without a name; name them in the first line, or remove them "
            f"(pandas writes such a column unless you call to_csv(index=False)):\n{listing(findings)}"
        )


def written_columns(submission: Submission) -> dict[str, str]:
    """Return the columns that config.yaml names and that every kind of table must have, by key."""
    column = submission.stated("id_column")
    return {"submission.id_column": column} if column else {}


def _kind_of(sample: Sample) -> str:
    kind = next((name for name, kind in KINDS.items() if kind.is_of(sample)), None)
    if kind is None:
        raise DataError(
            f"submission.sample: {sample.path} has only the column of ids, so the kind of submission is unknown; add "
            "the columns to predict"
        )
    return kind


def _refuse_keys_of_other_kinds(sample: Sample, kind: str) -> None:
    written = [key for key, needed in OF_KIND.items() if needed != kind and sample.submission.stated(key) is not None]
    if written:
        lines = [f"{key} needs kind: {OF_KIND[key]}" for key in written]
        raise DataError(
            f"submission.sample: {sample.path} is of kind {kind}, but config.yaml sets keys of another kind; remove "
            f"them, or set submission.kind:\n{listing(lines)}"
        )


def _inferred(submission: Submission, ids: Ids, kind: str, found: dict[str, Any]) -> str:
    """Describe in one line what was inferred from the sample."""
    values = {"kind": kind, "id_column": ids.column, "names": ids.names, "id_prefix": ids.prefix}
    values |= {key: found[key] for key in ("k", "separator") if key in found}
    columns = f"{len(found['columns'])} columns of classes" if KINDS[kind].needs_probabilities else found["columns"][0]
    facts = [f"{key} {value!r}" for key, value in values.items() if submission.stated(key) is None]
    return f"inferred {', '.join([*facts, f'columns besides the ids: {columns}'])}, and the order of rows"
