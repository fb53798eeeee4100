"""Describe a split: the number of images per class and fold.

``split`` is the table ``image_id, sha256, label, fold``. ``units`` maps image ids to numbers, which are equal for
images that stay together.
"""

from __future__ import annotations

import pandas as pd

from kfold_ens.data.classes import natural_key

SHOWN = 20  # classes shown in the terminal; if there are more, only the most uneven
FARTHEST = 5


def class_counts(split: pd.DataFrame, num_folds: int) -> pd.DataFrame:
    """Count images per class (rows) and fold (columns); column -1 counts images that only train."""
    counts = pd.crosstab(split["label"], split["fold"].astype(int))
    counts = counts.reindex(columns=range(-1, num_folds), fill_value=0)
    return counts.loc[sorted(counts.index, key=natural_key)]


def fold_table(split: pd.DataFrame, units: pd.Series | None, num_folds: int) -> pd.DataFrame:
    """Count images per class: ``class, images, groups, fold 0, ..., train only``; the last row totals all classes.

    ``groups`` exists only with ``units``; ``train only`` only if there are such images.
    """
    counts = class_counts(split, num_folds)
    table = pd.DataFrame({"images": counts.sum(axis=1)})
    if units is not None:
        table["groups"] = split["image_id"].map(units).groupby(split["label"]).nunique()
    table = table.join(counts[range(num_folds)].rename(columns="fold {}".format))
    if counts[-1].any():
        table["train only"] = counts[-1]
    total = table.sum()
    if units is not None:
        total["groups"] = split["image_id"].map(units).nunique()
    table = pd.concat([table, total.to_frame("all classes").T])
    return table.rename_axis("class").reset_index()


def in_words(split: pd.DataFrame, units: pd.Series | None, num_folds: int) -> str:
    """Format the table of a split for the terminal; if there are many classes, only the most uneven ones."""
    table = fold_table(split, units, num_folds)
    classes = len(table) - 1
    if classes <= SHOWN:
        return f"the split, in images per class:\n{_as_text(table)}"
    counts = class_counts(split, num_folds)[range(num_folds)]
    shares = counts.div(counts.sum(axis=1).replace(0, float("nan")), axis=0)
    off = (shares - 1 / num_folds).abs().max(axis=1)
    some = sorted(off.reset_index(drop=True).nlargest(FARTHEST).index)
    return (
        f"the split, in images per class; of {classes} classes, the {FARTHEST} most uneven:\n"
        f"{_as_text(table.iloc[[*some, classes]])}"
    )


def _as_text(table: pd.DataFrame) -> str:
    rows = [list(table), *table.astype(str).to_numpy().tolist()]
    widths = [max(len(row[place]) for row in rows) for place in range(len(rows[0]))]
    lines = (
        [row[0].ljust(widths[0]), *(cell.rjust(width) for cell, width in zip(row[1:], widths[1:], strict=True))]
        for row in rows
    )
    return "\n".join("  " + "  ".join(line) for line in lines)
