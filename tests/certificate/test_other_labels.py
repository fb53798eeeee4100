"""The labels that a certificate gives to a fold's held-out images."""

from collections import Counter

import numpy as np
import pandas as pd
import pytest

from kfold_ens.certificate.labels import other_labels, with_other_labels

CLASSES = ("a", "b", "c")


def split_of(labels, folds):
    ids = [f"{index}.png" for index in range(len(labels))]
    return pd.DataFrame({"image_id": ids, "sha256": ids[::-1], "label": labels, "fold": folds})


@pytest.mark.parametrize(
    "labels",
    [list("abc") * 5, list("aabbbbccccccc"), list("ab") * 4, list("abc"), list("ab")],
    ids=["balanced", "unbalanced", "two classes", "one image each", "two images"],
)
@pytest.mark.parametrize("seed", range(5))
def test_other_labels_differ_in_images_and_in_numbers_per_class(labels, seed):
    classes = sorted(set(labels))
    other = other_labels(labels, classes, seed)
    assert sum(one != two for one, two in zip(labels, other, strict=True)) >= len(labels) / 2
    assert Counter(other) != Counter(labels)
    assert set(other) <= set(classes)


def test_most_labels_change_and_every_class_stays():
    labels = list("abcd") * 20
    other = other_labels(labels, tuple("abcd"), 0)
    assert (np.array(labels) != other).mean() > 0.9
    assert set(other) == set("abcd")


def test_a_fold_of_one_class_gets_labels_of_another_class():
    assert Counter(other_labels(["a"] * 6, CLASSES, 0)) == {"a": 3, "b": 3}
    assert other_labels(["a"], CLASSES, 0).tolist() == ["b"]


def test_only_labels_of_the_fold_change_and_its_images_stay():
    split = split_of(list("abc") * 4, ["0", "1", "-1"] * 2 + ["1", "0", "0"] * 2)
    other = with_other_labels(split, 0, CLASSES, 3)
    held_out = split["fold"] == "0"
    assert other.drop(columns="label").equals(split.drop(columns="label"))
    assert other.loc[~held_out, "label"].equals(split.loc[~held_out, "label"])
    assert not other.loc[held_out, "label"].equals(split.loc[held_out, "label"])


def test_the_same_seed_gives_the_same_labels_whatever_the_order_of_rows_and_another_seed_others():
    split = split_of(list("abc") * 8, ["0", "1"] * 12)
    one = with_other_labels(split, 1, CLASSES, 0)
    shuffled = with_other_labels(split.sample(frac=1, random_state=1), 1, CLASSES, 0).sort_index()
    assert shuffled.equals(one)
    assert not with_other_labels(split, 1, CLASSES, 1).equals(one)
