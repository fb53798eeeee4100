"""Groups of images, from a column of a table or from a regular expression."""

import logging
from pathlib import Path

import pandas as pd
import pytest
from conftest import write_image

from kfold_ens.config import load_config
from kfold_ens.data.manifest import write_test_manifest, write_train_manifest
from kfold_ens.data.sources import list_images
from kfold_ens.errors import ConfigError, DataError
from kfold_ens.files import read_table

FOLDERS = {"source": "imagefolder", "train": "train", "test": "test"}
TABLES = {"source": "csv", "train": "train.csv", "test": "test.csv", "images": "images"}


@pytest.fixture
def folders(in_folder):
    """Two classes of three patients, and test images of one known and one new patient."""
    for number in range(12):
        write_image(Path("train", "cat" if number % 2 else "dog", f"p{number % 3}_{number}.png"), seed=number)
    for number, patient in enumerate(("p1", "p9")):
        write_image(Path("test", f"{patient}_{number}.png"), seed=100 + number)
    return in_folder


@pytest.fixture
def tables(in_folder):
    """The same patients in a column."""
    for number in range(6):
        write_image(Path("images", f"{number}.png"), seed=number)
    train = {"id": list("0123"), "label": list("abab"), "patient": ["x", "y", "x", "z"]}
    pd.DataFrame(train).to_csv("train.csv", index=False)
    pd.DataFrame({"id": list("45"), "patient": ["y", "w"]}).to_csv("test.csv", index=False)
    return in_folder


def listed(data, half="train"):
    return list_images(load_config({"data": data}).data, half, 0, None)


def write_manifests(data, folder):
    run = load_config({"data": data})
    write_train_manifest(run, folder / "export", 1, "train_manifest.csv", "classes.json")
    write_test_manifest(run, folder / "export", 1, "train_manifest.csv", "test_manifest.csv", "alike.csv")


def test_a_regular_expression_finds_the_group_in_each_name(folders):
    train = listed(FOLDERS | {"groups": r"^(p\d)_"})
    assert train["group"].tolist() == [name[:2] for name in train["name"]]
    assert listed(FOLDERS | {"groups": r"^(p\d)_"}, "test")["group"].tolist() == ["p1", "p9"]


def test_a_column_gives_the_group_of_each_image(tables):
    train = listed(TABLES | {"group_column": "patient"})
    assert dict(zip(train["name"], train["group"], strict=True)) == {"0": "x", "1": "y", "2": "x", "3": "z"}
    assert listed(TABLES | {"group_column": "patient"}, "test")["group"].tolist() == ["y", "w"]


def test_a_regular_expression_finds_groups_in_a_table_too(tables):
    assert listed(TABLES | {"groups": "([01])|[23]()"} | {"groups": r"(\d)"})["group"].tolist() == list("0123")


@pytest.mark.parametrize("data", [FOLDERS | {"groups": r"(p\d)"}, TABLES | {"group_column": "patient"}])
def test_groups_are_in_the_manifests_and_shared_ones_are_counted(request, data, caplog):
    folder = request.getfixturevalue("folders" if data["source"] == "imagefolder" else "tables")
    with caplog.at_level(logging.INFO):
        write_manifests(data, folder)
    assert "group" in read_table("train_manifest.csv")
    assert "1 of 2 groups of test images also occur in the training images (1 test images):\n" in caplog.text


def test_without_groups_the_manifests_have_no_group_column(folders):
    write_manifests(FOLDERS, folders)
    columns = ["image_id", "name", "path", "split", "label", "sha256", "width", "height", "perceptual_hash"]
    assert list(read_table("train_manifest.csv")) == list(read_table("test_manifest.csv")) == columns


def test_test_images_need_no_group(tables, caplog):
    pd.DataFrame({"id": list("45")}).to_csv("test.csv", index=False)
    with caplog.at_level(logging.INFO):
        write_manifests(TABLES | {"group_column": "patient"}, tables)
    assert "test.csv has no column 'patient', so the groups of test images are unknown" in caplog.text


# --- bad input -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("pattern", ["^(q)", "^p0(_)"])
def test_names_without_a_match_are_counted_and_named(folders, pattern):
    with pytest.raises(DataError) as refusal:
        listed(FOLDERS | {"groups": pattern})
    count = 12 if "q" in pattern else 8
    assert f"data.groups: '{pattern}' finds no group for {count} of 12 training images" in str(refusal.value)
    assert "  p1_1.png" in str(refusal.value)


@pytest.mark.parametrize(
    ("pattern", "words"),
    [
        ("p[0-9]+", "exactly one group"),
        ("(a)(b)", "exactly one group"),
        ("(p[", "is not a regular expression: unterminated character set"),
    ],
)
def test_a_regular_expression_without_one_group_is_refused(pattern, words):
    for data in (FOLDERS, TABLES):
        with pytest.raises(ConfigError, match=words) as refusal:
            load_config({"data": data | {"groups": pattern}})
        assert "data.groups: " in str(refusal.value)


def test_groups_and_group_column_together_are_refused():
    with pytest.raises(ConfigError, match="groups and group_column set the same thing"):
        load_config({"data": TABLES | {"groups": "(.)", "group_column": "patient"}})


def test_empty_groups_of_a_table_are_counted_and_named(tables):
    table = read_table("train.csv")
    table.loc[1, "patient"] = ""
    table.to_csv("train.csv", index=False)
    with pytest.raises(DataError, match="column 'patient' is empty for 1 of 4 training images(.|\n)*a unique group"):
        listed(TABLES | {"group_column": "patient"})


def test_a_missing_group_column_is_named(tables):
    with pytest.raises(DataError, match=r"has 'patient', config.yaml needs 'Patient' \(data.group_column\)"):
        listed(TABLES | {"group_column": "Patient"})
