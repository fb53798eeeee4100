"""The metrics that a fold's held-out images are scored by after each epoch. Imports no torch."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from kfold_ens.config import Scoring, TrainingRecipe
from kfold_ens.data.folds import Fold
from kfold_ens.errors import KfoldError
from kfold_ens.metrics import absent_classes, find_metric, places_in_order, refuse_unfit, value


@dataclass(frozen=True)
class ScoredBy:
    """The metrics by name, and the order of classes if one of them needs it."""

    names: tuple[str, ...]
    order: tuple[int, ...] | None

    def of(self, logits: np.ndarray, target: np.ndarray) -> dict[str, float]:
        """The columns of the history for logits (N, K) and class indices (N,); NaN if a metric has no value."""
        return {f"val_{name}": value(name, logits, target, self.order) for name in self.names}


def scored_by(recipe: TrainingRecipe, fold: Fold, scoring: Scoring, title: str) -> ScoredBy:
    """What a fold is scored by: accuracy, what its weights depend on, and the metric of the run.

    Errors begin with ``title``, the fold in words.

    Raises:
        KfoldError: if a metric that the weights depend on has no value for this fold.
    """
    class_order = recipe.class_order or scoring.class_order
    for name in recipe.monitored:
        refuse_unfit(name, fold.classes, class_order)
        _refuse_without_value(name, fold, title)
    names = tuple(dict.fromkeys(["accuracy", *recipe.monitored, scoring.metric]))
    ordered = "quadratic_kappa" in names
    return ScoredBy(names, tuple(places_in_order(fold.classes, class_order)) if ordered else None)


def _refuse_without_value(name: str, fold: Fold, title: str) -> None:
    absent = absent_classes(fold.validation.target, len(fold.classes))
    if absent and find_metric(name).needs_every_class:
        missing = ", ".join(fold.classes[place] for place in absent)
        raise KfoldError(
            f"{title}: no held-out image is of class {missing}, so {name} has no value; "
            "let the recipe select, stop and step by another metric"
        )
