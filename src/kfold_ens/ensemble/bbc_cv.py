"""The score of a choice among recipes that the choice does not flatter: BBC-CV.

The best of several recipes by out-of-fold score is partly the luckiest. BBC-CV resamples the images, chooses by those
drawn, and scores the chosen recipe on those that were not: Tsamardinos et al. 2018,
https://doi.org/10.1007/s10994-018-5714-4.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from scipy.stats import norm

from kfold_ens.ensemble.intervals import RESAMPLES, confusions_of_units, times_drawn
from kfold_ens.metrics import Metric

OUTER = 500  # of the resamples, for the intervals
CELLS = 8_000_000  # numbers held at once (64 MB of float64)
Inputs = tuple[np.ndarray, np.ndarray]  # scores (N, K) and class indices (N,)


@dataclass(frozen=True)
class Choice:
    """The best of several recipes by score, and how far the choice flatters that score, with 95% intervals."""

    best: int
    score: float  # as chosen
    honest: float  # of the choice, on images it did not see
    interval: tuple[float, float]
    flattered_by: float  # positive if the score as chosen is better
    flattered_interval: tuple[float, float]


def choose(metric: Metric, inputs: Sequence[Inputs], group: np.ndarray | None = None) -> Choice:
    """Choose the best of C recipes and score the choice by BBC-CV.

    ``inputs`` are those of each recipe, for the same images in the same order; ``group`` (N,) numbers the images'
    groups, which are then drawn as a whole. Metrics with ``per_image`` are resampled by these values, so ROC AUC and
    average precision to first order.
    """
    sign = -1 if metric.better == "min" else 1
    whole, drawn, left = (sign * scores for scores in _resampled(metric, inputs, group))
    valued = ~np.isnan(drawn + left).any(axis=0)
    drawn, left = drawn[:, valued], left[:, valued]
    moved = drawn - whole[:, None], left - whole[:, None]
    best, honest = int(whole.argmax()), float(_of_choices(whole[:, None], *moved)[0])
    # The intervals repeat all this for resamples of the scores, which stand for scores of other images.
    others = drawn[:, :OUTER]
    repeated = _of_choices(others, *moved)
    ends = np.clip(sorted(sign * each for each in _normal(honest, repeated)), *metric.bounds)
    flattered_by = float(whole[best]) - honest
    return Choice(
        best=best,
        score=sign * float(whole[best]),
        honest=sign * honest,
        interval=(float(ends[0]), float(ends[1])),
        flattered_by=flattered_by,
        flattered_interval=_normal(flattered_by, others.max(axis=0) - repeated),
    )


def _normal(value: float, replicates: np.ndarray) -> tuple[float, float]:
    half = float(norm.ppf(0.975) * replicates.std(ddof=1))
    return value - half, value + half


def _of_choices(scores: np.ndarray, drawn: np.ndarray, left: np.ndarray) -> np.ndarray:
    """Return the mean score of the choice for each of P sets of scores (C, P): (P,).

    ``drawn`` and ``left`` (C, B) are the resamples' deviations from the scores, of images drawn and of those left out.
    """
    resamples = np.arange(drawn.shape[1])
    of_each = np.empty(scores.shape[1])
    for place, own in enumerate(scores.T):
        chosen = (own[:, None] + drawn).argmax(axis=0)
        of_each[place] = (own[chosen] + left[chosen, resamples]).mean()
    return of_each


def _resampled(metric: Metric, inputs: Sequence[Inputs], group: np.ndarray | None) -> tuple[np.ndarray, ...]:
    """Return the scores (C,) of all images, and (C, RESAMPLES) of the images drawn and of those left out."""
    totals = _Means(metric, inputs, group) if metric.per_image else _Confusions(metric, inputs, group)
    units, rng = totals.units, np.random.default_rng(0)
    whole = totals.of(np.ones((units, 1)))[:, 0]
    parts = []
    step = max(1, CELLS // max(units, totals.cells))
    for start in range(0, RESAMPLES, step):
        drawn = rng.integers(0, units, (min(step, RESAMPLES - start), units), dtype=np.int32)
        times = times_drawn(drawn).astype(float)
        parts.append((totals.of(times), totals.of((times == 0).astype(float))))
    return whole, *(np.concatenate(side, axis=1) for side in zip(*parts, strict=True))


class _Means:
    """Scores that are means of a value per image."""

    cells = 1

    def __init__(self, metric: Metric, inputs: Sequence[Inputs], group: np.ndarray | None) -> None:
        assert metric.per_image
        values = np.stack([metric.per_image(*each) for each in inputs])
        unit = np.arange(values.shape[1]) if group is None else group
        self._images = np.bincount(unit).astype(float)
        self._sums = np.stack([np.bincount(unit, row) for row in values])
        self.units = len(self._images)

    def of(self, times: np.ndarray) -> np.ndarray:
        """Score units drawn so often: (units, B) to (C, B)."""
        with np.errstate(invalid="ignore"):
            return self._sums @ times / (self._images @ times)


class _Confusions:
    """Scores that follow from a confusion matrix."""

    def __init__(self, metric: Metric, inputs: Sequence[Inputs], group: np.ndarray | None) -> None:
        target, self._classes = inputs[0][1], inputs[0][0].shape[1]
        unit = np.arange(len(target)) if group is None else group
        assert metric.of_confusion
        self._score = metric.of_confusion
        predicted = np.stack([scores.argmax(axis=1) for scores, _ in inputs])
        self._of_units = confusions_of_units(predicted, target, self._classes, unit)
        self.cells, self.units = self._of_units[0].shape

    def of(self, times: np.ndarray) -> np.ndarray:
        """Score units drawn so often: (units, B) to (C, B)."""
        square = (times.shape[1], self._classes, self._classes)
        with np.errstate(invalid="ignore"):
            return np.stack([self._score((each @ times).T.reshape(square)) for each in self._of_units])
