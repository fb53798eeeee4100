"""Which recipes a race stops, on simulated predictions."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest

from kfold_ens.config import Scoring
from kfold_ens.ensemble.race import after_fold, in_words, judge, level_of, start
from kfold_ens.logits import Logits

CLASSES = ("no", "yes")


def predictions(rights: np.ndarray, labels: np.ndarray) -> Logits:
    """Logits that are right where this says so: (N,) bool."""
    images = np.array([f"image{place}" for place in range(len(labels))])
    predicted = np.where(rights, labels, 1 - labels)
    return Logits(images, np.eye(2)[predicted], CLASSES)


def manifest_of(labels: np.ndarray) -> pd.DataFrame:
    images = [f"image{place}" for place in range(len(labels))]
    return pd.DataFrame({"image_id": images, "label": np.array(CLASSES)[labels]})


def part(logits: Logits, images: int) -> Logits:
    return Logits(logits.image_id[:images], logits.values[:images], logits.classes)


def race_of(accuracies: list[float], seed: int, folds: int = 5, images_per_fold: int = 100) -> dict:
    """A whole race of recipes that are right so often. They share half of their luck, as images are hard or easy."""
    random, images = np.random.default_rng(seed), folds * images_per_fold
    labels, hard = random.integers(0, 2, images), random.random(images)
    oof = {}
    for place, accuracy in enumerate(accuracies):
        luck = np.where(random.random(images) < 0.5, hard, random.random(images))
        oof[f"recipe{place}"] = predictions(luck < accuracy, labels)
    race = start(list(oof), folds)
    for fold in range(2, folds):
        some = {name: part(oof[name], fold * images_per_fold) for name in race["racing"]}
        race = after_fold(race, some if len(some) > 1 else {}, manifest_of(labels), Scoring())
    return race


def test_a_recipe_as_good_as_all_others_is_rarely_stopped():
    races = [race_of([0.8] * 4, seed) for seed in range(80)]
    share = np.mean([len(race["stopped"]) / 4 for race in races])
    assert share <= 0.025  # what Bonferroni promises for each of them


def test_without_a_correction_it_would_be_stopped_more_often(monkeypatch):
    monkeypatch.setattr("kfold_ens.ensemble.race.ERROR_RATE", 0.05 * 3 * 3)  # 95% for each interval alone
    races = [race_of([0.8] * 4, seed) for seed in range(80)]
    assert np.mean([len(race["stopped"]) / 4 for race in races]) > 0.08


def test_a_clearly_worse_recipe_is_stopped_at_the_first_look():
    stopped = [race_of([0.9, 0.9, 0.6], seed)["stopped"].get("recipe2", {"folds": 9})["folds"] for seed in range(50)]
    assert np.mean(np.array(stopped) == 2) > 0.95


def test_a_slightly_worse_recipe_is_stopped_later_or_never():
    stopped = [race_of([0.85, 0.75], seed)["stopped"].get("recipe1", {"folds": 5})["folds"] for seed in range(50)]
    assert {2, 3, 4} <= set(stopped)


def test_the_best_recipe_of_all_is_not_stopped():
    assert all("recipe0" in race_of([0.85, 0.8, 0.8, 0.8], seed)["racing"] for seed in range(50))


def test_stopped_recipes_stay_stopped_and_say_why():
    race = race_of([0.9, 0.5], seed=1)
    assert (race["folds"], race["racing"]) == (4, ["recipe0"])
    own = race["stopped"]["recipe1"]
    assert own["low"] < own["worse_by"] < own["high"]
    assert in_words(own).startswith(f"stopped after 2 folds: worse than recipe0 by {own['worse_by']:.4f} [")


def test_the_error_rate_is_divided_over_looks_and_rivals():
    assert level_of(recipes=2, folds=3) == 0.95
    assert level_of(recipes=8, folds=5) == pytest.approx(1 - 0.05 / (3 * 7))


@pytest.mark.parametrize("metric", ["log_loss", "roc_auc", "f1_macro"])
def test_the_configured_metric_decides(metric):
    random, labels = np.random.default_rng(0), np.arange(200) % 2
    images, noise = np.array([str(place) for place in range(200)]), random.normal(size=(200, 2))
    good, bad = (Logits(images, scale * np.eye(2)[labels] + noise, CLASSES) for scale in (4, 0))
    label_of = dict(zip(images, np.array(CLASSES)[labels], strict=True))
    worse = judge({"bad": bad, "good": good}, label_of, 0.99, Scoring(metric=metric))
    assert list(worse) == ["bad"]
    assert worse["bad"]["leader"] == "good"
    assert 0 < worse["bad"]["low"] < worse["bad"]["worse_by"] < worse["bad"]["high"]


def test_nobody_is_stopped_while_the_metric_has_no_value():
    labels = np.zeros(100, dtype=int)
    oof = {name: predictions(np.full(100, right), labels) for name, right in (("good", True), ("bad", False))}
    label_of = dict.fromkeys(oof["good"].image_id, "no")
    assert judge(oof, label_of, 0.95, Scoring(metric="roc_auc")) == {}
    assert list(judge(oof, label_of, 0.95)) == ["bad"]


def race_of_patients(seed: int) -> dict:
    """A race of four recipes as good as each other, whose accuracy varies by patient; three patients in each fold."""
    random, labels = np.random.default_rng(seed), np.arange(200) % 2
    patient = np.repeat(np.arange(15), [14, 13, 13] * 5)
    oof = {}
    for place in range(4):
        accuracy = 0.8 + 0.1 * random.standard_normal(15)
        oof[f"recipe{place}"] = predictions(random.random(200) < accuracy[patient], labels)
    race, manifest = start(list(oof), 5), manifest_of(labels).assign(group=[f"p{each}" for each in patient])
    for fold in range(2, 5):
        some = {name: part(oof[name], fold * 40) for name in race["racing"]}
        race = after_fold(race, some if len(some) > 1 else {}, manifest, Scoring())
    return race


@pytest.mark.slow
def test_with_few_patients_a_recipe_as_good_as_all_others_is_rarely_stopped_too():
    assert np.mean([len(race_of_patients(seed)["stopped"]) / 4 for seed in range(150)]) <= 0.025


def test_groups_count_as_one():
    labels = np.arange(200) % 2
    rights = {"good": np.full(200, True), "bad": np.repeat([True, False, True, False], 50)}
    oof = {name: predictions(each, labels) for name, each in rights.items()}
    manifest, race = manifest_of(labels), start(["good", "bad"], folds=3)
    assert after_fold(race, oof, manifest, Scoring())["racing"] == ["good"]
    grouped = manifest.assign(group=np.repeat(["a", "b", "c", "d"], 50))
    assert after_fold(race, oof, grouped, Scoring())["racing"] == ["good", "bad"]
