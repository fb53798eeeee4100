"""Offer what a run can do without: rows for validation, and the labels of test images."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from kfold_ens.init.findings import Answer, Finding, counted, doubt
from kfold_ens.init.tables import Table

UNUSED = {
    "val": "its name says it is for validation, and folds need no such set; to train on its images, add them to those "
    "of data.train",
    "test": "its name says it lists test images; no key decided so far needs it",
}


def offers(data: dict[str, Any], tables: Sequence[Table], classes: Sequence[str], has_sample: bool) -> list[Finding]:
    """Offer ``extra`` and ``test_labels``. ``data`` holds the values that are certain."""
    extra = [Answer({"extra": table.path}, counted(len(table.cells), "row")) for table in tables if _fits(table, data)]
    why_extra = "since folds need no validation set; its images can train in every fold, and are never held out"
    labels = [_labels(table, column, has_sample) for table, column in _labelled_tests(tables, data, classes)]
    why_labels = "since only scores need the labels of test images"
    offered = [(extra, why_extra), (labels, why_labels)]
    return [doubt("data", answers, why, is_optional=True) for answers, why in offered if answers]


def unused(tables: Sequence[Table], findings: Sequence[Finding]) -> dict[str, str]:
    """Say why tables are in no answer, by path."""
    answers = [answer for finding in findings for answer in finding.answers]
    used = {str(value) for answer in answers for value in answer.values.values()}
    return {
        table.path: UNUSED.get(table.role or "", "names images; no key decided so far needs it")
        for table in tables
        if table.path not in used
    }


def _fits(table: Table, data: dict[str, Any]) -> bool:
    """Whether a table for validation has the columns of the training table, and its images lie in the same folder."""
    return (
        table.role == "val"
        and data.get("label_column") in table.others
        and data.get("images") in table.ids.get(data.get("id_column", ""), [])
    )


def _labelled_tests(tables: Sequence[Table], data: dict[str, Any], classes: Sequence[str]) -> list[tuple[Table, str]]:
    """The tables of test images that have known labels, with the column of these."""
    found = []
    for table in tables:
        named = [data["label_column"]] if "label_column" in data else table.named_labels
        known = [name for name in named if name in table.others and set(table.cells[name]) - {""} <= set(classes)]
        if table.role == "test" and table.ids and len(known) == 1 and any(table.cells[known[0]]):
            found.append((table, known[0]))
    return found


def _labels(table: Table, column: str, has_sample: bool) -> Answer:
    needed = f"; also write submission.id_column: {next(iter(table.ids))}, submission.label_column: {column}"
    return Answer({"test_labels": table.path}, counted(len(table.cells), "row") + ("" if has_sample else needed))
