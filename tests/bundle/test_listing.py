import os
import re

import pytest
from conftest import write_image

from kfold_ens.bundle.listing import list_inputs
from kfold_ens.errors import DataError


@pytest.fixture
def images(in_folder):
    for name in ("new/b.png", "new/a/2.png", "new/a/10.png", "new/.hidden/x.png", "old/c.png"):
        write_image(in_folder / name)
    (in_folder / "new/notes.txt").write_text("no image")
    return in_folder


def test_a_folder_is_read_recursively_sorted_by_name(images):
    assert list_inputs(["new"]) == ["new/a/10.png", "new/a/2.png", "new/b.png"]
    assert list_inputs([str(images / "old")]) == [str(images / "old/c.png")]


def test_single_files_are_kept_as_named(images):
    assert list_inputs(["old/c.png", "new/notes.txt", "old/c.png", "new/b.png"]) == [
        "old/c.png",
        "new/notes.txt",
        "new/b.png",
    ]


def test_a_pattern_finds_images_and_folders(images):
    assert list_inputs(["new/*"]) == ["new/b.png", "new/a/10.png", "new/a/2.png"]
    assert list_inputs(["**/*.png"]) == ["new/a/10.png", "new/a/2.png", "new/b.png", "old/c.png"]


@pytest.mark.parametrize(
    "text", ["image\nold/c.png\ngone.png\n", "id,path\n7,old/c.png\n8,gone.png\n", "name;x\nold/c.png;1\ngone.png;2\n"]
)
def test_a_table_names_files_in_its_order(images, text):
    (images / "list.csv").write_text(text)
    assert list_inputs(["list.csv"]) == ["old/c.png", "gone.png"]


@pytest.mark.parametrize(
    ("text", "words"),
    [
        (
            "old/c.png\nnew/b.png\n",
            "lists/list.csv has no header: its first line is 'old/c.png'; add the line `image` above it",
        ),
        ("gone.png\nold/c.png\n", "has no header"),
        ("image,x\nold/c.png,1\n,2\n", "has 1 row without a path in its column 'image'; delete these rows"),
        (
            "id,label\n1,cat\n2,dog\n",
            "none of the files in its column 'id' exists; the first is '1' (looked in {folder}). Name",
        ),
        ("path\nown.png\n", "The paths are relative to the table: run the command in {folder}/lists"),
    ],
)
def test_a_table_without_usable_paths_is_refused(images, text, words):
    write_image(images / "lists/own.png")
    (images / "lists/list.csv").write_text(text)
    with pytest.raises(DataError, match=re.escape(words.format(folder=images))):
        list_inputs(["lists/list.csv"])


def test_all_wrong_inputs_are_reported_at_once(images):
    (images / "empty").mkdir()
    (images / "texts").mkdir()
    (images / "texts/a.txt").write_text("text")
    with pytest.raises(DataError) as refusal:
        list_inputs(["gone", "empty", "texts", "*.tiff", "old"])
    text = str(refusal.value)
    assert "there is no file or folder 'gone'" in text
    assert "empty holds no images (0 files: 0 images)" in text
    assert "texts holds no images (1 files: 0 images; ignored: 1 text/plain (such as a.txt))" in text
    assert "no image matches '*.tiff'" in text


def test_names_that_fit_in_no_row_are_refused(images):
    write_image(images / "odd/line\nbreak.png")
    os.rename(images / "old/c.png", os.fsencode(images / "odd") + b"/\xff.png")
    with pytest.raises(DataError, match=r"(?s)rename the files.*'odd/line\\nbreak.png'.*'odd/\\udcff.png'"):
        list_inputs(["odd"])
