"""The report's chapter on errors out of fold: each image is predicted by models that did not train on it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
import pandas as pd

from kfold_ens.data.pixels import PixelStore
from kfold_ens.ensemble.combine import sure_by
from kfold_ens.ensemble.out_of_fold import combined_over_repeats
from kfold_ens.logits import Logits, concatenated
from kfold_ens.report import figures, pages, tables
from kfold_ens.report.pages import Markup
from kfold_ens.report.pictures import of_store

SHOWN = 48  # pictures in a gallery
PAIRS = 30  # pairs of classes in the table


def write_errors(
    oof: Sequence[Logits],
    label_of: Mapping[str, str],
    num_folds: int,
    store: PixelStore,
    outputs: Mapping[str, str],
    over_repeats: str = "average",
) -> None:
    """Write the pages ``confusion``, ``classes``, ``pairs``, ``mistakes`` and ``labels``.

    The ensembling method ``over_repeats`` combines an image's predictions. A vote gives no probabilities, so the
    average of softmax replaces it.
    """
    logits, truth = _each_once(oof, label_of, sure_by(over_repeats))
    counts = tables.confusion_counts(logits, truth)
    wrong = tables.mistakes(logits, truth)
    notes = pages.unfinished(len(oof), num_folds)
    right = f"{len(truth) - len(wrong):,} of {len(truth):,} images are predicted correctly out of fold."
    pages.write_page(
        outputs["confusion"],
        "Confusion matrix, out of fold",
        *notes,
        pages.paragraph(f"{right} Hover over a cell for its numbers. Blank cells have no images."),
        _matrix(counts, logits.classes),
    )
    pages.write_page(
        outputs["classes"],
        "Recall and precision of every class, out of fold",
        *notes,
        pages.paragraph("The worst recall comes first. Click on the head of a column to sort by it."),
        pages.table(tables.per_class(logits, truth)),
    )
    pairs = _pairs(counts, wrong, logits.classes, store)
    pages.write_page(outputs["pairs"], "Confused pairs of classes", *notes, *pairs)
    surest = pages.paragraph(f"{right} These are the most confident of the {len(wrong):,} mistakes.")
    pages.write_page(outputs["mistakes"], "The most confident mistakes", *notes, surest, _gallery(wrong, store))
    pages.write_page(outputs["labels"], "Likely label errors", *notes, *_labels(logits, truth, store))


def _each_once(oof: Sequence[Logits], label_of: Mapping[str, str], method: str) -> tuple[Logits, np.ndarray]:
    return tables.labelled(concatenated(combined_over_repeats(oof, method)), label_of)


def _matrix(counts_kk: np.ndarray, classes: Sequence[str]) -> Markup:
    words = "Confusion matrix; the pages on classes and on confused pairs have its numbers as tables"
    return pages.chart(figures.confusion(counts_kk, classes), "confusion", words)


def _pairs(counts_kk: np.ndarray, wrong: pd.DataFrame, classes: Sequence[str], store: PixelStore) -> list[Markup]:
    pairs = tables.most_confused(counts_kk, classes, PAIRS)
    if pairs.empty:
        return [pages.paragraph("All images are predicted correctly.")]
    of_pair = wrong.groupby(["true", "predicted"])["image_id"]
    shown = [
        tuple(of_store(store, each) for each in of_pair.get_group(pair)[:4])
        for pair in zip(pairs["true"], pairs["predicted"], strict=True)
    ]
    return [pages.table(pairs.assign(pictures=shown), "share: images of the pair / images of the true class")]


def _gallery(rows: pd.DataFrame, store: PixelStore) -> Markup:
    return pages.gallery(
        of_store(store, row.image_id, f"{row.true} → {row.predicted}", f"{row.confidence:.0%} sure", row.image_id)
        for row in rows[:SHOWN].itertuples()
    )


def _labels(logits: Logits, truth: np.ndarray, store: PixelStore) -> list[Markup]:
    likely = tables.label_errors(logits, truth)
    words = (
        "Confident learning (Northcutt et al. 2021) found these images: models that did not train on them give another "
        "label at least as much probability as they usually give to images with that label. The arrow points from the "
        "label to the prediction. Look at an image before you change its label: hard images are found too."
    )
    if likely.empty:
        return [pages.paragraph("Confident learning (Northcutt et al. 2021) found no likely label errors.")]
    return [pages.paragraph(f"{len(likely):,} images. {words}"), _gallery(likely, store)]
