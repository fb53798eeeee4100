"""The report's chapter on the images."""

import pandas as pd

from kfold_ens.report.data import facts, far_outside, the_split

MANIFEST = pd.DataFrame({"image_id": ["a", "b"], "split": "train", "width": [20, 9000], "height": 20})


class Decoded:
    """A store with or without measures of its images."""

    def __init__(self, looks):
        self.looks = lambda: looks


def test_unmeasured_images_are_not_called_ordinary():
    (words,) = far_outside(MANIFEST, Decoded(pd.DataFrame(columns=["mean", "contrast"])))
    assert "Not searched, because an earlier version decoded these images" in words


def test_ordinary_images_give_no_outliers():
    looks = pd.DataFrame({"mean": [100.0, 110.0], "contrast": 50.0}, index=["a", "b"])
    (words,) = far_outside(MANIFEST.assign(width=20), Decoded(looks))
    assert "There are none" in words


def split_of(labels, folds, **columns):
    ids = [f"train/{place}.png" for place in range(len(labels))]
    split = pd.DataFrame({"image_id": ids, "sha256": ids, "label": labels, "fold": list(map(str, folds))})
    train = split.drop(columns="fold").assign(split="train", width=8, height=8, **columns)
    test = pd.DataFrame({"image_id": ["test/a"], "sha256": "t", "label": "", "split": "test", "width": 8, "height": 8})
    return pd.concat([train, test.assign(**{name: "x" if name == "group" else "" for name in columns})]), split


def test_the_table_of_the_split_shows_groups_and_train_only_images():
    extra = ["", "", "", "", "yes"]
    manifest, folds = split_of(list("abaab"), [0, 1, 1, 0, -1], group=list("xyzw") + [""], extra=extra)
    blocks = "".join(map(str, the_split(manifest, folds)))
    for words in ("fold 0", "fold 1", "train only", "groups", "all classes"):
        assert words in blocks
    assert "b: none in fold 0 (1 images in other folds)" in blocks
    assert "1 of 1 groups of test images also occur in the training images (1 test images)" in blocks
    assert facts(manifest, ["a", "b"])["training images"] == "5, 1 of them extra: never held out"


def test_the_table_of_a_split_without_groups_has_no_such_columns():
    manifest, folds = split_of(list("abab"), [0, 0, 1, 1])
    (table,) = the_split(manifest, folds)
    assert "groups" not in table
    assert "train only" not in table
