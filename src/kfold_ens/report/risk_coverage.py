"""The report's page on selective prediction: the accuracy of predictions above a threshold of probability."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import altair
import numpy as np
import pandas as pd

from kfold_ens.ensemble.combine import METHODS, sure_by
from kfold_ens.ensemble.metrics import NO_GROUPS
from kfold_ens.ensemble.out_of_fold import combined_over_repeats
from kfold_ens.ensemble.selective import (
    Predicted,
    at_thresholds,
    aurc,
    aurc_interval,
    least_aurc,
    predicted,
    risk_coverage,
    threshold_for,
    with_intervals,
)
from kfold_ens.ensemble.temperature import at_temperature, calibrate, cross_fitted
from kfold_ens.logits import Logits, concatenated
from kfold_ens.report import pages, style
from kfold_ens.report.pages import Markup

THRESHOLDS = (0.5, 0.6, 0.7, 0.8, 0.9, 0.95, 0.99)
ACCURACIES = (0.8, 0.9, 0.95, 0.98, 0.99, 0.995, 0.999)  # searched if above the accuracy on all images
POINTS = 50  # per curve, each with an interval
OUT_OF_FOLD, ENSEMBLE = "out of fold", "ensemble, test images"


def write_risk_coverage(
    oof: Sequence[Logits],
    combined: Mapping[str, Logits],
    method: str,
    label_of: Mapping[str, str],
    path: str,
    calibrated: bool = False,
    group_of: Mapping[str, str] = NO_GROUPS,
) -> None:
    """Write the page ``risk_coverage``, from out-of-fold logits and the test logits ``combined`` by each method.

    Labels and probabilities are those that ``kfold-predict`` gives by the ensembling method ``method``. If
    ``calibrated``, they are at the temperature, which is cross-fitted by fold out of fold.
    """
    sets = {
        name: predicted(*logits, label_of, group_of)
        for name, logits in _sides(oof, combined, method, label_of, calibrated).items()
    }
    known = {name: images for name, images in sets.items() if len(images.right)}
    chosen = {accuracy: threshold_for(known[OUT_OF_FOLD], accuracy) for accuracy in _above(known[OUT_OF_FOLD])}
    reached = {accuracy: p for accuracy, p in chosen.items() if p is not None}
    pages.write_page(
        path,
        "Accuracy of the predictions above a threshold",
        *_words(method, calibrated, _models_per_image(oof), ENSEMBLE in known),
        pages.chart(figure(known), "risk-coverage", "Accuracy against the share of images predicted"),
        *[pages.table(_rows(images, reached), _caption(name, images, reached)) for name, images in known.items()],
        *_unreached([accuracy for accuracy in chosen if accuracy not in reached]),
        *_areas(known),
    )


def _sides(
    oof: Sequence[Logits], combined: Mapping[str, Logits], method: str, label_of: Mapping[str, str], calibrated: bool
) -> dict[str, tuple[Logits, Logits]]:
    """Return the logits of the labels and of their probabilities, out of fold and of the ensemble on test images."""
    if calibrated:
        held_out = combined_over_repeats(oof, method)
        calibration = calibrate(held_out, label_of)
        after = cross_fitted(held_out, calibration), at_temperature(combined[method], calibration.temperature)
        return {OUT_OF_FOLD: (after[0], after[0]), ENSEMBLE: (after[1], after[1])}
    both = method, sure_by(method)
    labels, sure = (concatenated(combined_over_repeats(oof, each)) for each in both)
    return {OUT_OF_FOLD: (labels, sure), ENSEMBLE: (combined[both[0]], combined[both[1]])}


def _models_per_image(oof: Sequence[Logits]) -> int:
    image_id = concatenated(oof).image_id
    return len(image_id) // len(set(image_id))


def _above(images: Predicted) -> list[float]:
    return [accuracy for accuracy in ACCURACIES if accuracy > images.right.mean()]


# --- words -----------------------------------------------------------------------------------------------


def _words(method: str, calibrated: bool, models: int, has_test_labels: bool) -> list[Markup]:
    source = (
        "comes from the one model that did not train on it"
        if models == 1
        else f"comes from the {models} models that did not train on it, combined by the ensembling method"
    )
    ensemble = (
        "An ensemble of all models is less confident than each model: at the same p it predicts fewer images, usually "
        "with a higher accuracy."
    )
    tested = (
        "The second curve and table show the ensemble itself, on the test images with known labels, at the thresholds "
        "chosen out of fold."
        if has_test_labels
        else "The labels of the test images are unknown, so the ensemble's own curve cannot be shown."
    )
    return [
        pages.paragraph(
            "kfold-predict --min-probability p marks predictions with a probability below p as unsure. This is "
            "selective prediction. The risk-coverage curve (El-Yaniv and Wiener 2010, Geifman and El-Yaniv 2017) plots "
            "the accuracy on the other images (1 - the selective risk) against their share (the coverage). Large dots "
            f"mark p = {', '.join(f'{p:g}' for p in THRESHOLDS)}; hover over a dot to see its p. Bands are pointwise "
            "95% intervals."
        ),
        pages.paragraph(f"Out of fold, the probability of an image {source}. {ensemble} {tested}"),
        pages.paragraph(_of_probabilities(method, calibrated)),
    ]


def _of_probabilities(method: str, calibrated: bool) -> str:
    if calibrated:
        return (
            "Probabilities are those after calibration: out of fold, at the temperature fitted on the other folds; of "
            "the ensemble, at the temperature fitted on all folds."
        )
    if not METHODS[method].gives_probabilities:
        return (
            "A vote has no probabilities. As in kfold-predict, the label comes from the vote and its probability from "
            "the average of softmax."
        )
    return "Probabilities are not calibrated: p is a threshold, not the share of correct predictions."


def _caption(name: str, images: Predicted, reached: Mapping[float, float]) -> str:
    drawn = "(by a bootstrap of whole groups if images share one; Wilson's over groups if all predictions are correct)"
    kind = "(Wilson's)" if images.group is None else drawn
    optimistic = "each p for an accuracy is chosen on these images, so their accuracy at it is optimistic"
    chosen = optimistic if name == OUT_OF_FOLD else "each p for an accuracy was chosen out of fold"
    return f"{name}: accuracy on the predicted images, with a 95% interval {kind}{f'; {chosen}' if reached else ''}"


def _unreached(accuracies: Sequence[float]) -> list[Markup]:
    names = ", ".join(f"{each:g}" for each in accuracies)
    return [pages.paragraph(f"No p reaches an accuracy of {names} out of fold.")] if accuracies else []


# --- tables ----------------------------------------------------------------------------------------------


def _rows(images: Predicted, reached: Mapping[float, float]) -> pd.DataFrame:
    """Return the rows of fixed thresholds and of those chosen for an accuracy, by p; p = 0 predicts all images."""
    rows = at_thresholds(images, np.array([0.0, *THRESHOLDS, *reached.values()]))
    rows["why"] = ["", *[""] * len(THRESHOLDS), *(f"{accuracy:g}" for accuracy in reached)]
    rows = with_intervals(images, rows.sort_values("p", kind="stable"))
    rows["p"] = [f"{p:.6f}".rstrip("0").rstrip(".") for p in rows["p"]]
    headings = {"share": "share predicted", "low": "95% from", "high": "to", "why": "chosen for accuracy"}
    columns = ["p", "share", "images", "accuracy", "low", "high", *(["why"] if reached else [])]
    return rows[columns].rename(columns=headings)


def _areas(known: Mapping[str, Predicted]) -> list[Markup]:
    rows = [(name, aurc(images), *aurc_interval(images), *_around(images)) for name, images in known.items()]
    columns = ["", "AURC", "95% from", "to", "least possible", "error rate"]
    return [
        pages.heading("How well probabilities separate correct from wrong predictions"),
        pages.paragraph(
            "The area under the risk-coverage curve (AURC, Geifman et al. 2019) is the mean error rate over all "
            "shares. It is the least possible if every wrong prediction has a lower probability than every correct "
            "one. It is about the error rate of all images if probabilities say nothing about correctness."
        ),
        pages.table(pd.DataFrame(rows, columns=columns), "AURC, with a 95% interval by a bootstrap"),
    ]


def _around(images: Predicted) -> tuple[float, float]:
    """Return the least possible AURC, and that of probabilities in random order."""
    return least_aurc(images), float(1 - images.right.mean())


# --- the figure ------------------------------------------------------------------------------------------


def figure(sets: Mapping[str, Predicted]) -> altair.TopLevelMixin:
    """Plot accuracy against the share of predicted images, a curve with 95% intervals for each set."""
    curves = pd.concat([_points(name, images) for name, images in sets.items()])
    colour = altair.Color(
        "set:N",
        title=None,
        scale=altair.Scale(domain=list(sets), range=list(style.COLOURS[: len(sets)])),
        legend=altair.Legend(orient="top", labelLimit=400, symbolOpacity=1),
    )
    base = altair.Chart(curves).encode(
        x=altair.X("share:Q", title="share of images predicted", axis=altair.Axis(format="%")),
        y=altair.Y("accuracy:Q", title="accuracy on these images", scale=altair.Scale(zero=False)),
        color=colour,
    )
    band = base.mark_area(opacity=0.15).encode(y=altair.Y("low:Q", title="accuracy on these images"), y2="high:Q")
    dots = base.mark_circle(opacity=1).encode(
        size=altair.condition("datum.round", altair.value(70), altair.value(14)),
        tooltip=[
            altair.Tooltip("p:Q", format=".6~f"),
            altair.Tooltip("share:Q", format=".1%"),
            "images:Q",
            *(altair.Tooltip(f"{name}:Q", format=".4f") for name in ("accuracy", "low", "high")),
        ],
    )
    chart = (band + base.mark_line() + dots).properties(width=640, height=360)
    return chart.configure_axis(labelFontSize=12, titleFontSize=13).configure_legend(labelFontSize=12)


def _points(name: str, images: Predicted) -> pd.DataFrame:
    """Return the rows of a curve and those of round thresholds."""
    curve = risk_coverage(images, POINTS)
    marked = at_thresholds(images, np.array(THRESHOLDS)).query("images > 0")
    rows = pd.concat([curve.assign(round=False), marked.assign(round=True)]).sort_values("share", kind="stable")
    return with_intervals(images, rows).assign(set=name)
