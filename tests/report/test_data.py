"""What the report says about the images."""

import pandas as pd

from kfold_ens.report.data import facts, far_outside, the_split

MANIFEST = pd.DataFrame({"image_id": ["a", "b"], "split": "train", "width": [20, 9000], "height": 20})


class Decoded:
    """A store that knows, or does not know, how its images look."""

    def __init__(self, looks):
        self.looks = lambda: looks


def test_images_that_nobody_measured_are_not_said_to_be_ordinary():
    (words,) = far_outside(MANIFEST, Decoded(pd.DataFrame(columns=["mean", "contrast"])))
    assert "Not looked for: an earlier version decoded these images" in words


def test_ordinary_images_are_said_to_be_so():
    looks = pd.DataFrame({"mean": [100.0, 110.0], "contrast": 50.0}, index=["a", "b"])
    (words,) = far_outside(MANIFEST.assign(width=20), Decoded(looks))
    assert "There are none" in words


def split_of(labels, folds, **columns):
    ids = [f"train/{place}.png" for place in range(len(labels))]
    split = pd.DataFrame({"image_id": ids, "sha256": ids, "label": labels, "fold": list(map(str, folds))})
    train = split.drop(columns="fold").assign(split="train", width=8, height=8, **columns)
    test = pd.DataFrame({"image_id": ["test/a"], "sha256": "t", "label": "", "split": "test", "width": 8, "height": 8})
    return pd.concat([train, test.assign(**{name: "x" if name == "group" else "" for name in columns})]), split


def test_the_split_is_shown_by_class_and_fold_with_groups_and_images_that_only_train():
    extra = ["", "", "", "", "yes"]
    manifest, folds = split_of(list("abaab"), [0, 1, 1, 0, -1], group=list("xyzw") + [""], extra=extra)
    blocks = "".join(map(str, the_split(manifest, folds)))
    for words in ("fold 0", "fold 1", "train only", "groups", "all classes"):
        assert words in blocks
    assert "b: none in fold 0 (1 images in other folds)" in blocks
    assert "1 of 1 groups of test images also occur in the training images (1 test images)" in blocks
    assert facts(manifest, ["a", "b"])["training images"] == "5, 1 of them extra: never held out"


def test_a_split_without_groups_shows_none():
    manifest, folds = split_of(list("abab"), [0, 0, 1, 1])
    (table,) = the_split(manifest, folds)
    assert "groups" not in table
    assert "train only" not in table
