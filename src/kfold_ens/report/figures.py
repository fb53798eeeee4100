"""The report's figures. Each function turns tables into a figure."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from typing import Any

import altair
import numpy as np
import pandas as pd
from matplotlib import pyplot as plt
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from scipy.stats import binomtest

from kfold_ens.history import column_of, figures_of
from kfold_ens.members import Number, member_of, title
from kfold_ens.report import style

READABLE = 30  # most classes that are named along an axis, or whose counts are written into cells


def training_curves(histories: Mapping[Number, pd.DataFrame], chosen: Mapping[Number, int]) -> dict[str, Figure]:
    """Plot each fold's columns by epoch, one figure per quantity. A dot marks the epoch whose weights were kept."""
    names = list(dict.fromkeys(name for history in histories.values() for name in history))
    return {
        title: _curves(title, columns, histories, chosen)
        for title, columns in figures_of(names).items()
        if any(history.reindex(columns=columns).notna().any(axis=None) for history in histories.values())
    }


def _curves(
    title: str, columns: Sequence[str], histories: Mapping[Number, pd.DataFrame], chosen: Mapping[Number, int]
) -> Figure:
    figure, axis = plt.subplots(figsize=(5, 3))
    for fold, history in histories.items():
        for column in history.columns.intersection(columns):
            _curve(axis, history, column, fold, chosen.get(fold))
    axis.set_title(title)
    axis.set_xlabel("epoch")
    axis.locator_params(axis="x", integer=True)
    if len(columns) == 1 and not column_of(columns[0]).better:
        axis.set_ylim(0, 1 if column_of(columns[0]).is_share else None)
    if "val_accuracy" in columns:
        _legend(figure, axis, len(histories))
    return figure


def _legend(figure: Figure, axis: Axes, folds: int) -> None:
    """Add the legend, inside the axes for few folds and below for many."""
    if folds <= len(style.COLOURS):
        axis.legend(loc="lower right", fontsize=8)
    else:
        figure.legend(*axis.get_legend_handles_labels(), loc="outside lower left", ncols=5, fontsize=7)


def _look(number: Number) -> dict:
    """Choose the colour and line style of a fold. Colours repeat with other line styles."""
    member = member_of(number)
    turn, place = divmod(member.fold or 0, len(style.COLOURS))
    return {"color": style.COLOURS[place], "linestyle": ("-", "-.", ":")[(turn + member.repeat) % 3]}


def _curve(axis: Axes, history: pd.DataFrame, column: str, fold: Number, chosen: int | None) -> None:
    values = history[column] * column_of(column).figure_factor
    look = _look(fold) | {"label": title(fold)}
    if column.startswith("train_"):
        look |= {"linestyle": "--", "alpha": 0.5, "label": None}
    if len(history) == 1:
        look["marker"] = "."  # a line with one point is invisible
    axis.plot(history["epoch"], values, **look)
    if chosen is not None and column_of(column).better:
        axis.plot(chosen, values[history["epoch"] == chosen].iloc[0], "o", color=look["color"])


def class_counts(train: pd.DataFrame, folds: pd.DataFrame, classes: Sequence[str]) -> Figure:
    """Plot the training images per class, stacked by the fold that holds them out; -1 is never held out."""
    labels = train[["image_id", "label"]].merge(folds[["image_id", "fold"]].astype({"fold": int}), on="image_id")
    counts = labels.groupby(["label", "fold"]).size().unstack(fill_value=0).reindex(classes)
    counts = counts.reindex(columns=range(min(counts), max(counts) + 1), fill_value=0)
    figure, axis = plt.subplots(figsize=(_width(classes), 4))
    bottom = np.zeros(len(classes))
    for fold in [*range(max(counts.columns) + 1), *([-1] if -1 in counts else [])]:
        colour, name = (_look(fold)["color"], f"fold {fold}") if fold >= 0 else ("lightgrey", "train only")
        axis.bar(range(len(classes)), counts[fold], bottom=bottom, color=colour, edgecolor="white", label=name)
        bottom += counts[fold].to_numpy()
    return _class_bars(figure, axis, classes, "Training images per class", "images")


