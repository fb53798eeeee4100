"""The report's page on selective prediction: how accurate predictions are if only the sure ones count."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import altair
import numpy as np
import pandas as pd

from kfold_ens.ensemble.combine import METHODS
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
    sure_by,
    threshold_for,
    with_intervals,
)
from kfold_ens.ensemble.temperature import at_temperature, calibrate, cross_fitted
from kfold_ens.logits import Logits, concatenated
from kfold_ens.report import pages, style
from kfold_ens.report.pages import Markup

THRESHOLDS = (0.5, 0.6, 0.7, 0.8, 0.9, 0.95, 0.99)
ACCURACIES = (0.8, 0.9, 0.95, 0.98, 0.99, 0.995, 0.999)  # those above that of all images are looked for
POINTS = 50  # of a curve, each with an interval
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
    """The page ``risk_coverage``, from the logits of all folds and the test logits ``combined`` by each method.

    Labels and probabilities are those that ``kfold-predict`` would give by this ensembling method, at a temperature if
    ``calibrated``: cross-fitted by fold out of fold.
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
        "How many predictions are sure, and how accurate are they?",
        *_words(method, calibrated, _models_per_image(oof), ENSEMBLE in known),
        pages.chart(figure(known), "risk-coverage", "Accuracy against the share of images predicted"),
        *[pages.table(_rows(images, reached), _caption(name, images, reached)) for name, images in known.items()],
        *_unreached([accuracy for accuracy in chosen if accuracy not in reached]),
        *_areas(known),
    )


def _sides(
    oof: Sequence[Logits], combined: Mapping[str, Logits], method: str, label_of: Mapping[str, str], calibrated: bool
) -> dict[str, tuple[Logits, Logits]]:
    """Scores, and logits that say how sure they are, out of fold and of the ensemble on the test images."""
    if calibrated:
        held_out = combined_over_repeats(oof, method)
        calibration = calibrate(held_out, label_of)
        after = cross_fitted(held_out, calibration), at_temperature(combined[method], calibration.temperature)
        return {OUT_OF_FOLD: (after[0], after[0]), ENSEMBLE: (after[1], after[1])}
    both = method, sure_by(method)
    held_out = tuple(concatenated(combined_over_repeats(oof, each)) for each in both)
    return {OUT_OF_FOLD: held_out, ENSEMBLE: tuple(combined[each] for each in both)}


def _models_per_image(oof: Sequence[Logits]) -> int:
    image_id = concatenated(oof).image_id
    return len(image_id) // len(set(image_id))


def _above(images: Predicted) -> list[float]:
    return [accuracy for accuracy in ACCURACIES if accuracy > images.right.mean()]


# --- words -----------------------------------------------------------------------------------------------


def _words(method: str, calibrated: bool, models: int, has_test_labels: bool) -> list[Markup]:
    of_whom = "the single model" if models == 1 else f"the {models} models, combined by the ensembling method,"
    ensemble = (
        "An average of several models is less sure than each: at the same p an ensemble predicts fewer images, as a "
        "rule at a higher accuracy."
    )
    tested = (
        "The second curve and table are of the ensemble itself, on the test images whose labels are known, at the p "
        "that were chosen out of fold."
        if has_test_labels
        else "The labels of the test images are unknown, so the ensemble's own curve cannot be shown."
    )
    return [
        pages.paragraph(
            "kfold-predict --min-probability p marks predictions whose probability is below p as unsure. This is "
            "selective prediction; the curve is a risk-coverage curve (El-Yaniv and Wiener 2010, Geifman and El-Yaniv "
            "2017): accuracy, which is 1 - the selective risk, against the share of images predicted, the coverage. "
            f"Large dots are p = {', '.join(f'{p:g}' for p in THRESHOLDS)}; hover over a dot for its p. Bands are 95% "
            "intervals, each of its own point."
        ),
        pages.paragraph(
            f"Out of fold, an image's probability is that of {of_whom} that did not train on it. {ensemble} {tested}"
        ),
        pages.paragraph(_of_probabilities(method, calibrated)),
    ]


def _of_probabilities(method: str, calibrated: bool) -> str:
    if calibrated:
        return (
            "Probabilities are those after calibration: out of fold at the temperature fitted on the other folds, and "
            "of the ensemble at the temperature fitted on all folds."
        )
    if not METHODS[method].gives_probabilities:
        return (
            "A vote has no probabilities. As in kfold-predict, the label is that of the vote, and its probability that "
            "of the average of softmax."
        )
    return "Probabilities are not calibrated: p is a threshold, and no promise that so many predictions are right."


def _caption(name: str, images: Predicted, reached: Mapping[float, float]) -> str:
    drawn = "by a bootstrap of whole groups where images share one, Wilson's over groups if no prediction is wrong"
    kind = "(Wilson's)" if images.group is None else drawn
    flattered = "p for an accuracy predicts the most images that reach it, which flatters it"
    chosen = flattered if name == OUT_OF_FOLD else "p for an accuracy is that chosen out of fold"
    return f"{name}: accuracy on the images predicted, with a 95% interval {kind}{f'; {chosen}' if reached else ''}"


def _unreached(accuracies: Sequence[float]) -> list[Markup]:
    names = ", ".join(f"{each:g}" for each in accuracies)
    return [pages.paragraph(f"No p reaches an accuracy of {names} out of fold.")] if accuracies else []


# --- tables ----------------------------------------------------------------------------------------------


def _rows(images: Predicted, reached: Mapping[float, float]) -> pd.DataFrame:
    """The rows of the thresholds, and of those chosen for an accuracy, by p; 0 predicts all images."""
    rows = at_thresholds(images, [0.0, *THRESHOLDS, *reached.values()])
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
        pages.heading("How well probabilities tell right from wrong"),
        pages.paragraph(
            "The area under the risk-coverage curve (AURC, Geifman et al. 2019) is the mean error rate over all "
            "shares. It is the least possible if every wrong prediction is less sure than every right one, and about "
            "the error rate of all images if probabilities do not tell right from wrong."
        ),
        pages.table(pd.DataFrame(rows, columns=columns), "AURC, with a 95% interval by a bootstrap"),
    ]


def _around(images: Predicted) -> tuple[float, float]:
    """The AURC of the best order, and of none."""
    return least_aurc(images), float(1 - images.right.mean())


# --- the figure ------------------------------------------------------------------------------------------


def figure(sets: Mapping[str, Predicted]) -> altair.TopLevelMixin:
    """Accuracy against the share predicted, a curve with a band of 95% intervals for each set."""
    curves = pd.concat([_points(name, images) for name, images in sets.items()])
    colour = altair.Color(
        "set:N",
        title=None,
        scale=altair.Scale(domain=list(sets), range=list(style.COLOURS[: len(sets)])),
        legend=altair.Legend(orient="top", labelLimit=400, symbolOpacity=1),
    )
    base = altair.Chart(curves).encode(
        x=altair.X("share:Q", title="share of images predicted", axis=altair.Axis(format="%")),
        y=altair.Y("accuracy:Q", title="accuracy on them", scale=altair.Scale(zero=False)),
        color=colour,
    )
    band = base.mark_area(opacity=0.15).encode(y=altair.Y("low:Q", title="accuracy on them"), y2="high:Q")
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
    """The rows of a curve, with those of round thresholds."""
    curve = risk_coverage(images, POINTS)
    marked = at_thresholds(images, np.array(THRESHOLDS)).query("images > 0")
    rows = pd.concat([curve.assign(round=False), marked.assign(round=True)]).sort_values("share", kind="stable")
    return with_intervals(images, rows).assign(set=name)
