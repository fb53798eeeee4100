"""95% intervals of metrics by a stratified bootstrap: images are drawn anew within each class."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import numpy as np
from scipy.special import expit, logit
from scipy.stats import norm

from kfold_ens.metrics import Metric

RESAMPLES = 2000
CELLS = 4_000_000  # of numbers at a time, 32 MB of float64: memory stays bounded whatever the number of images


def interval(metric: Metric, inputs: tuple[np.ndarray, np.ndarray], value: float) -> tuple[float, float]:
    """The 95% interval of a metric's value, from scores (N, K) and class indices (N,).

    NaN if all resamples are alike, as of predictions without a mistake: nothing is known of the spread then.
    """
    spread = float(_replicates(metric, [inputs]).std(axis=1, ddof=1)[0])
    return _unbounded(metric, value, spread) if spread else (float("nan"), float("nan"))


def paired_interval(metric: Metric, some: tuple, others: tuple, difference: float) -> tuple[float, float]:
    """The 95% interval of a difference on the same images, in the same order; NaN if all resamples are alike."""
    first, second = _replicates(metric, [some, others])
    half = float(norm.ppf(0.975) * (first - second).std(ddof=1))
    return (difference - half, difference + half) if half else (float("nan"), float("nan"))


def _unbounded(metric: Metric, value: float, spread: float) -> tuple[float, float]:
    """A normal interval on the scale on which a metric has no bounds: log for a loss, else logit."""
    low, high = metric.bounds
    half = norm.ppf(0.975) * spread
    if np.isinf(high):
        return float(value * np.exp(-half / value)), float(value * np.exp(half / value))
    centre, half = logit((value - low) / (high - low)), half * (high - low) / ((value - low) * (high - value))
    ends = low + (high - low) * expit([centre - half, centre + half])
    return float(ends[0]), float(ends[1])


def _replicates(metric: Metric, inputs: Sequence[tuple[np.ndarray, np.ndarray]]) -> np.ndarray:
    """The metric of each of some predictions in every resample of the images: (len(inputs), RESAMPLES)."""
    target = inputs[0][1]
    rng = np.random.default_rng(0)
    if metric.per_image:
        values = np.stack([metric.per_image(*each) for each in inputs])
        return _resampled_means(values, target, rng)
    predicted = np.stack([scores.argmax(axis=1) for scores, _ in inputs])
    parts = _resampled_confusions(predicted, target, inputs[0][0].shape[1], rng)
    return np.concatenate([metric.of_confusion(part) for part in parts], axis=1)


def _strata(target: np.ndarray) -> Iterator[np.ndarray]:
    """The images of each class that is there."""
    order = np.argsort(target, kind="stable")
    return iter(np.split(order, np.flatnonzero(np.diff(target[order])) + 1))


def _resampled_means(values: np.ndarray, target: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """Means (P, RESAMPLES) of values (P, N). A class of n images varies by n / (n - 1) more than its resamples."""
    sums = np.zeros((len(values), RESAMPLES))
    for images in _strata(target):
        own = values[:, images]
        mean, more = own.mean(axis=1, keepdims=True), np.sqrt(len(images) / max(len(images) - 1, 1))
        for part in _parts(len(images)):
            drawn = rng.integers(0, len(images), (part.stop - part.start, len(images)))
            for row, each in enumerate(own):
                sums[row, part] += len(images) * (mean[row] + more * (each[drawn].mean(axis=1) - mean[row]))
    return sums / values.shape[1]


def _resampled_confusions(
    predicted: np.ndarray, target: np.ndarray, num_classes: int, rng: np.random.Generator
) -> Iterator[np.ndarray]:
    """Confusion matrices (P, part, K, K) of predictions (P, N), part by part of the resamples."""
    rows = [(int(target[images[0]]), *_outcomes(predicted[:, images])) for images in _strata(target)]
    for part in _parts(len(predicted) * num_classes**2):
        confusion = np.zeros((len(predicted), part.stop - part.start, num_classes, num_classes))
        for truth, cells, counts in rows:
            drawn = rng.multinomial(counts.sum(), counts / counts.sum(), part.stop - part.start)
            for of_one, labels in zip(confusion, cells, strict=True):
                np.add.at(of_one[:, truth].T, labels, drawn.T)
        yield confusion


def _outcomes(predicted: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """The distinct outcomes of images as columns (P, C), and how many images have each: (C,)."""
    return np.unique(predicted, axis=1, return_counts=True)


def _parts(cells_each: int) -> Iterator[slice]:
    step = max(1, min(RESAMPLES, CELLS // cells_each))
    return (slice(start, min(start + step, RESAMPLES)) for start in range(0, RESAMPLES, step))
