"""Many images and many classes.

20,000 images in CI. For 200,000 images:
KFOLD_IMAGES=200000 python -m pytest -n 0 -s -m slow tests/test_load.py -k memory
"""

from __future__ import annotations

import json
import os
import sys
import time
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from conftest import write_image
from measured import peak_bytes, run_alone
from projects import RECIPE, new_project

from kfold_ens.config import load_config
from kfold_ens.data.manifest import read_manifest, write_test_manifest, write_train_manifest
from kfold_ens.files import write_table
from kfold_ens.splits.assign import assign_folds

pytestmark = pytest.mark.slow

IMAGES = int(os.environ.get("KFOLD_IMAGES", "20000"))
BYTES_AN_IMAGE = 4_000  # of a manifest row as Python strings, with temporary copies


FILES = ("train.csv", "classes", "test.csv", "alike")


def make_images(root: Path, images: int) -> None:
    """Write ten classes of small images, and ten test images, all different."""
    random = np.random.default_rng(0)
    for label in range(10):
        (root / f"train/{label}").mkdir(parents=True)
    (root / "test").mkdir()
    for index in range(images + 10):
        folder = "test" if index >= images else f"train/{index % 10}"
        (root / folder / f"{index:06d}.ppm").write_bytes(b"P6 32 32 255\n" + random.bytes(3072))


def build(folder: Path) -> None:
    """Make manifests and folds, in a separate process; print seconds and peak memory."""
    before, started = peak_bytes(), time.perf_counter()
    data = {"source": "imagefolder", "train": str(folder / "train"), "test": str(folder / "test")}
    run, (train, classes, test, alike) = load_config({"data": data}), (str(folder / name) for name in FILES)
    write_train_manifest(run, folder / "export", 2, train, classes)
    write_test_manifest(run, folder / "export", 2, train, test, alike)
    folds = assign_folds(read_manifest(train), 20, 0)
    write_table(folder / "folds", folds)
    seconds = time.perf_counter() - started
    print(json.dumps({"images": len(folds), "seconds": round(seconds, 1), "bytes": peak_bytes() - before}))


def built(folder: Path, images: int) -> dict[str, float]:
    make_images(folder, images)
    return run_alone(__file__, str(folder))


def test_memory_does_not_grow_beyond_the_manifests_table(tmp_path):
    few, many = built(tmp_path / "few", IMAGES // 4), built(tmp_path / "many", IMAGES)
    print(many)
    assert few["bytes"] > 0
    assert (many["bytes"] - few["bytes"]) / (many["images"] - few["images"]) < BYTES_AN_IMAGE


def test_a_thousand_classes_make_a_submission_and_a_report(tmp_path):
    labels = [f"class {number}" for number in range(1000)]
    for place, label in enumerate(labels):
        for index in range(2):
            write_image(tmp_path / "data/train" / label / f"{index}.png", place % 200, 2 * place + index)
    for index in range(5):
        write_image(tmp_path / "data/test" / f"{index}.png", 40 * index, 10**6 + index)
    data = {"source": "imagefolder", "train": "data/train", "test": "data/test"}
    project = new_project(tmp_path, RECIPE | {"epochs": 1}, data=data)
    done = project.run("report")
    assert done.returncode == 0, done.stdout
    submission = pd.read_csv(tmp_path / "results/submission.csv", dtype=str)
    assert len(submission) == 5
    assert set(submission["pred_label"]) <= set(labels)
    assert (tmp_path / "results/report.html").stat().st_size < 30e6


if __name__ == "__main__":
    build(Path(sys.argv[1]))
