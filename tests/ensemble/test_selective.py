"""Selective prediction, compared with brute force."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy.stats import norm

from kfold_ens.bundle.about import About
from kfold_ens.bundle.answers import Columns, answers_of
from kfold_ens.ensemble.combine import METHODS, combine, sure_by
from kfold_ens.ensemble.metrics import score
from kfold_ens.ensemble.selective import (
    Predicted,
    at_thresholds,
    aurc,
    aurc_interval,
    least_aurc,
    predicted,
    risk_coverage,
    threshold_for,
    with_intervals,
)
from kfold_ens.ensemble.temperature import at_temperature
from kfold_ens.logits import Logits

PROBABILITY = st.one_of(st.floats(0, 1), st.sampled_from([0.25, 0.5, 0.5000001, 1.0]))
IMAGES = st.lists(st.tuples(PROBABILITY, st.booleans()), min_size=1, max_size=40).map(
    lambda pairs: Predicted(np.array([p for p, _ in pairs]), np.array([right for _, right in pairs]))
)


def by_hand(images: Predicted, p: float) -> tuple[int, int]:
    """Count the images labelled at p, and the correct ones among them, one image at a time."""
    labelled = [bool(right) for own, right in zip(images.probability, images.right, strict=True) if own >= p]
    return len(labelled), sum(labelled)


def drawn(number: int, rng: np.random.Generator) -> Predicted:
    """Images of a calibrated model."""
    probability = rng.uniform(0.4, 1, number)
    return Predicted(probability, rng.random(number) < probability)


@given(IMAGES)
def test_all_images_have_the_plain_accuracy(images):
    last = risk_coverage(images).iloc[-1]
    assert (last["share"], last["images"]) == (1, len(images.right))
    assert last["accuracy"] == images.right.mean()


@given(IMAGES, st.none() | st.integers(1, 50))
def test_a_higher_threshold_labels_fewer_images(images, points):
    curve = risk_coverage(images, points)
    assert (np.diff(curve["p"]) < 0).all()
    assert (np.diff(curve["share"]) > 0).all()
    assert len(curve) <= (points or len(images.right))
    assert curve["share"].iloc[-1] == 1


@given(IMAGES, st.lists(PROBABILITY, min_size=1, max_size=8))
def test_rows_equal_counts_by_hand(images, thresholds):
    for rows in (at_thresholds(images, np.array(thresholds)), risk_coverage(images), risk_coverage(images, 7)):
        for row in rows.itertuples():
            labelled, right = by_hand(images, row.p)
            assert (row.images, row.share) == (labelled, labelled / len(images.right))
            assert np.isnan(row.accuracy) if labelled == 0 else row.accuracy == right / labelled


@given(IMAGES)
def test_the_curve_has_a_row_for_every_probability(images):
    assert risk_coverage(images)["p"].tolist() == sorted(set(images.probability), reverse=True)
    assert risk_coverage(images, len(images.right)).equals(risk_coverage(images))


@given(IMAGES, st.sampled_from([0.5, 0.9, 0.95, 1.0]))
def test_the_threshold_for_is_the_first_that_reaches_the_accuracy(images, accuracy):
    found = threshold_for(images, accuracy)
    candidates = sorted({np.floor(p * 1e6) / 1e6 for p in images.probability})
    counts = [(p, *by_hand(images, p)) for p in candidates]
    reaching = [p for p, labelled, right in counts if labelled and right / labelled >= accuracy]
    assert found == (reaching[0] if reaching else None)
    assert found is None or float(f"{found:.6f}") == found


# --- the area under the curve ----------------------------------------------------------------------------


def reference_aurc(images: Predicted) -> float:
    """Geifman et al. 2019: the selective risk at the threshold of each image, averaged over the images."""
    counts = [by_hand(images, p) for p in images.probability]
    return float(np.mean([1 - right / labelled for labelled, right in counts]))


@given(IMAGES)
def test_the_aurc_is_the_mean_risk_at_the_images_probabilities(images):
    assert aurc(images) == pytest.approx(reference_aurc(images), abs=1e-12)


@given(st.permutations(range(12)), st.lists(st.booleans(), min_size=12, max_size=12))
def test_without_ties_the_aurc_is_the_mean_risk_of_the_most_confident(order, right):
    images = Predicted(np.array(order) / 12, np.array(right))
    surest = [right[each] for each in np.argsort(order)[::-1]]
    assert aurc(images) == pytest.approx(np.mean([1 - np.mean(surest[: n + 1]) for n in range(12)]))


def test_the_aurc_of_equal_probabilities_is_the_error_rate():
    assert aurc(Predicted(np.full(8, 0.9), np.arange(8) < 6)) == pytest.approx(0.25)


@given(IMAGES)
def test_no_order_has_an_aurc_below_the_least(images):
    assert least_aurc(images) <= aurc(images) + 1e-12
    best = Predicted(images.right + np.linspace(0, 0.5, len(images.right)), images.right)
    assert aurc(best) == pytest.approx(least_aurc(images), abs=1e-12)


def test_the_least_aurc_of_many_images_is_that_of_geifman_et_al():
    """Geifman et al. 2019, equation 5: r + (1 - r) ln(1 - r) for an error rate r."""
    images = Predicted(np.full(100_000, 0.5), np.arange(100_000) >= 10_000)
    assert least_aurc(images) == pytest.approx(0.1 + 0.9 * np.log(0.9), abs=1e-5)


def test_the_interval_of_the_aurc_is_as_wide_as_by_a_jackknife():
    images = drawn(300, np.random.default_rng(0))
    kept = [np.arange(300) != place for place in range(300)]
    without_one = [aurc(Predicted(images.probability[rows], images.right[rows])) for rows in kept]
    error = np.sqrt(299) * np.std(without_one)  # Efron and Tibshirani 1993, equation 11.5
    low, high = aurc_interval(images)
    assert low < aurc(images) < high
    assert high - low == pytest.approx(2 * 1.96 * error, rel=0.04)


def test_groups_widen_the_intervals_of_the_curve():
    single = drawn(100, np.random.default_rng(0))
    probability, right = np.repeat(single.probability, 9), np.repeat(single.right, 9)
    copies = Predicted(probability, right), Predicted(probability, right, np.repeat(np.arange(100), 9))
    (low, high), (low_of_groups, high_of_groups) = map(aurc_interval, copies)
    assert high_of_groups - low_of_groups == pytest.approx(3 * (high - low), rel=0.15)
    rows = at_thresholds(copies[0], np.array([0.0, 0.7, 0.9]))
    alone, grouped = (with_intervals(each, rows) for each in copies)
    assert ((grouped["high"] - grouped["low"]) / (alone["high"] - alone["low"])).between(2.4, 3.6).all()


def test_without_a_mistake_each_group_counts_once():
    right = np.array([True, True, True, True, False])
    images = Predicted(np.array([0.9, 0.9, 0.9, 0.8, 0.4]), right, np.array([0, 0, 0, 1, 2]))
    rows = with_intervals(images, at_thresholds(images, np.array([0.5, 0.85, 0.95])))
    z = norm.ppf(0.975)
    assert rows["low"].tolist() == pytest.approx([2 / (2 + z**2), 1 / (1 + z**2), np.nan], nan_ok=True)  # Wilson 1927
    assert rows["high"].tolist() == pytest.approx([1, 1, np.nan], nan_ok=True)
    one_group = Predicted(images.probability, right, np.zeros(5, dtype=int))
    assert with_intervals(one_group, at_thresholds(one_group, np.array([0.0])))["low"].isna().all()


# --- from logits -----------------------------------------------------------------------------------------


def made_up(seed: int = 0, members: int = 3, number: int = 50) -> tuple[dict[str, Logits], dict[str, str]]:
    rng, classes = np.random.default_rng(seed), ("a", "b", "c", "d")
    ids = np.array([f"{place}.png" for place in range(number)], dtype=object)
    target = rng.integers(0, 4, number)
    logits = {
        f"fold{each}": Logits(ids, (rng.normal(size=(number, 4)) + 2 * np.eye(4)[target]).astype("f4"), classes)
        for each in range(members)
    }
    return logits, {image_id: classes[place] for image_id, place in zip(ids, target, strict=True)}


@pytest.mark.parametrize(("method", "temperature"), [*((each, None) for each in METHODS), ("average", 0.7)])
def test_accepted_images_are_those_that_kfold_predict_does_not_mark_unsure(method, temperature):
    members, label_of = made_up()
    about = About(
        classes=("a", "b", "c", "d"),
        members=(),
        method=method,
        temperature=temperature,
        scores={},
        licences={},
        versions={},
    )
    scores, sure = combine(members, method), combine(members, sure_by(method))
    if temperature:
        scores = sure = at_temperature(scores, temperature)
    images = predicted(scores, sure, label_of)
    for p in (0.4, 0.6, 0.75):
        columns = Columns(min_probability=p)
        place = columns.header(about.classes).index("unsure")
        rows = columns.rows(answers_of(members, about))
        kept = {image: row[1] for image, row in rows.items() if row[place] == "no"}
        (row,) = at_thresholds(images, np.array([p])).itertuples()
        assert row.images == len(kept) > 0
        assert row.accuracy == pytest.approx(np.mean([label_of[image] == label for image, label in kept.items()]))


def test_intervals_at_full_coverage_equal_those_of_the_score():
    members, label_of = made_up()
    logits = combine(members, "average")
    group_of = {image_id: str(place // 4) for place, image_id in enumerate(logits.image_id)}
    for groups in ({}, group_of):
        images = predicted(logits, logits, label_of, groups)
        (row,) = with_intervals(images, at_thresholds(images, np.array([0.0]))).itertuples()
        entry = score(logits, label_of, group_of=groups)
        assert (row.accuracy, row.images) == (entry["accuracy"], entry["images"])
        assert (row.low, row.high) == pytest.approx((entry["low"], entry["high"]))


def test_images_without_a_label_do_not_count():
    members, label_of = made_up()
    logits = combine(members, "average")
    some = {image_id: label for image_id, label in label_of.items() if image_id < "3"} | {"0.png": ""}
    assert len(predicted(logits, logits, some).right) == len(some) - 1
