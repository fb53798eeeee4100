"""Blends of recipes, on simulated logits."""

from __future__ import annotations

import numpy as np
import pytest
from scipy.special import softmax

from kfold_ens.config import Scoring
from kfold_ens.ensemble.blend import blend_members, blended, describe, fit, missing_members
from kfold_ens.ensemble.cross_fitting import ScoredBy
from kfold_ens.ensemble.metrics import DEFAULT
from kfold_ens.ensemble.score_table import about_choice, as_text, headline_entry
from kfold_ens.errors import KfoldError
from kfold_ens.files import canonical
from kfold_ens.logits import Logits

CLASSES = ("a", "b", "c")
FITTED = ("greedy", "simplex")


def folds_of(seed, recipes=3, folds=4, images=50, skill=1.0):
    """Out-of-fold logits by recipe and fold, and labels."""
    rng, label_of, oof = np.random.default_rng(seed), {}, {f"r{each}": {} for each in range(recipes)}
    for fold in range(folds):
        ids = np.array([f"{fold}/{index}" for index in range(images)], dtype=object)
        target = rng.integers(0, len(CLASSES), images)
        label_of |= {each: CLASSES[place] for each, place in zip(ids, target, strict=True)}
        for own in oof.values():
            values = rng.normal(size=(images, len(CLASSES))) + skill * np.eye(len(CLASSES))[target]
            own[fold] = Logits(ids, values, CLASSES)
    return oof, label_of


def permuted(label_of, fold, seed=0):
    """The labels, those of a fold permuted."""
    own = [each for each in label_of if each.startswith(f"{fold}/")]
    places = np.random.default_rng(seed).permutation(len(own))
    return label_of | {each: label_of[own[place]] for each, place in zip(own, places, strict=True)}


def leaks(weights_of_fold, oof, label_of):
    """Name the folds whose weights change with the labels of their own images."""
    return [
        f"weights that score fold {fold}"
        for fold in range(4)
        if canonical(weights_of_fold(oof, label_of, fold))
        != canonical(weights_of_fold(oof, permuted(label_of, fold), fold))
    ]


@pytest.mark.parametrize("weighing", FITTED)
def test_other_labels_of_a_fold_leave_the_weights_that_score_it_byte_identical(weighing):
    oof, label_of = folds_of(0)
    assert leaks(lambda oof, labels, fold: fit(oof, ScoredBy(labels), weighing).of_folds[fold], oof, label_of) == []


@pytest.mark.parametrize("weighing", FITTED)
def test_weights_fitted_on_the_fold_that_they_score_are_caught_and_named(weighing):
    oof, label_of = folds_of(0)
    caught = leaks(lambda oof, labels, fold: fit(oof, ScoredBy(labels), weighing).weights, oof, label_of)
    assert "weights that score fold 1" in caught


def test_no_repeat_of_a_held_out_image_weighs_the_fold_that_holds_it_out():
    oof, label_of = folds_of(1)
    repeated = {name: own | {f"{fold} of repeat 1": own[fold] for fold in own} for name, own in oof.items()}
    one, two = (fit(repeated, ScoredBy(labels), "simplex") for labels in (label_of, permuted(label_of, 1)))
    assert one.of_folds[1] == two.of_folds[1]
    assert one.of_folds["1 of repeat 1"] == two.of_folds["1 of repeat 1"]
    assert one.of_folds != two.of_folds


def test_a_blend_is_the_weighted_mean_of_probabilities():
    oof, _ = folds_of(2, recipes=2)
    both = blended({name: own[0] for name, own in oof.items()}, {"r0": 0.25, "r1": 0.75})
    p = 0.25 * softmax(oof["r0"][0].values, axis=1) + 0.75 * softmax(oof["r1"][0].values, axis=1)
    assert np.exp(both.values) == pytest.approx(p)


def test_the_recipes_that_have_a_fold_share_the_weight_of_those_that_lack_it():
    oof, label_of = folds_of(2)
    del oof["r2"][3]
    blend = fit(oof, ScoredBy(label_of), "simplex")
    held_out = blend_members(oof, blend.of_folds, "probabilities")
    assert np.exp(held_out[3].values).sum(axis=1) == pytest.approx(1)
    files = [f"results/blend/fold{fold}/test_logits.npz" for fold in range(4)]
    lacks = missing_members(oof, ["r0", "r1", "r2", "r3"], files)
    assert lacks == {"r2": ["3"], "r3": ["0", "1", "2", "3"]}


def test_fitted_weights_need_two_folds_that_all_recipes_have():
    oof, label_of = folds_of(3, folds=2)
    del oof["r0"][1]
    with pytest.raises(KfoldError, match="blend_weights: greedy needs two folds"):
        fit(oof, ScoredBy(label_of), "greedy")
    assert fit(oof, ScoredBy(label_of), "equal").weights == pytest.approx(dict.fromkeys(oof, 1 / 3))


def test_ranks_ignore_a_recipes_scale():
    rng = np.random.default_rng(0)
    ids, half = np.array(list("uvwxyz"), dtype=object), rng.normal(size=6)
    one = Logits(ids, np.stack([-half, half], axis=1), ("a", "b"))
    steep = Logits(ids, one.values * 9, one.classes)
    weights = {"one": 0.5, "steep": 0.5}
    both = blended({"one": one, "steep": steep}, weights, "ranks")
    assert np.array_equal(both.values[:, 1].argsort(), half.argsort())
    assert np.allclose(both.values, blended({"one": one, "steep": one}, weights, "ranks").values)


