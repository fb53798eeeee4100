"""Selective prediction: an image is accepted if the probability of its predicted label is at least a threshold p.

The risk-coverage curve (El-Yaniv and Wiener 2010, https://www.jmlr.org/papers/v11/el-yaniv10a.html) shows the selective
risk, which is 1 - accuracy on the accepted images, against the coverage, which is their share. A threshold on the
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

from kfold_ens.ensemble.combine import METHODS
from kfold_ens.ensemble.intervals import interval
from kfold_ens.ensemble.metrics import NO_GROUPS, group_numbers
from kfold_ens.logits import Logits, class_indices
from kfold_ens.metrics import Metric, find_metric

DECIMALS = 6  # of a threshold that is chosen, as kfold-predict writes probabilities


@dataclass(frozen=True)
class Predicted:
    """N images whose label is known.

    ``probability`` (N,) is that of the predicted label, ``right`` (N,) bool whether it is the image's own. ``group``
    holds the numbers of the images' groups (N,); None if no two images share one.
    """

    probability: np.ndarray
    right: np.ndarray
    group: np.ndarray | None = None


def sure_by(method: str) -> str:
    """The ensembling method whose softmax says how sure a method is: a vote has none, and takes that of ``softmax``."""
    return method if METHODS[method].gives_probabilities else "softmax"


def predicted(
    scores: Logits, sure: Logits, label_of: Mapping[str, str], group_of: Mapping[str, str] = NO_GROUPS
) -> Predicted:
    """The images whose label is known: that of the largest score is predicted, with its probability by ``sure``.

    ``sure`` holds logits of the same images and classes, in the same order; it is ``scores`` itself unless these are
    votes.
    """
    target = class_indices(scores, label_of)
    known = target >= 0
    label = scores.values[known].argmax(axis=1)
    probabilities = softmax(sure.values[known].astype(np.float64), axis=1)
    probability = np.take_along_axis(probabilities, label[:, None], axis=1)[:, 0]
    return Predicted(probability, label == target[known], group_numbers(scores.image_id[known], group_of))


# --- the curve -------------------------------------------------------------------------------------------


def at_thresholds(images: Predicted, thresholds: np.ndarray) -> pd.DataFrame:
    """A row ``p, share, images, accuracy`` for each threshold; the accuracy is NaN if no image is accepted."""
    accepted, right = _counts(images, np.asarray(thresholds, dtype=float))
    with np.errstate(invalid="ignore"):
        shares = {"share": accepted / len(images.right), "images": accepted, "accuracy": right / accepted}
    return pd.DataFrame({"p": thresholds} | shares)


def _counts(images: Predicted, thresholds: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """How many images are accepted at each threshold, and how many of these are right."""
    order = np.argsort(-images.probability, kind="stable")
    accepted = np.searchsorted(-images.probability[order], -thresholds, side="right")
    return accepted, np.append(0, np.cumsum(images.right[order]))[accepted]


def risk_coverage(images: Predicted, points: int | None = None) -> pd.DataFrame:
    """The curve as rows of ``at_thresholds``, from the smallest share to all images.

    Images of equal probability are accepted together, so there is a row for each probability that occurs; with
    ``points``, at most so many of them, at shares as even as can be.
    """
    descending = np.sort(images.probability)[::-1]
    if points is not None:
        descending = descending[-(-np.arange(1, points + 1) * len(descending) // points) - 1]
    return at_thresholds(images, np.unique(descending)[::-1])


def threshold_for(images: Predicted, accuracy: float) -> float | None:
    """The p, of 6 decimals, that accepts the most images while these reach an accuracy; None if none does.

    It is chosen on these very images, so their accuracy at it is flattered.
    """
    candidates = np.unique(np.floor(images.probability * 10**DECIMALS) / 10**DECIMALS)
    rows = at_thresholds(images, candidates)
    reaching = rows["p"][rows["accuracy"] >= accuracy]
    return None if reaching.empty else float(reaching.iloc[0])


def with_intervals(images: Predicted, rows: pd.DataFrame) -> pd.DataFrame:
    """The rows with the ends ``low`` and ``high`` of the accuracy's 95% interval; NaN if it is not known.

    Wilson's, or if accepted images share groups that of ``intervals``, which draws whole groups. If all of them are
    right, or all wrong, no draw differs: Wilson's then, each group counted once.
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
    """The mean over images of the selective risk at their own probability: Geifman et al. 2019, section 2.

    Without any order it is the error rate in expectation; the less, the more the wrong predictions are the unsure ones.
    """
    return float(_own_risks(images)[1].mean())


def least_aurc(images: Predicted) -> float:
    """The AURC if every wrong prediction had a smaller probability than every right one."""
    wrong = np.sort(~images.right)
    return float((np.cumsum(wrong) / np.arange(1, len(wrong) + 1)).mean())


def aurc_interval(images: Predicted) -> tuple[float, float]:
    """The 95% interval of the AURC by the bootstrap of ``intervals``; NaN if it is not known."""
    pairs = np.stack([images.probability, images.right], axis=1)
    return interval(AURC, (pairs, np.zeros(len(pairs), dtype=np.int64)), aurc(images), images.group)


def _own_risks(images: Predicted) -> tuple[np.ndarray, np.ndarray]:
    """How many images are accepted if p is an image's own probability, and the risk on these: both (N,)."""
    accepted, right = _counts(images, images.probability)
    return accepted, 1 - right / accepted


def _pseudo_values(images: Predicted) -> np.ndarray:
    """A value (N,) per image whose mean is the AURC, and has its sampling error (the infinitesimal jackknife).

    With weights on images, AURC = sum_i w_i r_i / sum_i w_i and r_i = sum of w over wrong j / sum of w over all j, both
    over the j with a probability of at least i's. N times the derivative by w_j, plus AURC, is this value.
    """
    accepted, risk = _own_risks(images)
    order = np.argsort(images.probability, kind="stable")
    below = np.searchsorted(images.probability[order], images.probability, side="right") - 1
    weights, risks = (np.cumsum(each[order])[below] for each in (1 / accepted, risk / accepted))
    return risk + (1 - images.right) * weights - risks


# As ``intervals`` needs it: its scores are pairs (N, 2) of a probability and whether the label is right.
AURC = Metric(
    "AURC",
    lambda pairs, _: aurc(Predicted(*pairs.T)),
    "min",
    per_image=lambda pairs, _: _pseudo_values(Predicted(*pairs.T)),
)