def image_sizes(manifest: pd.DataFrame) -> Figure:
    """Plot widths and heights of training and test images. The area of a disc shows how frequent a size is."""
    figure, axis = plt.subplots(figsize=(5.5, 5))
    for place, (split, images) in enumerate(manifest.groupby("split", sort=False)):
        sizes = images.groupby(["width", "height"]).size().reset_index(name="images")
        area = 12 + 300 * sizes["images"] / len(images)
        axis.scatter(sizes["width"], sizes["height"], area, style.COLOURS[place], alpha=0.5, label=split, linewidths=0)
    axis.set_title("Sizes of the images")
    axis.set_xlabel("width in pixels")
    axis.set_ylabel("height in pixels")
    axis.set_xlim(left=0)
    axis.set_ylim(bottom=0)
    axis.legend(loc="lower right", markerscale=0.7)
    return figure


def _width(classes: Sequence[str]) -> float:
    """Return the width of a figure with these classes along an axis, in inches."""
    return min(10, max(5.8, 2 + 0.3 * len(classes)))


def _class_bars(figure: Figure, axis: Axes, classes: Sequence[str], title: str, unit: str) -> Figure:
    """Add title, axes and legend to bars per class."""
    axis.set_title(title)
    axis.set_ylabel(unit)
    axis.grid(axis="x", visible=False)
    figure.legend(*axis.get_legend_handles_labels(), ncols=5, loc="outside lower left")
    _name_classes(axis, classes)
    return figure