def test_ranks_of_more_than_two_classes_are_refused():
    oof, label_of = folds_of(0)
    with pytest.raises(KfoldError, match="blend_of: ranks needs two classes \\(got 3\\)"):
        fit(oof, ScoredBy(label_of), "equal", "ranks")


def test_greedy_weights_are_refused_if_the_metric_has_no_value():
    """A class that only one fold holds out: the other folds have no ROC AUC by which to weigh the recipes."""
    oof, label_of = folds_of(0)
    rare = {image: "a" if label == "c" and not image.startswith("1/") else label for image, label in label_of.items()}
    with pytest.raises(KfoldError, match="blend_weights: greedy: the metric has no value"):
        fit(oof, ScoredBy(rare, Scoring(metric="roc_auc")), "greedy")


# --- scores ----------------------------------------------------------------------------------------------


def metrics_of(weighing, scoring=DEFAULT, select="best_accuracy", missing=(), seed=0):
    """``metrics.json`` of a blend, without folds and test images."""
    oof, label_of = folds_of(seed)
    scored_by = ScoredBy(label_of, scoring)
    blend = fit(oof, scored_by, weighing)
    choosing = {recipe: {"select": select, "watched": []} for recipe in oof}
    about = describe(blend, oof, scored_by) | {"missing": dict(missing), "choosing": choosing}
    crossed = scored_by.score(list(blend_members(oof, blend.of_folds, blend.of).values()))
    epochs = {"state": "nothing chosen"} if select == "last" else {"state": "unknown", "why": "r0: none is kept"}
    own = {"metric": scoring.metric, "out_of_fold": crossed, "blend": about, "cross_fitted": epochs}
    return own | {"folds": {}, "methods": {"average": {}}}


@pytest.mark.parametrize(("metric", "worse"), [("accuracy", "too high"), ("log_loss", "too low")])
def test_the_score_as_fitted_is_told_from_the_cross_fitted_one_by_the_metrics_direction(metric, worse):
    metrics = metrics_of("greedy", Scoring(metric=metric))
    blend, sign = metrics["blend"], -1 if metric == "log_loss" else 1
    gain = sign * (blend["as_fitted"][metric] - metrics["out_of_fold"][metric])
    by = blend["flattered_by"]
    assert by["difference"] == pytest.approx(gain)
    assert by["low"] < gain < by["high"]
    assert worse in " ".join(about_choice(metrics))
    text = as_text(metrics, "average")
    assert "all folds, weights cross-fitted, epochs as chosen" in text
    assert "all folds, weights as fitted, epochs as chosen" in text


def test_without_logits_of_epochs_the_headline_of_a_blend_is_cross_fitted_in_its_weights_only():
    metrics = metrics_of("simplex")
    assert "By how much is unknown: r0: none is kept." in " ".join(about_choice(metrics))
    assert headline_entry(metrics, "average") == (
        metrics["out_of_fold"],
        "out of fold, weights cross-fitted, epochs as chosen",
    )


def test_the_headline_of_a_blend_is_cross_fitted_in_epochs_and_weights():
    metrics = metrics_of("simplex")
    by = {"difference": 0.02, "low": 0.01, "high": 0.03}
    crossed = {"state": "measured", "without_views": False, "out_of_fold": metrics["out_of_fold"], "flattered_by": by}
    metrics |= {"cross_fitted": crossed}
    assert headline_entry(metrics, "average")[1] == "out of fold, cross-fitted"
    assert "all folds, cross-fitted" in as_text(metrics, "average")
    assert "weights are fitted on the other folds. As chosen" in " ".join(about_choice(metrics))


def test_equal_weights_are_not_fitted_so_no_score_is_as_fitted():
    metrics = metrics_of("equal", select="last")
    assert "weights as fitted" not in as_text(metrics, "average")
    assert headline_entry(metrics, "average") == (metrics["out_of_fold"], "out of fold")


def test_a_partial_blend_says_what_is_missing_beside_its_score():
    text = as_text(metrics_of("equal", missing={"r1": ["3", "full"]}), "average")
    assert "r1 lacks fold 3, full fit" in text


@pytest.mark.slow
@pytest.mark.parametrize(("weighing", "covers"), [("equal", 0.92), ("simplex", 0.89), ("greedy", 0.83)])
def test_on_noise_weights_as_fitted_exceed_chance_and_cross_fitted_ones_do_not(weighing, covers):
    chance, runs, fitted, crossed, covered = 1 / len(CLASSES), 200, [], [], 0
    for seed in range(runs):
        oof, label_of = folds_of(seed, recipes=8, images=200, skill=0.0)
        scored_by = ScoredBy(label_of)
        blend = fit(oof, scored_by, weighing)
        as_fitted = blend_members(oof, dict.fromkeys(blend.of_folds, blend.weights), blend.of)
        fitted.append(scored_by.score(list(as_fitted.values()))["accuracy"])
        entry = scored_by.score(list(blend_members(oof, blend.of_folds, blend.of).values()))
        crossed.append(entry["accuracy"])
        covered += entry["low"] <= chance <= entry["high"]
    assert abs(np.mean(crossed) - chance) < 4 * np.std(crossed) / np.sqrt(runs)
    assert covered / runs >= covers
    if weighing == "greedy":
        assert np.mean(fitted) > chance + 5 * np.std(fitted) / np.sqrt(runs)
