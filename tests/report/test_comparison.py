"""The comparison of recipes: results/ablation.csv and its page."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest
from synthetic import make_run

from kfold_ens.config import Scoring
from kfold_ens.ensemble.combine import METHODS, Method, combine
from kfold_ens.ensemble.summary import summarize
from kfold_ens.errors import KfoldError
from kfold_ens.logits import Logits, concatenated
from kfold_ens.report.ablation import write_ablation
from kfold_ens.report.comparison import RecipeResults, as_text, compare, read_recipes


def compared(folder, labelled=True) -> pd.DataFrame:
    run = make_run(folder, ["no", "yes"], ["no", "yes"] * 20, ["no", "yes"] * 5, labelled=labelled)
    recipes = [
        RecipeResults(name, run.metrics, concatenated(list(run.oof.values())), hours=0.5, parameters=11_000_000)
        for name in ("plain", "007")
    ]
    return compare(recipes, run.manifest)


def test_each_recipe_has_a_row_of_scores(tmp_path):
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


def scored_by(metric: str, folder, **logits) -> pd.DataFrame:
    """Recipes with the logits of one run, each changed by a function."""
    run = make_run(folder, ["no", "yes"], ["no", "yes"] * 20, ["no", "yes"] * 5)
    scoring, recipes = Scoring(metric=metric), []
    for name, change in logits.items():
        oof, test = ({fold: change(each) for fold, each in half.items()} for half in (run.oof, run.test))
        combined = {method: combine({str(fold): each for fold, each in test.items()}, method) for method in METHODS}
        metrics = summarize(oof, test, combined, run.label_of, scoring)
        recipes.append(RecipeResults(name, metrics, concatenated(list(oof.values())), hours=0.5, parameters=1))
    return compare(recipes, run.manifest, scoring).set_index("recipe", drop=False)


def times(factor: float):
    return lambda logits: Logits(logits.image_id, logits.values * factor, logits.classes)


def test_a_lower_log_loss_gives_a_negative_difference(tmp_path):
    rows = scored_by("log_loss", tmp_path, first=times(-1), lowest=times(1), unsure=times(0))
    own, difference = rows["out_of_fold"], rows["difference"]
    assert own.idxmin() == difference.idxmin() == "lowest"
    assert own["unsure"] == pytest.approx(np.log(2))
    assert difference.to_dict() == pytest.approx((own - own["first"]).to_dict())
    assert difference["first"] == 0
    assert rows.loc["lowest", "difference_high"] < 0


def test_the_best_row_says_what_choosing_it_flattered(tmp_path):
    def blurred(seed):
        noise = np.random.default_rng(seed)
        return lambda logits: Logits(
            logits.image_id, logits.values + 5 * noise.normal(size=logits.values.shape), logits.classes
        )

    rows = scored_by("f1_macro", tmp_path, **{f"recipe{seed}": blurred(seed) for seed in range(8)})
    best = rows["out_of_fold"].idxmax()
    assert rows["best_of"].dropna().to_dict() == {best: 8}
    row = rows.loc[best]
    assert row["flattered_by"] == pytest.approx(row["out_of_fold"] - row["honest"])
    assert row["honest_low"] < row["honest"] < row["out_of_fold"]
    words = f"Choosing the best of 8 recipes ({best}) flattered macro F1 out of fold by {row['flattered_by']:.4f}"
    assert words in as_text(rows, "f1_macro")
    assert "did not choose the recipe (BBC-CV; epochs as select chose them)" in as_text(rows, "f1_macro")
    rows.to_csv(tmp_path / "ablation.csv", index=False)
    write_ablation(pd.read_csv(tmp_path / "ablation.csv"), tmp_path / "ablation.html", "f1_macro")
    assert words in (tmp_path / "ablation.html").read_text(encoding="utf-8")


def test_one_recipe_is_no_choice(tmp_path):
    assert "best_of" not in scored_by("accuracy", tmp_path, only=times(1))


def test_scores_cross_fitted_over_epochs_have_a_column(tmp_path):
    assert "cross_fitted" not in compared(tmp_path)
    run = make_run(tmp_path, ["no", "yes"], ["no", "yes"] * 20, ["no", "yes"] * 5)
    entry = {"state": "measured", "without_views": False, "out_of_fold": {"accuracy": 0.5, "low": 0.4, "high": 0.6}}
    oof = concatenated(list(run.oof.values()))
    one = RecipeResults("a", run.metrics | {"cross_fitted": entry}, oof, 1, 1)
    assert compare([one], run.manifest).loc[0, "cross_fitted"] == 0.5
    with_views = RecipeResults("a", run.metrics | {"cross_fitted": entry | {"without_views": True}}, oof, 1, 1)
    assert "cross_fitted" not in compare([with_views, one], run.manifest).loc[[0]].dropna(axis=1)


def test_a_missing_value_has_a_reason(tmp_path):
    rows = scored_by("log_loss", tmp_path, plain=times(1))
    assert rows.loc["plain", "why"] == "vote: a vote has no probabilities"
    words = "plain has no value of vote: a vote has no probabilities."
    assert as_text(rows).endswith(words)
    rows.to_csv(tmp_path / "ablation.csv", index=False)
    write_ablation(pd.read_csv(tmp_path / "ablation.csv"), tmp_path / "ablation.html", "log_loss")
    assert words in (tmp_path / "ablation.html").read_text(encoding="utf-8")
    assert "why" not in compared(tmp_path)


def test_a_recipe_that_a_race_stopped_has_a_reason_and_no_scores(tmp_path):
    run = make_run(tmp_path, ["no", "yes"], ["no", "yes"] * 20, ["no", "yes"] * 5)
    oof = list(run.oof.values())
    recipes = [
        RecipeResults("bad", None, concatenated(oof[:1]), hours=0.1, parameters=1),
        RecipeResults("good", run.metrics, concatenated(oof), hours=0.2, parameters=1),
        RecipeResults("twin", run.metrics, concatenated(oof), hours=0.2, parameters=1),
    ]
    stopped = {"folds": 2, "leader": "good", "worse_by": 0.2, "low": 0.1, "high": 0.3}
    rows = compare(recipes, run.manifest, race={"of": 5, "stopped": {"bad": stopped}})
    assert rows["recipe"].to_list() == ["bad", "good", "twin"]
    assert rows["folds"].to_list() == ["2 of 5", "5 of 5", "5 of 5"]
    words = "stopped after 2 folds: worse than good by 0.2000 [0.1000, 0.3000]"
    assert rows["status"].to_list() == [words, "finished", "finished"]
    assert rows.loc[0].dropna().index.to_list() == ["recipe", "folds", "status", "hours", "parameters_m"]
    assert rows["difference"].to_list()[1:] == [0, 0]  # from the first that finished
    assert rows["best_of"].dropna().to_list() == [2]
    assert f"bad was {words} (trained 2 of 5 folds)." in as_text(rows)
    rows.to_csv(tmp_path / "ablation.csv", index=False)
    write_ablation(pd.read_csv(tmp_path / "ablation.csv"), tmp_path / "ablation.html")
    page = (tmp_path / "ablation.html").read_text(encoding="utf-8")
    assert words in page
    assert "what stopping the others flattered is not included" in page


def test_the_only_recipe_that_finished_a_race_was_not_chosen(tmp_path):
    run = make_run(tmp_path, ["no", "yes"], ["no", "yes"] * 20, ["no", "yes"] * 5)
    oof = concatenated(list(run.oof.values()))
    recipes = [RecipeResults("good", run.metrics, oof, 1, 1), RecipeResults("bad", None, oof, 1, 1)]
    stopped = {"folds": 2, "leader": "good", "worse_by": 0.2, "low": 0.1, "high": 0.3}
    assert "best_of" not in compare(recipes, run.manifest, race={"of": 5, "stopped": {"bad": stopped}})


def test_an_ablation_without_recipes_is_refused_with_advice():
    with pytest.raises(KfoldError, match="config.yaml names no recipes to compare"):
        read_recipes([], [], [], [], [])
