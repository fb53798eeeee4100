"""How good the folds and the ensembling methods are, with the interval that goes with the number of images."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from itertools import combinations
from typing import Any

import numpy as np
import pandas as pd
from scipy.stats import binomtest, norm

from kfold_ens.config import Scoring
from kfold_ens.ensemble.combine import METHODS
from kfold_ens.ensemble.intervals import interval, paired_interval
from kfold_ens.ensemble.out_of_fold import combined_over_repeats
from kfold_ens.logits import Logits, class_indices, concatenated
from kfold_ens.members import Number
from kfold_ens.metrics import Metric, absent_classes, find_metric, inputs_of, places_in_order, refuse_unfit, value

DEFAULT = Scoring()
BESIDE = ("accuracy", "log_loss")  # what stands beside any other metric


def read_scoring(params: Any) -> Scoring:
    """What a job's params say about scoring; the default if they say nothing."""
    return Scoring.model_validate_json(params.get("scoring", "{}"))


def score(
    logits: Logits, label_of: Mapping[str, str], scoring: Scoring = DEFAULT, has_probabilities: bool = True
) -> dict[str, Any] | None:
    """The metric over the images whose label is known, with its 95% interval, and accuracy and log loss beside it.

    None if no label is known. A metric without a value is None, and ``why`` says why. Wilson's interval for accuracy;
    for other metrics that of ``intervals``.
    """
    outcomes = correctness(logits, label_of)
    if outcomes.empty:
        return None
    correct, images = int(outcomes.sum()), len(outcomes)
    counts = {"correct": correct, "images": images}
    known = _known(logits, label_of, scoring)
    others = {"accuracy": correct / images, "log_loss": _log_loss(known) if has_probabilities else None}
    if scoring.metric == "accuracy":
        wilson = binomtest(correct, images).proportion_ci(0.95, method="wilson")
        own = {"accuracy": correct / images, "low": float(wilson.low), "high": float(wilson.high)}
    else:
        own = _with_interval(known, scoring, has_probabilities)
    return own | {name: each for name, each in others.items() if name not in own} | counts


@dataclass(frozen=True)
class _Known:
    """Images with a label: logits (N, K), class indices (N,), the classes, and their order for quadratic_kappa."""

    logits: np.ndarray
    target: np.ndarray
    classes: tuple[str, ...]
    order: list[int] | None

    def inputs(self, metric: Metric) -> tuple[np.ndarray, np.ndarray]:
        return inputs_of(metric, self.logits, self.target, self.order)


def _known(logits: Logits, label_of: Mapping[str, str], scoring: Scoring) -> _Known:
    target = class_indices(logits, label_of)
    has_order = find_metric(scoring.metric).needs == "order"
    order = places_in_order(logits.classes, scoring.class_order) if has_order else None
    return _Known(logits.values[target >= 0], target[target >= 0], logits.classes, order)


def _log_loss(known: _Known) -> float | None:
    return value("log_loss", known.logits, known.target) if len(known.target) else None


def _with_interval(known: _Known, scoring: Scoring, has_probabilities: bool) -> dict[str, Any]:
    metric = find_metric(scoring.metric)
    if reason := _no_value(metric, known, has_probabilities):
        return {scoring.metric: None, "low": None, "high": None, "why": reason}
    inputs = known.inputs(metric)
    own = metric.compute(*inputs)
    if np.isnan(own):
        return {scoring.metric: None, "low": None, "high": None, "why": "all labels and predictions are of one class"}
    low, high = interval(metric, inputs, own)
    return {scoring.metric: float(own), "low": _number(low), "high": _number(high)}


def _no_value(metric: Metric, known: _Known, has_probabilities: bool) -> str | None:
    """Why a metric has no value, in words; None if it has one."""
    if metric.needs_probabilities and not has_probabilities:
        return "a vote has no probabilities"
    absent = [known.classes[place] for place in absent_classes(known.target, len(known.classes))]
    if metric.needs_every_class and absent:
        return f"no image is of class {', '.join(absent)}"
    return None


def _number(each: float) -> float | None:
    return None if np.isnan(each) else float(each)


def correctness(logits: Logits, label_of: Mapping[str, str]) -> pd.Series:
    """Whether each image whose label is known was predicted right, by image id."""
    predicted = zip(logits.image_id, logits.predictions(), strict=True)
    outcomes = {image_id: label == label_of[image_id] for image_id, label in predicted if label_of.get(image_id)}
    return pd.Series(outcomes, dtype=bool)


def paired_difference(some: pd.Series, others: pd.Series) -> dict[str, float]:
    """How much more accurate ``some`` is than ``others`` on the same images, with a paired 95% interval.

    Agresti and Min 2005, https://doi.org/10.1002/sim.1781: the Wald interval of matched pairs with half an image added
    to each of the four cells.
    """
    others = others.loc[some.index]
    better, worse, images = int((some & ~others).sum()), int((others & ~some).sum()), len(some)
    b, c, n = better + 0.5, worse + 0.5, images + 2
    half = norm.ppf(0.975) * np.sqrt(b + c - (b - c) ** 2 / n) / n
    return {
        "difference": (better - worse) / images,
        "low": float((b - c) / n - half),
        "high": float((b - c) / n + half),
    }


