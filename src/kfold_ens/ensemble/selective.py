"""Selective prediction: accept an image if the probability of its predicted label is at least a threshold p.

The risk-coverage curve (El-Yaniv and Wiener 2010, https://www.jmlr.org/papers/v11/el-yaniv10a.html) plots the selective
risk (1 - accuracy on the accepted images) against the coverage (the share of accepted images). The threshold on the
softmax of the predicted class is the "softmax response" of Geifman and El-Yaniv 2017, https://arxiv.org/abs/1705.08500.
The area under the curve is the AURC of Geifman, Uziel and El-Yaniv 2019, https://arxiv.org/abs/1805.08206.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
import pandas as pd
from scipy.special import softmax
from scipy.stats import binomtest

from kfold_ens.ensemble.intervals import interval
from kfold_ens.ensemble.metrics import NO_GROUPS, group_numbers
from kfold_ens.logits import Logits, class_indices
from kfold_ens.metrics import Metric, find_metric

DECIMALS = 6  # of chosen thresholds, as in the probabilities of kfold-predict


@dataclass(frozen=True)
class Predicted:
    """N images with a known label.

    ``probability`` (N,) is that of the predicted label; ``right`` (N,) bool says whether the prediction is correct.
    ``group`` (N,) numbers the images' groups; None if no two images share one.
    """

    probability: np.ndarray
    right: np.ndarray
    group: np.ndarray | None = None


def predicted(
    scores: Logits, sure: Logits, label_of: Mapping[str, str], group_of: Mapping[str, str] = NO_GROUPS
) -> Predicted:
    """Select the images with a known label. ``scores`` give the predicted label, ``sure`` its probability.

    ``sure`` holds logits of the same images and classes, in the same order. It is ``scores`` unless these are votes.
    """
    target = class_indices(scores, label_of)
    known = target >= 0
    label = scores.values[known].argmax(axis=1)
    probabilities = softmax(sure.values[known].astype(np.float64), axis=1)
    probability = np.take_along_axis(probabilities, label[:, None], axis=1)[:, 0]
    return Predicted(probability, label == target[known], group_numbers(scores.image_id[known], group_of))


# --- the curve -------------------------------------------------------------------------------------------


def at_thresholds(images: Predicted, thresholds: np.ndarray) -> pd.DataFrame:
    """Return a row ``p, share, images, accuracy`` per threshold; the accuracy is NaN if no image is accepted."""
    accepted, right = _counts(images, np.asarray(thresholds, dtype=float))
    with np.errstate(invalid="ignore"):
        shares = {"share": accepted / len(images.right), "images": accepted, "accuracy": right / accepted}
    return pd.DataFrame({"p": thresholds} | shares)


def _counts(images: Predicted, thresholds: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Count the images that are accepted at each threshold, and the correct ones among them."""
    order = np.argsort(-images.probability, kind="stable")
    accepted = np.searchsorted(-images.probability[order], -thresholds, side="right")
    return accepted, np.append(0, np.cumsum(images.right[order]))[accepted]


def risk_coverage(images: Predicted, points: int | None = None) -> pd.DataFrame:
    """Return the curve as rows of ``at_thresholds``, from the smallest share to all images.

    There is one row per distinct probability, or at most ``points`` rows at evenly spaced shares.
    """
    descending = np.sort(images.probability)[::-1]
    if points is not None:
        descending = descending[-(-np.arange(1, points + 1) * len(descending) // points) - 1]
    return at_thresholds(images, np.unique(descending)[::-1])


def threshold_for(images: Predicted, accuracy: float) -> float | None:
    """Return the threshold p that accepts the most images with at least this accuracy; None if none does.

    p has 6 decimals. It is chosen on these images, so their accuracy at p is optimistic.
    """
    candidates = np.unique(np.floor(images.probability * 10**DECIMALS) / 10**DECIMALS)
    rows = at_thresholds(images, candidates)
    reaching = rows["p"][rows["accuracy"] >= accuracy]
    return None if reaching.empty else float(reaching.iloc[0])


def with_intervals(images: Predicted, rows: pd.DataFrame) -> pd.DataFrame:
    """Add the ends ``low`` and ``high`` of the accuracy's 95% interval; NaN if no image is accepted.

    The interval is Wilson's. If accepted images share groups, it is that of ``intervals``, which resamples groups. If
    then all predictions are correct, or all wrong, all resamples agree: Wilson's over the groups is used.
    """
    ends = [_interval_at(images, p) for p in rows["p"]]
    return rows.assign(**dict(zip(("low", "high"), np.array(ends, dtype=float).reshape(-1, 2).T, strict=True)))


def _interval_at(images: Predicted, p: float) -> tuple[float, float]:
    accepted = images.probability >= p
    right = images.right[accepted]
    if not len(right):
        return float("nan"), float("nan")
    place = np.arange(len(images.right)) if images.group is None else images.group
    group = np.unique(place[accepted], return_inverse=True)[1]
    number, share = int(group.max()) + 1, float(right.mean())
    if number == len(right) or share in (0, 1):
        wilson = binomtest(round(share * number), number).proportion_ci(0.95, method="wilson")
        return float(wilson.low), float(wilson.high)
    inputs = np.stack([right, ~right], axis=1), np.zeros(len(right), dtype=np.int64)
    return interval(find_metric("accuracy"), inputs, share, group)


# --- the area under it -----------------------------------------------------------------------------------


def aurc(images: Predicted) -> float:
    """Return the AURC: the mean over images of the risk at their probability (Geifman et al. 2019, section 2).

    It is small if wrong predictions have small probabilities. For probabilities in random order its expectation is the
    error rate.
    """
    return float(_own_risks(images)[1].mean())


def least_aurc(images: Predicted) -> float:
    """Return the AURC if every wrong prediction had a smaller probability than every correct one."""
    wrong = np.sort(~images.right)
    return float((np.cumsum(wrong) / np.arange(1, len(wrong) + 1)).mean())


def aurc_interval(images: Predicted) -> tuple[float, float]:
    """Return the 95% interval of the AURC by the bootstrap of ``intervals``; NaN if all resamples agree."""
    pairs = np.stack([images.probability, images.right], axis=1)
    return interval(AURC, (pairs, np.zeros(len(pairs), dtype=np.int64)), aurc(images), images.group)


def _own_risks(images: Predicted) -> tuple[np.ndarray, np.ndarray]:
    """Return, at each image's probability as the threshold, the number of accepted images and their risk: both (N,)."""
    accepted, right = _counts(images, images.probability)
    return accepted, 1 - right / accepted


def _pseudo_values(images: Predicted) -> np.ndarray:
    """Return a value per image (N,); their mean is the AURC, with its sampling error (infinitesimal jackknife).

    With weights w, AURC = sum_i w_i r_i / sum_i w_i, where r_i = (sum of w_j over wrong j) / (sum of w_j over all j),
    over the images j with a probability of at least that of i. The value is AURC + N times the derivative by w_j.
    """
    accepted, risk = _own_risks(images)
    order = np.argsort(images.probability, kind="stable")
    below = np.searchsorted(images.probability[order], images.probability, side="right") - 1
    weights, risks = (np.cumsum(each[order])[below] for each in (1 / accepted, risk / accepted))
    return risk + (1 - images.right) * weights - risks


# For ``intervals``: the scores are pairs (N, 2) of the probability and whether the prediction is correct.
AURC = Metric(
    "AURC",
    lambda pairs, _: aurc(Predicted(*pairs.T)),
    "min",
    per_image=lambda pairs, _: _pseudo_values(Predicted(*pairs.T)),
)
