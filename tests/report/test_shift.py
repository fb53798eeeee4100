"""The comparison of training and test images, and its page."""

from __future__ import annotations

import hashlib
import logging

import numpy as np
import pandas as pd
import pytest
from scipy.stats import binomtest

from kfold_ens.report import shift
from kfold_ens.report.halves import write_halves
from kfold_ens.report.shift import auc_interval, drawn, looks, told_apart

NONE_ALIKE = pd.DataFrame(columns=["group", "image_id", "split", "label"])
DIFFER = "Test images differ from training images"
CANNOT = "Too few images to compare training and test images"


class Store:
    """Pixels in memory."""

    def __init__(self, pixels: dict[str, np.ndarray]) -> None:
        self.image = pixels.__getitem__


def halves(
    train: list[np.ndarray], test: list[np.ndarray], kind: str = "png", zoom: int = 1
) -> tuple[pd.DataFrame, Store]:
    """A manifest and a store of these images; test files have extension ``kind`` and ``zoom`` times the stored size."""
    pixels = {f"train/{place}.png": image for place, image in enumerate(train)}
    pixels |= {f"test/{place}.{kind}": image for place, image in enumerate(test)}
    manifest = pd.DataFrame({"image_id": list(pixels), "path": list(pixels)})
    manifest["split"] = manifest["image_id"].str.split("/").str[0]
    manifest["sha256"] = [hashlib.sha256(image.tobytes()).hexdigest() for image in pixels.values()]
    scale = np.where(manifest["split"] == "test", zoom, 1)
    for axis, side in enumerate(("height", "width")):
        manifest[side] = [image.shape[axis] for image in pixels.values()] * scale
    return manifest, Store(pixels)


def photographs(count: int, seed: int = 0, brighter: int = 0) -> list[np.ndarray]:
    """Pictures from 12 x 10 to 40 x 30 pixels: a colour, a gradient and noise."""
    random = np.random.default_rng(seed)
    made = []
    for _ in range(count):
        height, width = random.integers(10, 31), random.integers(12, 41)
        slope = np.linspace(-1, 1, width)[None, :, None] * random.normal(0, 30, 3)
        noise = random.normal(0, 20, (height, width, 3))
        values = random.uniform(40, 160, 3) + slope + noise + brighter
        made.append(values.clip(0, 255).astype(np.uint8))
    return made


def told(manifest: pd.DataFrame, store: Store, alike: pd.DataFrame = NONE_ALIKE) -> dict[str, shift.Told]:
    images = drawn(manifest, alike)
    return told_apart(images, looks(images, store))


def page(tmp_path, manifest: pd.DataFrame, store: Store, alike: pd.DataFrame = NONE_ALIKE) -> str:
    path = tmp_path / "halves.html"
    write_halves(manifest, alike, store, str(path))
    return path.read_text(encoding="utf-8")


@pytest.mark.parametrize(("train", "test"), [(150, 150), (200, 40), (12, 9)])
def test_halves_of_the_same_images_cannot_be_told_apart(train, test, tmp_path, caplog):
    images = photographs(train + test, seed=train)
    made = halves(images[:train], images[train:])
    for each in told(*made).values():
        assert each.low < 0.5 < each.high
    assert DIFFER not in page(tmp_path, *made)
    assert caplog.text == ""


def test_for_equal_halves_the_page_says_that_a_random_split_predicts_the_test(tmp_path):
    images = photographs(1200)
    shown = page(tmp_path, *halves(images[:600], images[600:]))
    assert "The out-of-fold score of a random split then predicts the test score well." in shown


@pytest.mark.parametrize(
    ("change", "seen"),
    [
        ({"brighter": 60}, "pixels"),
        ({"kind": "jpg"}, "files"),
        ({"zoom": 4}, "files"),
    ],
    ids=["brighter", "another kind", "larger"],
)
def test_different_test_images_are_told_apart_with_a_warning(change, seen, tmp_path, caplog):
    test = photographs(60, 1, change.get("brighter", 0))
    made = halves(photographs(80), test, change.get("kind", "png"), change.get("zoom", 1))
    found = told(*made)
    assert found[seen].auc > 0.9
    assert [name for name, each in found.items() if each.is_clear] == [seen]
    with caplog.at_level(logging.WARNING):
        shown = page(tmp_path, *made)
    for text in (shown, caplog.text):
        assert DIFFER in text
        assert "The out-of-fold score may not hold for the test images." in text
        assert f"{found[seen].auc:.2f} (95% interval {found[seen].low:.2f} to {found[seen].high:.2f})" in text
    assert "groups or given folds, see docs/splits.md" in shown


def test_test_images_both_darker_and_brighter_are_told_apart():
    """Their mean equals that of the training images, so brightness alone cannot separate them linearly."""
    test = photographs(60, 1, -70) + photographs(60, 2, 90)
    assert told(*halves(photographs(120), test))["pixels"].is_clear


