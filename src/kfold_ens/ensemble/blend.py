"""A blend: the weighted mean of several recipes' probabilities, fold by fold.

A blend has members as a recipe has. Fold f's out-of-fold logits use weights fitted on the out-of-fold logits of the
other folds, without the label of any image that f holds out. The other folds' models were trained on these labels, so
only the weights are cross-fitted. Test logits use weights fitted on all folds.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

import numpy as np
from scipy.special import logsumexp, softmax
from scipy.stats import rankdata

from kfold_ens.config import BlendOf, BlendWeights, Scoring
from kfold_ens.ensemble.combine import stacked
from kfold_ens.ensemble.cross_fitting import ScoredBy
from kfold_ens.ensemble.weights import WEIGHING
from kfold_ens.errors import KfoldError
from kfold_ens.logits import Logits, class_indices, concatenated, read_logits, write_logits
from kfold_ens.members import Number, files_by_recipe, member_of, member_with
from kfold_ens.metrics import find_metric, inputs_of, places_in_order

Weights = Mapping[str, float]  # by recipe
OfMembers = Mapping[str, Mapping[Number, Logits]]  # logits by recipe and member


@dataclass(frozen=True)
class Blend:
    """The weights of a blend's recipes: for test images, and for each fold (fitted on the other folds)."""

    weighing: BlendWeights
    of: BlendOf
    weights: Weights
    of_folds: Mapping[Number, Weights]

    @property
    def is_fitted(self) -> bool:
        """Whether labels decide the weights."""
        return self.weighing != "equal"


def read_members(files: Iterable[str]) -> OfMembers:
    """Read logits files by recipe and member."""
    return {
        recipe: {number: read_logits(file) for number, file in own.items()}
        for recipe, own in files_by_recipe(files).items()
    }


def fit(oof: OfMembers, scored_by: ScoredBy, weighing: BlendWeights, of: BlendOf = "probabilities") -> Blend:
    """Fit a blend's weights on the out-of-fold logits of all folds, and for each fold on those of the others.

    Weights are fitted on the folds that every recipe has.

    Raises:
        KfoldError: if weights are fitted, and fewer than two folds are common to all recipes; if ranks are averaged of
            more than two classes.
    """
    classes = next(iter(next(iter(oof.values())).values())).classes
    if of == "ranks" and len(classes) > 2:
        raise KfoldError(f"blend_of: ranks needs two classes (got {len(classes)}); write blend_of: probabilities")
    numbers = sorted({fold for folds in oof.values() for fold in folds}, key=member_of)
    if weighing == "equal":
        same = {recipe: 1 / len(oof) for recipe in oof}
        return Blend(weighing, of, same, dict.fromkeys(numbers, same))
    shared = [fold for fold in numbers if all(fold in folds for folds in oof.values())]
    if len(shared) < 2:
        raise KfoldError(
            f"blend_weights: {weighing} needs two folds that all recipes have (got {len(shared)}): train the missing "
            "folds, or write blend_weights: equal"
        )
    fitted = _Fitting(oof, shared, scored_by, weighing, of)
    of_folds = {fold: fitted.without(_held_out(oof, fold)) for fold in numbers}
    return Blend(weighing, of, fitted.without(()), of_folds)


def _held_out(oof: OfMembers, fold: Number) -> set[str]:
    return {image_id for folds in oof.values() if fold in folds for image_id in folds[fold].image_id}


class _Fitting:
    """The out-of-fold probabilities (M, N, K) of all recipes on the same images, to fit weights on."""

    def __init__(
        self, oof: OfMembers, shared: list[Number], scored_by: ScoredBy, weighing: BlendWeights, of: BlendOf
    ) -> None:
        parts = [stacked({recipe: _scores(folds[fold], of) for recipe, folds in oof.items()}) for fold in shared]
        images = concatenated([next(iter(oof.values()))[fold] for fold in shared])
        self.image_id, self.classes, self.recipes = images.image_id, images.classes, list(oof)
        self.p_mnk = softmax(np.concatenate(parts, axis=1), axis=2)
        self.target = class_indices(images, scored_by.label_of)
        self.weigh, self.scoring = WEIGHING[weighing], scored_by.scoring

    def without(self, images: Collection[str]) -> Weights:
        """Fit weights on all other images."""
        rows = np.array([image_id not in images for image_id in self.image_id]) & (self.target >= 0)
        value = partial(_value, target=self.target[rows], classes=self.classes, scoring=self.scoring)
        weights = self.weigh(self.p_mnk[:, rows], self.target[rows], value)
        return dict(zip(self.recipes, map(float, weights), strict=True))


