import xml.etree.ElementTree as ElementTree

import numpy as np
import pandas as pd
import pytest
from matplotlib import pyplot as plt

from kfold_ens.history import COLUMNS, figures_of
from kfold_ens.report import figures, pages


@pytest.fixture(autouse=True)
def closed():
    yield
    plt.close("all")


HOSTILE = ["<script>alert(1)</script>", "$x_", "a\nb", "é" * 200, '"quoted"']


def history(epochs=3):
    names = [name for columns in figures_of(list(COLUMNS)).values() for name in columns]
    return pd.DataFrame({"epoch": range(1, epochs + 1)} | {name: np.linspace(0.1, 0.9, epochs) for name in names})


def counts_of(classes):
    train = pd.DataFrame({"image_id": range(2 * len(classes)), "label": [*classes] * 2})
    folds = pd.DataFrame({"image_id": range(2 * len(classes)), "fold": ["0", "1"] * len(classes)})
    return figures.class_counts(train, folds, classes)


ROWS = pd.DataFrame({"name": HOSTILE, "value": 0.5, "low": 0.4, "high": [0.6, 0.5, 0.7, 0.6, 0.9]})
BINS = pd.DataFrame({"confidence": [0.2, 0.9], "accuracy": [0.0, 1.0], "images": [1, 9]})
SIZES = pd.DataFrame({"split": ["train", "train", "test"], "width": [8, 5000, 8], "height": [9, 1, 8]})
HUNDRED = [str(each) for each in range(100)]
DRAWN = {
    "curves": lambda: figures.training_curves({0: history(), 4: history(1)}, {0: 2, 4: 1})["Accuracy"],
    "counts": lambda: counts_of(HOSTILE),
    "counts of 100": lambda: counts_of(HUNDRED),
    "counts in 20 folds": lambda: figures.class_counts(
        pd.DataFrame({"image_id": range(40), "label": ["a", "b"] * 20}),
        pd.DataFrame({"image_id": range(40), "fold": [str(index // 2) for index in range(40)]}),
        ["a", "b"],
    ),
    "counts with images that only train": lambda: figures.class_counts(
        pd.DataFrame({"image_id": range(6), "label": ["a", "b"] * 3}),
        pd.DataFrame({"image_id": range(6), "fold": ["0", "0", "1", "1", "-1", "-1"]}),
        ["a", "b"],
    ),
    "curves of 20 folds": lambda: figures.training_curves(
        {fold: history() for fold in range(20)}, dict.fromkeys(range(20), 1)
    )["Accuracy"],
    "chinese": lambda: counts_of(["猫", "犬"]),
    "sizes": lambda: figures.image_sizes(SIZES),
    "reliability": lambda: figures.reliability(BINS, "Out of fold"),
    "intervals": lambda: figures.intervals(ROWS, "Accuracy", "accuracy", zero=True),
    "agreement": lambda: figures.agreement(np.array([[1, 0.9], [0.9, 1]]), [0, "0 of repeat 1"]),
    "agreement of equals": lambda: figures.agreement(np.ones((3, 3)), [0, 1, 2]),
    "majorities": lambda: figures.majorities(pd.Series([5, 5, 3]), 5),
    "predictions": lambda: figures.predicted_counts(pd.Series(HOSTILE[:1]), pd.Series(HOSTILE), HOSTILE),
}


@pytest.mark.parametrize("name", DRAWN)
def test_a_figure_is_reproducible_svg_with_alternative_text(name):
    one, two = (pages.figure(DRAWN[name](), 'the "words"') for _ in range(2))
    assert one == two
    shown = ElementTree.fromstring(one)
    assert (shown.tag, shown.get("role"), shown.get("aria-label")) == ("figure", "img", 'the "words"')
    assert shown[0].tag.endswith("svg")
    assert "<script" not in one


def test_the_chosen_epoch_is_marked_in_loss_and_accuracy():
    drawn = figures.training_curves({0: history().assign(val_accuracy=[0.5, 0.8, 0.7])}, {0: 2})
    for title, expected in {"Accuracy": [[2, 0.8]], "Loss": [[2, 0.5]], "Seconds per epoch": None}.items():
        dots = [line.get_xydata().tolist() for line in drawn[title].axes[0].lines if line.get_marker() == "o"]
        assert dots == ([expected] if expected else [])


@pytest.mark.parametrize("classes", [HOSTILE, HUNDRED])
def test_a_confusion_matrix_shows_the_counts(classes):
    counts = np.diag(np.arange(1, len(classes) + 1))
    counts[0, 1] = 3
    spec = figures.confusion(counts, classes).to_dict()
    cells = {(cell["true"], cell["predicted"]): cell["images"] for cell in next(iter(spec["datasets"].values()))}
    wanted = {(label, label): place + 1 for place, label in enumerate(classes)} | {(classes[0], classes[1]): 3}
    assert cells == wanted


def test_a_confusion_matrix_may_be_full():
    cells = figures.confusion(np.ones((100, 100), dtype=int), HUNDRED).to_dict()["datasets"]
    assert len(next(iter(cells.values()))) == 10_000


@pytest.mark.filterwarnings("error:constrained_layout")
@pytest.mark.parametrize("name", ["counts in 20 folds", "curves of 20 folds", "chinese"])
def test_a_figure_fits_into_its_frame(name):
    drawn = DRAWN[name]()
    drawn.canvas.draw()
    inside = drawn.get_tightbbox()
    assert inside.x0 >= -0.05
    assert inside.x1 <= drawn.get_figwidth() + 0.05
    assert inside.y0 >= -0.05
    assert all(axis.get_position().height > 0.3 for axis in drawn.axes)


def test_folds_are_drawn_in_order():
    legend = DRAWN["counts in 20 folds"]().legends[0]
    assert [text.get_text() for text in legend.get_texts()] == [f"fold {fold}" for fold in range(20)]
