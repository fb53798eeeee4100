"""The metrics, by their names in config.yaml and recipes. Imports no torch.

To add a metric, add it to ``METRICS`` here and to ``METRIC_KINDS`` in ``config.py``.
"""

from __future__ import annotations

import warnings
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from typing import Literal

import numpy as np
from scipy.special import softmax

from kfold_ens.config import Scoring, metric_kind
from kfold_ens.errors import DataError, Together
from kfold_ens.pseudo_values import area, average_precision, delong, precision_influence

Scores = np.ndarray  # (N, K) logits or other scores of the classes
Target = np.ndarray  # (N,) class indices
NOT_A_NUMBER = float("nan")  # a metric without a value on these images


@dataclass(frozen=True)
class Metric:
    """A metric, and how to compute its interval.

    Each metric has one of two functions. ``per_image`` returns values (N,) whose mean is the metric, or has its
    sampling error (pseudo-values of Efron's infinitesimal jackknife). ``of_confusion`` computes the metric from
    confusion matrices (..., K, K) of true by predicted classes. ``k`` is the number of top classes that count.
    """

    label: str  # for people
    compute: Callable[..., float]  # from scores (N, K) and target (N,)
    better: Literal["min", "max"] = "max"
    needs: Literal["labels", "order", "ranking", "probabilities"] = "labels"
    per_image: Callable[..., np.ndarray] | None = None
    of_confusion: Callable[[np.ndarray], np.ndarray] | None = None
    bounds: tuple[float, float] = (0, 1)
    needs_every_class: bool = False  # whether it has no value if a class has no image
    k: int | None = None

    @property
    def title(self) -> str:
        """The label with an initial capital, for headings."""
        return f"{self.label[0].upper()}{self.label[1:]}"

    @property
    def needs_probabilities(self) -> bool:
        return self.needs == "probabilities"


# --- metrics of labels -----------------------------------------------------------------------------------


def _of_labels(name: str, names_classes: bool = False, **options: object) -> Callable[[Scores, Target], float]:
    """Return one of scikit-learn's metrics of labels, applied to the class with the largest score.

    ``names_classes`` is for metrics that depend on distances between classes, so that absent classes count too.
    """

    def compute(scores: Scores, target: Target) -> float:
        from sklearn import metrics  # here: loading it takes a second

        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # about predicted classes without images
            classes = {"labels": np.arange(scores.shape[1])} if names_classes else {}
            return float(getattr(metrics, name)(target, scores.argmax(axis=1), **classes, **options))

    return compute


def _accuracy(scores: Scores, target: Target) -> float:
    return float((scores.argmax(axis=1) == target).mean())


def _recalls(confusion: np.ndarray) -> np.ndarray:
    """Return the mean recall of the classes with images."""
    images = confusion.sum(axis=-1)
    recall = np.diagonal(confusion, axis1=-2, axis2=-1) / np.maximum(images, 1)
    return recall.sum(axis=-1) / (images > 0).sum(axis=-1)


def _macro_f1(confusion: np.ndarray) -> np.ndarray:
    """Return the mean F1 of the classes with images or predictions."""
    both = confusion.sum(axis=-1) + confusion.sum(axis=-2)
    f1 = 2 * np.diagonal(confusion, axis1=-2, axis2=-1) / np.maximum(both, 1)
    return f1.sum(axis=-1) / (both > 0).sum(axis=-1)


def _kappa(confusion: np.ndarray) -> np.ndarray:
    """Return Cohen's kappa with quadratic weights, for classes in order."""
    places = np.arange(confusion.shape[-1])
    weights = (places[:, None] - places) ** 2
    expected = confusion.sum(axis=-1)[..., :, None] * confusion.sum(axis=-2)[..., None, :]
    with np.errstate(invalid="ignore"):
        disagreement = (weights * confusion).sum(axis=(-2, -1)) * confusion.sum(axis=(-2, -1))
        return 1 - disagreement / (weights * expected).sum(axis=(-2, -1))


