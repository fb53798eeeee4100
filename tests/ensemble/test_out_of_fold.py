"""Out-of-fold predictions over repeats, against a plain computation image by image."""

import numpy as np
import pytest

from kfold_ens.config import Scoring
from kfold_ens.ensemble.combine import METHODS, sure_by
from kfold_ens.ensemble.metrics import score
from kfold_ens.ensemble.out_of_fold import combined_over_repeats
from kfold_ens.ensemble.summary import summarize
from kfold_ens.logits import Logits, concatenated

CLASSES = ("7", "007", "cat")
IDS = [f"img{number}" for number in range(11)]


def repeats_of(number, folds=3, seed=0):
    """Folds of some repeats; each repeat splits the images in another order."""
    random = np.random.default_rng(seed)
    made = []
    for _ in range(number):
        order = random.permutation(IDS)
        for ids in np.array_split(order, folds):
            values = random.normal(size=(len(ids), len(CLASSES))).astype(np.float32)
            made.append(Logits(np.array(ids, dtype=object), values, CLASSES))
    return made


def rows_by_image(folds):
    """Each image's rows of logits, over all folds."""
    rows = {}
    for fold in folds:
        for image, row in zip(fold.image_id, fold.values.astype(np.float64), strict=True):
            rows.setdefault(image, []).append(row)
    return rows


def softmax(row):
    return np.exp(row - row.max()) / np.exp(row - row.max()).sum()


PLAIN = {
    "average": lambda rows: np.mean(rows, axis=0),
    "softmax": lambda rows: np.log(np.mean([softmax(row) for row in rows], axis=0)),
}


@pytest.mark.parametrize("method", PLAIN)
@pytest.mark.parametrize("missing", [(), (1,), (3, 7)])
def test_predictions_are_averaged_over_repeats_per_image(method, missing):
    folds = [fold for place, fold in enumerate(repeats_of(3)) if place not in missing]
    combined = concatenated(combined_over_repeats(folds, method))
    rows = rows_by_image(folds)
    assert sorted(combined.image_id) == sorted(rows)
    for image, row in zip(combined.image_id, combined.values, strict=True):
        assert row == pytest.approx(PLAIN[method](rows[image]), abs=1e-6)


def test_votes_are_counted_over_repeats():
    folds = repeats_of(3)
    combined = concatenated(combined_over_repeats(folds, "vote"))
    rows = rows_by_image(folds)
    for image, row in zip(combined.image_id, combined.values, strict=True):
        votes = np.bincount([each.argmax() for each in rows[image]], minlength=len(CLASSES))
        assert np.floor(row + 1e-9).tolist() == votes.tolist()


def test_images_stay_in_the_folds_of_repeat_0():
    folds = repeats_of(2)
    combined = combined_over_repeats(folds, "average")
    assert [list(fold.image_id) for fold in combined] == [list(fold.image_id) for fold in folds[:3]]


@pytest.mark.parametrize("method", METHODS)
def test_without_repeats_no_bit_changes(method):
    folds = repeats_of(1)
    combined = combined_over_repeats(folds, method)
    assert all(one is other for one, other in zip(combined, folds, strict=True))


def test_the_out_of_fold_score_is_of_the_averaged_predictions():
    folds, random = repeats_of(2), np.random.default_rng(1)
    label_of = {image: random.choice(CLASSES) for image in IDS}
    numbers = [0, 1, 2, "0 of repeat 1", "1 of repeat 1", "2 of repeat 1"]
    oof = dict(zip(numbers, folds, strict=True))
    metrics = summarize(oof, oof, {}, label_of, over_repeats="average")
    right = sum(
        CLASSES[PLAIN["average"](rows).argmax()] == label_of[image] for image, rows in rows_by_image(folds).items()
    )
    assert (metrics["out_of_fold"]["correct"], metrics["out_of_fold"]["images"]) == (right, len(IDS))
    assert list(metrics["folds"]) == list(map(str, numbers))
    assert metrics["folds"]["1 of repeat 1"]["out_of_fold"] == score(folds[4], label_of)
    vote = summarize(oof, oof, {}, label_of, Scoring(), over_repeats="vote")["out_of_fold"]
    assert vote["log_loss"] is None


def test_pages_about_confidence_replace_a_vote():
    assert [sure_by(method) for method in METHODS] == ["average", "softmax", "softmax"]
