"""Certify a run: compare each fold under other labels, check its images, and write ``certificate.json``."""

from __future__ import annotations

import logging
import shutil
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from datetime import datetime
from pathlib import Path
from typing import Any

import pandas as pd

from kfold_ens.certificate import VERSION
from kfold_ens.certificate.compare import compare
from kfold_ens.certificate.disjoint import Check, check_images
from kfold_ens.certificate.labels import with_other_labels
from kfold_ens.certificate.rebuild import Bench, Rebuild
from kfold_ens.compute.devices import device_name
from kfold_ens.data.manifest import read_manifest
from kfold_ens.errors import KfoldError
from kfold_ens.files import hashes_of_tables, read_json, read_table, write_json
from kfold_ens.members import Member, folds_of
from kfold_ens.versions import versions

log = logging.getLogger(__name__)

HELD_FIXED = (
    "The split is the same for all labels: a fold's number is not computed from its score.",
    "The other folds' models are those of the true labels. They train on this fold's labels, as they should. What is "
    "fitted on their logits, such as a temperature, is compared with these logits held fixed. Only nested "
    "cross-validation, which trains each pair of folds, would close this path.",
)


def certify(bench: Bench, splits: Sequence[pd.DataFrame]) -> list[dict[str, Any]]:
    """Rebuild the folds of ``certify`` in every repeat, under their true and under other labels, and compare them.

    Returns an entry per fold, see ``compare``. ``splits`` holds a table per repeat.
    """
    run = bench.run
    true: dict[Member, Rebuild] = {}
    for member in folds_of(run.repeats, run.num_folds):
        true[member] = Rebuild(bench, member, splits[member.repeat], true)
    asked = [member for member in true if not run.certify or member.fold in run.certify]
    return [_certified(true[member]) for member in asked]


def _certified(true: Rebuild) -> dict[str, Any]:
    bench, member = true.bench, true.member
    log.info("fold %s: rebuilding it under its true labels and under other labels", member.number)
    seed, classes = bench.run.seed + member.repeat, read_json(bench.classes)
    split = with_other_labels(true.split, member.trained_as, classes, seed)
    other = Rebuild(bench, member, split, true.others)
    entry = compare(true, other, again=lambda: Rebuild(bench, member, true.split, true.others))
    log.info("fold %s: %s", member.number, "; ".join(entry["findings"]) or "nothing differs")
    return entry


def write_certificate(
    path: str | Path,
    bench: Bench,
    split_files: Sequence[str],
    manifests: Sequence[str],
    look_alikes: str,
    about: Mapping[str, Any],
) -> None:
    """Write ``certificate.json``.

    Arguments:
        split_files: one per repeat.
        manifests: of both halves.
        look_alikes: the table of near-duplicates.
        about: recipe, configuration and commit; goes into the file.

    Raises:
        KfoldError: if the certificate fails; the file is written before.
    """
    splits = list(map(read_table, split_files))
    with _empty(bench.scratch):
        folds = certify(bench, splits)
    checks = check_images(splits, read_manifest(*manifests), read_table(look_alikes))
    findings = [words for entry in folds for words in entry["findings"]]
    findings += [check.finding for check in checks if check.is_leak and check.found]
    certificate = {
        "passed": not findings,
        "findings": findings,
        "date": f"{datetime.now():%Y-%m-%d %H:%M}",
        "version": VERSION,
        **about,
        "versions": versions(),
        "settings": _settings(bench),
        "files": hashes_of_tables([*split_files, *manifests, look_alikes]),
        "held_fixed": HELD_FIXED,
        "folds": folds,
        "images": [check.as_json() for check in checks],
    }
    write_json(path, certificate)
    _tell(path, findings, checks, folds)


def _settings(bench: Bench) -> dict[str, Any]:
    run = bench.run
    return {
        "epochs": bench.recipe.epochs,
        "recipe_epochs": bench.epochs,
        "num_folds": run.num_folds,
        "repeats": run.repeats,
        "seed": run.seed,
        "select": bench.recipe.select,
        "device": device_name(bench.compute.device),
        "dtype": str(bench.compute.dtype or "float32").removeprefix("torch."),
    }


def _tell(
    path: str | Path, findings: Sequence[str], checks: Sequence[Check], folds: Sequence[Mapping[str, Any]]
) -> None:
    """Log the result, or raise an error that holds all findings."""
    for check in checks:
        if check.found and not check.is_leak:
            log.warning("%s", check.finding)
    if findings:
        lines = "\n".join(f"  {finding}" for finding in findings)
        raise KfoldError(f"{path}: the certificate fails:\n{lines}")
    numbers = ", ".join(str(entry["fold"]) for entry in folds)
    log.info("%s: certified. Nothing that scores these folds has seen their labels: %s", path, numbers)


@contextmanager
def _empty(folder: Path) -> Iterator[None]:
    """Start with an empty folder, and remove it at the end."""
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    try:
        yield
    finally:
        shutil.rmtree(folder, ignore_errors=True)
