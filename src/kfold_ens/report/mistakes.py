"""The report's chapter on mistakes out of fold: each image is judged by the models that did not train on it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
import pandas as pd

from kfold_ens.data.pixels import PixelStore
from kfold_ens.ensemble.out_of_fold import combined_over_repeats, with_probabilities
from kfold_ens.logits import Logits, concatenated
from kfold_ens.report import figures, pages, tables
from kfold_ens.report.pages import Markup
from kfold_ens.report.pictures import of_store

SHOWN = 48  # pictures in a gallery
PAIRS = 30  # pairs of classes in the table, each with some pictures


def write_errors(
    oof: Sequence[Logits],
    label_of: Mapping[str, str],
    num_folds: int,
    store: PixelStore,
    outputs: Mapping[str, str],
    over_repeats: str = "average",
) -> None:
    """The pages ``confusion``, ``classes``, ``pairs``, ``mistakes`` and ``labels``.

    ``over_repeats`` combines an image's predictions; a vote gives no confidence, so the average of logits replaces it.
    """
    logits, truth = _each_once(oof, label_of, with_probabilities(over_repeats))
    counts = tables.confusion_counts(logits, truth)
    wrong = tables.mistakes(logits, truth)
    notes = pages.unfinished(len(oof), num_folds)
    right = f"{len(truth) - len(wrong):,} of {len(truth):,} images are predicted right out of fold."
    pages.write_page(
        outputs["confusion"],
        "Confusion matrix, out of fold",
        *notes,
        pages.paragraph(f"{right} Hover over a cell for its numbers; empty cells are left blank."),
        _matrix(counts, logits.classes),
    )
    pages.write_page(
        outputs["classes"],
        "Recall and precision of every class, out of fold",
        *notes,
        pages.paragraph("The worst recall comes first; click on a column's head to sort by it."),
        pages.table(tables.per_class(logits, truth)),
    )
    pairs = _pairs(counts, wrong, logits.classes, store)
    pages.write_page(outputs["pairs"], "Classes taken for each other", *notes, *pairs)
    surest = pages.paragraph(f"{right} Of the {len(wrong):,} others these are the ones the models are surest of.")
    pages.write_page(outputs["mistakes"], "The most confident mistakes", *notes, surest, _gallery(wrong, store))
    pages.write_page(outputs["labels"], "Labels that are likely wrong", *notes, *_labels(logits, truth, store))


def _each_once(oof: Sequence[Logits], label_of: Mapping[str, str], method: str) -> tuple[Logits, np.ndarray]:
    return tables.labelled(concatenated(combined_over_repeats(oof, method)), label_of)


def _matrix(counts_kk: np.ndarray, classes: Sequence[str]) -> Markup:
    words = "Confusion matrix; the pages of classes and of confused pairs hold its numbers as tables"
    return pages.chart(figures.confusion(counts_kk, classes), "confusion", words)


def _pairs(counts_kk: np.ndarray, wrong: pd.DataFrame, classes: Sequence[str], store: PixelStore) -> list[Markup]:
    pairs = tables.most_confused(counts_kk, classes, PAIRS)
    if pairs.empty:
        return [pages.paragraph("Not one image is predicted wrong.")]
    of_pair = wrong.groupby(["true", "predicted"])["image_id"]
    shown = [
        tuple(of_store(store, each) for each in of_pair.get_group(pair)[:4])
        for pair in zip(pairs["true"], pairs["predicted"], strict=True)
    ]
    return [pages.table(pairs.assign(pictures=shown), "share: of the images of the true class")]


def _gallery(rows: pd.DataFrame, store: PixelStore) -> Markup:
    return pages.gallery(
        of_store(store, row.image_id, f"{row.true} → {row.predicted}", f"{row.confidence:.0%} sure", row.image_id)
        for row in rows[:SHOWN].itertuples()
    )


def _labels(logits: Logits, truth: np.ndarray, store: PixelStore) -> list[Markup]:
    likely = tables.label_errors(logits, truth)
    words = (
        "Confident learning (Northcutt et al. 2021) finds these images: the models, none of which trained on them, "
        "believe in another label more than they usually do in images that have it. Label → what the models say. "
        "Look before you change anything: a hard image looks the same to them."
    )
    if likely.empty:
        return [pages.paragraph("Confident learning (Northcutt et al. 2021) finds no label that is likely wrong.")]
    return [pages.paragraph(f"{len(likely):,} images. {words}"), _gallery(likely, store)]
