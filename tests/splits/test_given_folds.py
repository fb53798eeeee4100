"""Folds that the user gives are used unchanged, or refused by name."""

import json
import logging
import re
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from conftest import REPOSITORY
from test_split import images, run

from kfold_ens.config import Scoring
from kfold_ens.errors import DataError
from kfold_ens.splits.make import make_split

LABELS = ["cat", "dog"] * 6


@pytest.fixture
def train(in_folder):
    """Twelve images in class folders, with the same file names in each class."""
    table = images(LABELS)
    names = [f"{number // 2}.png" for number in range(12)]
    ids = [f"train/{label}/{name}" for label, name in zip(LABELS, names, strict=True)]
    return table.assign(image_id=ids, name=names, path=[f"data/{each}" for each in ids])


def write(names, folds, columns=("image", "fold")):
    pd.DataFrame(dict(zip(columns, (list(names), folds), strict=True))).to_csv("folds.csv", index=False)


def split(train, **values):
    data = {"source": "digits", "folds": "folds.csv"}
    made = make_split(train, run(data=data, **values))
    return made.set_index("image_id")["fold"].loc[train["image_id"]].tolist()


GIVEN = [0, 1, 2, 2, 1, 0, 0, 0, 1, 1, 2, -1]


@pytest.mark.parametrize(
    "form",
    [
        lambda train: train["image_id"],
        lambda train: train["path"],
        lambda train: train["image_id"].str.removeprefix("train/"),
        lambda train: train["image_id"].str.removeprefix("train/").str.removesuffix(".png"),
    ],
    ids=["id", "path", "below the folder", "without extension"],
)
def test_given_folds_are_used_whatever_the_table_calls_the_images(train, form):
    write(form(train)[::-1], GIVEN[::-1])
    assert split(train) == GIVEN


def test_a_unique_file_name_is_enough(train):
    train["name"] = [f"sub.folder/{number}.jpg" for number in range(12)]
    write(map(str, range(12)), GIVEN)
    assert split(train) == GIVEN


def test_folds_of_a_column_are_used(train):
    data = {"source": "csv", "train": "t.csv", "test": "t.csv", "images": ".", "fold_column": "fold"}
    made = make_split(train.assign(fold=[f"{fold}.0" for fold in GIVEN]), run(data=data))
    assert made.set_index("image_id")["fold"].loc[train["image_id"]].tolist() == GIVEN


def test_folds_counted_from_one_are_shifted_and_logged(train, caplog):
    write(train["image_id"], [fold + 1 if fold >= 0 else fold for fold in GIVEN])
    with caplog.at_level(logging.INFO):
        assert split(train) == GIVEN
    assert "counts folds from 1; its fold 1 is fold 0 here" in caplog.text


@pytest.mark.parametrize("num_folds", [2, 4, 5])
def test_another_number_of_folds_is_refused(train, num_folds):
    write(train["image_id"], GIVEN)
    words = f"data.folds: folds.csv has the folds 0, 1, 2, but num_folds is {num_folds}; write num_folds: 3"
    with pytest.raises(DataError, match=words):
        split(train, num_folds=num_folds)


def test_a_fold_without_images_is_refused(train):
    write(train["image_id"], [3 if fold == 1 else fold for fold in GIVEN])
    with pytest.raises(
        DataError, match="has the folds 0, 2, 3, but num_folds is 3; assign images to each of the folds 0"
    ):
        split(train)


def test_unknown_missing_and_repeated_images_are_listed_at_once(train):
    ids = train["image_id"].tolist()
    write([*ids[1:], "train/cat/00.png", ids[3]], GIVEN + [0])
    with pytest.raises(DataError) as refusal:
        split(train)
    text = str(refusal.value)
    assert "holds images that are not training images (1); correct or remove:\n" in text
    assert "\n  train/cat/00.png: did you mean train/cat/" in text
    assert "lacks 1 of 12 training images" in text
    assert "\n  train/cat/0.png\n" in text
    assert f"more than once; keep one row of each:\n  {ids[3]}" in text


