import math

import numpy as np
import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st

from kfold_ens.config import Scoring, Submission
from kfold_ens.ensemble.known_labels import known_groups, known_labels
from kfold_ens.ensemble.metrics import difference, differences, paired_difference, score
from kfold_ens.ensemble.score_table import as_text, cell, headline_entry, interval_in_words
from kfold_ens.ensemble.summary import summarize
from kfold_ens.errors import DataError
from kfold_ens.logits import Logits

Z = 1.959963984540054  # the normal distribution's 97.5% point
COLUMNS = Submission()


def predicting(labels, first=0, classes=("7", "007")):
    """Logits of images img0, img1, ... that predict these labels."""
    ids = np.array([f"img{first + index}" for index in range(len(labels))], dtype=object)
    return Logits(ids, np.array([[label == name for name in classes] for label in labels], dtype=np.float32), classes)


@given(st.integers(1, 400).flatmap(lambda images: st.tuples(st.integers(0, images), st.just(images))))
def test_accuracy_has_wilsons_interval(counts):
    correct, images = counts
    result = score(predicting(["7"] * images), {f"img{i}": "7" if i < correct else "007" for i in range(images)})
    p = correct / images
    centre = (p + Z**2 / (2 * images)) / (1 + Z**2 / images)
    half = Z / (1 + Z**2 / images) * math.sqrt(p * (1 - p) / images + Z**2 / (4 * images**2))
    expected = {"accuracy": p, "low": centre - half, "high": centre + half, "correct": correct, "images": images}
    assert {name: result[name] for name in expected} == pytest.approx(expected, abs=1e-12)


@pytest.mark.parametrize(
    ("label_of", "counts"),
    [
        ({"img0": "7", "img1": "7", "img2": "7"}, (2, 3)),
        ({"img0": "7", "img1": "007", "img2": ""}, (2, 2)),
        ({"img2": "elsewhere", "img9": "7"}, (0, 1)),
        ({"img0": "", "img9": "7"}, None),
        ({}, None),
    ],
)
def test_only_images_with_a_label_count(label_of, counts):
    result = score(predicting(["7", "007", "7"]), label_of)
    assert counts == (result and (result["correct"], result["images"]))


def test_a_metric_without_a_value_gives_the_reason():
    alike = predicting(["7"] * 4, classes=("7", "8", "9"))
    labels = {f"img{index}": "7" for index in range(4)}
    for metric, why in (("quadratic_kappa", "are one class"), ("roc_auc", "there are no images of class 8, 9")):
        scoring = Scoring(metric=metric)
        entry = score(alike, labels, scoring)
        assert (entry[metric], entry["low"]) == (None, None)
        assert why in entry["why"]
        assert why in cell(entry, metric)
        assert difference(alike, alike, labels, scoring) == {"difference": None, "low": None, "high": None}
    assert score(alike, labels, Scoring(metric="roc_auc"), has_probabilities=False)["why"].startswith("a vote")


def test_scores_of_an_earlier_version_are_shown():
    entry = {"accuracy": 0.5, "low": 0.4, "high": 0.6, "correct": 1, "images": 2}
    old = {"folds": {"0": {"out_of_fold": entry, "test": None}}, "out_of_fold": entry, "methods": {}}
    assert "0.5000 (0.4000 to 0.6000)" in as_text(old, "average")


def test_a_metric_that_does_not_fit_the_classes_is_not_scored():
    logits = predicting(["7", "007"])
    with pytest.raises(DataError, match="only 2 classes"):
        summarize({0: logits}, {0: logits}, {}, {}, Scoring(metric="top_3_accuracy"))


def test_the_summary_scores_all_folds_and_methods():
    oof = {0: predicting(["7", "7"]), 1: predicting(["007"], first=2)}
    test = {fold: predicting(["7"], first=3 + fold) for fold in oof}
    summary = summarize(oof, test, {"vote": predicting(["007"], first=3)}, {f"img{i}": "7" for i in range(4)})
    assert summary["out_of_fold"]["correct"] == 2
    assert summary["out_of_fold"]["images"] == 3
    assert [summary["folds"][fold]["out_of_fold"]["accuracy"] for fold in "01"] == [1, 0]
    assert [summary["folds"]["0"]["test"]["accuracy"], summary["folds"]["1"]["test"]] == [1, None]
    assert summary["methods"]["vote"]["test"]["accuracy"] == 0
    lines = as_text(summary, chosen="vote").splitlines()
    assert [line.split()[0] for line in lines] == ["accuracy", "fold", "fold", "all", "vote"]
    assert "labels unknown" in lines[2]
    assert "0.6667 (0.2077 to 0.9385)" in lines[3]
    assert "vote *" in lines[4]


