"""The out-of-fold score of a blend that neither the choice of epochs nor its weights flatter.

As in ``cross_fitting``, each half of a fold's images is scored after the epochs that the other half chooses, recipe by
recipe. The other folds fit the weights that score a fold.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from kfold_ens.config import Choosing
from kfold_ens.ensemble.blend import OfMembers, blend_members, fit
from kfold_ens.ensemble.cross_fitting import SPLITS, ScoredBy, held_out, mean_gain, mean_of_splits
from kfold_ens.ensemble.score_table import MEASURED, NOTHING_CHOSEN, UNKNOWN
from kfold_ens.epoch_logits import NotKept
from kfold_ens.logits import Logits, read_logits
from kfold_ens.members import Number, files_by_recipe

Histories = Mapping[str, Mapping[Number, str]]  # files history.csv by recipe and member


def with_blend(
    metrics: Mapping[str, Any], blend: Mapping[str, Any], histories: Iterable[str], scored_by: ScoredBy
) -> dict[str, Any]:
    """Add the entries ``blend`` and ``cross_fitted`` to the scores of a blend, whose ``blend.json`` is ``blend``.

    ``histories`` are the files ``history.csv`` of all folds in the blend.
    """
    entry = cross_fitted_blend(files_by_recipe(histories), blend, scored_by)
    return {**metrics, "blend": dict(blend), "cross_fitted": entry}


def cross_fitted_blend(histories: Histories, blend: Mapping[str, Any], scored_by: ScoredBy) -> dict[str, Any]:
    """Score the choice of epochs and weights together: the entry ``cross_fitted`` of a blend's ``metrics.json``.

    ``state``, ``why`` and the scores are as in ``cross_fitted_scores``. Logits of epochs lie beside ``histories``.
    """
    choosing = {recipe: Choosing.model_validate(blend["choosing"][recipe]) for recipe in histories}
    if all(each.select == "last" for each in choosing.values()):
        return {"state": NOTHING_CHOSEN}
    try:
        own, crossed = _held_out_of_all(histories, choosing, scored_by)
    except NotKept as error:
        return {"state": UNKNOWN, "why": str(error)}
    return {"state": MEASURED, "without_views": False} | _scores(own, crossed, blend, scored_by)


def _held_out_of_all(
    histories: Histories, choosing: Mapping[str, Choosing], scored_by: ScoredBy
) -> tuple[OfMembers, list[OfMembers]]:
    """Return all recipes' held-out logits as chosen, and for each split into halves those with cross-fitted epochs."""
    own, crossed = {}, {}
    for recipe, files in histories.items():
        try:
            own[recipe], crossed[recipe] = _held_out_of(files, choosing[recipe], scored_by)
        except NotKept as error:
            raise NotKept(f"{recipe}: {error}") from None
    return own, [{recipe: splits[split] for recipe, splits in crossed.items()} for split in range(SPLITS)]


def _held_out_of(
    files: Mapping[Number, str], choosing: Choosing, scored_by: ScoredBy
) -> tuple[dict[Number, Logits], list[dict[Number, Logits]]]:
    if choosing.select == "last":
        last = {number: read_logits(str(Path(file).with_name("oof_logits.npz"))) for number, file in files.items()}
        return last, [last] * SPLITS
    if choosing.has_views:
        raise NotKept("test-time views of other epochs are not computed")
    return held_out(files, choosing, scored_by)


def _scores(own: OfMembers, crossed: list[OfMembers], blend: Mapping[str, Any], scored_by: ScoredBy) -> dict[str, Any]:
    """Score epochs and weights as chosen on all images, and cross-fitted, and their difference."""
    weighing, of = blend["weighing"], blend["of"]
    fitted = fit(own, scored_by, weighing, of)
    as_chosen = list(blend_members(own, dict.fromkeys(fitted.of_folds, fitted.weights), of).values())
    splits = [list(blend_members(oof, fit(oof, scored_by, weighing, of).of_folds, of).values()) for oof in crossed]
    return {
        "as_chosen": scored_by.score(as_chosen),
        "out_of_fold": mean_of_splits([scored_by.score(split) for split in splits]),
        "flattered_by": mean_gain([scored_by.gain(as_chosen, split) for split in splits]),
    }