@pytest.mark.parametrize("value", ["", "val", "1.5"])
def test_an_invalid_fold_is_refused_by_image(train, value):
    write(train["image_id"], [value, *map(str, GIVEN[1:])])
    with pytest.raises(DataError, match=f"-1 for an image that only trains(.|\n)*  0.png: '{value}'"):
        split(train)


def test_a_table_of_folds_without_its_columns_is_refused(train):
    write(train["image_id"], GIVEN, ("image", "part"))
    with pytest.raises(DataError, match=r"config.yaml needs 'fold' \(data.folds, folds\)"):
        split(train)


def test_copies_and_groups_in_several_folds_are_warned_about(train, caplog):
    train.loc[1, "sha256"] = train.loc[3, "sha256"]
    write(train["image_id"], GIVEN)
    assert split(train) == GIVEN
    assert "1 groups of images that belong together (copies included) are in several folds" in caplog.text
    caplog.clear()
    split(train.assign(group=np.repeat(["x", "y", "z"], 4)))
    assert "3 groups of images that belong together" in caplog.text
    assert "1 images that train in every fold belong together with held-out images" in caplog.text


def test_a_class_in_one_fold_only_is_refused(train):
    write(train["image_id"], [0 if label == "cat" else place % 3 for place, label in enumerate(LABELS)])
    with pytest.raises(DataError, match="cat: all of its images are in fold 0"):
        split(train)


def test_the_documented_lines_convert_folds_of_nnunet(train):
    (code,) = re.findall(r"```python\n(.*?)```", (REPOSITORY / "docs/splits.md").read_text(), re.DOTALL)
    ids, folds = train["image_id"].tolist(), [place % 3 for place in range(12)]
    held_out = [[each for each, fold in zip(ids, folds, strict=True) if fold == number] for number in range(3)]
    splits = [{"train": sorted(set(ids) - set(val)), "val": val} for val in held_out]
    Path("splits_final.json").write_text(json.dumps(splits))
    exec(code, {})
    assert split(train) == folds


def test_rows_of_extra_images_that_only_train_are_accepted(train):
    train["extra"] = [""] * 11 + ["yes"]
    write(train["image_id"], GIVEN)
    assert split(train) == GIVEN
    write(train["image_id"], [*GIVEN[:-1], 2])
    with pytest.raises(DataError, match=r"holds images that are not training images \(1\)"):
        split(train)


def test_images_skipped_by_a_limit_may_be_listed(train):
    write(train["image_id"], GIVEN)
    few = train.iloc[:10]
    with pytest.raises(DataError, match=r"holds images that are not training images \(2\)"):
        split(few)
    data = {"source": "digits", "folds": "folds.csv", "limit_per_class": 5}
    assert make_split(few, run(data=data)).set_index("image_id")["fold"].loc[few["image_id"]].tolist() == GIVEN[:10]


def test_settings_without_effect_on_given_folds_are_warned_about(train, caplog):
    write(train["image_id"], GIVEN)
    split(train)
    assert not caplog.text
    split(train, repeats=3, rare_classes="train_only")
    assert "all 3 repeats use these folds, and differ only in training" in caplog.text
    assert "rare_classes: train_only has no effect on given folds" in caplog.text


def test_a_fold_without_a_class_is_refused_if_a_recipes_metric_needs_every_class(train):
    train["label"] = ["cat"] * 6 + ["dog"] * 6
    write(train["image_id"], [0, 0, 1, 1, 0, 1, 0, 0, 1, 1, 2, 2])
    of_recipes = {"a.yaml: select": Scoring(metric="roc_auc"), "b.yaml: select": Scoring(metric="f1_macro")}
    values = run(data={"source": "digits", "folds": "folds.csv"})
    with pytest.raises(DataError, match=r"^a.yaml: select: this metric (.|\n)*  cat: none in fold 2$"):
        make_split(train, values, of_recipes=of_recipes)
    make_split(train, values, of_recipes={"b.yaml: select": Scoring(metric="f1_macro")})
