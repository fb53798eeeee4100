import numpy as np
import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st
from sklearn.calibration import calibration_curve

from kfold_ens.logits import Logits
from kfold_ens.report import tables

CLASSES = ("2", "10", "007")
PREDICTED = ["2", "2", "10", "007", "2", "10"]
TRUTH = ["2", "10", "10", "007", "007", "10"]


def logits_of(predicted, scale=1.0, classes=CLASSES):
    values = scale * np.eye(len(classes))[[classes.index(each) for each in predicted]]
    return Logits(np.arange(len(predicted)).astype(str).astype(object), values, classes)


LOGITS = logits_of(PREDICTED)
LABELS = np.array(TRUTH, dtype=object)


def test_rows_are_true_classes_and_columns_predicted_ones():
    logits, truth = tables.labelled(LOGITS, dict(zip(LOGITS.image_id, TRUTH, strict=True)))
    assert tables.confusion_counts(logits, truth).tolist() == [[1, 0, 0], [1, 2, 0], [1, 0, 1]]


def test_images_without_a_label_are_skipped():
    logits, truth = tables.labelled(LOGITS, {"0": "2", "1": "", "3": "007"})
    assert (logits.image_id.tolist(), truth.tolist()) == (["0", "3"], ["2", "007"])


def test_the_worst_class_comes_first():
    table = tables.per_class(LOGITS, LABELS).round(4)
    assert table.to_dict("records") == [
        {"class": "007", "recall": 0.5, "precision": 1, "images": 2},
        {"class": "10", "recall": 0.6667, "precision": 1, "images": 3},
        {"class": "2", "recall": 1, "precision": 0.3333, "images": 1},
    ]


def test_a_class_without_images_has_no_recall():
    table = tables.per_class(logits_of(["2"]), np.array(["2"], dtype=object)).set_index("class")
    assert table["recall"].isna().to_dict() == {"2": False, "10": True, "007": True}


def test_confused_pairs_skip_correct_predictions():
    table = tables.most_confused(np.array([[9, 0, 2], [3, 9, 0], [0, 0, 9]]), CLASSES, most=9)
    expected = {"true": ["10", "2"], "predicted": ["2", "007"], "images": [3, 2], "share": [0.25, 2 / 11]}
    pd.testing.assert_frame_equal(table, pd.DataFrame(expected), check_dtype=False)


def test_the_most_confident_mistake_comes_first():
    logits = Logits(LOGITS.image_id, LOGITS.values * np.array([[1], [2], [9], [9], [3], [9]]), CLASSES)
    table = tables.mistakes(logits, LABELS)
    assert table["image_id"].tolist() == ["4", "1"]
    assert table["confidence"].tolist() == pytest.approx([np.exp(n) / (np.exp(n) + 2) for n in (3, 2)])
    assert table["given"].tolist() == pytest.approx([1 / (np.exp(n) + 2) for n in (3, 2)])


def test_swapped_labels_are_found():
    labels = np.array(["2", "10", "007"] * 40, dtype=object)
    logits = logits_of(labels.tolist(), scale=6)
    labels[[5, 60]] = "2", "10"
    assert set(tables.label_errors(logits, labels)["image_id"]) == {"5", "60"}
    assert tables.label_errors(logits_of(TRUTH), LABELS).empty


@pytest.mark.parametrize("truth", [["2"] * 6, ["2", "10", "2", "10", "2", "10"]])
def test_classes_may_be_absent_from_finished_folds(truth):
    assert set(tables.label_errors(LOGITS, np.array(truth, dtype=object)).columns) >= {"image_id", "true", "predicted"}


@given(st.lists(st.tuples(st.floats(0.05, 1), st.booleans()), min_size=1, max_size=60))
def test_bins_equal_those_of_scikit_learn(outcomes):
    confidence, right = (np.array(each) for each in zip(*outcomes, strict=True))
    edge = np.isclose(confidence * 15, np.round(confidence * 15))
    confidence[edge] = np.clip(confidence[edge] - 0.01, 0, 1)  # the two assign edges to different bins
    bins = tables.calibration(confidence, right)
    accuracy, mean = calibration_curve(right, confidence, n_bins=15)
    assert bins["accuracy"].tolist() == pytest.approx(accuracy.tolist())
    assert bins["confidence"].tolist() == pytest.approx(mean.tolist())
    assert bins["images"].sum() == len(outcomes)


def test_the_calibration_error_is_the_mean_gap_of_its_bins():
    bins = tables.calibration(np.array([0.95, 0.95, 0.65, 1.0]), np.array([True, False, True, True]))
    assert tables.calibration_error(bins) == pytest.approx((abs(1 - 0.65) + abs(2 - 0.95 - 0.95 - 1.0)) / 4)
    assert tables.calibration_error(tables.calibration(np.array([0.5, 0.5]), np.array([True, False]))) == 0


MEMBERS = [logits_of(each) for each in (["2", "2", "10"], ["2", "10", "10"], ["2", "007", "10"])]


def test_votes_are_joined_by_image():
    shuffled = Logits(MEMBERS[1].image_id[::-1], MEMBERS[1].values[::-1], CLASSES)
    table = tables.votes([MEMBERS[0], shuffled, MEMBERS[2]])
    assert table.loc["1"].tolist() == ["2", "10", "007"]
    assert tables.majority_sizes(table).tolist() == [3, 1, 3]


def test_agreement_is_the_share_of_equal_predictions():
    shares = tables.agreement(tables.votes(MEMBERS))
    assert shares == pytest.approx(np.array([[1, 2 / 3, 2 / 3], [2 / 3, 1, 2 / 3], [2 / 3, 2 / 3, 1]]))


def test_only_images_on_which_folds_disagree_are_disputed():
    table = tables.disputed(tables.votes(MEMBERS), pd.Series({"0": 0.9, "1": 0.4, "2": 0.8}))
    assert table.to_dict("records") == [
        {"image_id": "1", "majority": 1, "votes": "2 1, 10 1, 007 1", "confidence": 0.4}
    ]
