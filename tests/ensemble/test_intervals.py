"""Intervals of metrics: what they agree with, and how often they hold the true value."""

from __future__ import annotations

import sys

import numpy as np
import pytest
from conftest import REPOSITORY

from kfold_ens.ensemble.intervals import interval, paired_interval
from kfold_ens.metrics import find_metric, inputs_of, value

sys.path.insert(0, str(REPOSITORY / "benchmarks"))
from coverage import NAMES, coverage, drawn  # noqa: E402

COUNTS = np.arange(12, 62, 5)


def brute_force(name: str, predictors: list[np.ndarray], target: np.ndarray, resamples: int = 200) -> np.ndarray:
    """The metric of each predictor in resamples of the images of each class, each computed anew."""
    rng = np.random.default_rng(1)
    places = [np.flatnonzero(target == each) for each in np.unique(target)]
    found = []
    for _ in range(resamples):
        rows = np.concatenate([rng.choice(own, len(own)) for own in places])
        found.append([value(name, logits[rows], target[rows]) for logits in predictors])
    return np.array(found)


@pytest.mark.parametrize("name", NAMES)
def test_an_interval_is_as_wide_as_that_of_a_plain_bootstrap(name):
    first, second, target = drawn(COUNTS, np.random.default_rng(0))
    metric = find_metric(name)
    inputs = [inputs_of(metric, logits, target) for logits in (first, second)]
    own = [metric.compute(*each) for each in inputs]
    resampled = brute_force(name, [first, second], target)
    low, high = interval(metric, inputs[0], own[0])
    assert low < own[0] < high
    assert high - low == pytest.approx(2 * 1.96 * resampled[:, 0].std(), rel=0.2)
    low, high = paired_interval(metric, *inputs, own[0] - own[1])
    assert high - low == pytest.approx(2 * 1.96 * (resampled[:, 0] - resampled[:, 1]).std(), rel=0.2)


@pytest.mark.parametrize("name", NAMES)
def test_the_order_of_images_changes_no_interval_by_much_and_equal_predictions_have_none(name):
    first, _, target = drawn(COUNTS, np.random.default_rng(0))
    metric = find_metric(name)
    inputs = inputs_of(metric, first, target)
    assert np.isnan(paired_interval(metric, inputs, inputs, 0.0)).all()  # nothing is known of the spread
    shuffled = np.random.default_rng(2).permutation(len(target))
    other = inputs_of(metric, first[shuffled], target[shuffled])
    own = metric.compute(*inputs)
    np.testing.assert_allclose(interval(metric, inputs, own), interval(metric, other, own), rtol=0.02)


def test_predictions_without_a_mistake_have_no_interval():
    target = np.repeat(np.arange(3), 10)
    for name in ("balanced_accuracy", "f1_macro", "top_2_accuracy"):
        metric = find_metric(name)
        assert np.isnan(interval(metric, (np.eye(3)[target], target), 1.0)).all()


@pytest.mark.slow
@pytest.mark.parametrize("name", NAMES)
def test_intervals_hold_the_true_value_as_often_as_they_say(name):
    """At 300 images; benchmarks/README.md shows 3,000 too."""
    _, inside, _, _, difference = coverage(300, 1000, [name])[name]
    assert 0.93 <= inside <= 0.97
    assert 0.93 <= difference <= 0.97
