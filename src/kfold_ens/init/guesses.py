"""Guess what config.yaml can say about the images and tables below the working directory."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from itertools import chain
from typing import Any

from kfold_ens.init.class_folders import class_roots_below, classes_of, from_class_folders, refuse_classes_at_the_top
from kfold_ens.init.csv_keys import from_tables, samples_of
from kfold_ens.init.findings import Answer, Finding, as_yaml, counted, doubt, nothing
from kfold_ens.init.offers import offers, unused
from kfold_ens.init.submission_keys import from_names, from_sample
from kfold_ens.init.survey import Folder, survey
from kfold_ens.init.tables import Table, classes_in, read_tables

DEEPEST = 4  # folders shown if nothing is recognised


def guesses() -> tuple[str, list[Finding], dict[str, str]]:
    """Return a summary of what lies here, the findings about keys, and why tables and folders were skipped, by path.

    Raises:
        DataError: if the folder cannot be read, or holds class folders directly.
    """
    top, paths, skipped = survey()
    tables, unread = read_tables(paths, top)
    by_tables = from_tables(tables)
    if not by_tables:
        refuse_classes_at_the_top(top)
    data = _one_source(from_class_folders(top, bool(by_tables)), by_tables) or [_unknown(top)]
    findings = [*data, *_about_test_images(_values(data), tables, top)]
    summary = f"{counted(top.count, 'image')} and {counted(len(paths), 'table')}"
    return summary, findings, skipped | unread | unused(tables, findings)


def _one_source(folders: list[Finding], tables: list[Finding]) -> list[Finding]:
    """The findings of the only possible source; if there are two, one finding with both, and what is not certain."""
    if not (folders and tables):
        return folders or tables
    answers = [Answer(_values(each), each[0].answers[0].reason) for each in (folders, tables)]
    source = doubt("data", answers, "since both folders and a table say the labels")
    return [source, *(each for each in (*folders, *tables) if not each.is_sure)]


def _unknown(top: Folder) -> Finding:
    seen = [f"{as_yaml(folder.path)} ({len(folder.names):,})" for folder in top.all() if folder.names]
    more = f" and {len(seen) - DEEPEST} more folders" if len(seen) > DEEPEST else ""
    where = f"images lie in {', '.join(seen[:DEEPEST])}{more}" if seen else "there are no images"
    wanted = "two or more class folders in a folder, or a table of image names and labels"
    return nothing("data", "source", f"{where}; needs {wanted}")


def _values(findings: Iterable[Finding]) -> dict[str, Any]:
    """The values of all sure findings, by key."""
    return dict(chain.from_iterable(finding.values.items() for finding in findings))


def _about_test_images(data: dict[str, Any], tables: Sequence[Table], top: Folder) -> list[Finding]:
    test, classes = _test_names(data, tables, top), _classes(data, tables, top)
    names = "path" if data.get("source") == "csv" else "stem"
    samples = samples_of(tables)
    found = from_sample(samples, names, test, classes)
    offered = offers(data, tables, classes, bool(samples))
    return [*offered, *(found or (from_names(test) if names == "stem" else []))]


def _test_names(data: dict[str, Any], tables: Sequence[Table], top: Folder) -> list[str]:
    """What the user calls the test images; empty if unknown."""
    if data.get("source") == "csv":
        rows = [table.cells for table in tables if table.path == data.get("test")]
        return rows[0][data["id_column"]].tolist() if rows and data.get("id_column") in rows[0] else []
    return next((folder.images() for folder in top.all() if folder.path == data.get("test")), [])


def _classes(data: dict[str, Any], tables: Sequence[Table], top: Folder) -> list[str]:
    """The labels; empty if unknown."""
    if "label_column" in data:
        return next(classes_in(table, data["label_column"]) for table in tables if table.path == data["train"])
    train = data.get("train", [])
    roots = [root for root in class_roots_below(top) if root.path in ([train] if isinstance(train, str) else train)]
    return sorted(set().union(*map(classes_of, roots)))
