import logging
import os
import shutil

import pandas as pd
import pytest
from conftest import write_classes, write_image
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from kfold_ens.config import load_config
from kfold_ens.data.manifest import build_manifest, class_labels, natural_key, read_manifest, write_manifest
from kfold_ens.data.sources import list_images
from kfold_ens.errors import DataError
from kfold_ens.files import read_json, read_table, sha256_of


@pytest.fixture
def data(in_folder):
    """Two classes of two images, and a test image; the rows of a manifest are made by ``manifest``."""
    write_classes(in_folder / "train", {"cat": 2, "dog": 2})
    write_image(in_folder / "test" / "0.png", 90, 7)
    return in_folder


def run(**values):
    source = {"source": "imagefolder", "train": "train", "test": "test"}
    return load_config({"data": source} | values)


def manifest(threads=2):
    return build_manifest(list_images(run().data, 0, None), threads)


def write(folder, **values):
    files = [str(folder / name) for name in ("manifest.csv", "classes.json", "look_alikes.csv")]
    write_manifest(run(**values), folder / "export", 2, *files)


def test_a_manifest_holds_every_image_with_its_hash_and_size(data):
    write_image(data / "train" / "cat" / "wide ü.PNG", size=(30, 4))
    write(data)
    table = read_manifest("manifest.csv").set_index("image_id")
    assert table.index.tolist() == [
        *(f"train/cat/{name}" for name in ("0000.png", "0001.png", "wide ü.PNG")),
        *(f"train/dog/{name}" for name in ("0000.png", "0001.png")),
        "test/0.png",
    ]
    assert table["sha256"].tolist() == [sha256_of(path) for path in table["path"]]
    assert table.loc["train/cat/wide ü.PNG", ["width", "height"]].tolist() == [30, 4]
    assert table["label"].tolist() == ["cat"] * 3 + ["dog"] * 2 + [""]
    assert table["duplicate_group"].tolist() == table.index.tolist()
    assert read_json("classes.json") == ["cat", "dog"]


def test_a_split_is_read_alone(data):
    write(data)
    assert read_manifest("manifest.csv", "test")["name"].tolist() == ["0.png"]
    assert read_manifest("manifest.csv", "train").index.tolist() == [0, 1, 2, 3]


def test_the_number_of_threads_changes_nothing(data):
    pd.testing.assert_frame_equal(manifest(threads=1), manifest(threads=4))


def test_equal_images_are_one_group_and_counted(data, caplog):
    shutil.copy("train/cat/0000.png", "train/cat/a.png")
    shutil.copy("train/dog/0001.png", "test/b.png")
    with caplog.at_level(logging.INFO):
        groups = manifest().set_index("image_id")["duplicate_group"]
    assert groups["train/cat/a.png"] == groups["train/cat/0000.png"] == "train/cat/0000.png"
    assert groups["train/dog/0001.png"] == groups["test/b.png"] == "test/b.png"
    assert groups.nunique() == len(groups) - 2
    assert "5 training images (1 byte-identical to another)" in caplog.text
    assert "2 test images (1 byte-identical to a training image)" in caplog.text


def test_equal_images_with_different_labels_are_refused_in_pairs(data):
    for source, target in (("cat/0000.png", "dog/x.png"), ("dog/0000.png", "cat/y.png"), ("cat/0001.png", "cat/z.png")):
        shutil.copy(f"train/{source}", f"train/{target}")
    with pytest.raises(DataError, match="different labels") as refusal:
        manifest()
    assert str(refusal.value).splitlines()[1:] == [
        "  train/cat/0000.png (cat) = train/dog/x.png (dog)",
        "  train/cat/y.png (cat) = train/dog/0000.png (dog)",
    ]


def test_equal_images_with_different_labels_are_no_fault_where_one_is_a_test_image(in_folder):
    write_classes(in_folder / "train", {"cat": 1, "dog": 1})
    shutil.copytree("train/cat", "test")
    images = list_images(run().data, 0, None)
    images.loc[images["split"] == "test", "label"] = "dog"  # as a library's test set has
    assert len(build_manifest(images, 1)) == 3


def test_all_unreadable_files_are_listed_at_once(data):
    whole = (data / "test" / "0.png").read_bytes()
    faults = {
        "train/cat/empty.jpg": b"",
        "train/cat/page.jpg": b"<html>404</html>",
        "train/dog/half.png": whole[: len(whole) // 2],
        "train/dog/pointer.png": b"version https://git-lfs.github.com/spec/v1\n",
        "test/x.gif": b"GIF89a",
    }
    for path, content in faults.items():
        (data / path).write_bytes(content)
    Image.effect_noise((60, 60), 50).save("train/dog/half.jpeg")
    os.truncate("train/dog/half.jpeg", 900)
    (data / "train" / "dog" / "gone.png").symlink_to("nowhere.png")
    with pytest.raises(DataError, match="^7 files cannot be used") as refusal:
        write(data)
    listed = {line.split(":")[0].strip() for line in str(refusal.value).splitlines()[1:]}
    assert listed == {*faults, "train/dog/half.jpeg", "train/dog/gone.png"}
    assert not (data / "manifest.csv").exists()


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
def test_classes_are_in_the_order_a_person_would_list_them(labels):
    expected = ["07", "7", "007x", "8"] if "07" in labels else labels
    for given_order in (labels, labels[::-1], sorted(labels)):
        table = pd.DataFrame({"label": [*given_order, *given_order, "of a test image"]})
        table["split"] = ["train"] * 2 * len(labels) + ["test"]
        assert class_labels(table) == expected


@given(st.sets(st.one_of(st.text(), st.text("0123456789²٣a"))))
def test_any_labels_have_one_order(labels):
    assert sorted(labels, key=natural_key) == sorted(sorted(labels), key=natural_key)


def test_one_class_is_refused():
    with pytest.raises(DataError, match="only the class 'cat'"):
        class_labels(pd.DataFrame({"split": ["train", "test"], "label": ["cat", "dog"]}))


def test_test_images_that_would_share_a_name_are_refused_before_anything_is_written(data):
    write_image(data / "test" / "sub" / "0.png", 90, 8)
    for names in ("stem", "file"):
        with pytest.raises(DataError, match=r"submission\.names(.|\n)*  0"):
            write(data, submission={"names": names})
    assert not (data / "manifest.csv").exists()
    write(data, submission={"names": "path"})
    assert read_manifest("manifest.csv", "test")["name"].tolist() == ["0.png", "sub/0.png"]


def test_awkward_names_and_labels_come_back(in_folder):
    labels = ["007", "7", "a, b", 'say "so"', "two\nlines", "a\rb", " ", "ü ☃", "NA"]
    write_classes(in_folder / "train", dict.fromkeys(labels, 1))
    write_image(in_folder / "test" / "a, \r\n☃.png", 90, 7)
    write(in_folder)
    table = read_table("manifest.csv")
    assert sorted(table["label"]) == sorted([*labels, ""])
    assert set(read_json("classes.json")) == set(labels)
    assert table["name"].tolist()[-1] == "a, \r\n☃.png"
    assert all(sha256_of(row.path) == row.sha256 for row in table.itertuples())