def test_groups_widen_the_interval_of_a_score():
    right = [group % 3 > 0 for group in range(30) for _ in range(10)]
    logits = predicting(["7" if each else "007" for each in right])
    label_of = {f"img{i}": "7" for i in range(300)}
    group_of = {f"img{i}": str(i // 10) for i in range(300)}
    alone, together = score(logits, label_of), score(logits, label_of, group_of=group_of)
    assert "groups" not in alone
    assert together["groups"] == 30
    assert together["accuracy"] == alone["accuracy"]
    half = 1.96 * np.sqrt(2 / 9 / 29)  # of 30 groups, ten of them wrong
    assert together["high"] - together["low"] == pytest.approx(2 * half, rel=0.1)
    assert together["high"] - together["low"] > 2 * (alone["high"] - alone["low"])
    assert score(logits, label_of, group_of={f"img{i}": str(i) for i in range(300)}) == alone
    other = predicting(["7"] * 300)
    wide, narrow = difference(other, logits, label_of, group_of=group_of), difference(other, logits, label_of)
    assert wide["difference"] == pytest.approx(narrow["difference"])
    assert wide["high"] - wide["low"] > 2 * (narrow["high"] - narrow["low"])


def test_a_score_names_the_number_of_classes_it_was_measured_on():
    """Images of class 9 only train; class 8 is in the other fold."""
    classes = ("7", "8", "9")
    oof = {0: predicting(["7"] * 4, classes=classes), 1: predicting(["7", "8"], first=4, classes=classes)}
    labels = {f"img{index}": "8" if index == 5 else "7" for index in range(6)}
    metrics = summarize(oof, oof, {"average": oof[0], "vote": oof[0]}, labels)
    assert [metrics["folds"][fold]["out_of_fold"]["classes"] for fold in "01"] == [1, 2]
    assert "on 2 of 3 classes" in cell(metrics["out_of_fold"], "accuracy")
    assert as_text(metrics, "average").count("of 3 classes") == 7
    whole = summarize({0: predicting(["7", "007"])}, {0: oof[0]}, {}, {"img0": "7", "img1": "007"})
    assert "classes" not in whole["out_of_fold"]


def test_groups_count_in_every_score_and_difference_of_a_summary():
    labels = [str(number % 2) for number in range(40)]
    logits = predicting([label if number % 8 > 3 else "0" for number, label in enumerate(labels)], classes=("0", "1"))
    label_of = {f"img{number}": label for number, label in enumerate(labels)}
    group_of = {f"img{number}": str(number // 4) for number in range(40)}
    of_images, of_groups = (
        summarize(
            {0: logits}, {0: logits}, {"average": predicting(labels, classes=("0", "1"))}, label_of, group_of=each
        )
        for each in ({}, group_of)
    )
    for side in ("out_of_fold", "test"):
        assert of_groups["folds"]["0"][side]["groups"] == 10
    assert of_groups["out_of_fold"]["groups"] == 10
    wide, narrow = of_groups["differences"][0], of_images["differences"][0]
    assert wide["high"] - wide["low"] > 1.15 * (narrow["high"] - narrow["low"])
    assert "whole groups" in interval_in_words(of_groups)
    assert interval_in_words(of_images) == "Wilson's 95% interval"


@pytest.mark.parametrize("temperature", [1.0, 2.0])
@pytest.mark.parametrize("has_labels", [False, True])
def test_the_headline_scores_what_is_submitted(has_labels, temperature):
    def entry(number):
        return {"accuracy": number}

    metrics = {
        "folds": {},
        "out_of_fold": entry(1),
        "methods": {"average": {"test": entry(2) if has_labels else None}},
        "calibrated": {
            "temperature": temperature,
            "out_of_fold": entry(3),
            "methods": {"average": {"test": entry(4) if has_labels else None}},
        },
    }
    own, what = headline_entry(metrics, "average")
    assert own["accuracy"] == {(False, 1): 1, (True, 1): 2, (False, 2): 3, (True, 2): 4}[has_labels, temperature]
    assert ("calibrated" in what) == (temperature != 1)


def test_groups_are_read_from_manifests_with_and_without_them():
    assert known_groups(MANIFEST) == {}
    grouped = MANIFEST.iloc[:3].assign(group=["p1", "", "p1"])
    both = pd.concat([grouped, MANIFEST.iloc[3:]], ignore_index=True)
    assert known_groups(both) == {"train/1.png": "p1", "train/3.png": "p1"}


MANIFEST = pd.DataFrame(
    {
        "image_id": ["train/1.png", "train/2.png", "train/3.png", "test/a.png", "test/b.png", "test/c.png"],
        "name": ["1.png", "2.png", "3.png", "a.png", "b.png", "c.png"],
        "split": ["train", "train", "train", "test", "test", "test"],
        "label": ["7", "007", 'a, "b"', "", "", "8"],
    }
)


def test_test_labels_are_joined_by_the_names_in_the_submission(tmp_path):
    table = tmp_path / "truth.csv"
    table.write_text('other,pred_label,image_name\nx,007,b\ny,"a, ""b""",a\n')
    assert known_labels(MANIFEST, str(table), COLUMNS, "stem") == {
        "train/1.png": "7",
        "train/2.png": "007",
        "train/3.png": 'a, "b"',
        "test/a.png": 'a, "b"',
        "test/b.png": "007",
        "test/c.png": "8",
    }
    assert known_labels(MANIFEST, None, COLUMNS, "stem") == dict(zip(MANIFEST.image_id, MANIFEST.label, strict=True))


@pytest.mark.parametrize(
    ("text", "names", "message"),
    [
        ("image_name,pred_label\na,7\nz,7\n", "stem", "not test images; remove them:\n  z"),
        ("image_name,pred_label\na,7\n", "file", "not test images; remove them:\n  a"),
        ("image_name,pred_label\na,7\nb,7\na,8\n", "stem", "twice; keep one row each:\n  a$"),
        (
            "image_name,pred_label\na,07\nb,A\n",
            "stem",
            "no training image has; correct or delete these labels:\n  07\n  A$",
        ),
        ("image_name,label\na,7\n", "stem", r"\n  config.yaml needs 'pred_label' .submission.label_column."),
        ("image_name;Pred_label\na;7\n", "stem", "semicolons.*\n  has 'Pred_label', config.yaml needs 'pred_label'"),
        (
            "image_name,pred_label\nA.png,7\n",
            "stem",
            r"not test images; remove them:\n  A.png: did you mean a\? .upper or",
        ),
        ("image_name,pred_label\n", "stem", "but no rows"),
    ],
)
def test_test_labels_that_do_not_fit_are_refused(text, names, message, tmp_path):
    table = tmp_path / "truth.csv"
    table.write_text(text)
    with pytest.raises(DataError, match=f"{table} .*{message}"):
        known_labels(MANIFEST, str(table), COLUMNS, names)


def outcomes(*right):
    return pd.Series(right, index=[f"image {number}" for number in range(len(right))], dtype=bool)


def test_a_paired_difference_compares_the_same_images():
    some, others = outcomes(1, 1, 1, 0, 1, 1), outcomes(0, 0, 1, 1, 1, 1)
    found = paired_difference(some, others[::-1])
    assert found["difference"] == pytest.approx(1 / 6)
    b, c, n = 2.5, 1.5, 8  # Agresti and Min: half an image more in each cell of the table
    half = 1.959964 * ((b + c) / n - ((b - c) / n) ** 2) ** 0.5 / n**0.5
    assert (found["low"], found["high"]) == pytest.approx(((b - c) / n - half, (b - c) / n + half))
    mirrored = paired_difference(others, some)
    assert (-mirrored["high"], -mirrored["low"]) == pytest.approx((found["low"], found["high"]))


def test_the_paired_interval_covers_the_truth_as_often_as_claimed():
    random = np.random.default_rng(0)
    both, one, other, _ = range(4)  # which of the two predict an image correctly
    intervals = []
    for _ in range(2000):
        cells = random.choice(4, size=300, p=[0.85, 0.06, 0.03, 0.06])
        intervals.append(paired_difference(outcomes(*(cells <= one)), outcomes(*np.isin(cells, [both, other]))))
    covered = np.mean([each["low"] <= 0.03 <= each["high"] for each in intervals])
    assert 0.93 <= covered <= 0.97


def test_every_pair_has_a_difference_and_none_without_labels():
    logits = {name: Logits(np.array(["a", "b"], object), np.eye(2), ("x", "y")) for name in ("one", "two", "three")}
    pairs = [(each["of"], each["to"]) for each in differences(logits, {"a": "x", "b": "y"})]
    assert pairs == [("two", "one"), ("three", "one"), ("three", "two")]
    assert differences(logits, {"a": "", "b": ""}) == []
