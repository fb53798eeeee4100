"""Pseudo-values per image for ranking metrics. Their mean is the metric; their spread gives its sampling error.

They follow Efron's infinitesimal jackknife: the metric plus its derivative by the weight of each image.
"""

from __future__ import annotations

import numpy as np
from scipy.stats import rankdata


def delong(probabilities: np.ndarray, target: np.ndarray) -> np.ndarray:
    """Return the pseudo-values (N,) of the macro ROC AUC.

    Uses the structural components of DeLong et al. 1988, https://doi.org/10.2307/2531595.
    """
    columns = [_delong_of_class(column, target == place) for place, column in enumerate(probabilities.T)]
    return np.mean(columns, axis=0)


def _delong_of_class(scores: np.ndarray, positive: np.ndarray) -> np.ndarray:
    images, positives = len(scores), positive.sum()
    negatives = images - positives
    ranks, components = rankdata(scores), np.empty(images)
    components[positive] = (ranks[positive] - rankdata(scores[positive])) / negatives
    components[~positive] = 1 - (ranks[~positive] - rankdata(scores[~positive])) / positives
    area = components[positive].mean()
    return area + (components - area) * images / np.where(positive, positives, negatives)


def precision_influence(probabilities: np.ndarray, target: np.ndarray) -> np.ndarray:
    """Return the pseudo-values (N,) of the macro average precision, from its derivative by each image's weight."""
    columns = [_precision_influence_of_class(column, target == place) for place, column in enumerate(probabilities.T)]
    return np.mean(columns, axis=0)


def _precision_influence_of_class(scores: np.ndarray, positive: np.ndarray) -> np.ndarray:
    images, positives = len(scores), positive.sum()
    order = np.argsort(scores, kind="stable")
    ranked, truth = scores[order], positive[order]
    first, last = np.searchsorted(ranked, ranked, "left"), np.searchsorted(ranked, ranked, "right")
    above = images - first  # images with at least this score; the next lines count the positive ones
    positive_above = positives - np.concatenate([[0], np.cumsum(truth)])[first]
    precision = positive_above / above

    def of_lower_positives(each: np.ndarray) -> np.ndarray:
        return np.concatenate([[0], np.cumsum(np.where(truth, each, 0))])[last]

    average = precision[truth].mean()
    lost = -of_lower_positives(precision / above)
    gained = precision - average + of_lower_positives(1 / above)
    influence = np.empty(images)
    influence[order] = (lost + np.where(truth, gained, 0)) / positives
    return average + images * influence
