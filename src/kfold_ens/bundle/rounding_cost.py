"""Measure the cost of rounding weights to bfloat16: the fold models predict their held-out images again."""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence

import pandas as pd

from kfold_ens.bundle.about import Rounding
from kfold_ens.bundle.rounding import as_float32, rounded
from kfold_ens.compute.compute import Compute
from kfold_ens.config import Scoring, Tta
from kfold_ens.data.folds import listed_images
from kfold_ens.data.pixels import PixelStore
from kfold_ens.ensemble.combine import METHODS
from kfold_ens.ensemble.metrics import score
from kfold_ens.ensemble.out_of_fold import combined_over_repeats
from kfold_ens.errors import KfoldError
from kfold_ens.files import read_json
from kfold_ens.logits import Logits, concatenated
from kfold_ens.members import member_with
from kfold_ens.metrics import find_metric
from kfold_ens.network.classifier import load_model
from kfold_ens.prediction.predict import on_device, predict

log = logging.getLogger(__name__)

# How much worse the metric may get, in its own unit. This is far below the half-width of a 95% interval on any usual
# dataset: with an accuracy of 0.95, that is 0.001 only with 180,000 images.
TOLERANCE = 0.001
EPSILON = 1e-9  # 0.981 - 0.980 is slightly more than 0.001 in floating point
KEEP = "write bundle_dtype: fp32 into config.yaml, which stores the weights without rounding"


def predict_rounded(
    models: Sequence[str],
    splits: Sequence[str],
    tta: Tta,
    store: PixelStore,
    compute: Compute,
    batch_size: int | None,
) -> list[Logits]:
    """Return the logits of each fold's model, with rounded weights, for its held-out images.

    ``splits`` holds one file per repeat. ``batch_size`` defaults to that of training.
    """
    logits = []
    for file in models:
        member = member_with(file)
        model = as_float32(rounded(load_model(file)))
        images = listed_images(splits[member.repeat], member.trained_as)
        size = batch_size or model.recipe.batch_size
        logits.append(predict(model, on_device(model, compute), tta, store, images, compute, size))
    return logits


def compare(
    before: Sequence[Logits],
    after: Sequence[Logits],
    label_of: Mapping[str, str],
    scoring: Scoring,
    over_repeats: str = "average",
) -> Rounding:
    """Score out-of-fold logits before and after rounding, as in ``metrics.json``.

    Raises:
        KfoldError: if the metric gets worse by more than ``TOLERANCE``, or has no value.
    """
    both = [concatenated(combined_over_repeats(logits, over_repeats)) for logits in (before, after)]
    has_probabilities = METHODS[over_repeats].gives_probabilities
    scores = [score(logits, label_of, scoring, has_probabilities) for logits in both]
    entries = [entry for entry in scores if entry]  # held-out images always have labels
    own = [entry[scoring.metric] for entry in entries]
    if None in own:
        reason = next(entry["why"] for entry in entries if "why" in entry)
        raise KfoldError(
            f"bundle_dtype: bf16 cannot be checked, since metric: {scoring.metric} has no value: {reason}; {KEEP}"
        )
    rounding = Rounding(
        metric=scoring.metric,
        before=own[0],
        after=own[1],
        tolerance=TOLERANCE,
        images=len(both[0].image_id),
        relabelled=_relabelled(*both),
    )
    if _loss(rounding) > TOLERANCE + EPSILON:
        raise KfoldError(f"bundle_dtype: bf16 costs more than the tolerance: {rounding.in_words}; {KEEP}")
    log.info("weights rounded to bfloat16, out of fold: %s", rounding.in_words)
    return rounding


def _relabelled(before: Logits, after: Logits) -> int:
    """Count the images that get another label."""
    first, second = (pd.Series(logits.predictions(), index=logits.image_id) for logits in (before, after))
    return int((first != second.loc[first.index]).sum())


def _loss(rounding: Rounding) -> float:
    """Return how much worse the metric is; negative if it is better."""
    sign = {"max": 1, "min": -1}[find_metric(rounding.metric).better]
    return sign * (rounding.before - rounding.after)


def read_rounding(path: str | None) -> Rounding | None:
    """Read the measured cost of rounding; None without a file."""
    return Rounding.model_validate(read_json(path)) if path else None
