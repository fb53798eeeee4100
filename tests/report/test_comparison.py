"""Recipes side by side: the numbers of results/ablation.csv, and the report's page of them."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest
from synthetic import make_run

from kfold_ens.ensemble.combine import METHODS, Method
from kfold_ens.errors import KfoldError
from kfold_ens.logits import concatenated
from kfold_ens.report.ablation import write_ablation
from kfold_ens.report.comparison import RecipeResults, as_text, compare, read_recipes


def compared(folder, labelled=True) -> pd.DataFrame:
    run = make_run(folder, ["no", "yes"], ["no", "yes"] * 20, ["no", "yes"] * 5, labelled=labelled)
    recipes = [
        RecipeResults(name, run.metrics, concatenated(list(run.oof.values())), hours=0.5, parameters=11_000_000)
        for name in ("plain", "007")
    ]
    return compare(recipes, run.manifest)


def test_a_row_per_recipe_holds_its_scores(tmp_path):
    rows = compared(tmp_path).set_index("recipe")
    assert list(rows.index) == ["plain", "007"]
    assert rows.loc["007", "difference"] == 0
    assert (rows[["hours", "parameters_m"]] == [0.5, 11.0]).all(axis=None)
    assert {"out_of_fold", "one_fold", *METHODS} <= set(rows)
    assert "low" not in as_text(compared(tmp_path))


@pytest.mark.parametrize("labelled", [True, False])
def test_every_ensembling_method_has_a_figure_if_labels_are_known(tmp_path, monkeypatch, labelled):
    monkeypatch.setitem(METHODS, "median", Method(lambda logits_mnk: np.median(logits_mnk, axis=0), "median of logits"))
    write_ablation(compared(tmp_path, labelled), tmp_path / "ablation.html")
    page = (tmp_path / "ablation.html").read_text(encoding="utf-8")
    for label in ("one fold", "average of logits", "average of softmax", "majority vote", "median of logits"):
        assert (f"Accuracy on the test images, {label}" in page) == labelled


def test_no_recipes_to_compare_is_an_error_that_says_what_to_do():
    with pytest.raises(KfoldError, match="config.yaml names no recipes to compare"):
        read_recipes([], [], [], [], [])
