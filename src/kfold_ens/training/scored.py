"""Choose the metrics of a fold's held-out images after each epoch. Imports no torch."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from kfold_ens.config import Scoring, TrainingRecipe
from kfold_ens.data.folds import Fold
from kfold_ens.errors import KfoldError
from kfold_ens.metrics import absent_classes, find_metric, places_in_order, refuse_unfit, value


@dataclass(frozen=True)
class ScoredBy:
    """Names of the metrics, and the class order if one of them needs it."""

    names: tuple[str, ...]
    order: tuple[int, ...] | None

    def of(self, logits: np.ndarray, target: np.ndarray) -> dict[str, float]:
        """History columns from logits (N, K) and class indices (N,); NaN if a metric is undefined."""
        return {f"val_{name}": value(name, logits, target, self.order) for name in self.names}


def scored_by(recipe: TrainingRecipe, fold: Fold, scoring: Scoring, title: str) -> ScoredBy:
    """Metrics of a fold: accuracy, those that the recipe monitors or selects by, and ``scoring``.

    Errors start with ``title``, the name of the fold.

    Raises:
        KfoldError: if a metric that the recipe monitors or selects by is undefined for this fold.
    """
    class_order = recipe.class_order or scoring.class_order
    for name in recipe.monitored:
        refuse_unfit(name, fold.classes, class_order)
        _refuse_if_undefined(name, fold, title)
    names = tuple(dict.fromkeys(["accuracy", *recipe.monitored, scoring.metric]))
    ordered = "quadratic_kappa" in names
    return ScoredBy(names, tuple(places_in_order(fold.classes, class_order)) if ordered else None)


def _refuse_if_undefined(name: str, fold: Fold, title: str) -> None:
    absent = absent_classes(fold.validation.target, len(fold.classes))
    if absent and find_metric(name).needs_every_class:
        missing = ", ".join(fold.classes[place] for place in absent)
        raise KfoldError(
            f"{title}: no held-out image has class {missing}, so {name} is undefined; "
            "choose another metric for select, early_stopping.monitor and schedule.monitor in the recipe"
        )
