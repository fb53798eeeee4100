"""Score folds and ensembling methods, with 95% intervals."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import combinations
from typing import Any

import numpy as np
import pandas as pd
from scipy.stats import binomtest, norm

from kfold_ens.config import Scoring
from kfold_ens.ensemble.combine import METHODS
from kfold_ens.ensemble.intervals import interval, paired_interval
from kfold_ens.logits import Logits, class_indices
from kfold_ens.metrics import Metric, absent_classes, find_metric, inputs_of, places_in_order, value

DEFAULT = Scoring()
NO_GROUPS: Mapping[str, str] = {}


def read_scoring(params: Any) -> Scoring:
    """Read the scoring from a job's params; the default if they have none."""
    return Scoring.model_validate_json(params.get("scoring", "{}"))


def score(
    logits: Logits,
    label_of: Mapping[str, str],
    scoring: Scoring = DEFAULT,
    has_probabilities: bool = True,
    group_of: Mapping[str, str] = NO_GROUPS,
) -> dict[str, Any] | None:
    """Score the images with a known label: the metric with its 95% interval, accuracy and log loss.

    None if no label is known. A metric without a value is None; ``why`` gives the reason. The interval is Wilson's for
    accuracy. For other metrics, and if images share a group (``group_of``, by image id), it is that of ``intervals``.
    """
    outcomes = correctness(logits, label_of)
    if outcomes.empty:
        return None
    correct, images = int(outcomes.sum()), len(outcomes)
    counts = {"correct": correct, "images": images}
    known = _known(logits, label_of, scoring, group_of)
    others = {"accuracy": correct / images, "log_loss": _log_loss(known) if has_probabilities else None}
    if scoring.metric == "accuracy" and known.group is None:
        wilson = binomtest(correct, images).proportion_ci(0.95, method="wilson")
        own = {"accuracy": correct / images, "low": float(wilson.low), "high": float(wilson.high)}
    else:
        own = _with_interval(known, scoring, has_probabilities)
    counts |= _groups_and_classes(known)
    return own | {name: each for name, each in others.items() if name not in own} | counts


@dataclass(frozen=True)
class _Known:
    """Images with a label: logits (N, K), class indices (N,), the classes, and their order for quadratic_kappa.

    ``group`` holds the numbers of the images' groups (N,); None if no two images share one.
    """

    logits: np.ndarray
    target: np.ndarray
    classes: tuple[str, ...]
    order: list[int] | None
    group: np.ndarray | None

    def inputs(self, metric: Metric) -> tuple[np.ndarray, np.ndarray]:
        return inputs_of(metric, self.logits, self.target, self.order)


def _known(
    logits: Logits, label_of: Mapping[str, str], scoring: Scoring, group_of: Mapping[str, str] = NO_GROUPS
) -> _Known:
    target = class_indices(logits, label_of)
    has_order = find_metric(scoring.metric).needs == "order"
    order = places_in_order(logits.classes, scoring.class_order) if has_order else None
    group = group_numbers(logits.image_id[target >= 0], group_of)
    return _Known(logits.values[target >= 0], target[target >= 0], logits.classes, order, group)


def group_numbers(image_id: np.ndarray, group_of: Mapping[str, str]) -> np.ndarray | None:
    """Number the images' groups (N,); an image without a group is a group by itself. None if no two share one."""
    if not group_of:
        return None
    groups = [("group", group_of[each]) if each in group_of else ("image", each) for each in image_id]
    if len(set(groups)) == len(groups):
        return None
    number = {group: place for place, group in enumerate(dict.fromkeys(groups))}
    return np.array([number[group] for group in groups])


def _groups_and_classes(known: _Known) -> dict[str, int]:
    """Count the groups if images share some, and the classes if some have no image."""
    groups = {} if known.group is None else {"groups": int(known.group.max()) + 1}
    absent, classes = len(absent_classes(known.target, len(known.classes))), len(known.classes)
    return groups | ({"classes": classes - absent, "of_classes": classes} if absent else {})


def _log_loss(known: _Known) -> float | None:
    return value("log_loss", known.logits, known.target) if len(known.target) else None


def _with_interval(known: _Known, scoring: Scoring, has_probabilities: bool) -> dict[str, Any]:
    metric = find_metric(scoring.metric)
    if reason := _no_value(metric, known, has_probabilities):
        return {scoring.metric: None, "low": None, "high": None, "why": reason}
    inputs = known.inputs(metric)
    own = metric.compute(*inputs)
    if np.isnan(own):
        return {scoring.metric: None, "low": None, "high": None, "why": "all labels and predictions are one class"}
    low, high = interval(metric, inputs, own, known.group)
    return {scoring.metric: float(own), "low": _number(low), "high": _number(high)}


