import xml.etree.ElementTree as ElementTree

import numpy as np
import pandas as pd
import pytest

from kfold_ens.report import figures
from kfold_ens.report.style import save

HOSTILE = ["<script>alert(1)</script>", "$x_", "a\nb", "é" * 200, '"quoted"']


def history(epochs=3):
    names = ("train_loss", "val_loss", "train_accuracy", "val_accuracy", "lr", "images_per_second")
    return pd.DataFrame({"epoch": range(1, epochs + 1)} | {name: np.linspace(0.1, 0.9, epochs) for name in names})


def many(classes):
    train = pd.DataFrame({"image_id": range(2 * len(classes)), "label": [*classes] * 2})
    folds = pd.DataFrame({"image_id": range(2 * len(classes)), "fold": ["0", "1"] * len(classes)})
    return figures.class_counts(train, folds, classes)


FIGURES = {
    "curves": lambda: figures.training_curves({0: history(), 4: history(1)}),
    "counts": lambda: many(HOSTILE),
    "counts of 100": lambda: many([str(each) for each in range(100)]),
    "confusion": lambda: figures.confusion(np.diag([3, 0, 2, 1, 5]), HOSTILE),
    "confusion of 100": lambda: figures.confusion(np.eye(100, dtype=int), [str(each) for each in range(100)]),
    "reliability": lambda: figures.reliability(np.array([0.2, 0.9, 1.0]), np.array([False, True, True])),
}


@pytest.mark.parametrize("name", FIGURES)
def test_a_figure_is_vector_graphics_without_scripts_and_the_same_twice(name, tmp_path):
    for copy in ("one.svg", "two.svg"):
        save(FIGURES[name](), tmp_path / copy)
    content = (tmp_path / "one.svg").read_bytes()
    assert ElementTree.fromstring(content).tag.endswith("svg")
    assert b"<script" not in content
    assert content == (tmp_path / "two.svg").read_bytes()


def test_the_best_epoch_is_marked():
    accuracy = figures.training_curves({0: history().assign(val_accuracy=[0.5, 0.8, 0.7])}).axes[1]
    assert [line.get_xydata().tolist() for line in accuracy.lines if line.get_marker() == "o"] == [[[2, 0.8]]]


def test_the_calibration_error_is_the_mean_gap_of_its_bins():
    confidence, right = np.array([0.95, 0.95, 0.65, 1.0]), np.array([True, False, True, True])
    gaps = [2 * abs(0.5 - 0.95), abs(1 - 0.65), abs(1 - 1.0)]  # in 15 bins 0.95 lies in the last, as 1.0 does
    last = abs((2 - 0.95 - 0.95 - 1.0) + 0)
    assert figures.calibration_error(confidence, right) == pytest.approx((gaps[1] + last) / 4)
    assert figures.calibration_error(np.array([0.5, 0.5]), np.array([True, False])) == 0
