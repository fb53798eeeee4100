"""Every file is read as an image, refused by name, or ignored for a reason."""

import os
from pathlib import Path

import numpy as np
import pytest
from conftest import write_classes, write_image
from PIL import Image

from kfold_ens.config import load_config
from kfold_ens.data.folders import images_fingerprint
from kfold_ens.data.image_files import FORMATS, could_be_image, files_below, readable_formats, summary, why_ignored
from kfold_ens.data.images import ImageError, inspect
from kfold_ens.data.sources import list_images

PIXELS = np.random.default_rng(0).integers(0, 256, (20, 24, 3), dtype=np.uint8)


def image(path: Path, kind: str) -> Path:
    Image.fromarray(PIXELS).save(path, kind)
    return path


@pytest.mark.parametrize(
    ("name", "kind"),
    [
        ("a.jfif", "JPEG"),
        ("a.jpe", "JPEG"),
        ("a.JPG", "JPEG"),
        ("a.pnm", "PPM"),
        ("a.apng", "PNG"),
        ("a.dib", "BMP"),
        ("a.avif", "AVIF"),
        ("a.jp2", "JPEG2000"),
        ("without an ending", "PNG"),
        ("photo.jpg_large", "JPEG"),
        ("picture.jpeg?size=large", "JPEG"),
        ("2024.05.01", "WEBP"),
        ("looks like.txt", "GIF"),
    ],
)
def test_images_are_recognized_by_name_or_content(name, kind, tmp_path):
    assert set(readable_formats()) == set(FORMATS)  # in the installed Pillow
    path = image(tmp_path / name, kind)
    assert could_be_image(path)
    assert (inspect(path).width, inspect(path).height) == (24, 20)


@pytest.mark.parametrize(
    ("name", "content", "words"),
    [
        ("phone.heic", b"\0\0\0\x18ftypheic\0\0\0\0", "not an image of a known format"),
        ("phone", b"\0\0\0\x18ftypheic\0\0\0\0", "not an image of a known format"),
        ("drawing.svg", b"<svg/>", "not an image of a known format"),
        ("scan.dcm", b"\0" * 128 + b"DICM", "not an image of a known format"),
        ("layers.psd", b"8BPS\0\1", "not an image of a known format"),
        ("empty.png", b"", "the file is empty"),
        ("half", b"\xff\xd8\xff\xe0", "not an image of a known format"),
    ],
)
def test_an_image_that_cannot_be_read_is_refused(name, content, words, tmp_path):
    path = tmp_path / name
    path.write_bytes(content)
    if name != "half":  # Pillow does not recognize these bytes as an image
        assert could_be_image(path)
    with pytest.raises(ImageError, match=words):
        inspect(path)


@pytest.mark.parametrize("name", ["camera.nef", "camera.DNG", "camera.cr2"])
def test_a_camera_raw_file_is_refused_although_it_holds_a_thumbnail(name, tmp_path):
    path = image(tmp_path / name, "TIFF")
    assert could_be_image(path)
    with pytest.raises(ImageError, match="raw file; convert it"):
        inspect(path)


@pytest.mark.parametrize(
    ("name", "content", "reason"),
    [
        (".hidden.png", b"x", "hidden"),
        ("._IMG_1.jpg", b"x", "hidden"),
        ("Thumbs.db", b"x", "made by the system"),
        ("Desktop.ini", b"x", "made by the system"),
        ("labels.csv", b"id,label\n", "text/csv"),
        ("notes.txt", b"BM is for bitmap", "text/plain"),
        ("film.mpg", b"\0\0\1\xb3", "video/mpeg"),
        ("weights.h5", b"\x89HDF\r\n", None),
        ("LICENSE", b"P3 of the agreement", "not images by name or content"),
        ("nothing", b"", "not images by name or content"),
    ],
)
def test_other_files_are_ignored_with_a_reason(name, content, reason, tmp_path):
    (tmp_path / name).write_bytes(content)
    found = why_ignored(tmp_path / name)
    assert found == reason if reason else found


def test_system_folders_are_skipped(tmp_path):
    write_classes(tmp_path / "train", {"cat": 2, "__MACOSX": 1, "@eaDir": 1, ".ipynb_checkpoints": 1, "lost+found": 1})
    write_image(tmp_path / "train" / "cat" / "@eaDir" / "thumbnail.png")
    write_image(tmp_path / "test" / "x.png")
    values = {"source": "imagefolder", "train": str(tmp_path / "train"), "test": str(tmp_path / "test")}
    images = list_images(load_config({"data": values}).data, "train", 0, tmp_path)
    assert images["label"].unique().tolist() == ["cat"]
    assert len(images) == len(list(files_below(tmp_path / "train"))) == 2


def test_an_image_of_any_name_changes_the_fingerprint(tmp_path):
    write_image(tmp_path / "a.png")
    before = images_fingerprint([str(tmp_path)])
    (tmp_path / "notes.txt").write_text("more")
    assert images_fingerprint([str(tmp_path)]) == before
    image(tmp_path / "without an ending", "PNG")
    assert images_fingerprint([str(tmp_path)]) != before


def test_pipes_and_annotations_are_not_opened_as_images(tmp_path, monkeypatch):
    os.mkfifo(tmp_path / "pipe")
    (tmp_path / "0.xml").write_text("<annotation/>")
    monkeypatch.setattr(Image, "open", lambda *_, **__: pytest.fail("opened"))
    assert why_ignored(tmp_path / "pipe")
    assert why_ignored(tmp_path / "0.xml") == "text/xml"


def test_the_summary_adds_up():
    ignored = [("hidden", ".a"), ("text/csv", "b.csv"), ("hidden", ".c")]
    assert summary(4, ignored) == "7 files: 4 images; ignored: 2 hidden (such as .a), 1 text/csv (such as b.csv)"
    assert summary(4, []) == "4 files: 4 images"