# --- metrics of rankings ---------------------------------------------------------------------------------


def truth_rank(scores: Scores, target: Target) -> np.ndarray:
    """Return the rank of the true class, from 0; on a tie the first class ranks higher: (N,)."""
    own = np.take_along_axis(scores, target[:, None], axis=1)
    earlier = np.arange(scores.shape[1]) < target[:, None]
    return ((scores > own) | ((scores == own) & earlier)).sum(axis=1)


def _in_top(scores: Scores, target: Target, k: int) -> np.ndarray:
    # not scikit-learn's, which prefers the last class on a tie and refuses two classes
    return (truth_rank(scores, target) < k).astype(float)


def _precision_at(scores: Scores, target: Target, k: int) -> np.ndarray:
    rank = truth_rank(scores, target)
    return np.where(rank < k, 1 / (rank + 1), 0)


def _mean_of(per_image: Callable[..., np.ndarray]) -> Callable[..., float]:
    return lambda *arguments, **options: float(per_image(*arguments, **options).mean())


# --- metrics of probabilities ----------------------------------------------------------------------------


def _surprise(probabilities: Scores, target: Target) -> np.ndarray:
    """Return the negative logarithm of the true class's probability, clipped as in scikit-learn's log_loss."""
    own = np.take_along_axis(probabilities, target[:, None], axis=1)[:, 0]
    return -np.log(np.clip(own, np.finfo(own.dtype).eps, 1))


def _one_against_the_rest(of_class: Callable[[np.ndarray, np.ndarray], float]) -> Callable[[Scores, Target], float]:
    """Return a binary metric, averaged over all classes."""

    def compute(probabilities: Scores, target: Target) -> float:
        if absent_classes(target, probabilities.shape[1]) or (target == target[0]).all():
            return NOT_A_NUMBER
        columns = np.ascontiguousarray(probabilities.T)
        return float(np.mean([of_class(column, target == place) for place, column in enumerate(columns)]))

    return compute


def _log_loss(probabilities: Scores, target: Target) -> float:
    from sklearn.metrics import log_loss

    return float(log_loss(target, probabilities, labels=np.arange(probabilities.shape[1])))


# --- by name ---------------------------------------------------------------------------------------------


METRICS = {
    "accuracy": Metric("accuracy", _accuracy, per_image=partial(_in_top, k=1)),
    "balanced_accuracy": Metric("balanced accuracy", _of_labels("balanced_accuracy_score"), of_confusion=_recalls),
    "f1_macro": Metric("macro F1", _of_labels("f1_score", average="macro"), of_confusion=_macro_f1),
    "log_loss": Metric("log loss", _log_loss, "min", "probabilities", _surprise, bounds=(0, float("inf"))),
    "roc_auc": Metric(
        "macro ROC AUC",
        _one_against_the_rest(area),
        needs="probabilities",
        per_image=delong,
        needs_every_class=True,
    ),
    "average_precision": Metric(
        "macro average precision",
        _one_against_the_rest(average_precision),
        needs="probabilities",
        per_image=precision_influence,
        needs_every_class=True,
    ),
    "quadratic_kappa": Metric(
        "quadratic kappa",
        _of_labels("cohen_kappa_score", names_classes=True, weights="quadratic"),
        needs="order",
        of_confusion=_kappa,
        bounds=(-1, 1),
    ),
    "top_k_accuracy": Metric("top-{k} accuracy", _mean_of(_in_top), needs="ranking", per_image=_in_top),
    "map_at_k": Metric("MAP@{k}", _mean_of(_precision_at), needs="ranking", per_image=_precision_at),
}


