"""Checking the data before a run lists all faults at once."""

import io
import logging
import os
import shutil
from pathlib import Path

import pytest
from conftest import write_classes, write_image
from PIL import Image

from kfold_ens.config import HALVES, load_config
from kfold_ens.data.check import check_data
from kfold_ens.data.images import inspect
from kfold_ens.data.manifest import write_test_manifest, write_train_manifest
from kfold_ens.ensemble.submission import refuse_what_cannot_be_submitted
from kfold_ens.errors import DataError
from kfold_ens.splits.make import make_split


@pytest.fixture
def data(in_folder):
    write_classes(in_folder / "train", {"cat": 4, "dog": 3})
    for index in range(3):
        write_image(in_folder / "test" / f"{index}.png", 90, 700 + index)
    return in_folder


def run(**values):
    data = {"source": "imagefolder", "train": "train", "test": "test"}
    return load_config({"data": data, "num_folds": 3} | values)


def check(caplog, **values):
    manifests = {half: Path(f"{half}.csv") for half in HALVES}
    with caplog.at_level(logging.INFO):
        check_data(run(**values), 2, manifests, make_split, refuse_what_cannot_be_submitted)
    return caplog.text


def write_truncated(path):
    image = io.BytesIO()
    Image.effect_noise((60, 60), 90).save(image, "JPEG")
    path.write_bytes(image.getvalue()[: len(image.getvalue()) // 2])


def write_manifests(folder):
    write_train_manifest(run(), folder / "export", 1, "train.csv", "classes.json")
    write_test_manifest(run(), folder / "export", 1, "train.csv", "test.csv", "look_alikes.csv")


def test_a_check_logs_a_summary_and_writes_nothing(data, caplog):
    before = sorted(data.rglob("*"))
    text = check(caplog)
    assert "2 classes: cat, dog (from 3 to 4 images each)" in text
    assert "7 training images" in text
    assert "3 test images" in text
    assert "WARNING" not in text
    assert sorted(data.rglob("*")) == before


def test_a_check_lists_every_fault_at_once(data, caplog):
    write_classes(data / "train", {"cat ": 1, "Dog": 1, "val": 1, "@eaDir": 1}, seed=50)
    (data / "train/empty").mkdir()
    (data / "test/broken.jpg").write_bytes(b"no image")
    (data / "test/phone.heic").write_bytes(b"\0\0\0\x18ftypheic\0\0\0\0")
    write_image(data / "test/again/0.png", 90, 900)
    write_image(data / "train/stray.png")
    (data / "sample.csv").write_text("id,label\n0,cat\n")
    shutil.copy(data / "train/cat/0000.png", data / "train/dog/copy.png")
    with pytest.raises(DataError) as refusal:
        check(caplog, submission={"sample": "sample.csv"})
    refused = ("class folders have no images", "broken.jpg: not an image", "phone.heic: not an image", "copy.png (dog)")
    for words in (*refused, "these labels look the same", "'cat ' (1 image)", "would share these names"):
        assert words in str(refusal.value), words
    assert "stray.png" in caplog.text
    for words in ("differ only in case", "found classes named val"):
        assert words in caplog.text, words


@pytest.mark.parametrize("change", ["none", "new", "replaced", "gone"])
def test_a_check_does_not_read_unchanged_images_again(data, caplog, change, monkeypatch):
    write_manifests(data)
    read = []
    monkeypatch.setattr("kfold_ens.data.manifest.inspect", lambda path: read.append(path) or inspect(path))
    image = data / "train/cat/0000.png"
    if change == "new":
        for number in range(2):
            write_image(data / f"train/cat/new{number}.png", 3, 998 + number)
    if change == "replaced":
        write_image(image, 3, 999)
        os.utime(image, (2**32, 2**32))
    if change == "gone":
        image.unlink()
    caplog.clear()
    text = check(caplog)
    expected = {"new": ["train/cat/new0.png", "train/cat/new1.png"], "replaced": ["train/cat/0000.png"]}
    assert read == expected.get(change, [])
    assert f"{ {'new': 9, 'gone': 6}.get(change, 7) } training images (0 byte-identical to another)" in text


def test_a_check_finds_a_truncated_image(data, caplog):
    write_truncated(data / "test/half.jpg")
    with pytest.raises(DataError, match=r"half\.jpg: broken"):
        check(caplog)


def test_a_check_finds_identical_images_with_different_labels(data, caplog):
    shutil.copy(data / "train/cat/0000.png", data / "train/dog/copy.png")
    message = "byte-identical images with different labels(.|\n)*0000.png \\(cat\\) = train/dog/copy.png \\(dog\\)"
    with pytest.raises(DataError, match=message):
        check(caplog)


def test_copies_do_not_count_towards_the_images_of_a_class(data, caplog):
    for copy in "abc":
        (data / "train/owl").mkdir(exist_ok=True)
        shutil.copy(data / "train/cat/0000.png", data / f"train/owl/{copy}.png")
    (data / "train/cat/0000.png").unlink()
    with pytest.raises(DataError, match="fewer distinct images(.|\n)*owl: 1"):
        check(caplog)


@pytest.mark.parametrize("limit", [{"MOST_IMAGES": 3}, {"MOST_BYTES": 100}])
def test_a_check_of_many_images_warns_that_it_reads_first_bytes_only(data, caplog, limit, monkeypatch):
    write_truncated(data / "test/half.jpg")
    for name, value in limit.items():
        monkeypatch.setattr(f"kfold_ens.data.check.{name}", value)
    text = check(caplog)  # the truncated image passes
    assert "data.train: only the first bytes of 7 images were read" in text
    assert "data.test: only the first bytes of 4 images were read" in text


def test_classes_with_fewer_images_than_folds_are_refused(data, caplog):
    with pytest.raises(DataError, match="num_folds is 4, but these classes have fewer(.|\n)*dog: 3"):
        check(caplog, num_folds=4)


@pytest.mark.parametrize("half", HALVES)
def test_a_check_uses_the_last_manifest_of_a_missing_half(data, caplog, half):
    write_manifests(data)
    (data / half).rename(data / "elsewhere")
    text = check(caplog)
    assert f"data.{half}: there is no folder {half}; using the {half} images of the last run" in text
    assert "7 training images" in text
    assert "3 test images" in text


def test_labels_of_an_unlisted_half_are_not_reported_as_unknown(data, caplog):
    """Otherwise users would change correct labels."""
    (data / "labels.csv").write_text("image_name,pred_label\n0,cat\n")
    (data / "train").rename(data / "elsewhere")
    with pytest.raises(DataError) as refusal:
        check(caplog, data=run().data.model_dump() | {"test_labels": "labels.csv"})
    assert str(refusal.value).startswith("data: there is no folder train (looked in")
    assert len(str(refusal.value).splitlines()) == 1
