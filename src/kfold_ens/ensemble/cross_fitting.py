"""The out-of-fold score that no choice of an epoch flatters.

A fold's best epoch is chosen on its own held-out images, so their score is too high. Here, each half of a fold's images
is scored after the epoch that the other half chooses, and scores are averaged over random halves. Nothing is trained
again, since the logits of every epoch are kept. Beside it stands the score with each fold's epoch chosen by the other
folds. The fold's own scores have no part in the choice; its labels do, through the other folds' models. It is too low
if folds have their best epochs at different times.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import pandas as pd

from kfold_ens.config import Choosing, Scoring
from kfold_ens.ensemble.combine import METHODS
from kfold_ens.ensemble.metrics import DEFAULT, difference, group_numbers, score
from kfold_ens.ensemble.out_of_fold import combined_over_repeats
from kfold_ens.ensemble.score_table import MEASURED, NOTHING_CHOSEN, UNKNOWN, is_calibrated
from kfold_ens.ensemble.temperature import fitted
from kfold_ens.epoch_logits import EpochLogits, NotKept, read_epochs
from kfold_ens.history import Row, goodness, selected_row, selecting_column
from kfold_ens.logits import Logits, at_temperature, class_indices, concatenated
from kfold_ens.members import Number, member_of
from kfold_ens.metrics import find_metric, places_in_order, value

SPLITS = 4  # into random halves; on noise, the interval of one split alone is too narrow


@dataclass(frozen=True)
class ScoredBy:
    """How predictions are scored: labels and groups by image id, and the method that combines repeats."""

    label_of: Mapping[str, str]
    scoring: Scoring = DEFAULT
    group_of: Mapping[str, str] = field(default_factory=dict)
    over_repeats: str = "average"

    def score(self, folds: Sequence[Logits]) -> dict[str, Any]:
        """Score the out-of-fold logits of all folds, whose labels are known."""
        has_probabilities = METHODS[self.over_repeats].gives_probabilities
        entry = score(self._whole(folds), self.label_of, self.scoring, has_probabilities, self.group_of)
        assert entry  # held-out images have labels
        return entry

    def gain(self, some: Sequence[Logits], others: Sequence[Logits]) -> dict[str, float | None]:
        """Return by how much ``some`` score better than ``others`` on the same images, with a paired 95% interval.

        All are None if the metric needs probabilities and repeats are combined without.
        """
        metric = find_metric(self.scoring.metric)
        if metric.needs_probabilities and not METHODS[self.over_repeats].gives_probabilities:
            return {"difference": None, "low": None, "high": None}
        if metric.better == "min":
            some, others = others, some
        return difference(self._whole(some), self._whole(others), self.label_of, self.scoring, self.group_of)

    def _whole(self, folds: Sequence[Logits]) -> Logits:
        return concatenated(combined_over_repeats(list(folds), self.over_repeats))


def with_cross_fitted(
    metrics: Mapping[str, Any], histories: Mapping[Number, str], choosing: Choosing, scored_by: ScoredBy
) -> dict[str, Any]:
    """Add the entry ``cross_fitted`` to the scores of a recipe; calibrated if these are."""
    entry = cross_fitted_scores(histories, choosing, scored_by, is_calibrated(metrics))
    return {**metrics, "cross_fitted": entry}


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
        folds = _read_folds(histories, choosing, scored_by)
    except NotKept as error:
        return entry | {"state": UNKNOWN, "why": str(error)}
    own, others = [fold.own for fold in folds], [fold.by_others for fold in folds if fold.by_others]
    crossed = list(zip(*(fold.by_images for fold in folds), strict=True))
    return entry | {
        "state": MEASURED,
        "without_views": choosing.has_views,
        "as_chosen": scored_by.score(own),
        "out_of_fold": mean_of_splits([scored_by.score(split) for split in crossed]),
        "flattered_by": mean_gain([scored_by.gain(own, split) for split in crossed]),
        "by_other_folds": scored_by.score(others) if others else None,
        "epochs": {str(fold.number): fold.epochs for fold in folds},
        **(_calibrated(folds, scored_by) if calibrates else {}),
    }


def held_out(
    histories: Mapping[Number, str], choosing: Choosing, scored_by: ScoredBy
) -> tuple[dict[Number, Logits], list[dict[Number, Logits]]]:
    """Return each fold's held-out logits as chosen, and for each split into halves those with cross-fitted epochs.

    Raises:
        NotKept: if a fold lacks the logits of its epochs.
    """
    folds = _read_folds(histories, choosing, scored_by)
    crossed = [{fold.number: fold.by_images[split] for fold in folds} for split in range(SPLITS)]
    return {fold.number: fold.own for fold in folds}, crossed


@dataclass(frozen=True)
class _Fold:
    """A fold's held-out logits, with the epoch as chosen, chosen by the other half of images, and by other folds."""

    number: Number
    own: Logits
    by_images: list[Logits]  # one for each split into halves
    by_others: Logits | None  # if other folds choose none
    epochs: dict[str, Any]  # as chosen, by each half of the images and by the other folds


