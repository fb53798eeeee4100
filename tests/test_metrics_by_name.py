"""Each metric by an independent computation, and where it has no value."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from scipy.special import softmax
from sklearn.metrics import average_precision_score, confusion_matrix, roc_auc_score

from kfold_ens.config import METRIC_KINDS
from kfold_ens.errors import DataError
from kfold_ens.metrics import find_metric, inputs_of, places_in_order, refuse_unfit, value

NAMES = [{"top_k_accuracy": "top_2_accuracy", "map_at_k": "map_at_2"}.get(kind, kind) for kind in METRIC_KINDS]


@st.composite
def predictions(draw, every_class=False):
    """Logits with ties, and class indices; classes may be absent."""
    images, classes = draw(st.integers(6, 40)), draw(st.integers(2, 5))
    rng = np.random.default_rng(draw(st.integers(0, 2**32)))
    logits = rng.normal(size=(images, classes)).round(draw(st.sampled_from([0, 1, 6])))
    target = rng.integers(0, classes if every_class else draw(st.integers(1, classes)), images)
    assume(not every_class or len(set(target)) == classes)
    return logits, target


def ranked(row: np.ndarray) -> list[int]:
    """Classes from the best: on a tie the first."""
    return sorted(range(len(row)), key=lambda place: (-row[place], place))


def by_hand(name: str, logits: np.ndarray, target: np.ndarray) -> float:
    """The metric from its definition, image by image and pair by pair."""
    classes, predicted = range(logits.shape[1]), [ranked(row)[0] for row in logits]
    right = [int(own == truth) for own, truth in zip(predicted, target, strict=True)]
    places = [ranked(row).index(truth) for row, truth in zip(logits, target, strict=True)]
    probabilities = softmax(logits, axis=1)
    if name == "accuracy":
        return np.mean(right)
    if name == "top_2_accuracy":
        return np.mean([place < 2 for place in places])
    if name == "map_at_2":
        return np.mean([[1, 0.5, 0][min(place, 2)] for place in places])
    if name == "log_loss":
        return -np.mean(np.log([row[truth] for row, truth in zip(probabilities, target, strict=True)]))
    if name == "balanced_accuracy":
        return np.mean(
            [np.mean([r for r, t in zip(right, target, strict=True) if t == c]) for c in sorted(set(target))]
        )
    if name == "f1_macro":
        scores = []
        for c in sorted(set(target) | set(predicted)):
            hits = sum(own == truth == c for own, truth in zip(predicted, target, strict=True))
            scores.append(2 * hits / (sum(own == c for own in predicted) + sum(truth == c for truth in target)))
        return np.mean(scores)
    if name == "quadratic_kappa":
        observed = np.mean((np.array(predicted) - target) ** 2)
        expected = np.mean([(own - truth) ** 2 for own in predicted for truth in target])
        return 1 - observed / expected if expected else np.nan
    of_class = {"roc_auc": _area, "average_precision": _precision}[name]
    return np.mean([of_class(probabilities[:, c], target == c) for c in classes])


def _area(scores: np.ndarray, positive: np.ndarray) -> float:
    pairs = [(own > other) + (own == other) / 2 for own in scores[positive] for other in scores[~positive]]
    return np.mean(pairs)


def _precision(scores: np.ndarray, positive: np.ndarray) -> float:
    return np.mean([positive[scores >= own].mean() for own in scores[positive]])


@pytest.mark.parametrize("name", NAMES)
@settings(deadline=None, max_examples=60)
@given(data=st.data())
def test_a_metric_equals_its_definition(name, data):
    logits, target = data.draw(predictions(every_class=find_metric(name).needs_every_class))
    assert value(name, logits, target) == pytest.approx(by_hand(name, logits, target), abs=1e-9, nan_ok=True)


@pytest.mark.parametrize("name", NAMES)
@settings(deadline=None, max_examples=60)
@given(data=st.data())
def test_pseudo_values_and_confusions_give_the_metric(name, data):
    logits, target = data.draw(predictions(every_class=find_metric(name).needs_every_class))
    metric = find_metric(name)
    inputs = inputs_of(metric, logits, target)
    if metric.per_image:
        own = metric.per_image(*inputs).mean()
    else:
        own = metric.of_confusion(confusion_matrix(target, logits.argmax(axis=1), labels=range(logits.shape[1])))
    assert own == pytest.approx(metric.compute(*inputs), abs=1e-9, nan_ok=True)


@pytest.mark.parametrize(
    ("name", "of_class"), [("roc_auc", roc_auc_score), ("average_precision", average_precision_score)]
)
@settings(deadline=None, max_examples=60)
@given(data=st.data())
def test_ranking_metrics_are_those_of_scikit_learn(name, of_class, data):
    logits, target = data.draw(predictions(every_class=True))
    probabilities = softmax(logits, axis=1)
    expected = np.mean([of_class(target == place, column) for place, column in enumerate(probabilities.T)])
    assert value(name, logits, target) == pytest.approx(expected, abs=1e-12)


@pytest.mark.parametrize("name", ["roc_auc", "average_precision"])
def test_metrics_of_every_class_have_no_value_if_one_is_absent(name):
    logits = np.eye(3)
    assert np.isnan(value(name, logits, np.array([0, 1, 1])))
    assert not np.isnan(value(name, logits, np.array([0, 1, 2])))


@pytest.mark.parametrize("classes", [("1", "nan", "2"), ("1", "inf"), ("1", "1.0", "2"), ("1", "two")])
def test_classes_that_are_not_distinct_numbers_have_no_order(classes):
    with pytest.raises(DataError, match="not distinct numbers"):
        places_in_order(classes, None)


def test_an_absent_class_still_lies_between_its_neighbours():
    """scikit-learn alone would take the classes 0, 1 and 4 for neighbours."""
    logits, target = np.eye(5)[[0, 4, 1, 4]], np.array([0, 1, 1, 4])
    assert value("quadratic_kappa", logits, target) == pytest.approx(by_hand("quadratic_kappa", logits, target))


def test_the_order_of_classes_decides_about_kappa():
    logits = np.eye(3)[[0, 2, 1, 1]]
    target = np.array([0, 2, 1, 2])
    near, far = (value("quadratic_kappa", logits, target, order) for order in ([0, 1, 2], [1, 0, 2]))
    assert far < near
    assert near == value("quadratic_kappa", logits, target)


@pytest.mark.parametrize(
    ("classes", "class_order", "places"),
    [
        (("10", "2", "9"), None, [1, 2, 0]),
        (("-1", "0.5", "1e1"), None, [0, 1, 2]),
        (("high", "low", "mid"), ["low", "mid", "high"], [1, 2, 0]),
        (("1", "2"), ["2", "1"], [1, 0]),
    ],
)
def test_classes_are_in_the_order_given_or_in_that_of_their_numbers(classes, class_order, places):
    assert places_in_order(classes, class_order) == places


@pytest.mark.parametrize(
    ("name", "class_order", "words"),
    [
        ("quadratic_kappa", None, "set data.class_order"),
        ("quadratic_kappa", ["low", "high"], "each class once; check: ['mid']"),
        ("quadratic_kappa", ["low", "mid", "high", "low"], "one is listed twice"),
        ("map_at_5", None, "map_at_5: there are only 3 classes"),
        ("top_4_accuracy", None, "only 3 classes"),
    ],
)
def test_a_metric_that_does_not_fit_the_classes_is_refused(name, class_order, words):
    with pytest.raises(DataError) as refusal:
        refuse_unfit(name, ("high", "low", "mid"), class_order)
    assert words in str(refusal.value)
