import os
import pickle
import shutil
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from conftest import write_image
from disks import run_on_a_disk
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image, ImageOps
from test_look_alikes import picture

from kfold_ens.data.images import inspect
from kfold_ens.data.pixels import PixelStore, PixelStores, stored_shape, write_pixels
from kfold_ens.errors import DataError, KfoldError
from kfold_ens.files import sha256_of

SIZES = [(12, 10), (40, 30), (30, 40), (16, 16), (17, 90), (300, 16), (1, 1), (3, 200), (64, 64)]


@pytest.fixture
def manifest(in_folder):
    """Images of many shapes, including a JPEG stored on its side."""
    rows = []
    for seed, size in enumerate(SIZES):
        path = write_image(in_folder / f"{seed} ü.png", 20 * seed, seed, size)
        rows.append((f"train/{path.name}", str(path)))
    exif = Image.Exif()
    exif[0x0112] = 6
    Image.open(rows[1][1]).save("turned.jpg", exif=exif)
    rows.append(("test/turned.jpg", "turned.jpg"))
    table = pd.DataFrame(rows, columns=["image_id", "path"])
    found = [inspect(path) for path in table["path"]]
    return table.assign(**{key: [getattr(each, key) for each in found] for key in ("sha256", "width", "height")})


def stored(manifest, short_side=16, threads=2):
    write_pixels(manifest, short_side, Path("pixels"), Path("index"), threads)
    return PixelStore("pixels", "index")


@pytest.mark.parametrize("threads", [1, 3])
def test_pixels_equal_those_of_decoding_and_resizing(manifest, threads):
    store = stored(manifest, threads=threads)
    for image_id, path in zip(manifest["image_id"], manifest["path"], strict=True):
        image = Image.open(path)
        if path == "turned.jpg":
            image = image.transpose(Image.Transpose.ROTATE_270)
        height, width = stored_shape(image.height, image.width, 16)
        expected = np.asarray(image.resize((width, height), Image.Resampling.BILINEAR))
        pixels = store[store.rows([image_id])[0]]
        assert pixels.dtype == np.uint8
        np.testing.assert_array_equal(pixels, expected)
        np.testing.assert_array_equal(store.image(image_id), expected)


def test_nothing_is_decoded_if_the_disk_lacks_space(manifest, monkeypatch):
    monkeypatch.setattr(shutil, "disk_usage", lambda folder: shutil._ntuple_diskusage(10**9, 10**9, 10))
    with pytest.raises(KfoldError, match="decoding 10 images needs .* GB below .*; free disk space"):
        stored(manifest)
    assert not Path("pixels").exists()


def test_small_images_keep_their_size(manifest):
    store = stored(manifest, short_side=64)
    for row, path in enumerate(manifest["path"][:-1]):
        np.testing.assert_array_equal(store[row], np.asarray(Image.open(path)))


@pytest.mark.parametrize(
    ("size", "short_side", "expected"),
    [
        ((40, 30), 15, (20, 15)),
        ((30, 40), 15, (15, 20)),
        ((30, 40), 30, (30, 40)),
        ((30, 40), 31, (30, 40)),
        ((1, 5000), 16, (1, 5000)),
        ((5000, 3), 1, (1667, 1)),
    ],
)
def test_the_short_side_is_shrunk(size, short_side, expected):
    assert stored_shape(*size, short_side) == expected


@given(st.integers(1, 10**5), st.integers(1, 10**5), st.integers(1, 1000))
def test_a_stored_image_keeps_its_aspect_ratio_and_never_grows(height, width, short_side):
    shape = stored_shape(height, width, short_side)
    assert min(shape) == min(height, width, short_side)
    assert shape[0] <= height
    assert shape[1] <= width
    assert abs(shape[0] / shape[1] - height / width) <= height / width * 0.51 / min(shape) + 1e-9
    assert shape[::-1] == stored_shape(width, height, short_side)


def test_images_are_found_by_id_whatever_the_order(manifest):
    store = stored(manifest.sample(frac=1, random_state=0))
    ids = manifest["image_id"].to_numpy()[::-1]
    assert store.image_id[store.rows(ids)].tolist() == ids.tolist()
    assert store.sha256(ids).tolist() == manifest["sha256"].tolist()[::-1]
    with pytest.raises(KeyError, match="train/unknown"):
        store.rows(["train/unknown"])