def _name_classes(axis: Axes, classes: Sequence[str]) -> None:
    """Write class names below an axis, or some of them if there are many."""
    step = -(-len(classes) // READABLE)
    names = [short(name) for name in classes[::step]]
    axis.set_xticks(range(0, len(classes), step), names, rotation=90 if max(map(len, names)) > 2 else 0)


def short(name: str, most: int = 24) -> str:
    """Shorten a class name to fit an axis, and escape it so that matplotlib reads no mathematics."""
    return cut(name, most).replace("$", r"\$")


def cut(name: str, most: int = 24) -> str:
    """Put a name on one line and cut it to ``most`` characters."""
    line = " ".join(name.split())
    return line if len(line) <= most else f"{line[: most - 1]}…"


def confusion(counts_kk: np.ndarray, classes: Sequence[str]) -> altair.TopLevelMixin:
    """Plot out-of-fold images by true class (rows) and predicted class (columns). Colours are shares of a row."""
    side = int(np.clip(900 // len(classes), 9, 44))
    base = altair.Chart(_cells(counts_kk, classes)).encode(
        x=altair.X("column:O", scale=_scale(classes), axis=_axis("predicted", classes, labelAngle=-90)),
        y=altair.Y("row:O", scale=_scale(classes), axis=_axis("true", classes)),
        tooltip=["true:N", "predicted:N", "images:Q", altair.Tooltip("share:Q", format=".1%", title="share of true")],
    )
    legend = altair.Legend(title="share of the true class", orient="top", format=".0%", gradientLength=200)
    colour = altair.Color("share:Q", scale=altair.Scale(scheme="blues", domain=[0, 1]), legend=legend)
    chart = base.mark_rect(stroke="#e4e7eb", strokeWidth=0.5).encode(color=colour)
    if len(classes) <= READABLE:
        ink = altair.condition("datum.share > 0.5", altair.value("white"), altair.value("black"))
        chart += base.mark_text(fontSize=max(8, side // 4)).encode(text="images:Q", color=ink)
    return chart.properties(width=altair.Step(side), height=altair.Step(side)).configure_axis(
        labelFontSize=int(np.clip(side - 2, 8, 12)), titleFontSize=13, grid=False, domain=False, ticks=False
    )


def _cells(counts_kk: np.ndarray, classes: Sequence[str]) -> pd.DataFrame:
    """List the cells that hold images."""
    rows, columns = np.nonzero(counts_kk)
    names = np.array(classes, dtype=object)
    shares = counts_kk / counts_kk.sum(axis=1, keepdims=True).clip(min=1)
    cells = {"row": rows, "column": columns, "true": names[rows], "predicted": names[columns]}
    return pd.DataFrame(cells | {"images": counts_kk[rows, columns], "share": shares[rows, columns]})


def _scale(classes: Sequence[str]) -> altair.Scale:
    return altair.Scale(domain=list(range(len(classes))))


def _axis(title: str, classes: Sequence[str], **options: Any) -> altair.Axis:
    """Make an axis of class indices that shows class names, shortened to fit."""
    names = json.dumps([cut(name) for name in classes])
    return altair.Axis(title=title, labelExpr=f"{names}[datum.value]", labelOverlap=False, labelLimit=160, **options)


def reliability(bins: pd.DataFrame, title: str) -> Figure:
    """Plot accuracy against confidence, with 95% intervals. A calibrated model lies on the diagonal."""
    figure, (above, below) = plt.subplots(2, 1, figsize=(5, 6), sharex=True, height_ratios=[3, 1])
    right = (bins["accuracy"] * bins["images"]).round().astype(int)
    intervals = [
        binomtest(hits, images).proportion_ci(0.95, "wilson")
        for hits, images in zip(right, bins["images"], strict=True)
    ]
    reach = np.array([[rate - at.low, at.high - rate] for rate, at in zip(bins["accuracy"], intervals, strict=True)])
    above.plot([0, 1], [0, 1], "--", color="grey", label="calibrated")
    above.errorbar(
        bins["confidence"], bins["accuracy"], reach.clip(0).T, fmt="o", capsize=2, label="measured, 95% interval"
    )
    above.set_title(title)
    above.set_ylabel("accuracy")
    above.set_ylim(-0.02, 1.02)
    above.legend(loc="lower right")
    below.bar(bins["confidence"], bins["images"], width=0.04)
    below.set_yscale("log")
    below.set_ylabel("images")
    below.set_xlabel("confidence: the largest softmax")
    return figure


def intervals(rows: pd.DataFrame, title: str, unit: str, zero: bool = False) -> Figure:
    """Plot a dot and its 95% interval for each row of ``name, value, low, high``, the first on top.

    Rows without a value are skipped.
    """
    rows = rows.dropna(subset=["value"])
    figure, axis = plt.subplots(figsize=(5.8, 1 + 0.34 * len(rows)))
    places = np.arange(len(rows))[::-1]
    reach = np.array([rows["value"] - rows["low"], rows["high"] - rows["value"]], dtype=float).clip(0)
    axis.errorbar(rows["value"], places, xerr=reach, fmt="o", capsize=3)
    axis.set_yticks(places, [short(name, 40) for name in rows["name"]])
    axis.set_ylim(-0.6, len(rows) - 0.4)
    axis.set_title(title)
    axis.set_xlabel(unit)
    axis.grid(axis="y", visible=False)
    if zero:
        axis.axvline(0, color="grey", linestyle="--", linewidth=1)
    return figure


def agreement(shares_ff: np.ndarray, folds: Sequence[Number]) -> Figure:
    """Plot the share of test images on which two folds agree: (folds, folds)."""
    side = 2.2 + 0.45 * len(shares_ff)
    figure, axis = plt.subplots(figsize=(side + 0.8, side))
    off_diagonal = shares_ff[~np.eye(len(shares_ff), dtype=bool)]
    image = axis.imshow(shares_ff, cmap="cividis", vmin=off_diagonal.min(initial=1), vmax=1)
    for row, column in np.ndindex(*shares_ff.shape):
        if row != column:
            light = np.asarray(image.norm(shares_ff[row, column])) > 0.5
            axis.text(
                column,
                row,
                f"{shares_ff[row, column]:.3f}",
                ha="center",
                va="center",
                fontsize=8,
                color="black" if light else "white",
            )
    names = list(map(title, folds))
    axis.set_xticks(range(len(names)), names, rotation=90)
    axis.set_yticks(range(len(names)), names)
    axis.set_title("Share of test images on which two folds agree")
    axis.grid(visible=False)
    return figure


def majorities(sizes: pd.Series, folds: int) -> Figure:
    """Plot the number of test images by how many folds agree on the prediction."""
    figure, axis = plt.subplots(figsize=(5.5, 3.4))
    counts = sizes.value_counts().reindex(range(1, folds + 1), fill_value=0)
    bars = axis.bar(counts.index, counts)
    axis.bar_label(bars, fontsize=8)
    axis.set_yscale("symlog", linthresh=1)
    axis.set_ylim(0, counts.max() * 3)
    axis.set_xticks(counts.index)
    axis.set_title("Test images by number of folds that agree")
    axis.set_xlabel("folds with the most frequent prediction")
    axis.set_ylabel("images")
    axis.grid(axis="x", visible=False)
    return figure


def predicted_counts(predicted: pd.Series, train: pd.Series, classes: Sequence[str]) -> Figure:
    """Plot the share of each class among predictions and among training images."""
    figure, axis = plt.subplots(figsize=(_width(classes), 4))
    for place, (name, labels) in enumerate({"training images": train, "predictions": predicted}.items()):
        shares = labels.value_counts(normalize=True).reindex(classes, fill_value=0)
        axis.bar(np.arange(len(classes)) + 0.4 * place - 0.2, shares, 0.4, color=style.COLOURS[place], label=name)
    return _class_bars(figure, axis, classes, "Share of each class", "share")
