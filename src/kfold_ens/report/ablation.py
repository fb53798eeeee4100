"""The report's chapter on recipes side by side."""

from __future__ import annotations

import pandas as pd

from kfold_ens.ensemble.combine import METHODS
from kfold_ens.report import figures, pages
from kfold_ens.report.pages import Markup


def write_ablation(comparison: pd.DataFrame, path: str) -> None:
    """The page of ``results/ablation.csv``."""
    tested = {"one_fold": "one fold"} | {name: method.label for name, method in METHODS.items()}
    values = comparison.drop(columns=[name for name in comparison if name.endswith(("_low", "_high"))])
    pages.write_page(
        path,
        "Recipes side by side",
        pages.table(values.dropna(axis=1, how="all"), "accuracies; the difference is to the first recipe, out of fold"),
        _intervals(comparison, "out_of_fold", "Accuracy out of fold", "accuracy"),
        _intervals(comparison, "difference", "Difference to the first recipe, out of fold", "difference in accuracy"),
        *[
            _intervals(comparison, name, f"Accuracy on the test images, {label}", "accuracy")
            for name, label in tested.items()
            if comparison[name].notna().any()
        ],
    )


def _intervals(comparison: pd.DataFrame, column: str, title: str, unit: str) -> Markup:
    rows = comparison[["recipe", column, f"{column}_low", f"{column}_high"]]
    rows = rows.set_axis(["name", "value", "low", "high"], axis=1)
    return pages.figure(figures.intervals(rows, title, unit, zero=column == "difference"), f"{title}, of each recipe")
