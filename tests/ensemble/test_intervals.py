"""Intervals of metrics: agreement with a plain bootstrap, and coverage of the true value."""

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


def in_classes(target: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    places = [np.flatnonzero(target == each) for each in np.unique(target)]
    return np.concatenate([rng.choice(own, len(own)) for own in places])


def whole_groups(group: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    places = [np.flatnonzero(group == each) for each in np.unique(group)]
    return np.concatenate([places[each] for each in rng.integers(0, len(places), len(places))])


def brute_force(name: str, predictors: list[np.ndarray], target: np.ndarray, draw, of: np.ndarray) -> np.ndarray:
    """The metric of each predictor in 200 resamples of the images, computed one by one."""
    rng, found = np.random.default_rng(1), []
    for _ in range(200):
        rows = draw(of, rng)
        found.append([value(name, logits[rows], target[rows]) for logits in predictors])
    return np.array(found)


def drawn_in_groups(
    rng: np.random.Generator, groups: int = 60, each: int = 7
) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
    """Two predictors' logits of ten classes, the classes, and groups of equally hard images."""
    target, group = rng.integers(0, 10, groups * each), np.repeat(np.arange(groups), each)
    help_of_group = rng.gamma(1, 1.5, groups)[group, None] * np.eye(10)[target]
    shared = help_of_group + rng.normal(size=(len(target), 10))
    first, second = (shared + rng.normal(scale=0.5, size=shared.shape) for _ in range(2))
    return first, second, target, group


@pytest.mark.parametrize("name", NAMES)
def test_an_interval_is_as_wide_as_by_a_plain_bootstrap(name):
    first, second, target = drawn(COUNTS, np.random.default_rng(0))
    metric = find_metric(name)
    inputs = [inputs_of(metric, logits, target) for logits in (first, second)]
    own = [metric.compute(*each) for each in inputs]
    resampled = brute_force(name, [first, second], target, in_classes, target)
    low, high = interval(metric, inputs[0], own[0])
    assert low < own[0] < high
    assert high - low == pytest.approx(2 * 1.96 * resampled[:, 0].std(), rel=0.2)
    low, high = paired_interval(metric, *inputs, own[0] - own[1])
    assert high - low == pytest.approx(2 * 1.96 * (resampled[:, 0] - resampled[:, 1]).std(), rel=0.2)


@pytest.mark.parametrize("name", ["accuracy", *NAMES])
def test_an_interval_over_groups_is_as_wide_as_by_a_plain_bootstrap_of_groups(name):
    first, second, target, group = drawn_in_groups(np.random.default_rng(3))
    metric = find_metric(name)
    inputs = [inputs_of(metric, logits, target) for logits in (first, second)]
    own = [metric.compute(*each) for each in inputs]
    resampled = brute_force(name, [first, second], target, whole_groups, group)
    low, high = interval(metric, inputs[0], own[0], group)
    assert low < own[0] < high
    assert high - low == pytest.approx(2 * 1.96 * resampled[:, 0].std(), rel=0.25)
    low, high = paired_interval(metric, *inputs, own[0] - own[1], group)
    assert high - low == pytest.approx(2 * 1.96 * (resampled[:, 0] - resampled[:, 1]).std(), rel=0.25)


def test_groups_of_one_image_change_no_width():
    first, _, target, group = drawn_in_groups(np.random.default_rng(4), each=1)
    metric = find_metric("balanced_accuracy")
    inputs = inputs_of(metric, first, target)
    own = metric.compute(*inputs)
    low, high = interval(metric, inputs, own, group)
    alone = interval(metric, inputs, own)
    assert high - low == pytest.approx(alone[1] - alone[0], rel=0.25)


@pytest.mark.parametrize("name", ["balanced_accuracy", "f1_macro", "log_loss", "top_3_accuracy"])
@pytest.mark.parametrize("each", [1, 2])
def test_tiny_classes_do_not_narrow_the_interval(name, each):
    metric, rng, rows = find_metric(name), np.random.default_rng(6), []
    for _ in range(40):
        first, _, target = drawn(np.full(60, each), rng)
        inputs = inputs_of(metric, first, target)
        own = metric.compute(*inputs)
        low, high = interval(metric, inputs, own)
        rows.append((own, high - low))
    own, width = np.array(rows).T
    assert width.mean() / (2 * 1.96) > 0.7 * own.std()


@pytest.mark.slow
@pytest.mark.parametrize("name", ["accuracy", "f1_macro", "roc_auc"])
def test_only_intervals_over_groups_cover_the_true_value_of_grouped_images(name):
    metric, rng, rows = find_metric(name), np.random.default_rng(5), []
    for _ in range(400):
        first, _, target, group = drawn_in_groups(rng)
        inputs = inputs_of(metric, first, target)
        own = metric.compute(*inputs)
        rows.append((own, *interval(metric, inputs, own, group), *interval(metric, inputs, own)))
    own, low, high, image_low, image_high = np.array(rows).T
    truth = own.mean()
    assert 0.92 <= ((low <= truth) & (truth <= high)).mean() <= 0.975
    assert ((image_low <= truth) & (truth <= image_high)).mean() < 0.92


@pytest.mark.parametrize("name", NAMES)
def test_the_order_of_images_hardly_changes_an_interval_and_equal_predictions_have_none(name):
    first, _, target = drawn(COUNTS, np.random.default_rng(0))
    metric = find_metric(name)
    inputs = inputs_of(metric, first, target)
    assert np.isnan(paired_interval(metric, inputs, inputs, 0.0)).all()  # no resample differs, so the spread is unknown
    shuffled = np.random.default_rng(2).permutation(len(target))
    other = inputs_of(metric, first[shuffled], target[shuffled])
    own = metric.compute(*inputs)
    np.testing.assert_allclose(interval(metric, inputs, own), interval(metric, other, own), rtol=0.02)


def test_perfect_predictions_have_no_bootstrap_interval():
    target = np.repeat(np.arange(3), 10)
    for name in ("balanced_accuracy", "f1_macro", "top_2_accuracy"):
        metric = find_metric(name)
        assert np.isnan(interval(metric, (np.eye(3)[target], target), 1.0)).all()


@pytest.mark.parametrize("groups", [1, 3])
def test_identical_groups_have_no_interval(groups):
    predicted, target = np.tile([0, 0, 1], groups), np.zeros(3 * groups, dtype=int)
    group = np.repeat(np.arange(groups), 3)
    assert np.isnan(interval(find_metric("accuracy"), (np.eye(2)[predicted], target), 2 / 3, group)).all()


@pytest.mark.slow
@pytest.mark.parametrize("name", NAMES)
def test_intervals_cover_the_true_value_as_often_as_claimed(name):
    """With 300 images; benchmarks/README.md also shows 3,000."""
    _, inside, _, _, difference = coverage(300, 1000, [name])[name]
    assert 0.93 <= inside <= 0.97
    assert 0.93 <= difference <= 0.97