def test_the_most_recognisable_images_are_those_that_differ(tmp_path):
    """Half of the test images look like training images; the others come first."""
    test = [*photographs(40, 1), *photographs(40, 2, brighter=90)]
    shown = page(tmp_path, *halves(photographs(80), test))
    gallery = shown.split("The most recognisable test images, by pixels")[1].split("<h2>")[0]
    names = [place for place in range(80) if f'alt="test/{place}.png"' in gallery]
    assert len(names) == 24
    assert min(names) >= 40


@pytest.mark.parametrize(("train", "test"), [(30, 4), (4, 30), (30, 1), (30, 0), (1, 1)])
def test_the_page_says_that_there_are_too_few_images(train, test, tmp_path, caplog):
    images = photographs(train + test)
    shown = page(tmp_path, *halves(images[:train], images[train:]))
    assert CANNOT in shown
    assert f"There are {train} training, {test} test;" in shown
    assert "Kinds of files" in shown
    assert caplog.text == ""


def test_five_different_images_of_each_half_give_a_wide_interval(tmp_path):
    made = halves(photographs(5), photographs(5, 1, brighter=90))
    found = told(*made)["pixels"]
    assert found.auc == 1
    assert found.low < 0.7
    assert "0.64" in page(tmp_path, *made)


def test_a_small_difference_is_called_unclear(tmp_path):
    made = halves(photographs(30), photographs(30, 1, brighter=15))
    found = told(*made)["pixels"]
    assert found.low < shift.CLEAR < found.high
    shown = page(tmp_path, *made)
    assert "It is not clear whether test images differ" in shown
    assert DIFFER not in shown


def test_images_of_one_colour_do_not_fail(tmp_path):
    def of_shades(first: int) -> list[np.ndarray]:
        return [np.full((9, 9, 3), first + place, np.uint8) for place in range(20)]

    same = told(*halves(of_shades(0), of_shades(0)))
    assert same["files"].auc == 0.5
    assert CANNOT not in page(tmp_path, *halves(of_shades(0), of_shades(100)))
    one = [np.zeros((9, 9, 3), np.uint8)] * 20
    assert CANNOT in page(tmp_path, *halves(one, one))


def test_names_and_order_of_rows_change_nothing(tmp_path):
    manifest, store = halves(photographs(60), photographs(50, 1, brighter=15))
    alike = manifest.iloc[[0, 1, 70]].assign(group="1")
    shuffled = manifest.sample(frac=1, random_state=0).reset_index(drop=True)
    assert page(tmp_path, shuffled, store, alike[::-1]) == page(tmp_path, manifest, store, alike)
    renamed = manifest.assign(image_id=[f"{place}" for place in range(len(manifest))][::-1])
    names = Store(dict(zip(renamed["image_id"], map(store.image, manifest["image_id"]), strict=True)))
    for name, each in told(renamed, names).items():
        assert np.array_equal(each.probability, told(manifest, store)[name].probability)


def test_copies_and_near_duplicates_are_sampled_once_per_half():
    first, second, third, *others = photographs(30)
    manifest, _ = halves([first, first, second, *others[:10]], [first, third, *others[10:]])
    alike = manifest[manifest["image_id"].isin(["train/0.png", "train/1.png", "train/2.png", "test/1.png"])]
    images = drawn(manifest, alike.assign(group=7))
    assert (images.groupby(["split", "group"]).size() == 1).all()
    assert (images["group"] == "7").sum() == 2
    assert len(images) == len(manifest) - 2


def test_equal_images_of_both_halves_are_classified_by_one_model():
    """Each image is in both halves: a classifier trained on one copy would assign the other to its half."""
    images = photographs(60)
    found = told(*halves(images, images))["pixels"]
    assert abs(found.auc - 0.5) < 0.01
    assert found.low < 0.5 < found.high


def test_the_number_of_images_read_is_limited(monkeypatch):
    monkeypatch.setattr(shift, "MOST", 20)
    manifest, store = halves(photographs(60), photographs(50, 1))
    read = []
    image, store.image = store.image, lambda image_id: read.append(image_id) or image(image_id)
    assert {len(each.probability) for each in told(manifest, store).values()} == {40}
    assert len(read) == 40


@pytest.mark.parametrize(("images", "hits"), [(10, 10), (30, 27), (100, 50)])
def test_the_interval_of_an_auc_resembles_that_of_a_share_against_a_large_half(images, hits):
    """Against very many images of the other half, the AUC is at most as uncertain as a share of these few images."""
    low, high = auc_interval(hits / images, images, 1_000_000)
    share = binomtest(hits, images).proportion_ci(0.95, "wilson")
    assert share.low < low < hits / images <= high < share.high + 1e-6


def test_the_interval_of_an_auc_of_one_widens_with_fewer_images():
    widths = [1 - auc_interval(1.0, images, images)[0] for images in (5, 20, 200)]
    assert widths[0] > 0.25
    assert widths == sorted(widths)[::-1]
    assert auc_interval(0.0, 20, 20)[1] == pytest.approx(widths[1], abs=1e-6)
