"""Probabilities and k labels, and the checks of a written submission."""

from decimal import Decimal

import numpy as np
import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st

from kfold_ens.config import Submission
from kfold_ens.ensemble.forms import resolved
from kfold_ens.ensemble.kinds import rounded
from kfold_ens.ensemble.submission import build_submission, check_submission, predicted_labels
from kfold_ens.errors import DataError, KfoldError
from kfold_ens.files import read_table, write_table
from kfold_ens.logits import Logits

CLASSES = ("cat", "dog", "owl")
TEST = pd.DataFrame({"image_id": ["test/b.png", "test/a.png"], "name": ["b.png", "a.png"]})
LOGITS = Logits(
    np.array(["test/a.png", "test/b.png"], dtype=object), np.log([[0.2, 0.5, 0.3], [1 / 3, 1 / 3, 1 / 3]]), CLASSES
)
ROWS = st.integers(1, 40).flatmap(lambda k: st.lists(st.lists(st.floats(-50, 50), min_size=k, max_size=k), min_size=1))


@given(ROWS, st.integers(1, 12))
def test_rounded_rows_sum_to_one_with_errors_below_the_last_decimal(logits, decimals):
    powers = np.exp(np.array(logits) - np.max(logits, axis=1, keepdims=True))
    chances = powers / powers.sum(axis=1, keepdims=True)
    parts = rounded(chances, decimals)
    assert (parts.sum(axis=1) == 10**decimals).all()
    assert (parts >= 0).all()
    assert (abs(parts - chances * 10.0**decimals) < 1 + 1e-3).all()


def form_of(**columns):
    return resolved(Submission(**columns), "stem", TEST, CLASSES)


def written(path, form, logits=LOGITS):
    write_table(path, build_submission(logits, form))
    check_submission(str(path), form)
    return path.read_text()


@pytest.mark.parametrize(
    ("columns", "expected"),
    [
        ({}, "image_name,pred_label\nb,cat\na,dog\n"),
        (
            {"kind": "probabilities", "decimals": 2},
            "image_name,cat,dog,owl\nb,0.34,0.33,0.33\na,0.20,0.50,0.30\n",
        ),
        (
            {"kind": "probabilities", "class_prefix": "p_", "id_column": "id", "id_prefix": "test/", "decimals": 1},
            "id,p_cat,p_dog,p_owl\ntest/b,0.4,0.3,0.3\ntest/a,0.2,0.5,0.3\n",
        ),
        ({"kind": "top_k", "k": 2}, "image_name,pred_label\nb,cat dog\na,dog owl\n"),
        (
            {"kind": "top_k", "k": 3, "separator": "|", "label_column": "best", "names": "file"},
            "image_name,best\nb.png,cat|dog|owl\na.png,dog|owl|cat\n",
        ),
    ],
)
def test_every_kind_is_written_without_a_sample(columns, expected, tmp_path):
    form = form_of(**columns)
    assert written(tmp_path / "submission.csv", form) == expected
    assert predicted_labels(read_table(tmp_path / "submission.csv"), form).tolist() == ["cat", "dog"]


def test_columns_and_rows_have_the_order_of_the_sample(tmp_path):
    (tmp_path / "sample.csv").write_text("p_owl,p_cat,id,p_dog\n0,0,a,1\n0,0,b,1\n")
    form = form_of(sample=str(tmp_path / "sample.csv"), decimals=2)
    expected = "p_owl,p_cat,id,p_dog\n0.30,0.20,a,0.50\n0.34,0.33,b,0.33\n"
    assert written(tmp_path / "submission.csv", form) == expected


@pytest.mark.parametrize(
    ("columns", "old", "new", "finding"),
    [
        ({"kind": "probabilities", "decimals": 2}, "0.50", "0.51", "every row sums to 1"),
        ({"kind": "probabilities", "decimals": 2}, "0.50", "-0.50", "a number from 0 to 1"),
        ({"kind": "probabilities", "decimals": 2}, "0.50", "half", "a number from 0 to 1"),
        ({"kind": "probabilities", "decimals": 2}, "cat,dog", "dog,cat", "the header is image_name,cat,dog,owl"),
        ({"kind": "probabilities", "decimals": 2}, "a,0.20", "b,0.20", "no image is listed twice"),
        ({"kind": "top_k", "k": 2}, "dog owl", "dog emu", "one of the 3 training classes"),
        ({"kind": "top_k", "k": 2}, "dog owl", "dog dog", "every row has 2 different labels"),
        ({"kind": "top_k", "k": 2}, "dog owl", "dog", "every row has 2 different labels"),
        ({"kind": "top_k", "k": 2}, "a,dog owl\n", "", "there are 2 rows"),
    ],
)
def test_a_changed_submission_is_refused(columns, old, new, finding, tmp_path):
    form, path = form_of(**columns), tmp_path / "submission.csv"
    text = written(path, form)
    assert old in text
    path.write_text(text.replace(old, new))
    with pytest.raises(KfoldError, match=finding):
        check_submission(str(path), form)


@pytest.mark.parametrize(
    ("columns", "finding"),
    [
        ({"kind": "top_k"}, "submission.k: 5 is more than the 3 classes"),
        ({"kind": "top_k", "k": 2, "separator": "o"}, "'o' occurs in labels.*\n  'dog'\n  'owl'"),
        ({"kind": "probabilities", "id_column": "dog"}, "'dog' is also the column of a class"),
    ],
)
def test_options_that_do_not_fit_the_classes_are_refused(columns, finding):
    with pytest.raises(DataError, match=finding):
        form_of(**columns)


def test_decimals_are_exact_in_the_file(tmp_path):
    text = written(tmp_path / "submission.csv", form_of(kind="probabilities"))
    for line in text.splitlines()[1:]:
        assert sum(map(Decimal, line.split(",")[1:])) == 1
