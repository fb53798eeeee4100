import os

import pytest
from conftest import write_classes, write_image

from kfold_ens.config import HALVES, Csv, ImageFolder, Torchvision, load_config
from kfold_ens.data.folders import (
    file_fault,
    folder_fault,
    images_fingerprint,
    is_source_of,
    missing,
    source_of,
)
from kfold_ens.data.image_files import files_below
from kfold_ens.files import write_json


@pytest.fixture
def root(tmp_path):
    (tmp_path / "linked").symlink_to(write_classes(tmp_path / "elsewhere", {"far": 2}), target_is_directory=True)
    write_classes(tmp_path / "train", {"{x}": 2, "a b": 1})
    (tmp_path / "train" / "link").symlink_to(tmp_path / "linked" / "far", target_is_directory=True)
    return tmp_path / "train"


def test_links_are_followed_but_loops_are_not(root):
    (root / "loop").symlink_to(root, target_is_directory=True)
    names = sorted(path.relative_to(root).as_posix() for path in files_below(root))
    assert names == ["a b/0000.png", "link/0000.png", "link/0001.png", "{x}/0000.png", "{x}/0001.png"]


@pytest.mark.parametrize("change", ["new", "gone", "other", "new in a linked folder", "renamed"])
def test_a_changed_image_changes_the_fingerprint(root, change):
    before = images_fingerprint([str(root)])
    image = root / "{x}" / "0000.png"
    {
        "new": lambda: write_image(root / "{x}" / "new.png"),
        "gone": image.unlink,
        "other": lambda: write_image(image, size=(40, 40)),
        "new in a linked folder": lambda: write_image(root / "link" / "new.png"),
        "renamed": lambda: image.rename(root / "{x}" / "renamed.png"),
    }[change]()
    assert images_fingerprint([str(root)]) != before


def test_other_files_do_not_change_the_fingerprint(root):
    before = images_fingerprint([str(root)])
    for name in (".DS_Store", "Thumbs.db", ".hidden.png"):
        (root / "{x}" / name).write_bytes(b"")
    (root / "{x}" / "0000.png").touch()
    assert images_fingerprint([str(root)]) == before
    assert images_fingerprint([str(root), str(root / "nowhere")]) == before


def test_missing_tables_and_folders_are_named(root, tmp_path):
    there, empty, gone = str(root), str(tmp_path / "empty"), str(tmp_path / "gone")
    (tmp_path / "empty").mkdir()
    (tmp_path / "table.csv").touch()
    table = str(tmp_path / "table.csv")

    def faults(**places: str) -> list[str]:
        data = Csv(source="csv", **{"train": table, "test": table, "images": there} | places)
        return [fault for half in HALVES for fault in missing(data, half)]

    assert faults() == []
    assert faults(train=gone, test=there, images=empty, test_images=table) == [
        f"data.train: there is no table {gone}",
        f"data.images: the folder {empty} is empty",  # like a mount point without its disk
        f"data.test: {there} is a folder, not a table",
        f"data.test_images: {table} is a file, not a folder",
    ]
    folders = ImageFolder(source="imagefolder", train=[there, gone], test=empty)
    assert missing(folders, "train") == [f"data.train: there is no folder {gone}"]
    assert missing(folders, "test") == [f"data.test: the folder {empty} is empty"]


def test_a_dataset_folder_must_exist_only_if_it_is_not_downloaded(root, tmp_path):
    gone = {"source": "torchvision", "name": "MNIST", "root": str(tmp_path / "gone")}
    assert missing(Torchvision(**gone), "train") == []
    assert missing(Torchvision(**gone, download=False), "train") == [f"data.root: there is no folder {gone['root']}"]
    assert Torchvision(**gone | {"root": str(root)}, download=False).folders("train") == []


def test_the_reason_why_a_path_is_missing_is_given(tmp_path, monkeypatch):
    monkeypatch.delenv("NOWHERE", raising=False)
    (tmp_path / "link").symlink_to("gone")
    os.mkfifo(tmp_path / "pipe")
    assert (
        file_fault("$NOWHERE/a.csv", "table")
        == "there is no table $NOWHERE/a.csv; the environment variable NOWHERE is not set"
    )
    assert (
        folder_fault("${NOWHERE}/a") == "there is no folder ${NOWHERE}/a; the environment variable NOWHERE is not set"
    )
    assert folder_fault("~no-such-user/a") == "there is no folder ~no-such-user/a; ~no-such-user has no home folder"
    assert file_fault(f"{tmp_path}/link").endswith("/link; it is a link to gone, which does not exist")
    assert file_fault(f"{tmp_path}/pipe") == f"{tmp_path}/pipe is not a regular file"


def test_unreadable_files_and_folders_are_faults(tmp_path, monkeypatch):
    (tmp_path / "a.csv").touch()
    assert (file_fault(f"{tmp_path}/a.csv"), folder_fault(str(tmp_path))) == (None, None)
    monkeypatch.setattr(os, "access", lambda path, mode: False)  # root may read everything
    assert file_fault(f"{tmp_path}/a.csv") == f"the file {tmp_path}/a.csv cannot be read: permission denied"
    assert folder_fault(str(tmp_path)) == f"the folder {tmp_path} cannot be read: permission denied"


@pytest.mark.parametrize("content", ["", "[]", "{}", '{"tables": []}', "null"])
def test_a_damaged_description_matches_no_source(in_folder, content):
    data = load_config({"data": {"source": "digits"}}).data
    manifest = in_folder / "train.csv"
    manifest.touch()
    assert not is_source_of(manifest, data, "train", 0, 1)
    described = in_folder / "train.source.json"
    write_json(described, source_of(data, "train", 0, 1))
    assert is_source_of(manifest, data, "train", 0, 1)
    assert not is_source_of(manifest, data, "train", 0, 2)
    described.write_text(content)
    assert not is_source_of(manifest, data, "train", 0, 1)


def test_a_missing_table_is_not_compared_and_a_changed_one_is_noticed(in_folder):
    values = {"source": "csv", "train": "train_table.csv", "test": "test_table.csv", "images": "images"}
    data = load_config({"data": values}).data
    manifest, table = in_folder / "train.csv", in_folder / "train_table.csv"
    manifest.touch()
    table.write_text("id,label\na,1\n")
    write_json(in_folder / "train.source.json", source_of(data, "train", 0, 1))
    table.write_text("id,label\na,2\n")
    assert not is_source_of(manifest, data, "train", 0, 1)
    table.unlink()
    assert is_source_of(manifest, data, "train", 0, 1)
