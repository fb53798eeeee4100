import io
import itertools
import logging
import shutil
import tracemalloc
from unittest.mock import patch

import numpy as np
import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image
from test_manifest import data, write  # noqa: F401 (a fixture)

from kfold_ens.data.look_alikes import APART, look_alikes, perceptual_hash
from kfold_ens.files import read_table


def picture(seed, size=(160, 120)):
    """Smooth blots of colour with camera noise, like a photograph."""
    random = np.random.default_rng(seed)
    blots = Image.fromarray(random.integers(0, 255, (9, 12, 3), dtype=np.uint8)).resize(size, Image.Resampling.BICUBIC)
    noisy = np.asarray(blots) + random.normal(0, 8, (size[1], size[0], 3))
    return Image.fromarray(noisy.clip(0, 255).astype(np.uint8))


def saved_again(image):
    file = io.BytesIO()
    image.save(file, "JPEG", quality=40)
    return Image.open(file)


def listing(hashes, groups=None):
    ids = [f"{index}" for index in range(len(hashes))]
    columns = {"image_id": ids, "split": "train", "label": "a", "perceptual_hash": hashes}
    return pd.DataFrame(columns | {"sha256": groups or ids})


def found(table):
    return {frozenset(images["image_id"]) for _, images in look_alikes(table).groupby("group")}


@pytest.mark.parametrize(
    "change", [saved_again, lambda image: image.resize((80, 60)), lambda image: image.resize((99, 99))]
)
def test_images_saved_again_or_resized_are_near_duplicates(change):
    pictures = [picture(seed) for seed in range(20)]
    hashes = list(map(perceptual_hash, [*pictures, *map(change, pictures)]))
    assert found(listing(hashes)) == {frozenset({f"{one}", f"{one + 20}"}) for one in range(20)}


def test_small_images_are_not_compared():
    assert perceptual_hash(picture(0, (31, 500))) == ""
    assert found(listing(["", "", ""])) == set()


hashes = st.one_of(st.integers(0, 2**64 - 1), st.integers(0, 40), st.integers(0, 40).map(lambda low: low << 58))


@given(st.lists(hashes, max_size=60), st.sampled_from([(16, 1), (20, 5), (512, 1000)]))
def test_groups_equal_those_of_comparing_all_pairs(values, limits):
    """By definition, hashes at most APART bits apart are in one group."""
    group = list(range(len(values)))
    for one, other in itertools.combinations(range(len(values)), 2):
        if (values[one] ^ values[other]).bit_count() <= APART:
            group = [group[one] if each == group[other] else each for each in group]
    expected = {frozenset(f"{i}" for i, each in enumerate(group) if each == name) for name in group}
    with patch.multiple("kfold_ens.data.look_alikes", BUCKET=limits[0], PAIRS=limits[1]):
        groups = found(listing([f"{value:016x}" for value in values]))
    assert groups == {each for each in expected if len(each) > 1}


@pytest.mark.parametrize("apart", [APART, APART + 1])
def test_hashes_are_near_at_four_bits_and_not_at_five(apart):
    random = np.random.default_rng(0)
    values = random.integers(0, 2**64, 500, dtype=np.uint64)
    flips = [sum(1 << int(bit) for bit in random.choice(64, apart, replace=False)) for _ in values]
    hashes = [f"{value:x}" for value in [*values, *(values ^ np.array(flips, dtype=np.uint64))]]
    assert len(found(listing(hashes))) == (len(values) if apart == APART else 0)


def test_many_near_hashes_take_little_memory():
    """As from a fixed camera; comparing all pairs at once would take a gigabyte."""
    table = listing([f"{value:x}" for value in range(2**13)])
    tracemalloc.start()
    try:
        assert len(found(table)) == 1
        assert tracemalloc.get_traced_memory()[1] < 100e6
    finally:
        tracemalloc.stop()


def test_thousands_of_equal_hashes_are_one_group():
    assert found(listing(["ff"] * 3000)) == {frozenset(map(str, range(3000)))}


def test_byte_identical_images_alone_form_no_group():
    assert found(listing(["ff", "ff"], ["0", "0"])) == set()


def test_a_group_includes_the_copies_of_its_images():
    table = look_alikes(listing(["ff", "ff", "0", "fe", "1"], ["0", "0", "2", "3", "4"]))
    assert table["image_id"].tolist() == ["0", "1", "3", "2", "4"]
    assert table["group"].tolist() == [1, 1, 1, 2, 2]


def test_writing_a_manifest_warns_about_near_duplicates(data, caplog):  # noqa: F811
    shutil.rmtree("train/cat")
    for place in ("train/cat/1.png", "train/dog/same.jpg", "test/same.webp"):
        (data / place).parent.mkdir(exist_ok=True)
        picture(1).save(place)
    with caplog.at_level(logging.WARNING):
        write(data)
    assert f"near-duplicates: 1 groups; see {data / 'look_alikes.csv'}" in caplog.text
    assert read_table("look_alikes.csv")["label"].tolist() == ["cat", "dog", ""]
    assert "train/cat/1.png ~ train/dog/same.jpg ~ test/same.webp" in caplog.text


def test_a_rotated_photograph_is_compared_upright(data, caplog):  # noqa: F811
    exif = Image.Exif()
    exif[0x0112] = 6
    picture(2).save("train/dog/upright.jpg")
    picture(2).transpose(Image.Transpose.ROTATE_90).save("test/turned.jpg", exif=exif)
    with caplog.at_level(logging.WARNING):
        write(data)
    assert "train/dog/upright.jpg ~ test/turned.jpg" in caplog.text
