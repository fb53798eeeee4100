import logging
import os
import shutil

import pandas as pd
import pytest
from conftest import write_classes, write_image
from PIL import Image

from kfold_ens.config import HALVES, load_config
from kfold_ens.data.manifest import (
    build_manifest,
    read_manifest,
    write_test_manifest,
    write_train_manifest,
)
from kfold_ens.data.sources import list_images
from kfold_ens.errors import DataError
from kfold_ens.files import read_json, read_table, sha256_of, write_table


@pytest.fixture
def data(in_folder):
    """Two classes of two images each, and a test image."""
    write_classes(in_folder / "train", {"cat": 2, "dog": 2})
    write_image(in_folder / "test" / "0.png", 90, 7)
    return in_folder


def run(**values):
    source = {"source": "imagefolder", "train": "train", "test": "test"}
    return load_config({"data": source} | values)


def listed():
    return pd.concat([list_images(run().data, half, 0, None) for half in HALVES], ignore_index=True)


def manifest(threads=2):
    return build_manifest(listed(), threads)


def write_train(folder, **values):
    files = [str(folder / name) for name in ("train.csv", "classes.json")]
    return write_train_manifest(run(**values), folder / "export" / "train", 2, *files)


def write_test(folder, **values):
    files = [str(folder / name) for name in ("train.csv", "test.csv", "look_alikes.csv")]
    return write_test_manifest(run(**values), folder / "export" / "test", 2, *files)


def write(folder, **values):
    """Write both manifests, as the rules of the data stage do."""
    write_train(folder, **values)
    write_test(folder, **values)


def test_a_manifest_holds_every_image_with_its_hash_and_size(data):
    write_image(data / "train" / "cat" / "wide ü.PNG", size=(30, 4))
    write(data)
    table = read_manifest("train.csv", "test.csv").set_index("image_id")
    assert table.index.tolist() == [
        *(f"train/cat/{name}" for name in ("0000.png", "0001.png", "wide ü.PNG")),
        *(f"train/dog/{name}" for name in ("0000.png", "0001.png")),
        "test/0.png",
    ]
    assert table["sha256"].tolist() == [sha256_of(path) for path in table["path"]]
    assert table.loc["train/cat/wide ü.PNG", ["width", "height"]].tolist() == [30, 4]
    assert table["label"].tolist() == ["cat"] * 3 + ["dog"] * 2 + [""]
    assert table["sha256"].is_unique
    assert table.columns.tolist() == ["name", "path", "split", "label", "sha256", "width", "height", "perceptual_hash"]
    assert read_json("classes.json") == ["cat", "dog"]


def test_manifests_are_read_alone_or_as_one_table(data):
    write(data)
    assert read_manifest("test.csv")["name"].tolist() == ["0.png"]
    assert read_manifest("train.csv").index.tolist() == [0, 1, 2, 3]
    both = read_manifest("train.csv", "test.csv")
    assert both["split"].tolist() == ["train"] * 4 + ["test"]
    assert both.index.tolist() == [0, 1, 2, 3, 4]


def test_writing_either_manifest_returns_both_halves(data):
    expected = [*(f"train/{name}/000{index}.png" for name in ("cat", "dog") for index in (0, 1)), "test/0.png"]
    for write_half in (write_train, write_test):
        assert write_half(data)["image_id"].tolist() == expected


def test_new_test_images_do_not_change_the_training_half(data):
    write(data)
    before = {name: (data / name).read_bytes() for name in ("train.csv", "classes.json", "test.csv")}
    write_image(data / "test" / "new.png", 120, 8)
    write(data)
    changed = [name for name, content in before.items() if (data / name).read_bytes() != content]
    assert changed == ["test.csv"]