def _no_value(metric: Metric, known: _Known, has_probabilities: bool) -> str | None:
    """Return the reason why a metric has no value; None if it has one."""
    if metric.needs_probabilities and not has_probabilities:
        return "a vote has no probabilities"
    absent = [known.classes[place] for place in absent_classes(known.target, len(known.classes))]
    if metric.needs_every_class and absent:
        return f"there are no images of class {', '.join(absent)}"
    return None


def _number(each: float) -> float | None:
    return None if np.isnan(each) else float(each)


def correctness(logits: Logits, label_of: Mapping[str, str]) -> pd.Series:
    """Return whether each image with a known label was predicted correctly, by image id."""
    predicted = zip(logits.image_id, logits.predictions(), strict=True)
    outcomes = {image_id: label == label_of[image_id] for image_id, label in predicted if label_of.get(image_id)}
    return pd.Series(outcomes, dtype=bool)


def paired_difference(some: pd.Series, others: pd.Series, level: float = 0.95) -> dict[str, float | None]:
    """Return the accuracy of ``some`` minus that of ``others`` on the same images, with a paired interval.

    The Wald interval of matched pairs with 0.5 added to each of the four cells: Agresti and Min 2005,
    https://doi.org/10.1002/sim.1781.
    """
    others = others.loc[some.index]
    better, worse, images = int((some & ~others).sum()), int((others & ~some).sum()), len(some)
    b, c, n = better + 0.5, worse + 0.5, images + 2
    half = norm.ppf((1 + level) / 2) * np.sqrt(b + c - (b - c) ** 2 / n) / n
    return {
        "difference": (better - worse) / images,
        "low": float((b - c) / n - half),
        "high": float((b - c) / n + half),
    }


def difference(
    some: Logits,
    others: Logits,
    label_of: Mapping[str, str],
    scoring: Scoring = DEFAULT,
    group_of: Mapping[str, str] = NO_GROUPS,
    level: float = 0.95,
) -> dict[str, float | None]:
    """Return the metric of ``some`` minus that of ``others`` on the same images, with a paired interval.

    For accuracy it is that of ``paired_difference``, unless images share a group. Values are None if the metric has
    none.
    """
    if scoring.metric == "accuracy" and group_numbers(some.image_id, group_of) is None:
        return paired_difference(correctness(some, label_of), correctness(others, label_of), level)
    metric, (inputs, group) = find_metric(scoring.metric), on_same_images([some, others], label_of, scoring, group_of)
    if not inputs:
        return {"difference": None, "low": None, "high": None}
    first, second = inputs
    own = metric.compute(*first) - metric.compute(*second)
    low, high = paired_interval(metric, first, second, own, group, level)
    return {"difference": _number(own), "low": _number(low), "high": _number(high)}


def on_same_images(
    predictions: Sequence[Logits],
    label_of: Mapping[str, str],
    scoring: Scoring = DEFAULT,
    group_of: Mapping[str, str] = NO_GROUPS,
) -> tuple[list[tuple[np.ndarray, np.ndarray]], np.ndarray | None]:
    """Return the metric's inputs for each prediction of the same images, in the order of the first, and their groups.

    There are no inputs if the metric has no value on these images.
    """
    ids, metric = predictions[0].image_id, find_metric(scoring.metric)
    known = [
        _known(Logits(ids, each.values[rows], each.classes), label_of, scoring, group_of)
        for each in predictions
        for rows in [pd.Index(each.image_id).get_indexer(pd.Index(ids))]
    ]
    if _no_value(metric, known[0], has_probabilities=True):
        return [], None
    return [each.inputs(metric) for each in known], known[0].group


def differences(
    predictions: Mapping[str, Logits],
    label_of: Mapping[str, str],
    scoring: Scoring = DEFAULT,
    group_of: Mapping[str, str] = NO_GROUPS,
) -> list[dict[str, Any]]:
    """Return the difference in the metric for each pair of predictions, with a paired 95% interval.

    Empty if no labels are known.
    """
    if any(correctness(each, label_of).empty for each in predictions.values()):
        return []
    if find_metric(scoring.metric).needs_probabilities:
        vague = {name for name, method in METHODS.items() if not method.gives_probabilities}
        predictions = {name: each for name, each in predictions.items() if name not in vague}
    return [
        {"of": some, "to": other, **difference(predictions[some], predictions[other], label_of, scoring, group_of)}
        for other, some in combinations(predictions, 2)
    ]