def difference(
    some: Logits, others: Logits, label_of: Mapping[str, str], scoring: Scoring = DEFAULT
) -> dict[str, float | None]:
    """By how much the metric of ``some`` is above that of ``others``, with a paired 95% interval.

    Both are of the same images; ``paired_difference`` gives accuracy's. None if the metric has no value.
    """
    if scoring.metric == "accuracy":
        return paired_difference(correctness(some, label_of), correctness(others, label_of))
    metric = find_metric(scoring.metric)
    rows = pd.Index(others.image_id).get_indexer(pd.Index(some.image_id))
    others = Logits(some.image_id, others.values[rows], others.classes)
    first, second = (_known(each, label_of, scoring) for each in (some, others))
    if _no_value(metric, first, has_probabilities=True):
        return {"difference": None, "low": None, "high": None}
    inputs = first.inputs(metric), second.inputs(metric)
    own = metric.compute(*inputs[0]) - metric.compute(*inputs[1])
    low, high = paired_interval(metric, *inputs, own)
    return {"difference": _number(own), "low": _number(low), "high": _number(high)}


def summarize(
    oof: Mapping[Number, Logits],
    test: Mapping[Number, Logits],
    combined: Mapping[str, Logits],
    label_of: Mapping[str, str],
    scoring: Scoring = DEFAULT,
    over_repeats: str = "average",
    members: str = "folds",
) -> dict[str, Any]:
    """``metrics.json``: the metric out of fold, and on test images with labels, of each fold and ensembling method.

    ``out_of_fold`` is of every training image once: if folds of several repeats hold it out, their predictions are
    combined by the ensembling method ``over_repeats``. So it is a score of an ensemble, of as many models as repeats.
    ``members`` says which models' test logits are ``combined``, and is written down unless it is the folds' alone.
    """
    refuse_unfit(scoring.metric, next(iter(oof.values())).classes, scoring.class_order)

    def scored(logits: Logits, method: str = "average") -> dict[str, Any] | None:
        return score(logits, label_of, scoring, METHODS[method].gives_probabilities)

    return ({} if members == "folds" else {"members": members}) | {
        "metric": scoring.metric,
        "out_of_fold": scored(concatenated(combined_over_repeats(list(oof.values()), over_repeats)), over_repeats),
        "folds": {str(fold): {"out_of_fold": scored(oof[fold]), "test": scored(test[fold])} for fold in oof},
        "methods": {method: {"test": scored(logits, method)} for method, logits in combined.items()},
        "differences": differences({"one fold": next(iter(test.values())), **combined}, label_of, scoring),
    }


def differences(
    predictions: Mapping[str, Logits], label_of: Mapping[str, str], scoring: Scoring = DEFAULT
) -> list[dict[str, Any]]:
    """Each pair's difference in the metric on the test images, with a paired 95% interval; none without labels."""
    if any(correctness(each, label_of).empty for each in predictions.values()):
        return []
    if find_metric(scoring.metric).needs_probabilities:
        vague = {name for name, method in METHODS.items() if not method.gives_probabilities}
        predictions = {name: each for name, each in predictions.items() if name not in vague}
    return [
        {"of": some, "to": other, **difference(predictions[some], predictions[other], label_of, scoring)}
        for other, some in combinations(predictions, 2)
    ]


def metric_of(metrics: Mapping[str, Any]) -> str:
    """The metric that ``metrics.json`` leads with; earlier versions knew accuracy alone."""
    return metrics.get("metric", "accuracy")


def has_full_fit(metrics: Mapping[str, Any]) -> bool:
    """Whether a model that held out nothing is among those whose predictions are combined."""
    return metrics.get("members", "folds") != "folds"


def label_of_metric(metrics: Mapping[str, Any]) -> str:
    """The same for people."""
    return find_metric(metric_of(metrics)).label


def interval_in_words(metrics: Mapping[str, Any]) -> str:
    """The kind of interval in ``metrics.json``."""
    return "Wilson's 95% interval" if metric_of(metrics) == "accuracy" else "a 95% interval by a stratified bootstrap"


def cell(entry: Mapping[str, Any] | None, metric: str, with_interval: bool = True) -> str:
    """A score in words: the metric, its interval, and accuracy and log loss beside it."""
    if entry is None:
        return "labels unknown"
    own, low = entry[metric], entry["low"]
    words = "no value: " + entry["why"] if own is None else f"{own:.4f}"
    if with_interval and low is not None:
        words += f" ({low:.4f} to {entry['high']:.4f})"
    return ", ".join([words, *beside(entry, metric)])


def beside(entry: Mapping[str, Any], metric: str) -> list[str]:
    """Accuracy and log loss in words, unless they are the metric."""
    shown = [name for name in BESIDE if name != metric and entry.get(name) is not None]
    return [f"{find_metric(name).label} {entry[name]:.4f}" for name in shown]


def as_text(metrics: Mapping[str, Any], chosen: str) -> str:
    """The metrics as a small table for the terminal."""
    metric = metric_of(metrics)
    rows = [(label_of_metric(metrics), "out-of-fold", "test")]
    rows += [
        (f"fold {name}", cell(fold["out_of_fold"], metric, False), cell(fold["test"], metric, False))
        for name, fold in metrics["folds"].items()
    ]
    rows += [("all folds", cell(metrics["out_of_fold"], metric), "")]
    rows += [("full fit", "none: it holds out nothing", "")] * has_full_fit(metrics)
    rows += [
        (f"{method} *" if method == chosen else method, "", cell(entry["test"], metric))
        for method, entry in metrics["methods"].items()
    ]
    widths = [max(len(row[place]) for row in rows) + 2 for place in (0, 1)]
    return "\n".join(f"  {name:<{widths[0]}}{oof:<{widths[1]}}{test}".rstrip() for name, oof, test in rows)