def test_training_images_are_written_in_the_order_of_their_ids(data):
    write_classes(data / "more" / "train", {"cat": 2, "ape": 1}, seed=900)
    source = {"source": "imagefolder", "test": "test"}
    for train in (["train", "more/train"], ["more/train", "train"]):
        write_train_manifest(load_config({"data": source | {"train": train}}), data, 1, "train.csv", "classes.json")
        ids = read_manifest("train.csv")["image_id"].tolist()
        assert ids == sorted(ids)
        assert len(ids) == 7


def test_the_number_of_threads_does_not_change_the_manifest(data):
    pd.testing.assert_frame_equal(manifest(threads=1), manifest(threads=4))


def test_identical_images_share_a_hash_and_are_counted(data, caplog):
    shutil.copy("train/cat/0000.png", "train/cat/a.png")
    shutil.copy("train/dog/0001.png", "test/b.png")
    with caplog.at_level(logging.INFO):
        write(data)
    hashes = read_manifest("train.csv", "test.csv").set_index("image_id")["sha256"]
    assert hashes["train/cat/a.png"] == hashes["train/cat/0000.png"]
    assert hashes["train/dog/0001.png"] == hashes["test/b.png"]
    assert hashes.nunique() == len(hashes) - 2
    assert "5 training images (1 byte-identical to another)" in caplog.text
    assert "2 test images (1 byte-identical to a training image)" in caplog.text


def test_identical_images_with_different_labels_are_refused_in_pairs(data):
    for source, target in (("cat/0000.png", "dog/x.png"), ("dog/0000.png", "cat/y.png"), ("cat/0001.png", "cat/z.png")):
        shutil.copy(f"train/{source}", f"train/{target}")
    with pytest.raises(DataError, match="different labels") as refusal:
        write_train(data)
    assert str(refusal.value).splitlines()[1:] == [
        "  train/cat/0000.png (cat) = train/dog/x.png (dog)",
        "  train/cat/y.png (cat) = train/dog/0000.png (dog)",
    ]


def test_a_test_image_may_equal_a_training_image_with_another_label(in_folder):
    write_classes(in_folder / "train", {"cat": 1, "dog": 1})
    shutil.copytree("train/cat", "test")
    images = listed()
    images.loc[images["split"] == "test", "label"] = "dog"  # as in a library's test set
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
    names = {line.split(":")[0].strip() for line in str(refusal.value).splitlines()[1:]}
    assert names == {*faults, "train/dog/half.jpeg", "train/dog/gone.png"}
    assert not (data / "train.csv").exists()


def test_a_label_that_only_test_images_have_is_not_a_class(in_folder, monkeypatch):
    write_classes(in_folder / "train", {"cat": 1, "dog": 1})
    write_image(in_folder / "test" / "0.png", 90, 7)

    def labelled(data, half, *rest):  # as in a library's test set
        images = list_images(data, half, *rest)
        return images if half == "train" else images.assign(label="eel")

    monkeypatch.setattr("kfold_ens.data.manifest.list_images", labelled)
    write(in_folder)
    assert read_json("classes.json") == ["cat", "dog"]
    assert read_manifest("test.csv")["label"].tolist() == ["eel"]


def test_test_images_that_share_a_name_are_refused_before_writing(data):
    write_image(data / "test" / "sub" / "0.png", 90, 8)
    for names in ("stem", "file"):
        with pytest.raises(DataError, match=r"submission\.names(.|\n)*  0"):
            write(data, submission={"names": names})
    assert not (data / "train.csv").exists()
    write(data, submission={"names": "path"})
    assert read_manifest("test.csv")["name"].tolist() == ["0.png", "sub/0.png"]


def test_test_images_added_later_are_checked_too(data):
    """They do not change the training half."""
    write(data)
    before = (data / "test.csv").read_bytes()
    write_image(data / "test" / "sub" / "0.png", 90, 8)
    with pytest.raises(DataError, match=r"submission\.names(.|\n)*  0"):
        write_test(data)
    (data / "test" / "sub" / "0.png").write_bytes(b"<html>404</html>")
    with pytest.raises(DataError, match=r"^1 file cannot be used(.|\n)*test/sub/0\.png"):
        write_test(data)
    (data / "test" / "sub" / "0.png").unlink()
    (data / "test" / "sub" / "linked").symlink_to(data / "train" / "cat")
    with pytest.raises(DataError, match=r"data\.test overlaps a training folder"):
        write_test(data)
    assert (data / "test.csv").read_bytes() == before


