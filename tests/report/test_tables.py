import numpy as np
import pandas as pd

from kfold_ens.exchange import Logits
from kfold_ens.report.tables import confusion_counts, most_confused, per_class, truth_of

CLASSES = ("2", "10", "007")
PREDICTED = ["2", "2", "10", "007", "2", "10"]
TRUTH = ["2", "10", "10", "007", "007", "10"]
LOGITS = Logits(
    np.arange(6).astype(str).astype(object), np.eye(3)[[CLASSES.index(each) for each in PREDICTED]], CLASSES
)


def test_rows_are_true_and_columns_predicted_in_the_classes_order():
    truth = truth_of(LOGITS, dict(zip(LOGITS.image_id, TRUTH, strict=True)))
    assert confusion_counts(LOGITS, truth).tolist() == [[1, 0, 0], [1, 2, 0], [1, 0, 1]]


def test_the_worst_class_comes_first():
    table = per_class(LOGITS, np.array(TRUTH, dtype=object))
    assert table.to_dict("records") == [
        {"class": "007", "recall": 0.5, "precision": 1, "images": 2},
        {"class": "10", "recall": 0.6667, "precision": 1, "images": 3},
        {"class": "2", "recall": 1, "precision": 0.3333, "images": 1},
    ]


def test_confused_pairs_leave_out_what_is_right():
    table = most_confused(np.array([[9, 0, 2], [3, 9, 0], [0, 0, 9]]), CLASSES)
    expected = {"true": ["10", "2"], "predicted": ["2", "007"], "images": [3, 2], "share": [0.25, 0.1818]}
    pd.testing.assert_frame_equal(table, pd.DataFrame(expected), check_dtype=False)
