"""From the files of a finished run to the report's figures and tables."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import pandas as pd

from kfold_ens.exchange import concatenated, read_logits
from kfold_ens.files import read_table, write_table
from kfold_ens.report import figures, tables
from kfold_ens.report.style import save


def write_training(histories: Sequence[str], path: str) -> None:
    """The folds' curves, from their histories in the order of the folds."""
    save(figures.training_curves(dict(enumerate(map(pd.read_csv, histories)))), path)


def write_data(manifest: pd.DataFrame, folds_file: str, classes: Sequence[str], path: str) -> None:
    """The class distribution."""
    train = manifest[manifest["split"] == "train"]
    save(figures.class_counts(train, read_table(folds_file), classes), path)


def write_errors(oof_files: Sequence[str], manifest: pd.DataFrame, outputs: Mapping[str, str]) -> None:
    """What goes wrong out of fold: confusion, classes, confused pairs, calibration."""
    oof = concatenated(list(map(read_logits, oof_files)))
    truth = tables.truth_of(oof, dict(zip(manifest["image_id"], manifest["label"], strict=True)))
    counts = tables.confusion_counts(oof, truth)
    save(figures.confusion(counts, oof.classes), outputs["confusion"])
    save(figures.reliability(figures.confidence_of(oof), oof.predictions() == truth), outputs["reliability"])
    write_table(outputs["classes"], tables.per_class(oof, truth))
    write_table(outputs["pairs"], tables.most_confused(counts, oof.classes))