def test_images_of_several_stores_are_found_by_id(manifest):
    halves = {name: manifest[manifest["image_id"].str.startswith(name)] for name in ("train", "test")}
    for name, images in halves.items():
        write_pixels(images, 16, Path(f"{name}.u8"), Path(f"{name}.npz"), 1)
    both = PixelStores(["train.u8", "test.u8"], ["train.npz", "test.npz"])
    for name, images in halves.items():
        alone = PixelStore(f"{name}.u8", f"{name}.npz")
        for image_id in images["image_id"]:
            np.testing.assert_array_equal(both.image(image_id), alone.image(image_id))
        assert [image_id in alone for image_id in manifest["image_id"]] == [
            image_id in set(images["image_id"]) for image_id in manifest["image_id"]
        ]


def test_pixels_cannot_be_written_to(manifest):
    with pytest.raises(ValueError, match="read-only"):
        stored(manifest)[0][:] = 0


def test_a_store_is_pickled_as_file_names(manifest):
    store = stored(manifest)
    content = pickle.dumps(store)
    copy = pickle.loads(content)
    assert len(content) < 500
    assert all(np.array_equal(copy[row], store[row]) for row in range(len(manifest)))


@pytest.mark.parametrize("older", [False, True], ids=["no older file", "an older file"])
def test_images_gone_or_replaced_since_the_manifest_are_refused(manifest, older):
    if older:
        stored(manifest)
    before = {name: sha256_of(name) for name in os.listdir() if name in ("pixels", "index")}
    gone, replaced, other_size = manifest["path"][[0, 3, 4]]
    os.remove(gone)
    write_image(Path(replaced), 1, 99, SIZES[3])
    Image.new("RGB", (500, 500)).save(other_size)
    with pytest.raises(DataError, match="^3 files cannot be used") as refusal:
        stored(manifest)
    assert [line.strip() for line in str(refusal.value).splitlines()[1:]] == [
        f"{gone}: No such file or directory",
        f"{replaced}: changed since the manifest was made",
        f"{other_size}: changed since the manifest was made",
    ]
    left = {name for name in os.listdir() if not name.endswith((".png", ".jpg"))}
    assert {name: sha256_of(name) for name in left} == before


ON_A_FULL_DISK = """
import os
import pandas as pd
from pathlib import Path
from kfold_ens.data import pixels
pixels.require_space = lambda *arguments: None  # as if another process filled the disk meanwhile
try:
    pixels.write_pixels(pd.read_pickle("../manifest"), 64, Path("pixels"), Path("index"), 2)
finally:
    print(os.listdir())
"""


def test_a_full_disk_raises_an_error_and_leaves_no_file(manifest):
    manifest.assign(path=manifest["path"].map(os.path.abspath)).to_pickle("manifest")
    done = run_on_a_disk(Path("small"), "16k", ON_A_FULL_DISK)
    assert "No space left on device" in done.stderr
    assert (done.returncode, done.stdout) == (1, "[]\n")


def test_a_partial_write_is_completed(manifest, monkeypatch):
    expected = [pixels.copy() for pixels in map(stored(manifest).__getitem__, range(len(manifest)))]
    write = os.pwrite
    monkeypatch.setattr(os, "pwrite", lambda handle, block, offset: write(handle, block[:1000], offset))
    store = stored(manifest)
    assert all(np.array_equal(store[row], pixels) for row, pixels in enumerate(expected))


@pytest.mark.parametrize("orientation", [1, 3, 6, 8])
@pytest.mark.parametrize(("side", "seen"), [(255, 255), (257, 129), (1023, 256), (2001, 251)])
def test_a_large_photograph_is_decoded_smaller_and_looks_the_same(in_folder, monkeypatch, side, seen, orientation):
    exif = Image.Exif()
    exif[0x0112] = orientation
    picture(0, (side + side // 3, side)).save("large.jpg", quality=95, exif=exif)
    found = inspect("large.jpg")
    columns = {"image_id": ["1"], "path": ["large.jpg"], "sha256": [found.sha256]}
    decoded = []
    resize = Image.Image.resize
    monkeypatch.setattr(
        Image.Image, "resize", lambda image, *a, **b: decoded.append(image.size) or resize(image, *a, **b)
    )
    store = stored(pd.DataFrame(columns | {"width": [found.width], "height": [found.height]}), short_side=64)
    assert min(decoded[-1]) == seen
    upright = ImageOps.exif_transpose(Image.open("large.jpg"))
    assert upright.size == (found.width, found.height)
    height, width = stored_shape(found.height, found.width, 64)
    expected = np.asarray(upright.resize((width, height), Image.Resampling.BILINEAR))
    assert np.abs(store[0].astype(int) - expected).mean() < 0.5  # of 255