def _value(p_nk: np.ndarray, target: np.ndarray, classes: tuple[str, ...], scoring: Scoring) -> float:
    """Return the metric of probabilities, negated if smaller is better."""
    metric = find_metric(scoring.metric)
    order = places_in_order(classes, scoring.class_order) if metric.needs == "order" else None
    own = metric.compute(*inputs_of(metric, np.log(np.maximum(p_nk, np.finfo(np.float64).tiny)), target, order))
    return -own if metric.better == "min" else own


def blended(recipes: Mapping[str, Logits], weights: Weights, of: BlendOf = "probabilities") -> Logits:
    """Return the logarithm of the weighted mean of recipes' probabilities, in float64.

    The weights of missing recipes are shared among the others, in proportion; equally if all others have weight 0.
    """
    own = np.array([weights[recipe] for recipe in recipes])
    own = own / own.sum() if own.sum() else np.full(len(own), 1 / len(own))
    scores_mnk = stacked({recipe: _scores(logits, of) for recipe, logits in recipes.items()})[own > 0]
    log_p = scores_mnk - logsumexp(scores_mnk, axis=2, keepdims=True)
    first = next(iter(recipes.values()))
    return Logits(first.image_id, logsumexp(log_p + np.log(own[own > 0])[:, None, None], axis=0), first.classes)


def _scores(logits: Logits, of: BlendOf) -> Logits:
    """Return logits in float64, or the logarithm of each image's rank within its class's column, scaled to (0, 1).

    With two classes an image's two ranks sum to 1, so their mean keeps the order of images.
    """
    values = logits.values.astype(np.float64)
    if of == "ranks":
        log_p = values - logsumexp(values, axis=1, keepdims=True)
        values = np.log(rankdata(log_p, axis=0) / (len(values) + 1))
    return Logits(logits.image_id, values, logits.classes)


def blend_members(members: OfMembers, weights_of: Mapping[Number, Weights], of: BlendOf) -> dict[Number, Logits]:
    """Blend each member of the recipes that have it, at its own weights."""
    return {
        number: blended({recipe: each[number] for recipe, each in members.items() if number in each}, weights, of)
        for number, weights in weights_of.items()
    }


def write_blended(
    blend: Blend, oof: OfMembers, test: OfMembers, oof_files: Sequence[str], test_files: Sequence[str]
) -> None:
    """Write the blend's logits: out of fold at each fold's weights, and for the test images."""
    held_out = blend_members(oof, blend.of_folds, blend.of)
    numbers = [member_with(file).number for file in test_files]
    predicted = blend_members(test, dict.fromkeys(numbers, blend.weights), blend.of)
    for logits, files in ((held_out, oof_files), (predicted, test_files)):
        for file in files:
            write_logits(file, logits[member_with(file).number])


def describe(blend: Blend, oof: OfMembers, scored_by: ScoredBy) -> dict[str, Any]:
    """Return the weights and out-of-fold scores of the entry ``blend`` of ``metrics.json``.

    ``as_fitted`` scores the weights on the images that they were fitted on. ``flattered_by`` is positive if that score
    is better than the cross-fitted one, with a paired 95% interval. Both are None if nothing is fitted. ``recipes``
    holds the score of each recipe on the folds that it has.
    """
    crossed = list(blend_members(oof, blend.of_folds, blend.of).values())
    fitted = list(blend_members(oof, dict.fromkeys(blend.of_folds, blend.weights), blend.of).values())
    return {
        "weighing": blend.weighing,
        "of": blend.of,
        "weights": dict(blend.weights),
        "weights_of_folds": {str(fold): dict(weights) for fold, weights in blend.of_folds.items()},
        "as_fitted": scored_by.score(fitted) if blend.is_fitted else None,
        "flattered_by": scored_by.gain(fitted, crossed) if blend.is_fitted else None,
        "recipes": {recipe: scored_by.score(list(folds.values())) for recipe, folds in oof.items()},
    }


def missing_members(members: OfMembers, recipes: Iterable[str], files: Sequence[str]) -> dict[str, list[str]]:
    """List the members that recipes of a partial blend lack, by recipe; empty if the blend is whole.

    ``files`` are those of the blend's own members.
    """
    numbers = [member_with(file).number for file in files]
    lacks = {recipe: [str(number) for number in numbers if number not in members.get(recipe, {})] for recipe in recipes}
    return {recipe: missing for recipe, missing in lacks.items() if missing}
