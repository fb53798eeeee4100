"""BBC-CV: a choice among recipes, scored on images that did not make it."""

from __future__ import annotations

import numpy as np
import pytest
from scipy.special import softmax

from kfold_ens.ensemble import bbc_cv
from kfold_ens.ensemble.bbc_cv import choose
from kfold_ens.metrics import METRICS, find_metric


def recipes(count=4, images=300, classes=3, skill=0.0, seed=0):
    """Inputs of recipes whose predictions have the same skill."""
    random = np.random.default_rng(seed)
    target = random.integers(0, classes, images)
    scores = softmax(random.normal(size=(count, images, classes)) + skill * np.eye(classes)[target], axis=2)
    return [(each, target) for each in scores]


def slowly(metric, inputs, resamples=300):
    """BBC-CV as in the paper, one resample at a time: the mean score of the choice out of the bag."""
    random, images, sign = np.random.default_rng(1), len(inputs[0][1]), -1 if metric.better == "min" else 1
    found = []
    for _ in range(resamples):
        drawn = random.integers(0, images, images)
        left = np.setdiff1d(np.arange(images), drawn)
        in_bag = [sign * metric.compute(scores[drawn], target[drawn]) for scores, target in inputs]
        scores, target = inputs[int(np.argmax(in_bag))]
        found.append(metric.compute(scores[left], target[left]))
    return np.mean(found), np.std(found) / resamples**0.5


@pytest.mark.parametrize(
    "name", ["accuracy", "log_loss", "f1_macro", "balanced_accuracy", "quadratic_kappa", "roc_auc"]
)
def test_it_equals_the_method_of_the_paper(name):
    metric, inputs = find_metric(name), recipes(skill=0.5)
    expected, error = slowly(metric, inputs)
    found = choose(metric, inputs)
    assert found.honest == pytest.approx(expected, abs=4 * error)
    assert found.interval[0] < found.honest < found.interval[1]
    scores = [metric.compute(*each) for each in inputs]
    assert found.score == pytest.approx((min if metric.better == "min" else max)(scores), abs=1e-3)


@pytest.mark.parametrize("name", ["accuracy", "log_loss", "f1_macro"])
def test_the_choice_among_equals_is_flattered(name):
    found = choose(find_metric(name), recipes(count=20))
    assert found.flattered_by > 0.01
    assert found.flattered_interval[0] < found.flattered_by < found.flattered_interval[1]


def test_a_clear_winner_is_hardly_flattered():
    inputs = [*recipes(count=5), *recipes(count=1, skill=3)]
    inputs[-1] = (recipes(count=1, skill=3)[0][0], inputs[0][1])
    found = choose(METRICS["accuracy"], inputs)
    assert found.best == 5
    assert found.flattered_by == pytest.approx(0, abs=2e-3)


def test_a_single_recipe_is_not_flattered():
    found = choose(METRICS["accuracy"], recipes(count=1))
    assert found.flattered_by == pytest.approx(0, abs=2e-3)


def test_the_same_recipe_twice_is_not_flattered():
    one = recipes(count=1)[0]
    assert choose(METRICS["accuracy"], [one, one]) == choose(METRICS["accuracy"], [one])


def test_groups_are_drawn_whole():
    """Ten copies of each image say no more than one of it."""
    inputs = recipes(count=6, images=60)
    copies = [(np.repeat(scores, 10, axis=0), np.repeat(target, 10)) for scores, target in inputs]
    group = np.repeat(np.arange(60), 10)
    for name in ("accuracy", "f1_macro"):
        alone, grouped = choose(find_metric(name), inputs), choose(find_metric(name), copies, group)
        assert grouped.honest == pytest.approx(alone.honest)
        assert grouped.interval == pytest.approx(alone.interval)
        assert grouped.flattered_by > 2 * choose(find_metric(name), copies).flattered_by


# --- labels of noise -------------------------------------------------------------------------------------

RUNS, IMAGES, RECIPES, CLASSES = 150, 2000, 20, 4


@pytest.mark.slow
@pytest.mark.parametrize("alike", [0.0, 0.9])
def test_on_noise_the_choice_of_20_recipes_is_flattered_and_its_interval_covers_chance(alike, monkeypatch):
    """``alike`` is the share of variance that the recipes' logits have in common."""
    monkeypatch.setattr(bbc_cv, "RESAMPLES", 400)
    monkeypatch.setattr(bbc_cv, "OUTER", 150)
    random, found = np.random.default_rng(0), []
    for _ in range(RUNS):
        target = random.integers(0, CLASSES, IMAGES)
        own, shared = random.normal(size=(RECIPES, IMAGES, CLASSES)), random.normal(size=(IMAGES, CLASSES))
        logits = np.sqrt(1 - alike) * own + np.sqrt(alike) * shared
        found.append(choose(METRICS["accuracy"], [(each, target) for each in logits]))
    chance, error = 1 / CLASSES, np.sqrt(0.05 * 0.95 / RUNS)
    flattered = np.array([each.score for each in found]) - chance
    honest = np.array([each.honest for each in found]) - chance
    assert flattered.mean() > 0.008  # ten times its standard error
    assert abs(honest.mean()) < 3 * honest.std() / np.sqrt(RUNS)
    covered = np.mean([each.interval[0] <= chance <= each.interval[1] for each in found])
    assert covered > 0.95 - 3 * error  # it is a little wide if recipes have nothing in common
    claimed = np.mean([each.interval[1] - each.interval[0] for each in found]) / (2 * 1.96)
    assert honest.std() < claimed * 1.1
    assert claimed < 1.4 * honest.std()
    by = np.array([each.flattered_by for each in found])
    assert by.mean() == pytest.approx(flattered.mean(), abs=3 * honest.std() / np.sqrt(RUNS))
