"""Temperature scaling: divide logits by a number, so that confidence matches accuracy.

Guo et al. 2017, https://arxiv.org/abs/1706.04599.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from scipy.optimize import minimize_scalar
from scipy.special import log_softmax

from kfold_ens.logits import Logits, at_temperature, class_indices, concatenated
from kfold_ens.metrics import value

LOG_BOUNDS = (np.log(0.01), np.log(100.0))


@dataclass(frozen=True)
class Calibration:
    """A temperature, and the out-of-fold log loss before and after (cross-fitted by fold)."""

    temperature: float  # 1 if no other lowers the loss
    before: float
    after: float
    of_folds: tuple[float, ...]  # for each fold, fitted on the others

    def __str__(self) -> str:
        kept = f"temperature {self.temperature:.4g}" if self.temperature != 1 else "no temperature lowers it: none used"
        return f"out-of-fold log loss {self.before:.4f} before, {self.after:.4f} after (cross-fitted by fold): {kept}"


def calibrate(oof: Sequence[Logits], label_of: Mapping[str, str]) -> Calibration:
    """Fit a temperature on the out-of-fold logits of all folds, and cross-fit its log loss.

    The cross-fitted loss scores each fold at the temperature fitted on the other folds. The temperature is 1 if that
    loss is not below the loss before. Those of the folds stay even then: to drop them would be a choice by a fold's own
    labels, which ``snakemake certify`` finds.

    Out-of-fold logits come from one model per repeat, but the temperature is applied to the whole ensemble. Averaging
    already lowers its confidence, so the calibrated ensemble can be underconfident.
    """
    of_folds = tuple(
        fitted(concatenated([*oof[:fold], *oof[fold + 1 :]]), label_of) if len(oof) > 1 else 1.0
        for fold in range(len(oof))
    )
    before = log_loss(concatenated(oof), label_of)
    after = log_loss(concatenated(list(map(at_temperature, oof, of_folds))), label_of)
    return Calibration(fitted(concatenated(oof), label_of) if after < before else 1.0, before, after, of_folds)


def fitted(logits: Logits, label_of: Mapping[str, str]) -> float:
    """Return the temperature with the lowest log loss on these images; 1 if none lowers it. Optimises its logarithm."""
    values, target = logits.values.astype(np.float64), _target(logits, label_of)

    def loss(log_temperature: float) -> float:
        log_probabilities = log_softmax(values / np.exp(log_temperature), axis=1)
        return float(-log_probabilities[np.arange(len(target)), target].mean())

    found = minimize_scalar(loss, bounds=LOG_BOUNDS, method="bounded", options={"xatol": 1e-6})
    return float(np.exp(found.x)) if found.fun < loss(0.0) else 1.0


def log_loss(logits: Logits, label_of: Mapping[str, str]) -> float:
    """Return the metric ``log_loss``, with probabilities clipped as in scikit-learn."""
    return value("log_loss", logits.values, _target(logits, label_of))


def _target(logits: Logits, label_of: Mapping[str, str]) -> np.ndarray:
    target = class_indices(logits, label_of)
    if (target < 0).any():
        raise KeyError("calibration needs the label of every image")
    return target


def cross_fitted(oof: Sequence[Logits], calibration: Calibration) -> Logits:
    """Return the out-of-fold logits of all folds, each at the temperature fitted on the other folds."""
    return concatenated(list(map(at_temperature, oof, calibration.of_folds)))
