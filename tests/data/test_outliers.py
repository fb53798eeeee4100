"""Outliers are named with a reason."""

import logging

import numpy as np
import pandas as pd
import pytest
from conftest import write_image
from PIL import Image

from kfold_ens.data.images import inspect
from kfold_ens.data.outliers import brightness, outliers
from kfold_ens.data.pixels import PixelStore, write_pixels


def images(count=200, seed=0, **odd):
    """Ordinary photographs, with one outlier in the last row."""
    random = np.random.default_rng(seed)
    rows = {
        "mean": random.normal(115, 25, count),
        "contrast": random.normal(55, 12, count).clip(20),
        "width": random.integers(400, 700, count),
        "height": random.integers(300, 500, count),
    }
    return pd.concat(
        [pd.DataFrame(rows), pd.DataFrame([{"mean": 115, "contrast": 55, "width": 500, "height": 400} | odd])]
    )


@pytest.mark.parametrize("seed", range(5))
def test_ordinary_photographs_are_not_outliers(seed):
    assert outliers(images(seed=seed).reset_index(drop=True)).empty


@pytest.mark.parametrize(
    ("odd", "why"),
    [
        ({"contrast": 0.5, "mean": 0}, "almost one colour"),
        ({"contrast": 1.0, "mean": 254}, "almost one colour"),
        ({"width": 4000}, "wide"),
        ({"height": 6000}, "narrow"),
        ({"width": 60, "height": 50}, "small"),
        ({"width": 9000, "height": 7000}, "large"),
    ],
)
def test_an_outlier_is_named_with_its_reason(odd, why):
    (found,) = outliers(images(**odd).reset_index(drop=True)).items()
    assert found[0] == 200
    assert why in found[1]


def test_one_image_that_differs_from_equal_ones_is_found():
    alike = pd.DataFrame([{"mean": 100.0, "contrast": 40.0, "width": 28, "height": 28}] * 50)
    assert outliers(alike).empty
    alike.loc[7, "mean"] = 150
    alike.loc[9, ["width", "height"]] = 300
    assert outliers(alike).to_dict() == {7: "bright", 9: "large"}


def test_a_dark_16_bit_scan_is_found(tmp_path, caplog):
    """It uses 12 of its 16 bits, so it is almost black at full range."""
    for index in range(20):
        write_image(tmp_path / f"{index}.png", 120 + 2 * index, index, size=(24, 20))
    values = np.random.default_rng(0).integers(0, 4096, (20, 24)).astype(np.uint16)
    Image.fromarray(values).save(tmp_path / "scan.png")
    paths = sorted(tmp_path.glob("*.png"))
    manifest = pd.DataFrame([vars(inspect(path)) for path in paths])
    manifest = manifest.assign(path=list(map(str, paths)), image_id=[path.name for path in paths])
    files = tmp_path / "pixels", tmp_path / "index.npz"
    with caplog.at_level(logging.WARNING):
        write_pixels(manifest, 16, *files, 2)
    assert "outliers: 1 images;" in caplog.text
    assert "scan.png: dark" in caplog.text
    looks = PixelStore(*files).looks()
    store = PixelStore(*files)
    for name in ("scan.png", "0.png"):
        assert tuple(looks.loc[name]) == brightness(store.image(name))


def test_an_index_of_an_old_version_has_no_brightness(tmp_path):
    (tmp_path / "pixels").write_bytes(bytes(3))
    columns = {"image_id": ["a"], "sha256": ["0"], "offset": [0], "height": [1], "width": [1]}
    np.savez(tmp_path / "index.npz", **columns)
    assert PixelStore(tmp_path / "pixels", tmp_path / "index.npz").looks().empty
