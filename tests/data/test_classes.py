"""Classes follow from labels; suspicious ones are refused or warned about."""

import logging

import pandas as pd
import pytest
from conftest import write_classes, write_image
from hypothesis import given
from hypothesis import strategies as st

from kfold_ens.config import load_config
from kfold_ens.data.classes import class_labels, describe, doubts, natural_key
from kfold_ens.data.manifest import write_train_manifest
from kfold_ens.errors import DataError


@pytest.mark.parametrize(
    "labels",
    [
        ["0", "1", "2", "9", "10", "11", "100", "119"],
        ["7", "07", "8", "007x"],
        ["class 2", "class 10", "class 10b"],
        ["", "a", "b", "é", "猫"],
        ["²", "½", "٣", "1"],
    ],
)
def test_classes_are_in_natural_order(labels):
    expected = ["07", "7", "007x", "8"] if "07" in labels else labels
    for given_order in (labels, labels[::-1], sorted(labels)):
        assert class_labels(pd.Series([*given_order, *given_order])) == expected


@given(st.sets(st.one_of(st.text(), st.text("0123456789²٣a"))))
def test_the_order_of_labels_does_not_depend_on_the_input_order(labels):
    assert sorted(labels, key=natural_key) == sorted(sorted(labels), key=natural_key)


def test_a_single_class_is_refused():
    with pytest.raises(DataError, match="only one class, 'cat'"):
        class_labels(pd.Series(["cat", "cat"]))


@pytest.mark.parametrize(
    "pair",
    [
        ("cat", "cat "),
        ("cat", "\tcat"),
        ("red fox", "red  fox"),
        ("red fox", "red\u00a0fox"),
        ("caf\u00e9", "cafe\u0301"),
        ("cat", "\ufeffcat"),
        ("cat", "c\u200bat"),
        ("zu\u00adcker", "zucker"),
        ("\ud55c", "\u1112\u1161\u11ab"),
    ],
)
def test_labels_that_look_the_same_are_refused_with_both_spellings(pair):
    with pytest.raises(DataError, match="these labels look the same") as refusal:
        class_labels(pd.Series([*pair, pair[0], "dog"]))
    line = str(refusal.value).splitlines()[1]
    some, others = line.split(" and ")
    assert some.split(" (")[0].strip() != others.split(" (")[0]
    assert {some[-10:].strip(), others[-10:].strip()} == {"(2 images)", "(1 image)"}


@pytest.mark.parametrize("pair", [("1", "01"), ("a", "b"), ("cat", "cats"), ("می‌خواهم", "میخواهم")])
def test_labels_that_look_different_are_classes(pair):
    assert set(class_labels(pd.Series(pair))) == set(pair)


def doubts_of(rows, in_class_folders=True):
    columns = ["label", "name", "width", "height"]
    return doubts(pd.DataFrame(rows, columns=columns), in_class_folders)


def images(label, count=2, name="x.png", size=(20, 20)):
    return [(label, name, *size)] * count


def test_different_numbers_raise_no_warning():
    assert doubts_of(sum((images(label) for label in ("1", "10", "100", "1.5", "0", "00x", "-1")), [])) == []


def test_ordinary_classes_raise_no_warning():
    rows = images("cat", 20) + images("dog", 9, "a/x.png") + images("red fox") + images("cat", 1, size=(30, 20))
    assert doubts_of(rows) == []


@pytest.mark.parametrize(
    "pair",
    [("Cat", "cat"), ("STRASSE", "straße"), ("ﬁsh", "fish"), ("Ａ", "a"), ("1", "1.0"), ("07", "7"), ("0", "0.")],
)
def test_classes_that_differ_in_case_or_form_are_warned_about(pair):
    (doubt,) = doubts_of(images(pair[0]) + images(pair[1]) + images("dog"))
    assert all(repr(label) in doubt for label in pair)
    assert "dog" not in doubt


@pytest.mark.parametrize("names", [("train", "val"), ("Training", "cat"), ("TEST", "Train"), ("cat", "validation")])
def test_classes_named_like_splits_are_warned_about(names):
    (doubt,) = doubts_of(images(names[0]) + images(names[1]))
    assert "found classes named" in doubt
    assert "such as data.train: data/train" in doubt


def test_a_training_folder_one_level_too_high_is_warned_about():
    deeper = [*images("a", 2, "cat/x.png"), *images("a", 2, "dog/x.png")]
    both = deeper + [("b", name, width, height) for _, name, width, height in deeper]
    (doubt,) = doubts_of(both)
    assert "each class folder holds the folders cat, dog" in doubt
    assert doubts_of(both, in_class_folders=False) == []
    assert doubts_of(both + images("b", 1, "x.png")) == []
    assert doubts_of(both + images("b", 1, "cow/x.png")) == []
    assert doubts_of(images("a", 2, "photos/x.png") + images("b", 2, "photos/x.png")) == []


def test_a_class_with_a_single_image_size_is_warned_about():
    others = [image for side in range(20, 32) for image in images("dog", 1, size=(side, 30))]
    cows = [("cow", *rest) for _, *rest in others]
    (doubt,) = doubts_of(images("cat", 12) + others + cows)
    assert "cat: all 12 images are 20 x 20" in doubt
    assert doubts_of(images("cat", 9) + others + cows) == []  # too few to tell
    assert doubts_of(images("cat", 12) + images("fox", 12) + images("dog", 12)) == []


def test_classes_are_described_in_one_line():
    assert describe({"10": 3, "2": 5}) == "2 classes: 2, 10 (from 3 to 5 images each)"
    many = {f"class {number}\n{'x' * 50}": 4 for number in range(9)}
    line = describe(many)
    assert line.startswith("9 classes: class 0 xxx")
    assert line.endswith(", ... (4 images each)")
    assert "\n" not in line
    assert len(line) < 400


def test_writing_a_manifest_logs_the_classes_and_warnings(in_folder, caplog):
    write_classes(in_folder / "data/train", {"cat": 2, "Cat": 2})
    write_classes(in_folder / "data/val", {"cat": 1}, seed=900)
    write_image(in_folder / "test" / "0.png")
    run = load_config({"data": {"source": "imagefolder", "train": "data", "test": "test"}})
    with caplog.at_level(logging.INFO):
        write_train_manifest(run, in_folder / "export", 1, "train.csv", "classes.json")
    assert "2 classes: train, val (from 1 to 4 images each)" in caplog.text
    assert "found classes named train, val" in caplog.text


def test_all_faults_of_the_data_are_listed_at_once(in_folder):
    write_classes(in_folder / "train", {"cat": 2, "cat ": 2})
    (in_folder / "train/cat/broken.png").write_bytes(b"no image")
    (in_folder / "test").mkdir()
    (in_folder / "test/notes.txt").write_text("no image")
    run = load_config({"data": {"source": "imagefolder", "train": "train", "test": "test"}})
    with pytest.raises(DataError) as refusal:
        write_train_manifest(run, in_folder / "export", 1, "train.csv", "classes.json")
    for words in ("there are no test images", "these labels look the same", "broken.png"):
        assert words in str(refusal.value)
