"""The report's chapters on the ensemble and the submission."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import pandas as pd

from kfold_ens.data.pixels import PixelStore
from kfold_ens.ensemble.combine import METHODS
from kfold_ens.ensemble.score_table import (
    BESIDE,
    about_choice,
    as_chosen,
    cross_fitted_name,
    has_full_fit,
    interval_in_words,
    is_cross_fitted,
    label_of_metric,
    metric_of,
)
from kfold_ens.ensemble.temperature import calibrate, cross_fitted
from kfold_ens.logits import Logits, at_temperature, concatenated
from kfold_ens.members import Number, member_of
from kfold_ens.metrics import Metric, find_metric
from kfold_ens.report import figures, pages, tables
from kfold_ens.report.pages import Markup
from kfold_ens.report.pictures import of_store

DISPUTED = 48  # pictures in the gallery
FIRST_ROWS, FIRST_COLUMNS = 10, 12  # of the submission


def write_ensemble(
    metrics: Mapping[str, Any],
    oof: Sequence[Logits],
    test: Mapping[Number, Logits],
    combined: Mapping[str, Logits],
    label_of: Mapping[str, str],
    store: PixelStore,
    outputs: Mapping[str, str],
    calibrated: bool = False,
) -> None:
    """Write the pages ``combinations``, ``agreement`` and ``calibration``.

    If ``calibrated``, the last shows probabilities before and after calibration.
    """
    probabilities = {name: combined[name] for name, method in METHODS.items() if method.gives_probabilities}
    pages.write_page(outputs["combinations"], "Folds and ensembling methods", *_combinations(metrics))
    pages.write_page(outputs["agreement"], "Do the folds agree?", *_agreement(test, probabilities, store))
    pages.write_page(
        outputs["calibration"],
        "Does confidence match accuracy?",
        *_calibration({"out of fold": concatenated(oof)} | _of_tests(probabilities), label_of),
        *(_after_calibration(oof, probabilities, label_of) if calibrated else []),
    )


def scores(metrics: Mapping[str, Any]) -> pd.DataFrame:
    """Return the metric on the test images per fold and ensembling method: ``name, value, low, high, images``."""
    return _rows(_on_test_images(metrics), metric_of(metrics))


def _on_test_images(metrics: Mapping[str, Any]) -> dict[str, Mapping[str, Any] | None]:
    """Return the test scores of each fold and ensembling method, by name."""
    entries = {f"fold {fold}": entry["test"] for fold, entry in metrics["folds"].items()}
    return entries | {method: entry["test"] for method, entry in metrics["methods"].items()}


def out_of_fold(metrics: Mapping[str, Any]) -> pd.DataFrame:
    """Return the out-of-fold metric of each fold and of all folds, in the columns of ``scores``."""
    return _rows(_held_out(metrics), metric_of(metrics))


def _held_out(metrics: Mapping[str, Any]) -> dict[str, Mapping[str, Any] | None]:
    """Return the out-of-fold scores, by name."""
    entries = {f"fold {fold}": entry["out_of_fold"] for fold, entry in metrics["folds"].items()}
    crossed = metrics["cross_fitted"]["out_of_fold"] if is_cross_fitted(metrics) else None
    return entries | {cross_fitted_name(metrics): crossed, as_chosen(metrics): metrics["out_of_fold"]}


def _rows(entries: Mapping[str, Mapping[str, Any] | None], metric: str) -> pd.DataFrame:
    columns = ["low", "high", *(name for name in BESIDE if name != metric), "images"]
    rows = [
        {"name": name, "value": entry[metric]} | {column: entry.get(column) for column in columns}
        for name, entry in entries.items()
        if entry and entry[metric] is not None
    ]
    return pd.DataFrame(rows, columns=["name", "value", *columns])


def gains(metrics: Mapping[str, Any]) -> pd.DataFrame:
    """Return the differences between ensembling methods and one fold on the test images: ``name, value, low, high``."""
    rows = [
        {"name": f"{each['of']} − {each['to']}", "value": each["difference"], "low": each["low"], "high": each["high"]}
        for each in metrics["differences"]
        if each["difference"] is not None
    ]
    return pd.DataFrame(rows, columns=["name", "value", "low", "high"])


def _combinations(metrics: Mapping[str, Any]) -> list[Markup]:
    metric, held_out, interval = find_metric(metric_of(metrics)), out_of_fold(metrics), interval_in_words(metrics)
    label, title = metric.label, metric.title
    words = "The ensemble includes the full fit, which held out no images and has no out-of-fold score."
    return [
        *([pages.paragraph(words)] if has_full_fit(metrics) else []),
        *_tested(metrics, metric, interval),
        *_without_value(metrics, {f"{name}, out of fold": entry for name, entry in _held_out(metrics).items()}),
        *map(pages.paragraph, about_choice(metrics)),
        pages.figure(figures.intervals(held_out, f"{title} out of fold", label), f"{title} out of fold of each fold"),
        pages.table(_named(held_out, metric), f"{label} of each model on its held-out images, with {interval}"),
    ]


def _tested(metrics: Mapping[str, Any], metric: Metric, interval: str) -> list[Markup]:
    tested, difference, label = scores(metrics), gains(metrics), metric.label
    missing = _without_value(metrics, _on_test_images(metrics))
    if tested.empty and not missing:
        return [pages.note(f"The labels of the test images are unknown, so only out-of-fold {label} is shown.")]
    if tested.empty:
        return missing
    paired = "Agresti and Min 2005" if metric_of(metrics) == "accuracy" else "the same bootstrap"
    return [
        *missing,
        pages.figure(
            figures.intervals(tested, f"{metric.title} on the test images", label),
            f"{metric.title} on the test images of each fold and ensembling method",
        ),
        pages.table(_named(tested, metric), f"{label} on the test images, with {interval}"),
        pages.figure(
            figures.intervals(
                difference, "What ensembling gains on the test images", f"difference in {label}", zero=True
            ),
            f"Differences in {label} between ensembling methods and one fold",
        ),
        pages.table(
            _named(difference, metric),
            f"difference in {label} on the same test images, with a paired 95% interval ({paired}); "
            "“one fold” is fold 0",
        ),
    ]


def _without_value(metrics: Mapping[str, Any], entries: Mapping[str, Mapping[str, Any] | None]) -> list[Markup]:
    """Return a note for each score that has no value."""
    whys = {name: entry["why"] for name, entry in entries.items() if entry and "why" in entry}
    return [pages.note(f"{name}: no {label_of_metric(metrics)}, as {why}.") for name, why in whys.items()]


def _named(rows: pd.DataFrame, metric: Metric) -> pd.DataFrame:
    """Rename the columns for people."""
    headings = {"name": "", "value": metric.label, "low": "95% from", "high": "to"}
    return rows.rename(columns=headings | {name: find_metric(name).label for name in BESIDE}).dropna(axis=1, how="all")


def _agreement(test: Mapping[Number, Logits], combined: Mapping[str, Logits], store: PixelStore) -> list[Markup]:
    method, logits = next(iter(combined.items()))
    votes = tables.votes(list(test.values()))
    sizes = tables.majority_sizes(votes)
    disputed = tables.disputed(votes, pd.Series(tables.confidence_of(logits), index=logits.image_id))
    pictures = [
        of_store(store, row.image_id, row.votes, f"{method} {row.confidence:.0%} sure", row.image_id)
        for row in disputed[:DISPUTED].itertuples()
    ]
    return [
        pages.paragraph(
            f"The {_folds_in_words(test)} agree on {(sizes == len(test)).sum():,} of {len(votes):,} test images and "
            f"disagree on {len(disputed):,}."
        ),
        pages.figure(figures.majorities(sizes, len(test)), "Test images by how many folds agree"),
        pages.figure(
            figures.agreement(tables.agreement(votes), list(test)), "Share of test images on which two folds agree"
        ),
        pages.heading("The most disputed test images"),
        pages.gallery(pictures) if pictures else pages.paragraph("There is none."),
    ]


def _folds_in_words(numbers: Iterable[Number]) -> str:
    """Count the folds, and the repeats if there are several."""
    repeats = [member_of(number).repeat for number in numbers]
    of_repeats = f" of {len(set(repeats))} repeats" if len(set(repeats)) > 1 else ""
    return f"{len(repeats)} folds{of_repeats}"


def _of_tests(combined: Mapping[str, Logits], after: str = "") -> dict[str, Logits]:
    return {f"test images, {name}{after}": logits for name, logits in combined.items()}


def _after_calibration(
    oof: Sequence[Logits], combined: Mapping[str, Logits], label_of: Mapping[str, str]
) -> list[Markup]:
    """Return the log loss before and after calibration, and the reliability diagrams after it."""
    calibration = calibrate(oof, label_of)
    after = {"out of fold, calibrated": cross_fitted(oof, calibration)}
    scaled = {name: at_temperature(logits, calibration.temperature) for name, logits in combined.items()}
    losses = pd.DataFrame(
        [("before", 1.0, calibration.before), ("after, cross-fitted", calibration.temperature, calibration.after)],
        columns=["", "temperature", "log loss"],
    )
    return [
        pages.heading("After calibration"),
        pages.paragraph(
            "The logits are divided by a temperature that minimises the log loss out of fold. The log loss after "
            "calibration is cross-fitted: each fold is scored at the temperature fitted on the others. The submission "
            "holds the probabilities after calibration."
        ),
        pages.table(losses, "log loss out of fold"),
        *_reliability(after | _of_tests(scaled, ", calibrated"), label_of),
    ]


def _calibration(sets: Mapping[str, Logits], label_of: Mapping[str, str]) -> list[Markup]:
    return [
        pages.paragraph(
            "If dots lie on the diagonal, confidence matches accuracy: of the images predicted with 80% confidence, "
            "80% are correct. The expected calibration error (Guo et al. 2017) uses 15 bins. "
            f"{_without_confidence()}"
        ),
        *_reliability(sets, label_of),
    ]


def _reliability(sets: Mapping[str, Logits], label_of: Mapping[str, str]) -> list[Markup]:
    known = {name: tables.labelled(logits, label_of) for name, logits in sets.items()}
    bins = {
        name: tables.calibration(tables.confidence_of(logits), logits.predictions() == truth)
        for name, (logits, truth) in known.items()
        if len(truth)
    }
    errors = [{"": name, "expected calibration error": tables.calibration_error(each)} for name, each in bins.items()]
    return [
        pages.table(pd.DataFrame(errors)),
        pages.grid(
            *[
                pages.figure(figures.reliability(each, f"{name[0].upper()}{name[1:]}"), f"Reliability diagram, {name}")
                for name, each in bins.items()
            ]
        ),
    ]


def _without_confidence() -> str:
    names = [name for name, method in METHODS.items() if not method.gives_probabilities]
    return f"Ensembling methods without probabilities are not shown: {', '.join(names)}." if names else ""


def _class_counts(predicted: pd.Series, train_labels: pd.Series, classes: Sequence[str]) -> pd.DataFrame:
    counts = {"training": train_labels.value_counts(), "predicted": predicted.value_counts()}
    columns = {name: each.reindex(classes, fill_value=0).to_numpy() for name, each in counts.items()}
    return pd.DataFrame({"class": classes, **columns})


def write_submission_page(
    submission: pd.DataFrame,
    predicted: pd.Series,
    train_labels: pd.Series,
    classes: Sequence[str],
    checks: Sequence[str],
    path: str,
) -> None:
    """Write the page of the submission: passed checks, predicted and training images per class, and the first rows.

    ``predicted`` is the most likely label of each row.
    """
    missing = [label for label in classes if label not in set(predicted)]
    absent = (
        f"{len(missing)} of {len(classes)} classes are never predicted: {', '.join(map(figures.cut, missing[:20]))}."
    )
    pages.write_page(
        path,
        "The submission",
        pages.heading("Checks passed"),
        *[pages.paragraph(f"✓ {check}") for check in checks],
        *([pages.note(absent)] if missing else []),
        pages.figure(
            figures.predicted_counts(predicted, train_labels, classes),
            "Share of each class among training images and predictions",
        ),
        pages.table(_class_counts(predicted, train_labels, classes), "images of each class"),
        pages.heading("First rows"),
        pages.table(submission.iloc[:FIRST_ROWS, :FIRST_COLUMNS]),
    )