def test_faults_of_both_halves_are_listed_at_once(data):
    (data / "train" / "eel").mkdir()
    (data / "test" / "0.png").unlink()
    (data / "test" / "notes.txt").write_text("no image")
    with pytest.raises(DataError, match="class folders have no images(.|\n)*  eel\n(.|\n)*there are no test images"):
        write(data)
    assert not (data / "train.csv").exists()


def test_a_fault_of_both_halves_is_listed_once(data):
    tables = {"source": "csv", "train": "gone.csv", "test": "test.csv", "images": "."}
    for name in ("gone.csv", "test.csv"):
        (data / name).write_bytes(b"")
    with pytest.raises(DataError) as refusal:
        write_train_manifest(load_config({"data": tables}), data / "export", 1, "train.csv", "classes.json")
    assert str(refusal.value).count("is empty; its first line must name the columns") == 2
    with pytest.raises(DataError) as refusal:
        write_train_manifest(
            load_config({"data": {"source": "torchvision", "name": "os"}}), data / "e", 1, "train.csv", "classes.json"
        )
    assert str(refusal.value).count("torchvision has no dataset 'os'") == 1


@pytest.mark.parametrize("reason", ["there is no folder test", "the folder test is empty"])
def test_training_images_are_listed_without_the_test_images(data, caplog, reason):
    shutil.rmtree("test")
    if "empty" in reason:  # like a mount point without its disk
        (data / "test").mkdir()
    with caplog.at_level(logging.WARNING):
        assert set(write_train(data)["split"]) == {"train"}
    assert f"the test images are not checked: data.test: {reason}" in caplog.text
    assert len(read_manifest("train.csv")) == 4


def test_an_image_may_be_in_both_tables(data):
    write_table("listed.csv", pd.DataFrame({"id": ["cat/0000", "dog/0001"], "label": ["cat", "dog"]}))
    tables = load_config({"data": {"source": "csv", "train": "listed.csv", "test": "listed.csv", "images": "train"}})
    write_train_manifest(tables, data / "export", 1, "train.csv", "classes.json")
    write_test_manifest(tables, data / "export", 1, "train.csv", "test.csv", "look_alikes.csv")
    assert read_manifest("test.csv")["sha256"].tolist() == read_manifest("train.csv")["sha256"].tolist()


def test_awkward_names_and_labels_are_kept(in_folder):
    labels = ["007", "7", "a, b", 'say "so"', "two\nlines", "a\rb", " ", "ü ☃", "NA"]
    write_classes(in_folder / "train", dict.fromkeys(labels, 1))
    write_image(in_folder / "test" / "a, \r\n☃.png", 90, 7)
    write(in_folder)
    table = pd.concat(map(read_table, ("train.csv", "test.csv")), ignore_index=True)
    assert sorted(table["label"]) == sorted([*labels, ""])
    assert set(read_json("classes.json")) == set(labels)
    assert table["name"].tolist()[-1] == "a, \r\n☃.png"
    assert all(sha256_of(row.path) == row.sha256 for row in table.itertuples())


def test_further_pages_of_a_tiff_are_warned_about(data, caplog):
    """alephdata/aleph#20: only the first page of a TIFF is read."""
    pages = [Image.new("RGB", (20, 20), (shade, 0, 90)) for shade in (10, 20, 30)]
    pages[0].save(data / "train/cat/scan.tif", save_all=True, append_images=pages[1:])
    pages[0].save(data / "train/cat/single.tif")
    write(data)
    (line,) = [each.getMessage() for each in caplog.records if "several pages" in each.getMessage()]
    assert "only the first is read" in line
    assert "scan.tif" in line
    assert "single.tif" not in line
