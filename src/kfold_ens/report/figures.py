"""The report's figures: each function takes tables and gives a figure."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
import pandas as pd
from matplotlib import pyplot as plt
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from scipy.special import softmax

from kfold_ens.exchange import Logits
from kfold_ens.report import style

READABLE = 30  # so many classes can be named along an axis; so many counts a side can be written into cells


def training_curves(histories: Mapping[int, pd.DataFrame]) -> Figure:
    """Loss, accuracy, learning rate and speed of every fold, epoch by epoch; a dot marks the best accuracy."""
    figure, axes = plt.subplots(2, 2, figsize=(10, 6.5), sharex=True)
    (loss, accuracy), (rate, speed) = axes
    for fold, history in histories.items():
        colour, epochs = style.COLOURS[fold % len(style.COLOURS)], history["epoch"]
        loss.plot(epochs, history["train_loss"], "--", color=colour, alpha=0.5)
        loss.plot(epochs, history["val_loss"], color=colour)
        accuracy.plot(epochs, history["train_accuracy"], "--", color=colour, alpha=0.5)
        accuracy.plot(epochs, history["val_accuracy"], color=colour, label=f"fold {fold}")
        best = history.loc[history["val_accuracy"].idxmax()]
        accuracy.plot(best["epoch"], best["val_accuracy"], "o", color=colour)
        rate.plot(epochs, history["lr"], color=colour)
        speed.plot(epochs, history["images_per_second"], color=colour)
    titles = {loss: "Loss", accuracy: "Accuracy", rate: "Learning rate at the epoch's end", speed: "Images a second"}
    for axis, title in titles.items():
        axis.set_title(title)
        axis.xaxis.get_major_locator().set_params(integer=True)
    for axis in (rate, speed):
        axis.set_xlabel("epoch")
        axis.set_ylim(bottom=0)
    accuracy.legend(title="held-out images\n(dashed: training)", loc="lower right")
    return figure


def class_counts(train: pd.DataFrame, folds: pd.DataFrame, classes: Sequence[str]) -> Figure:
    """Training images of every class, stacked by fold."""
    labels = train.merge(folds, on="image_id")
    counts = labels.groupby(["label", "fold"]).size().unstack(fill_value=0).reindex(classes)
    figure, axis = plt.subplots(figsize=(10, 4))
    bottom = np.zeros(len(classes))
    for place, fold in enumerate(counts):
        colour = style.COLOURS[place % len(style.COLOURS)]
        axis.bar(range(len(classes)), counts[fold], bottom=bottom, color=colour, label=f"fold {fold}")
        bottom += counts[fold].to_numpy()
    axis.set_title("Training images a class")
    axis.set_ylabel("images")
    axis.grid(axis="x", visible=False)
    axis.legend(ncols=len(counts.columns), loc="upper center", bbox_to_anchor=(0.5, -0.15))
    _name_classes(axis, classes, "x")
    return figure


def _name_classes(axis: Axes, classes: Sequence[str], which: str) -> None:
    """Class names along an axis, or only some of them where there are too many to read."""
    step = -(-len(classes) // READABLE)
    names = [short(name) for name in classes[::step]]
    places = range(0, len(classes), step)
    if which == "x":
        axis.set_xticks(places, names, rotation=90 if max(map(len, names)) > 2 else 0)
    else:
        axis.set_yticks(places, names)


def short(name: str, most: int = 24) -> str:
    """A class name cut to what fits beside an axis, with nothing in it that matplotlib would take for mathematics."""
    line = " ".join(name.split())
    line = line if len(line) <= most else f"{line[: most - 1]}…"
    return line.replace("$", r"\$")


def confusion(counts_kk: np.ndarray, classes: Sequence[str]) -> Figure:
    """Out-of-fold images by true class (rows) and predicted class (columns); colours are shares of a row."""
    side = 4 + min(len(classes), READABLE) / 6
    figure, axis = plt.subplots(figsize=(side + 1.2, side))
    shares = counts_kk / counts_kk.sum(axis=1, keepdims=True).clip(min=1)
    image = axis.imshow(shares, cmap="Blues", vmin=0, vmax=1)
    if len(classes) <= READABLE:
        for row, column in zip(*np.nonzero(counts_kk), strict=True):
            colour = "white" if shares[row, column] > 0.5 else "black"
            axis.text(column, row, counts_kk[row, column], ha="center", va="center", color=colour, fontsize=8)
    axis.set_title("Out-of-fold images by class")
    axis.set_xlabel("predicted")
    axis.set_ylabel("true")
    axis.grid(visible=False)
    _name_classes(axis, classes, "x")
    _name_classes(axis, classes, "y")
    figure.colorbar(image, ax=axis, label="share of the true class", shrink=0.7)
    return figure


def reliability(confidence: np.ndarray, right: np.ndarray, bins: int = 15) -> Figure:
    """How often predictions of a confidence are right; a calibrated model lies on the diagonal."""
    figure, (above, below) = plt.subplots(2, 1, figsize=(5.5, 6.5), sharex=True, height_ratios=[3, 1])
    edges = np.linspace(0, 1, bins + 1)
    bin_of = _bin_of(confidence, bins)
    filled = np.unique(bin_of)
    above.plot([0, 1], [0, 1], "--", color="grey", label="calibrated")
    above.plot(
        [confidence[bin_of == each].mean() for each in filled], [right[bin_of == each].mean() for each in filled], "o-"
    )
    above.set_title(f"Expected calibration error {calibration_error(confidence, right, bins):.3f}")
    above.set_ylabel("accuracy")
    above.legend(loc="upper left")
    below.hist(confidence, edges)
    below.set_ylabel("images")
    below.set_xlabel("confidence: the largest softmax")
    return figure


def calibration_error(confidence: np.ndarray, right: np.ndarray, bins: int = 15) -> float:
    """The mean over images of |accuracy - confidence| in bins of equal width.

    Guo et al. 2017, https://arxiv.org/abs/1706.04599, equation 3.
    """
    gaps = np.bincount(_bin_of(confidence, bins), right.astype(float) - confidence, minlength=bins)
    return float(np.abs(gaps).sum() / len(confidence))


def _bin_of(confidence: np.ndarray, bins: int) -> np.ndarray:
    return np.clip((confidence * bins).astype(int), 0, bins - 1)


def confidence_of(logits: Logits) -> np.ndarray:
    """Each image's largest softmax: (N,)."""
    return softmax(logits.values, axis=1).max(axis=1)
