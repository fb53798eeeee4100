"""The report's pages of runs with other metrics, several metrics, or files of earlier versions."""

from __future__ import annotations

from typing import Any

import pytest
from synthetic import Outputs, Run, history, make_run

from kfold_ens.config import Scoring
from kfold_ens.ensemble.summary import summarize
from kfold_ens.report.ensemble import write_ensemble
from kfold_ens.report.training import write_curves, write_fold

UNKNOWN = "it was trained with another metric, so the epoch with the best f1 macro is unknown"


@pytest.fixture
def run(tmp_path) -> Run:
    return make_run(tmp_path, ["a", "b", "c"], ["a", "b", "c"] * 20, ["a", "b", "c"] * 4)


@pytest.fixture
def recipe(run):
    return run.recipe.model_copy(update={"select": "best_f1_macro"})


def test_a_fold_that_was_trained_with_another_metric_shows_its_scores(recipe, tmp_path):
    write_fold(0, history().assign(val_log_loss=[0.75, 0.625]), recipe, tmp_path / "fold.html")
    page = (tmp_path / "fold.html").read_text(encoding="utf-8")
    assert UNKNOWN in page
    assert "epoch 2 of 2 ended with held-out loss 0.2500, held-out accuracy 0.2500, held-out log loss 0.6250" in page
    assert "Log loss of fold 0, epoch by epoch" in page


def test_folds_with_different_metrics_share_a_page(recipe, tmp_path):
    histories = {
        0: history().assign(val_f1_macro=[0.25, 0.5]),
        1: history().assign(val_log_loss=[0.75, 0.625]),
        2: history(),
    }
    write_curves(histories, recipe, 3, tmp_path / "curves.html")
    page = (tmp_path / "curves.html").read_text(encoding="utf-8")
    assert page.count(UNKNOWN) == 2
    assert "Fold 0: the weights of epoch 2 of 2 were kept (best f1 macro:" in page
    for title in ("Macro F1", "Log loss", "Accuracy"):
        assert f"{title} of folds 0, 1, 2, epoch by epoch" in page


def combinations_page(run: Run, metrics: dict[str, Any], folder) -> str:
    """The page ``combinations`` of ``metrics.json``."""
    outputs = Outputs(folder)
    oof = list(run.oof.values())
    write_ensemble(metrics, oof, run.test, run.combined, run.label_of, run.store, outputs)
    with open(outputs["combinations"], encoding="utf-8") as page:
        return page.read()


def without(value: Any, names: set[str]) -> Any:
    """Remove these keys from a JSON-like value, at any depth."""
    if isinstance(value, list):
        return [without(each, names) for each in value]
    if not isinstance(value, dict):
        return value
    return {key: without(each, names) for key, each in value.items() if key not in names}


def test_metrics_of_an_earlier_version_are_shown(run, tmp_path):
    page = combinations_page(run, without(run.metrics, {"metric", "log_loss"}), tmp_path)
    assert "Accuracy on the test images" in page
    assert "accuracy out of fold" in page.casefold()
    assert "log loss" not in page


@pytest.mark.parametrize("absent", ["train", "test"])
def test_a_metric_without_a_value_is_explained_on_the_page_of_methods(absent, tmp_path):
    halves = {"train": ["a", "b", "c"] * 20, "test": ["a", "b", "c"] * 4}
    halves[absent] = ["a", "b"] * 10
    run = make_run(tmp_path, ["a", "b", "c"], **halves)
    metrics = summarize(run.oof, run.test, run.combined, run.label_of, Scoring(metric="roc_auc"))
    page = combinations_page(run, metrics, tmp_path)
    assert "vote: no macro ROC AUC, as a vote has no probabilities." in page
    for name in ("all folds, out of fold", "fold 3, out of fold") if absent == "train" else ("average", "fold 3"):
        assert f"{name}: no macro ROC AUC, as there are no images of class c." in page
