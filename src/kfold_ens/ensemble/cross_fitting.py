"""The out-of-fold score that no choice of an epoch flatters.

A fold's best epoch is chosen on its own held-out images, so their score is too high. Here the epoch of a fold is chosen
by the other folds of its repeat instead: the epoch with the best mean of their selecting values. So is its temperature.
Nothing is trained again, since the logits of every epoch are kept.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import pandas as pd

from kfold_ens.config import Choosing, Scoring
from kfold_ens.ensemble.combine import METHODS
from kfold_ens.ensemble.metrics import DEFAULT, difference, score
from kfold_ens.ensemble.out_of_fold import combined_over_repeats
from kfold_ens.ensemble.score_table import MEASURED, NOTHING_CHOSEN, UNKNOWN
from kfold_ens.ensemble.temperature import fitted
from kfold_ens.epoch_logits import NotKept, read_epochs
from kfold_ens.history import Row, goodness, selected_row, selecting_column
from kfold_ens.logits import Logits, at_temperature, concatenated
from kfold_ens.members import Number, member_of
from kfold_ens.metrics import find_metric


@dataclass(frozen=True)
class ScoredBy:
    """How predictions are scored: labels and groups by image id, and the method that combines repeats."""

    label_of: Mapping[str, str]
    scoring: Scoring = DEFAULT
    group_of: Mapping[str, str] = field(default_factory=dict)
    over_repeats: str = "average"

    def score(self, folds: Sequence[Logits]) -> dict[str, Any] | None:
        """Score the out-of-fold logits of all folds."""
        has_probabilities = METHODS[self.over_repeats].gives_probabilities
        return score(self._whole(folds), self.label_of, self.scoring, has_probabilities, self.group_of)

    def gain(self, some: Sequence[Logits], others: Sequence[Logits]) -> dict[str, float | None]:
        """Return by how much ``some`` score better than ``others`` on the same images, with a paired 95% interval."""
        if find_metric(self.scoring.metric).better == "min":
            some, others = others, some
        return difference(self._whole(some), self._whole(others), self.label_of, self.scoring, self.group_of)

    def _whole(self, folds: Sequence[Logits]) -> Logits:
        return concatenated(combined_over_repeats(list(folds), self.over_repeats))


def cross_fitted_scores(
    histories: Mapping[Number, str], choosing: Choosing, scored_by: ScoredBy, calibrates: bool = False
) -> dict[str, Any]:
    """Score the choice of the epoch: the entry ``cross_fitted`` of ``metrics.json``.

    ``histories`` are the files ``history.csv`` of all folds, beside which the logits of epochs lie. All scores are
    without test-time views. ``flattered_by`` is positive if the score as chosen is better. If a fold lacks the logits,
    ``state`` is ``unknown`` and ``why`` gives the reason.
    """
    entry = {"select": choosing.select, "watched": choosing.watched}
    if choosing.select == "last":
        return entry | {"state": NOTHING_CHOSEN}
    try:
        folds = _read_folds(histories, choosing.select)
    except NotKept as error:
        return entry | {"state": UNKNOWN, "why": str(error)}
    own, crossed = [fold.logits[fold.own] for fold in folds], [fold.logits[fold.by_others] for fold in folds]
    return entry | {
        "state": MEASURED,
        "without_views": choosing.has_views,
        "epochs": {str(fold.number): {"as_chosen": fold.own, "cross_fitted": fold.by_others} for fold in folds},
        "as_chosen": scored_by.score(own),
        "out_of_fold": scored_by.score(crossed),
        "flattered_by": scored_by.gain(own, crossed),
        **(_calibrated(folds, scored_by) if calibrates else {}),
    }


@dataclass(frozen=True)
class _Fold:
    """A fold, its epoch as chosen on its own images and by the other folds, and the logits after the epochs needed."""

    number: Number
    own: int
    by_others: int
    logits: Mapping[int, Logits]


def _read_folds(histories: Mapping[Number, str], select: str) -> list[_Fold]:
    rows = {number: pd.read_csv(file).to_dict("records") for number, file in histories.items()}
    unknown = [number for number, each in rows.items() if selecting_column(select) not in each[0]]
    if unknown:
        raise NotKept(f"fold {unknown[0]} was trained with another metric, so its curve of {select} is unknown")
    chosen = cross_fitted_epochs(rows, select)
    folds = []
    for number, file in histories.items():
        epochs, own = read_epochs(file), int(selected_row(rows[number], select)["epoch"])
        needed = {own, *(chosen[each] for each in [number, *_others(number, rows)])}
        folds.append(_Fold(number, own, chosen[number], {epoch: epochs.after(epoch) for epoch in needed}))
    return folds


def cross_fitted_epochs(histories: Mapping[Number, Sequence[Row]], select: str) -> dict[Number, int]:
    """Return the epoch of each fold that the other folds of its repeat choose.

    It is the first with the best mean of their selecting values, among the epochs that all folds of the repeat reached.
    Folds of other repeats hold out the same images, so they don't count.

    Raises:
        NotKept: if a fold has no other fold.
    """
    return {number: _by_others(number, histories, select) for number in histories}


def _by_others(number: Number, histories: Mapping[Number, Sequence[Row]], select: str) -> int:
    others = [histories[other] for other in _others(number, histories)]
    if not others:
        raise NotKept(f"fold {number} is the only finished fold of its repeat, so no other fold chooses its epoch")
    reached = min(map(len, [histories[number], *others]))
    curves = [[goodness(selecting_column(select), row) for row in rows[:reached]] for rows in others]
    means = np.nan_to_num(curves, nan=-np.inf).mean(axis=0)
    return int(means.argmax()) + 1


def _others(number: Number, numbers: Mapping[Number, Any]) -> list[Number]:
    repeat = member_of(number).repeat
    return [other for other in numbers if other != number and member_of(other).repeat == repeat]


def _calibrated(folds: Sequence[_Fold], scored_by: ScoredBy) -> dict[str, Any]:
    """Score at temperatures that the other folds fit, with their logits after the epoch that they choose.

    Empty with repeats: there, each image's prediction holds models that other repeats' folds were fitted with.
    """
    if any(member_of(fold.number).repeat for fold in folds):
        return {}
    calibrated = []
    for fold in folds:
        others = concatenated([each.logits[fold.by_others] for each in folds if each is not fold])
        calibrated.append(at_temperature(fold.logits[fold.by_others], fitted(others, scored_by.label_of)))
    return {"calibrated": scored_by.score(calibrated)}
