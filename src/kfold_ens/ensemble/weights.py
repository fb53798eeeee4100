"""Weights of a blend's recipes: equal, by greedy selection, or on the simplex by log loss.

Each function takes ``p_mnk``, the probabilities (M, N, K) of M recipes for the same N images, and class indices (N,).
It returns weights (M,) that are not negative and sum to 1. Recipes with identical probabilities get equal weights.

To add a way of weighing, write one function and add it to ``WEIGHING`` here and to ``Config.blend_weights``.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
from scipy.optimize import minimize

from kfold_ens.errors import KfoldError

ROUNDS = 25  # as in AutoGluon
TINY = np.finfo(np.float64).tiny

Value = Callable[[np.ndarray], float]  # from probabilities (N, K) to a score; larger is better


def equal(p_mnk: np.ndarray, target: np.ndarray, value: Value) -> np.ndarray:
    """Give every recipe the same weight. Fits nothing."""
    return np.full(len(p_mnk), 1 / len(p_mnk))


def greedy(p_mnk: np.ndarray, target: np.ndarray, value: Value) -> np.ndarray:
    """Add the recipe, with replacement, that gives the mean probability the best score; keep the best shortest prefix.

    Caruana et al. 2004, https://doi.org/10.1145/1015330.1015432. Ties go to a recipe that is already in, then to the
    first. The first round takes the best recipe, so on these images no single recipe scores higher.

    Raises:
        KfoldError: if the metric has no value.
    """
    counts, total = np.zeros(len(p_mnk)), np.zeros(p_mnk.shape[1:])
    best, best_counts = -np.inf, counts
    for size in range(1, ROUNDS + 1):
        scores = np.array([_valued(value((total + each) / size)) for each in p_mnk])
        if np.isneginf(scores).all():
            raise KfoldError(
                "blend_weights: greedy: the metric has no value on the held-out images that fit the weights, "
                "most likely for lack of a class; write blend_weights: equal or simplex, or another metric"
            )
        tied = np.flatnonzero(scores == scores.max())
        chosen = next((each for each in tied if counts[each]), tied[0])
        counts[chosen] += 1
        total = total + p_mnk[chosen]
        if size == 1 or scores[chosen] > best:
            best, best_counts = scores[chosen], counts.copy()
    return _shared(best_counts / best_counts.sum(), p_mnk)


def simplex(p_mnk: np.ndarray, target: np.ndarray, value: Value) -> np.ndarray:
    """Minimise the log loss of the weighted mean of probabilities, a convex problem, by SLSQP.

    Falls back to the best single recipe if that has a lower loss.
    """
    own_mn = np.maximum(p_mnk[:, np.arange(len(target)), target], TINY)
    starts = [np.full(len(own_mn), 1 / len(own_mn)), *np.eye(len(own_mn))]

    def loss(weights: np.ndarray) -> float:
        return float(-np.log(np.maximum(weights @ own_mn, TINY)).mean())

    def slope(weights: np.ndarray) -> np.ndarray:
        return -(own_mn / np.maximum(weights @ own_mn, TINY)).mean(axis=1)

    found = minimize(
        loss,
        starts[0],
        jac=slope,
        method="SLSQP",
        bounds=[(0, 1)] * len(own_mn),
        constraints={"type": "eq", "fun": lambda w: w.sum() - 1, "jac": np.ones_like},
        options={"ftol": 1e-12, "maxiter": 1000},
    ).x
    found = np.clip(found, 0, None) / np.clip(found, 0, None).sum()
    return _shared(min([found, *starts], key=loss), p_mnk)


def _valued(score: float) -> float:
    """Rank a score without a value last."""
    return -np.inf if np.isnan(score) else score


def _shared(weights: np.ndarray, p_mnk: np.ndarray) -> np.ndarray:
    """Share weights equally among recipes with identical probabilities, which changes no prediction."""
    same = np.array([[np.array_equal(one, other) for other in p_mnk] for one in p_mnk])
    return np.array([weights[row].mean() for row in same])


WEIGHING = {"equal": equal, "greedy": greedy, "simplex": simplex}
