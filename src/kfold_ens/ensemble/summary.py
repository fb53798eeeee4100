"""``metrics.json``: all scores of a recipe's folds and ensembling methods."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

from kfold_ens.config import Scoring
from kfold_ens.ensemble.combine import METHODS
from kfold_ens.ensemble.metrics import DEFAULT, NO_GROUPS, differences, score
from kfold_ens.ensemble.out_of_fold import combined_over_repeats
from kfold_ens.ensemble.temperature import calibrate, cross_fitted
from kfold_ens.logits import Logits, at_temperature, concatenated
from kfold_ens.members import Number
from kfold_ens.metrics import refuse_unfit


def summarize(
    oof: Mapping[Number, Logits],
    test: Mapping[Number, Logits],
    combined: Mapping[str, Logits],
    label_of: Mapping[str, str],
    scoring: Scoring = DEFAULT,
    calibrates: bool = False,
    group_of: Mapping[str, str] = NO_GROUPS,
    over_repeats: str = "average",
) -> dict[str, Any]:
    """Score each fold and ensembling method, out of fold and on test images with labels: ``metrics.json``.

    ``out_of_fold`` counts every training image once. With repeats, an image's predictions are combined by the
    ensembling method ``over_repeats``, so it is the score of an ensemble with one model per repeat. With
    ``calibrates``, the entry ``calibrated`` holds the same scores at a temperature, which is cross-fitted by fold out
    of fold.
    """
    refuse_unfit(scoring.metric, next(iter(oof.values())).classes, scoring.class_order)
    held_out = combined_over_repeats(list(oof.values()), over_repeats)

    def scored(logits: Logits, method: str = "average") -> dict[str, Any] | None:
        return score(logits, label_of, scoring, METHODS[method].gives_probabilities, group_of)

    return {
        "metric": scoring.metric,
        "out_of_fold": scored(concatenated(held_out), over_repeats),
        "folds": {str(fold): {"out_of_fold": scored(oof[fold]), "test": scored(test[fold])} for fold in oof},
        "methods": {method: {"test": scored(logits, method)} for method, logits in combined.items()},
        "differences": differences({"one fold": next(iter(test.values())), **combined}, label_of, scoring, group_of),
        **({"calibrated": _calibrated(held_out, combined, label_of, scored)} if calibrates else {}),
    }


def _calibrated(
    held_out: Sequence[Logits],
    combined: Mapping[str, Logits],
    label_of: Mapping[str, str],
    scored: Callable[[Logits], dict[str, Any] | None],
) -> dict[str, Any]:
    calibration = calibrate(held_out, label_of)
    certain = {name: each for name, each in combined.items() if METHODS[name].gives_probabilities}
    methods = {name: {"test": scored(at_temperature(each, calibration.temperature))} for name, each in certain.items()}
    after = scored(cross_fitted(held_out, calibration))
    return {"temperature": calibration.temperature, "out_of_fold": after, "methods": methods}


def with_members(metrics: dict[str, Any], members: str) -> dict[str, Any]:
    """Add config.yaml's ``members`` to ``metrics.json``, unless it is ``folds``."""
    return metrics if members == "folds" else {"members": members} | metrics