def _read_folds(histories: Mapping[Number, str], choosing: Choosing, scored_by: ScoredBy) -> list[_Fold]:
    if choosing.select == "best_loss" and not choosing.has_plain_loss:
        raise NotKept("the recipe's loss is not plain cross-entropy, so it is not kept per image")
    select, rows = choosing.select, {number: pd.read_csv(file).to_dict("records") for number, file in histories.items()}
    unknown = [number for number, each in rows.items() if selecting_column(select) not in each[0]]
    if unknown:
        raise NotKept(f"fold {unknown[0]} was trained with another metric, so its curve of {select} is unknown")
    by_others, folds = _known_by_others(rows, select), []
    for number, file in histories.items():
        epochs, own = read_epochs(file), int(selected_row(rows[number], select)["epoch"])
        by_images, of_halves = _over_splits(number, epochs, choosing, scored_by)
        named: dict[str, Any] = {
            "as_chosen": own,
            "cross_fitted": sum(of_halves, []),
            "by_other_folds": by_others.get(number),
        }
        after_others = epochs.after(by_others[number]) if by_others else None
        folds.append(_Fold(number, epochs.after(own), by_images, after_others, named))
    return folds


def _over_splits(
    number: Number, epochs: EpochLogits, choosing: Choosing, scored_by: ScoredBy
) -> tuple[list[Logits], list[list[int]]]:
    """Return what ``_by_other_half`` returns for each split of a fold."""
    try:
        splits = [_by_other_half(epochs, choosing, scored_by, split) for split in range(SPLITS)]
    except NotKept as error:
        raise NotKept(f"fold {number}: {error}") from None
    return [logits for logits, _ in splits], [chosen for _, chosen in splits]


def mean_of_splits(entries: Sequence[dict[str, Any]]) -> dict[str, Any]:
    """Average the scores and ends of intervals of several splits; None if one has none."""
    own = {name: [entry[name] for entry in entries] for name, each in entries[0].items() if isinstance(each, float)}
    means = {name: None if None in values else float(np.mean(values)) for name, values in own.items()}
    return {name: each for name, each in entries[0].items() if name != "correct"} | means


def mean_gain(gains: Sequence[dict[str, float | None]]) -> dict[str, Any]:
    """Average gains. The interval of a split without spread is its difference; without any spread there is none."""
    if all(gain["low"] is None for gain in gains):
        return mean_of_splits(gains)
    return mean_of_splits([dict.fromkeys(gain, gain["difference"]) if gain["low"] is None else gain for gain in gains])


