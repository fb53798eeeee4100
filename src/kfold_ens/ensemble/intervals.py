"""95% intervals of metrics by a bootstrap that resamples images within each class, or whole groups of images.

Predictions within a group (a patient, a video) are correlated, so groups are resampled as a whole.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import numpy as np
from scipy.sparse import csr_array
from scipy.special import expit, logit
from scipy.stats import norm

from kfold_ens.metrics import Metric

RESAMPLES = 2000
ROUNDING = 1e-12  # equal resamples may differ by this much
CELLS = 4_000_000  # numbers held at once (32 MB of float64), which bounds memory for any number of images


def interval(
    metric: Metric, inputs: tuple[np.ndarray, np.ndarray], value: float, group: np.ndarray | None = None
) -> tuple[float, float]:
    """Return the 95% interval of a metric's value.

    ``inputs`` are scores (N, K) and class indices (N,); ``group`` (N,) numbers the groups, if any. The interval is NaN
    if all resamples give the same value (no mistakes, for example) or if most have no value.
    """
    spread = float(_spread(_replicates(metric, [inputs], group)[0]))
    return _unbounded(metric, value, spread) if spread else (float("nan"), float("nan"))


def paired_interval(
    metric: Metric,
    some: tuple,
    others: tuple,
    difference: float,
    group: np.ndarray | None = None,
    level: float = 0.95,
) -> tuple[float, float]:
    """Return the interval of a difference on the same images, in the same order; NaN if all resamples agree."""
    first, second = _replicates(metric, [some, others], group)
    half = float(norm.ppf((1 + level) / 2) * _spread(first - second))
    return (difference - half, difference + half) if half else (float("nan"), float("nan"))


def _spread(replicates: np.ndarray) -> float:
    """Return the standard deviation of the resamples with a value; 0 if half or more have none, or all are equal."""
    valued = replicates[~np.isnan(replicates)]
    spread = valued.std(ddof=1) if 2 * len(valued) > len(replicates) else 0.0
    return spread if spread > ROUNDING else 0.0


def _unbounded(metric: Metric, value: float, spread: float) -> tuple[float, float]:
    """Return a normal interval on a scale without bounds: log for a loss, logit for others."""
    low, high = metric.bounds
    half = norm.ppf(0.975) * spread
    if np.isinf(high):
        return float(value * np.exp(-half / value)), float(value * np.exp(half / value))
    centre, half = logit((value - low) / (high - low)), half * (high - low) / ((value - low) * (high - value))
    ends = low + (high - low) * expit([centre - half, centre + half])
    return float(ends[0]), float(ends[1])


def _replicates(
    metric: Metric, inputs: Sequence[tuple[np.ndarray, np.ndarray]], group: np.ndarray | None
) -> np.ndarray:
    """Return the metric of each set of predictions in every resample: (len(inputs), RESAMPLES)."""
    target = inputs[0][1]
    rng = np.random.default_rng(0)
    if metric.per_image:
        values = np.stack([metric.per_image(*each) for each in inputs])
        if group is None:
            return _resampled_means(values, target, rng)
        of_groups = _of_groups(values, group)
        return _resampled_means(of_groups, np.zeros(of_groups.shape[1], dtype=np.int64), rng)
    predicted, classes = np.stack([scores.argmax(axis=1) for scores, _ in inputs]), inputs[0][0].shape[1]
    if group is None:
        parts = _resampled_confusions(predicted, target, classes, rng)
    else:
        parts = _confusions_of_resampled_groups(predicted, target, classes, group, rng)
    assert metric.of_confusion  # every metric has values per image or this
    return np.concatenate([metric.of_confusion(part) for part in parts], axis=1)


def _strata(target: np.ndarray) -> Iterator[np.ndarray]:
    """Yield the images of each class. Classes with one image have no spread, so they form one stratum together."""
    order = np.argsort(target, kind="stable")
    classes = np.split(order, np.flatnonzero(np.diff(target[order])) + 1)
    yield from (images for images in classes if len(images) > 1)
    single = [images for images in classes if len(images) == 1]
    if single:
        yield np.concatenate(single)


def _more(images: int) -> float:
    """Return the ratio of the spread of a mean of n images to that of its resamples."""
    return float(np.sqrt(images / max(images - 1, 1)))


def _resampled_means(values: np.ndarray, target: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """Return means (P, RESAMPLES) of values (P, N).

    Resamples of n images have a variance smaller by (n - 1) / n, which is corrected for each class.
    """
    sums = np.zeros((len(values), RESAMPLES))
    for images in _strata(target):
        own = values[:, images]
        mean, more = own.mean(axis=1, keepdims=True), _more(len(images))
        for part in _parts(len(images)):
            drawn = rng.integers(0, len(images), (part.stop - part.start, len(images)))
            for row, each in enumerate(own):
                sums[row, part] += len(images) * (mean[row] + more * (each[drawn].mean(axis=1) - mean[row]))
    return sums / values.shape[1]


def _of_groups(values: np.ndarray, group: np.ndarray) -> np.ndarray:
    """Turn values per image (P, N) into values per group (P, G), with the same mean and the spread of whole groups."""
    mean = values.mean(axis=1, keepdims=True)
    sums = np.stack([np.bincount(group, row) for row in values - mean])
    return mean + sums * sums.shape[1] / values.shape[1]


def _resampled_confusions(
    predicted: np.ndarray, target: np.ndarray, num_classes: int, rng: np.random.Generator
) -> Iterator[np.ndarray]:
    """Yield confusion matrices (P, part, K, K) of predictions (P, N), a part of the resamples at a time.

    Resamples of n images have a variance smaller by (n - 1) / n, so counts are moved away from their mean.
    """
    truths_and_labels = np.vstack([target, predicted])
    rows = [np.unique(truths_and_labels[:, images], axis=1, return_counts=True) for images in _strata(target)]
    for part in _parts(len(predicted) * num_classes**2):
        confusion = np.zeros((len(predicted), part.stop - part.start, num_classes, num_classes))
        for (truths, *cells), counts in rows:
            drawn = rng.multinomial(counts.sum(), counts / counts.sum(), part.stop - part.start)
            drawn = counts + (drawn - counts) * _more(int(counts.sum()))
            for of_one, labels in zip(confusion, cells, strict=True):
                np.add.at(of_one, (slice(None), truths, labels), drawn)  # type: ignore[arg-type]  # numpy takes slices too
        yield confusion


def _confusions_of_resampled_groups(
    predicted: np.ndarray, target: np.ndarray, num_classes: int, group: np.ndarray, rng: np.random.Generator
) -> Iterator[np.ndarray]:
    """Yield the same for resamples of whole groups."""
    of_group = confusions_of_units(predicted, target, num_classes, group)
    cells, groups = of_group[0].shape
    for part in _parts(max(len(predicted) * cells, groups)):
        times = times_drawn(rng.integers(0, groups, (part.stop - part.start, groups)))
        confusion = np.stack([(each @ times).T for each in of_group])
        yield confusion.reshape(*confusion.shape[:2], num_classes, num_classes)


def confusions_of_units(
    predicted: np.ndarray, target: np.ndarray, num_classes: int, unit: np.ndarray
) -> list[csr_array]:
    """Return the flat confusion matrices of units of images, for each of P predictions (P, N): (K * K, units).

    ``unit`` (N,) numbers the units: images, or groups of them.
    """
    ones, shape = np.ones(len(target)), (num_classes**2, int(unit.max()) + 1)
    return [csr_array((ones, (target * num_classes + row, unit)), shape) for row in predicted]


def times_drawn(drawn: np.ndarray) -> np.ndarray:
    """Return how often each of U units is in resamples of U units (B, U): (U, B)."""
    return np.stack([np.bincount(row, minlength=drawn.shape[1]) for row in drawn], axis=1)


def _parts(cells_each: int) -> Iterator[slice]:
    step = max(1, min(RESAMPLES, CELLS // cells_each))
    return (slice(start, min(start + step, RESAMPLES)) for start in range(0, RESAMPLES, step))
