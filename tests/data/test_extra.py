"""Extra images train in every fold and are never held out."""

import logging
import shutil
from pathlib import Path

import pandas as pd
import pytest
from conftest import write_classes, write_image

from kfold_ens.config import HALVES, load_config
from kfold_ens.data.check import check_data
from kfold_ens.data.folds import listed_images
from kfold_ens.data.manifest import read_manifest, write_train_manifest
from kfold_ens.data.sources import list_images
from kfold_ens.errors import DataError
from kfold_ens.files import write_table
from kfold_ens.splits.make import make_split

FOLDERS = {"source": "imagefolder", "train": "train", "test": "test", "extra": "extra"}
TABLES = {"source": "csv", "train": "train.csv", "test": "test.csv", "images": "images", "extra": "extra.csv"}


@pytest.fixture
def folders(in_folder):
    write_classes(in_folder / "train", {"cat": 6, "dog": 6})
    write_classes(in_folder / "extra", {"cat": 2, "dog": 3}, seed=7000)
    write_image(in_folder / "test/0.png", seed=9000)
    return in_folder


@pytest.fixture
def tables(in_folder):
    for number in range(9):
        write_image(Path("images", f"{number}.png"), seed=number)
    pd.DataFrame({"id": list("012345"), "label": list("ababab"), "who": list("xxyyzz")}).to_csv(
        "train.csv", index=False
    )
    pd.DataFrame({"id": list("67"), "label": list("ab")}).to_csv("extra.csv", index=False)
    pd.DataFrame({"id": ["8"]}).to_csv("test.csv", index=False)
    return in_folder


def run(data, **values):
    return load_config({"data": data, "num_folds": 3} | values)


def manifest_of(run, folder):
    write_train_manifest(run, folder / "export", 1, "train_manifest.csv", "classes.json")
    return read_manifest("train_manifest.csv")


def link_test_folder_to(folder):
    shutil.rmtree("test")
    Path("test").symlink_to(folder)


def test_extra_images_of_folders_have_fold_minus_one(folders, caplog):
    with caplog.at_level(logging.INFO):
        train = manifest_of(run(FOLDERS), folders)
        split = make_split(train, run(FOLDERS))
    extra = split["image_id"].str.startswith("extra/")
    assert extra.sum() == 5
    assert (split.loc[extra, "fold"] == -1).all()
    assert (split.loc[~extra, "fold"] >= 0).all()
    assert train.set_index("image_id")["extra"].to_dict() == {
        each: "yes" if each.startswith("extra/") else "" for each in train["image_id"]
    }
    assert "17 training images" in caplog.text
    assert "5 of them are extra" in caplog.text
    assert "train only" in caplog.text
    write_table("folds.csv", split)
    assert sorted(each for fold in range(3) for each in listed_images("folds.csv", fold)) == sorted(
        split.loc[~extra, "image_id"]
    )


def test_extra_images_do_not_move_other_images_to_another_fold(folders):
    data = {key: value for key, value in FOLDERS.items() if key != "extra"}
    with_extra, without = (
        make_split(manifest_of(run(each), folders), run(each)).set_index("image_id")["fold"] for each in (FOLDERS, data)
    )
    assert with_extra[without.index].to_dict() == without.to_dict()


def test_extra_images_of_a_table_need_neither_group_nor_fold(tables):
    data = TABLES | {"group_column": "who"}
    train = manifest_of(run(data), tables)
    assert train.loc[train["extra"] == "yes", ["image_id", "label", "group"]].to_numpy().tolist() == [
        ["extra/6", "a", ""],
        ["extra/7", "b", ""],
    ]
    assert make_split(train, run(data))["fold"].tolist().count(-1) == 2


def test_extra_images_of_a_held_out_group_are_warned_about(tables, caplog):
    pd.DataFrame({"id": list("67"), "label": list("ab"), "who": ["x", "w"]}).to_csv("extra.csv", index=False)
    data = TABLES | {"group_column": "who"}
    make_split(manifest_of(run(data), tables), run(data))
    assert "1 images that train in every fold belong together with held-out images" in caplog.text
    assert "extra/6 (train only)" in caplog.text


def test_extra_images_that_are_training_images_are_skipped(folders, caplog):
    shutil.copy("train/cat/0000.png", "extra/cat/copy.png")
    train = manifest_of(run(FOLDERS), folders)
    assert "extra/cat/copy.png" not in set(train["image_id"])
    assert "data.extra: 1 of 6 images are byte-identical to images of data.train and are skipped" in caplog.text


def test_an_extra_copy_with_another_label_is_refused(folders):
    shutil.copy("train/cat/0000.png", "extra/dog/copy.png")
    with pytest.raises(DataError, match=r"different labels(.|\n)*extra/dog/copy.png \(dog\)"):
        manifest_of(run(FOLDERS), folders)


def test_classes_that_only_extra_images_have_are_refused(folders):
    write_image(folders / "extra/Dog/0.png", seed=8000)
    with pytest.raises(DataError, match=r"data.extra has classes that data.train lacks(.|\n)*  Dog: did you"):
        list_images(run(FOLDERS).data, "train", 0, None)


@pytest.mark.parametrize(
    ("damage", "words"),
    [
        (lambda: Path("extra/owl").mkdir(), "data.extra: these class folders have no images(.|\n)*owl"),
        (lambda: shutil.rmtree("extra"), "there is no folder extra"),
        (lambda: link_test_folder_to("extra/cat"), "data.test overlaps a training folder"),
    ],
    ids=["empty", "missing", "overlapping"],
)
def test_wrong_folders_are_named(folders, damage, words):
    damage()
    with pytest.raises(DataError, match=words):
        manifest_of(run(FOLDERS), folders)


def test_a_check_logs_the_split_and_lists_all_faults_at_once(folders, caplog):
    with caplog.at_level(logging.INFO):
        check_data(
            run(FOLDERS), 1, {half: Path(f"{half}.csv") for half in HALVES}, make_split, lambda images, run: None
        )
    assert "the split, in images per class:\n  class" in caplog.text
    pd.DataFrame({"image": ["cat/0000.png"], "fold": [0]}).to_csv("folds.csv", index=False)
    write_image(folders / "extra/emu/0.png", seed=8000)
    data = FOLDERS | {"folds": "folds.csv", "groups": "00(0[12])"}
    with pytest.raises(DataError) as refusal:
        check_data(run(data), 1, {half: Path(f"{half}.csv") for half in HALVES}, make_split, lambda images, run: None)
    for words in ("finds no group for 8 of 12", "data.extra has classes", "lacks 11 of 12 training images"):
        assert words in str(refusal.value)


def test_a_check_after_a_run_includes_new_images(folders, caplog):
    train = manifest_of(run(FOLDERS), folders)
    write_table("train.csv", train)
    write_image(folders / "train/cat/new.png", seed=9000)
    with caplog.at_level(logging.INFO):
        check_data(run(FOLDERS), 1, {"train": Path("train.csv"), "test": Path("test.csv")}, make_split, lambda *_: None)
    assert f"{len(train) + 1} training images" in caplog.text