def _by_other_half(
    epochs: EpochLogits, choosing: Choosing, scored_by: ScoredBy, split: int
) -> tuple[Logits, list[int]]:
    """Return each image's logits after the epoch that the other half of images chooses, and these two epochs.

    ``best_loss`` is the log loss here: the recipe's loss is plain cross-entropy.
    """
    first = epochs.after(1)
    name = "log_loss" if choosing.select == "best_loss" else choosing.select.removeprefix("best_")
    target, sign = class_indices(first, scored_by.label_of), -1 if find_metric(name).better == "min" else 1
    half = _halves(epochs.image_id, target, scored_by.group_of, split)
    order = places_in_order(epochs.classes, choosing.class_order) if name == "quadratic_kappa" else None
    curves = np.empty((len(epochs.values), 2))
    for epoch in range(len(curves)):
        logits = epochs.after(epoch + 1).values
        for each in (0, 1):
            curves[epoch, each] = sign * value(name, logits[half != each], target[half != each], order)
    if np.isnan(curves).all(axis=0).any():
        raise NotKept(
            f"half of its held-out images have no value of {choosing.select}, most likely for lack of a class"
        )
    chosen = np.nan_to_num(curves, nan=-np.inf).argmax(axis=0)
    values = epochs.values[chosen[half], np.arange(len(half))].astype(np.float32)
    return Logits(epochs.image_id, values, epochs.classes), (chosen + 1).tolist()


def _halves(image_id: np.ndarray, target: np.ndarray, group_of: Mapping[str, str], split: int) -> np.ndarray:
    """Split images at random into halves, groups as a whole: the half of each image (N,), 0 or 1.

    Without groups, each class is halved, so that a metric which needs all classes has a value.
    """
    group = group_numbers(image_id, group_of)
    groups = len(image_id) if group is None else int(group.max()) + 1
    if groups < 2:
        raise NotKept("it holds out a single image or group, so no others choose its epoch")
    places = np.random.default_rng(split).permutation(groups)
    if group is not None:
        return places[group] % 2
    half = np.empty(groups, dtype=int)
    half[np.lexsort((places, target))] = np.arange(groups) % 2
    return half


def cross_fitted_epochs(histories: Mapping[Number, Sequence[Row]], select: str) -> dict[Number, int]:
    """Return the epoch of each fold that the other folds of its repeat choose.

    It is the first with the best mean of their selecting values, among the epochs that all of them reached; or the
    fold's last, if it is earlier. Folds of other repeats hold out the same images, so they don't count.

    Raises:
        NotKept: if a fold has no other fold, or if the others have no value.
    """
    return {number: _by_others(number, histories, select) for number in histories}


def _known_by_others(histories: Mapping[Number, Sequence[Row]], select: str) -> dict[Number, int]:
    """Return the epochs that other folds choose; empty if those of a fold choose none."""
    try:
        return cross_fitted_epochs(histories, select)
    except NotKept:
        return {}


def _by_others(number: Number, histories: Mapping[Number, Sequence[Row]], select: str) -> int:
    others = [histories[other] for other in _others(number, histories)]
    if not others:
        raise NotKept(f"fold {number} is the only finished fold of its repeat, so no other fold chooses its epoch")
    reached = min(map(len, others))
    curves = [[goodness(selecting_column(select), row) for row in rows[:reached]] for rows in others]
    means = np.nan_to_num(curves, nan=-np.inf).mean(axis=0)
    if np.isneginf(means).all():
        raise NotKept(f"no epoch has a value of {select} in all other folds of fold {number}")
    return min(int(means.argmax()) + 1, len(histories[number]))


def _others(number: Number, numbers: Mapping[Number, Any]) -> list[Number]:
    repeat = member_of(number).repeat
    return [other for other in numbers if other != number and member_of(other).repeat == repeat]


def _calibrated(folds: Sequence[_Fold], scored_by: ScoredBy) -> dict[str, Any]:
    """Score at temperatures that the other folds fit, as chosen.

    Empty if there is one fold, and with repeats: there, a temperature is fitted on combined predictions, and those of
    other images hold models whose epochs this image helped to choose.
    """
    if len(folds) < 2 or any(member_of(fold.number).repeat for fold in folds):
        return {}
    calibrated = []
    for fold in folds:
        others = concatenated([each.own for each in folds if each is not fold])
        temperature = fitted(others, scored_by.label_of)
        calibrated.append([at_temperature(split, temperature) for split in fold.by_images])
    return {"calibrated": mean_of_splits([scored_by.score(split) for split in zip(*calibrated, strict=True)])}