def find_metric(name: str) -> Metric:
    """Return a metric by its name; ``map_at_5`` is ``map_at_k`` with k = 5."""
    kind = metric_kind(name)
    if kind == name:
        return METRICS[name]
    metric, k = METRICS[kind], int("".join(filter(str.isdecimal, name)))
    per_image = partial(metric.per_image, k=k) if metric.per_image else None
    return replace(
        metric, label=metric.label.format(k=k), k=k, compute=partial(metric.compute, k=k), per_image=per_image
    )


def absent_classes(target: Target, num_classes: int) -> list[int]:
    """List the classes without images."""
    return np.flatnonzero(np.bincount(target, minlength=num_classes) == 0).tolist()


def places_in_order(classes: Sequence[str], class_order: Sequence[str] | None) -> list[int]:
    """Return the indices of all classes from the lowest to the highest: as configured, or by their numbers.

    Raises:
        DataError: if ``class_order`` does not list these classes, or is None and the classes are not distinct numbers.
    """
    if class_order:
        if sorted(class_order) != sorted(classes):
            differing = sorted(set(class_order) ^ set(classes)) or "one is listed twice"
            raise DataError(f"data.class_order must list each class once; check: {differing}")
        return [classes.index(name) for name in class_order]
    numbers = [as_number(name) for name in classes]
    if not np.isfinite(numbers).all() or len(set(numbers)) < len(numbers):
        raise DataError(
            "quadratic_kappa needs the order of the classes, which are not distinct numbers; "
            "set data.class_order: [lowest, ..., highest]"
        )
    return np.argsort(numbers).tolist()


def as_number(text: str) -> float:
    """Parse a number; NaN if the text is none."""
    try:
        return float(text)
    except ValueError:
        return NOT_A_NUMBER


def refuse_unfit(name: str, classes: Sequence[str], class_order: Sequence[str] | None) -> None:
    """Check that a metric can be computed for these classes.

    Raises:
        DataError: if k is larger than their number, or they lack a valid order.
    """
    metric, together = find_metric(name), Together(DataError)
    with together.gather():
        if metric.k and metric.k > len(classes):
            raise DataError(f"{name}: there are only {len(classes)} classes; write a smaller number")
    with together.gather():
        if metric.needs == "order" or class_order:
            places_in_order(classes, class_order)
    together.raise_all()


def refuse_unfit_metrics(asked: Mapping[str, Scoring], classes: Sequence[str]) -> None:
    """Check the metrics of config.yaml and of recipes for these classes; ``asked`` holds them by key.

    Raises:
        DataError: if metrics do not fit; it lists each error with its keys.
    """
    keys_of: dict[str, list[str]] = {}
    for key, scoring in asked.items():
        try:
            refuse_unfit(scoring.metric, classes, scoring.class_order)
        except DataError as fault:
            keys_of.setdefault(str(fault), []).append(key)
    if keys_of:
        raise DataError("\n".join(f"{', '.join(keys)}: {fault}" for fault, keys in keys_of.items()))


def in_order(scores: Scores, target: Target, order: Sequence[int]) -> tuple[Scores, Target]:
    """Reorder the classes of scores and target by this list of indices."""
    place = np.empty(len(order), dtype=np.int64)
    place[list(order)] = np.arange(len(order))
    return scores[:, list(order)], place[target]


def value(name: str, logits: Scores, target: Target, order: Sequence[int] | None = None) -> float:
    """Compute a metric from logits (N, K) and class indices (N,); NaN if it has no value on these images.

    ``order`` lists the class indices from the lowest to the highest class, for metrics that need an order.
    """
    metric = find_metric(name)
    return metric.compute(*inputs_of(metric, logits, target, order))


def inputs_of(
    metric: Metric, logits: Scores, target: Target, order: Sequence[int] | None = None
) -> tuple[Scores, Target]:
    """Return the inputs of a metric: softmax instead of logits, or classes in order, if it needs them."""
    if metric.needs_probabilities:
        return softmax(logits.astype(np.float64), axis=1), target
    if metric.needs == "order" and order is not None:
        return in_order(logits, target, order)
    return logits, target
