"""The report's chapter that compares recipes."""

from __future__ import annotations

import pandas as pd

from kfold_ens.ensemble.combine import METHODS
from kfold_ens.metrics import find_metric
from kfold_ens.report import figures, pages
from kfold_ens.report.comparison import about_choice, about_race, reasons, without_intervals
from kfold_ens.report.pages import Markup


def write_ablation(comparison: pd.DataFrame, path: str, metric: str = "accuracy") -> None:
    """Write the page of ``results/ablation.csv``; ``metric`` names its scores."""
    label, title = find_metric(metric).label, find_metric(metric).title
    tested = {"one_fold": "one fold"} | {name: method.label for name, method in METHODS.items()}
    values = without_intervals(comparison)
    pages.write_page(
        path,
        "Recipes side by side",
        *map(pages.note, [*about_race(comparison), *reasons(comparison)]),
        *map(pages.paragraph, about_choice(comparison, metric)),
        pages.table(
            values.dropna(axis=1, how="all"), f"{label}; differences are from the first recipe, measured out of fold"
        ),
        _intervals(comparison, "out_of_fold", f"{title} out of fold", label),
        _intervals(comparison, "difference", "Difference from the first recipe, out of fold", f"difference in {label}"),
        *[
            _intervals(comparison, name, f"{title} on the test images, {words}", label)
            for name, words in tested.items()
            if comparison[name].notna().any()
        ],
    )


def _intervals(comparison: pd.DataFrame, column: str, title: str, unit: str) -> Markup:
    rows = comparison[["recipe", column, f"{column}_low", f"{column}_high"]]
    rows = rows.set_axis(["name", "value", "low", "high"], axis=1)
    return pages.figure(figures.intervals(rows, title, unit, zero=column == "difference"), f"{title}, of each recipe")
