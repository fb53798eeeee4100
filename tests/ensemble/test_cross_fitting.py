"""The cross-fitted choice of the epoch."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from kept_epochs import CLASSES, write_folds
from projects import TINY_RECIPE

from kfold_ens.config import Choosing, Recipe, Scoring
from kfold_ens.ensemble.cross_fitting import (
    SPLITS,
    ScoredBy,
    _by_other_half,
    _halves,
    cross_fitted_epochs,
    cross_fitted_scores,
    mean_gain,
)
from kfold_ens.ensemble.score_table import about_choice, as_text, headline_entry
from kfold_ens.ensemble.summary import summarize
from kfold_ens.ensemble.temperature import fitted
from kfold_ens.epoch_logits import FILE, EpochLogits, NotKept, compact, read_epochs, write_epochs
from kfold_ens.logits import at_temperature, class_indices, concatenated

BEST = Choosing(select="best_accuracy")


def curve(*accuracies):
    return [{"epoch": place, "val_accuracy": each} for place, each in enumerate(accuracies, 1)]


def test_the_other_folds_choose_the_epoch():
    histories = {0: curve(0.9, 0.1, 0.1), 1: curve(0.1, 0.5, 0.6), 2: curve(0.1, 0.7, 0.5)}
    assert cross_fitted_epochs(histories, "best_accuracy") == {0: 2, 1: 1, 2: 1}


def test_a_smaller_loss_is_chosen():
    histories = {fold: [{"epoch": 1, "val_loss": 2.0}, {"epoch": 2, "val_loss": 1.0}] for fold in range(2)}
    assert cross_fitted_epochs(histories, "best_loss") == {0: 2, 1: 2}


def test_a_fold_that_stopped_early_does_not_cut_the_choice_of_others():
    """Fold 0 stopped early. The others choose epoch 3, so its last epoch counts."""
    histories = {0: curve(0.9, 0.2), 1: curve(0.3, 0.2, 0.9), 2: curve(0.3, 0.2, 0.9, 1.0)}
    assert cross_fitted_epochs(histories, "best_accuracy") == {0: 2, 1: 1, 2: 1}


def test_an_epoch_without_a_value_is_not_chosen():
    histories = {fold: curve(0.1, float("nan"), 0.3) for fold in range(3)}
    assert set(cross_fitted_epochs(histories, "best_accuracy").values()) == {3}


def test_folds_of_another_repeat_have_no_say():
    histories = {0: curve(0.1, 0.2), 1: curve(0.1, 0.2), "0 of repeat 1": curve(0.9, 0.1), "1 of repeat 1": curve(9, 1)}
    assert cross_fitted_epochs(histories, "best_accuracy") == {0: 2, 1: 2, "0 of repeat 1": 1, "1 of repeat 1": 1}


# --- scores ----------------------------------------------------------------------------------------------


def scored(folder, choosing=BEST, calibrates=False, **options):
    histories, label_of = write_folds(folder, **options)
    return histories, label_of, cross_fitted_scores(histories, choosing, ScoredBy(label_of), calibrates)


def add_column(histories, **column):
    """Give the histories another column, and keep their logits."""
    for file in map(Path, histories.values()):
        epochs = read_epochs(file)
        pd.read_csv(file).assign(**column).to_csv(file, index=False)
        write_epochs(file.with_name(FILE), epochs, file)


def targets(epochs, label_of):
    return class_indices(epochs.after(1), label_of)


def test_the_score_as_chosen_and_that_of_epochs_which_other_folds_choose(tmp_path):
    histories, _, entry = scored(tmp_path)
    rows = {fold: pd.read_csv(file).to_dict("records") for fold, file in histories.items()}
    crossed = cross_fitted_epochs(rows, "best_accuracy")
    assert {int(fold): each["by_other_folds"] for fold, each in entry["epochs"].items()} == crossed
    others = np.mean([rows[fold][crossed[fold] - 1]["val_accuracy"] for fold in rows])
    flattered = np.mean([max(row["val_accuracy"] for row in each) for each in rows.values()])
    assert entry["by_other_folds"]["accuracy"] == pytest.approx(others)
    assert entry["as_chosen"]["accuracy"] == pytest.approx(flattered)
    by = entry["flattered_by"]
    assert by["difference"] == pytest.approx(flattered - entry["out_of_fold"]["accuracy"])
    assert by["low"] < by["difference"] < by["high"]


@pytest.mark.parametrize("select", ["best_accuracy", "best_loss", "best_f1_macro"])
def test_no_label_of_an_image_changes_the_epoch_that_scores_it(select, tmp_path):
    histories, label_of = write_folds(tmp_path, folds=2)
    epochs = read_epochs(histories[0])
    choosing, groups = Choosing(select=select), {each: each[:4] for each in label_of}
    logits, chosen = _by_other_half(epochs, choosing, ScoredBy(label_of, group_of=groups), 1)
    assert len(set(chosen)) > 1
    for group in set(groups.values()):
        own = [row for row, each in enumerate(epochs.image_id) if groups[each] == group]
        other = label_of | {epochs.image_id[row]: "owl" for row in own}
        again, _ = _by_other_half(epochs, choosing, ScoredBy(other, group_of=groups), 1)
        np.testing.assert_array_equal(again.values[own], logits.values[own])


def test_folds_with_their_best_epochs_at_different_times_are_not_punished(tmp_path):
    """Each fold is right after one epoch of its own; the others would choose a wrong one."""
    histories, label_of = write_folds(tmp_path)
    for fold, file in histories.items():
        epochs = read_epochs(file)
        values = np.where(np.eye(3)[targets(epochs, label_of)] > 0, -9.0, 0.0)[None].repeat(6, axis=0)
        values[fold] *= -1
        table = pd.read_csv(file).assign(val_accuracy=[float(epoch == fold) for epoch in range(6)])
        table.to_csv(file, index=False)
        written = EpochLogits(epochs.image_id, np.stack([compact(each) for each in values]), CLASSES)
        write_epochs(Path(file).with_name(FILE), written, Path(file))
    entry = cross_fitted_scores(histories, BEST, ScoredBy(label_of))
    assert entry["as_chosen"]["accuracy"] == entry["out_of_fold"]["accuracy"] == 1
    assert entry["by_other_folds"]["accuracy"] == 0


def test_flattery_of_a_loss_is_positive_too(tmp_path):
    histories, label_of = write_folds(tmp_path)
    entry = cross_fitted_scores(histories, BEST, ScoredBy(label_of, Scoring(metric="log_loss")))
    gain = entry["out_of_fold"]["log_loss"] - entry["as_chosen"]["log_loss"]
    assert entry["flattered_by"]["difference"] == pytest.approx(gain)


def test_the_temperature_of_a_fold_is_fitted_on_the_others(tmp_path):
    histories, label_of, entry = scored(tmp_path, calibrates=True)
    logits = {fold: read_epochs(file) for fold, file in histories.items()}
    own = {fold: each.after(entry["epochs"][str(fold)]["as_chosen"]) for fold, each in logits.items()}
    calibrated = []
    for fold, each in logits.items():
        temperature = fitted(concatenated([own[other] for other in own if other != fold]), label_of)
        halves = [_by_other_half(each, BEST, ScoredBy(label_of), split)[0] for split in range(SPLITS)]
        calibrated.append([at_temperature(split, temperature) for split in halves])
    losses = [ScoredBy(label_of).score(split)["log_loss"] for split in zip(*calibrated, strict=True)]
    assert entry["calibrated"]["log_loss"] == pytest.approx(np.mean(losses))


def test_with_repeats_each_image_is_predicted_by_a_model_per_repeat(tmp_path):
    histories, label_of = write_folds(tmp_path, repeats=2)
    entry = cross_fitted_scores(histories, BEST, ScoredBy(label_of), calibrates=True)
    assert entry["out_of_fold"]["images"] == len(label_of)
    assert len(entry["epochs"]) == 6
    assert "calibrated" not in entry


def test_groups_widen_the_interval_of_the_flattery(tmp_path):
    histories, label_of = write_folds(tmp_path)
    group_of = {each: each[:4] for each in label_of}
    alone, grouped = (
        cross_fitted_scores(histories, BEST, ScoredBy(label_of, group_of=each)) for each in ({}, group_of)
    )
    widths = [each["flattered_by"]["high"] - each["flattered_by"]["low"] for each in (alone, grouped)]
    assert widths[1] != pytest.approx(widths[0], rel=0.01)
    assert grouped["out_of_fold"]["groups"] == 10


def test_folds_that_stopped_early_are_scored_with_the_others(tmp_path):
    histories, label_of = write_folds(tmp_path, epochs=4)
    history = Path(histories[1])
    epochs = read_epochs(history)
    pd.read_csv(history)[:2].to_csv(history, index=False)
    write_epochs(history.with_name(FILE), EpochLogits(epochs.image_id, epochs.values[:2], CLASSES), history)
    entry = cross_fitted_scores(histories, BEST, ScoredBy(label_of), calibrates=True)
    assert entry["state"] == "measured"
    assert max(each["by_other_folds"] for each in entry["epochs"].values()) <= 2


def test_a_half_without_a_class_is_unknown_with_a_reason(tmp_path):
    """All owls are of one group, so one half has none."""
    histories, label_of = write_folds(tmp_path)
    add_column(histories, val_roc_auc=0.5)
    group_of = {each: "owls" if label == "owl" else each for each, label in label_of.items()}
    entry = cross_fitted_scores(histories, Choosing(select="best_roc_auc"), ScoredBy(label_of, group_of=group_of))
    assert "fold 0: half of its held-out images have no value of best_roc_auc" in entry["why"]


def test_each_class_is_halved_so_that_a_rare_one_is_in_both_halves():
    target = np.array([0] * 30 + [1, 1])
    ids = np.array([f"img{place}" for place in range(32)], dtype=object)
    for split in range(20):
        half = _halves(ids, target, {}, split)
        assert sorted(half[target == 1]) == [0, 1]
        assert half.sum() == 16


def test_folds_without_any_value_choose_no_epoch():
    histories = {fold: curve(float("nan"), float("nan")) for fold in range(3)}
    with pytest.raises(NotKept, match="no epoch has a value of best_accuracy"):
        cross_fitted_epochs(histories, "best_accuracy")


def test_a_loss_that_is_not_kept_per_image_is_unknown(tmp_path):
    histories, label_of = write_folds(tmp_path)
    add_column(histories, val_loss=0.5)
    own = Choosing(select="best_loss", has_plain_loss=False)
    assert "not plain cross-entropy" in cross_fitted_scores(histories, own, ScoredBy(label_of))["why"]


@pytest.mark.parametrize(
    ("loss", "plain"),
    [
        ({"kind": "cross_entropy"}, True),
        ({"kind": "cross_entropy", "label_smoothing": 0.1}, False),
        ({"kind": "cross_entropy", "weights": "balanced"}, False),
        ({"kind": "focal"}, False),
    ],
)
def test_a_recipe_tells_whether_its_loss_is_plain(loss, plain):
    recipe = Recipe.model_validate(TINY_RECIPE | {"loss": loss})
    assert recipe.choosing.has_plain_loss == plain


def test_splits_without_spread_keep_the_interval_of_the_others():
    same, wide = {"difference": 0.0, "low": None, "high": None}, {"difference": 0.2, "low": 0.1, "high": 0.3}
    for gains in ([same, wide], [wide, same]):
        assert mean_gain(gains) == pytest.approx({"difference": 0.1, "low": 0.05, "high": 0.15})
    assert mean_gain([same, same]) == same


def test_a_vote_over_repeats_invents_no_flattery_of_a_metric_of_probabilities(tmp_path):
    histories, label_of = write_folds(tmp_path, repeats=2)
    by = ScoredBy(label_of, Scoring(metric="log_loss"), over_repeats="vote")
    assert set(cross_fitted_scores(histories, BEST, by)["flattered_by"].values()) == {None}


# --- in words --------------------------------------------------------------------------------------------


def in_words(metrics):
    """What the terminal shows, on one line."""
    return " ".join(as_text(metrics, "average").split())


def metrics_of(folder, choosing=BEST, change=lambda histories: None, **options):
    histories, label_of = write_folds(folder, **options)
    change(histories)
    oof = {fold: read_epochs(file).after(1) for fold, file in histories.items() if (folder / file).is_file()}
    metrics = summarize(oof, oof, {}, {each: label_of[each] for each in label_of})
    metrics["cross_fitted"] = cross_fitted_scores(histories, choosing, ScoredBy(label_of))
    return metrics


def test_the_headline_is_cross_fitted_and_says_so(tmp_path):
    metrics = metrics_of(tmp_path)
    entry, what = headline_entry(metrics, "average")
    assert (entry, what) == (metrics["cross_fitted"]["out_of_fold"], "out of fold, cross-fitted")
    text = in_words(metrics)
    assert "all folds, cross-fitted 0." in text
    assert "all folds, as chosen 0." in text
    by = metrics["cross_fitted"]["flattered_by"]
    assert f"flatters accuracy by {by['difference']:.4f} (95% interval {by['low']:+.4f} to" in text


def test_a_flattery_without_spread_says_that_it_has_no_interval(tmp_path):
    metrics = metrics_of(tmp_path)
    metrics["cross_fitted"]["flattered_by"] |= {"difference": 0.0, "low": None, "high": None}
    assert "flatters accuracy by 0.0000 (no interval)" in in_words(metrics)


@pytest.mark.parametrize("metric", ["accuracy", "log_loss"])
def test_with_repeats_and_calibration_the_headline_is_cross_fitted_if_no_temperature_changes_it(metric, tmp_path):
    metrics = metrics_of(tmp_path)
    metrics |= {"metric": metric, "calibrated": {"temperature": 2, "out_of_fold": {metric: 0.5}, "methods": {}}}
    entry, what = headline_entry(metrics, "average")
    if metric == "accuracy":
        assert entry == metrics["cross_fitted"]["out_of_fold"]
        assert what == "out of fold, cross-fitted, not calibrated"
    else:
        assert entry == {metric: 0.5}
        assert "as chosen, calibrated" in what


def test_with_test_time_views_the_headline_is_as_chosen_and_says_so(tmp_path):
    metrics = metrics_of(tmp_path, Choosing(select="best_accuracy", has_views=True))
    assert headline_entry(metrics, "average") == (metrics["out_of_fold"], "out of fold, as chosen")
    assert "without test-time views" in " ".join(about_choice(metrics))
    assert "all folds, cross-fitted, without views" in in_words(metrics)


def test_without_logits_of_epochs_the_flattery_is_unknown_with_a_reason(tmp_path):
    histories, label_of = write_folds(tmp_path)
    (tmp_path / "repeat0/fold1" / FILE).unlink()
    entry = cross_fitted_scores(histories, BEST, ScoredBy(label_of))
    assert entry["state"] == "unknown"
    oof = {0: read_epochs(histories[0]).after(1)}
    metrics = summarize(oof, oof, {}, label_of) | {"cross_fitted": entry}
    assert headline_entry(metrics, "average") == (metrics["out_of_fold"], "out of fold, as chosen")
    assert f"By how much is unknown: there is no {tmp_path}/repeat0/fold1/{FILE}" in in_words(metrics)


def test_one_finished_fold_is_cross_fitted_but_no_other_chooses_its_epoch(tmp_path):
    _, _, entry = scored(tmp_path, folds=1, calibrates=True)
    assert entry["state"] == "measured"
    assert entry["by_other_folds"] is entry["epochs"]["0"]["by_other_folds"] is None
    assert entry["flattered_by"]["difference"] is not None
    assert "calibrated" not in entry


def test_a_history_without_the_selecting_metric_is_unknown(tmp_path):
    histories, label_of = write_folds(tmp_path)
    entry = cross_fitted_scores(histories, Choosing(select="best_f1_macro"), ScoredBy(label_of))
    assert "trained with another metric" in entry["why"]


def test_the_last_epoch_flatters_nothing(tmp_path):
    metrics = metrics_of(tmp_path, Choosing())
    assert headline_entry(metrics, "average") == (metrics["out_of_fold"], "out of fold")
    assert "select: last" in in_words(metrics)


def test_what_watches_held_out_scores_while_training_is_named(tmp_path):
    metrics = metrics_of(tmp_path, Choosing(watched=["early_stopping: patience", "schedule: plateau"]))
    assert "early_stopping: patience and schedule: plateau followed the held-out scores" in in_words(metrics)


# --- labels of noise -------------------------------------------------------------------------------------


@pytest.mark.slow
@pytest.mark.parametrize("alike", [0.0, 0.9])
def test_on_noise_the_choice_of_30_epochs_is_flattered_and_the_honest_interval_covers_chance(alike, tmp_path):
    """``alike`` is the share of variance that the logits of epochs have in common."""
    runs, folds, images, epochs = 200, 5, 600, 30
    random, flattered, honest, covered, by = np.random.default_rng(0), [], [], [], []
    ids = np.array([f"img{place}" for place in range(folds * images)], dtype=object)
    for _ in range(runs):
        labels = random.integers(0, 3, folds * images)
        histories = {}
        for fold in range(folds):
            own = slice(fold * images, (fold + 1) * images)
            shared, each = random.normal(size=(images, 3)), random.normal(size=(epochs, images, 3))
            logits = (np.sqrt(alike) * shared + np.sqrt(1 - alike) * each).astype(np.float16)
            accuracy = (logits.argmax(axis=2) == labels[own]).mean(axis=1)
            history = tmp_path / f"{fold}/history.csv"
            history.parent.mkdir(exist_ok=True)
            table = pd.DataFrame({"epoch": np.arange(1, epochs + 1), "val_accuracy": accuracy})
            table.to_csv(history, index=False)
            write_epochs(history.with_name(FILE), EpochLogits(ids[own], logits, CLASSES), history)
            histories[fold] = str(history)
        label_of = dict(zip(ids, (CLASSES[label] for label in labels), strict=True))
        entry = cross_fitted_scores(histories, BEST, ScoredBy(label_of))
        flattered.append(entry["as_chosen"]["accuracy"] - 1 / 3)
        score = entry["out_of_fold"]
        honest.append(score["accuracy"] - 1 / 3)
        covered.append(score["low"] <= 1 / 3 <= score["high"])
        by.append(entry["flattered_by"]["difference"])
    assert np.mean(flattered) > 0.005
    assert abs(np.mean(honest)) < 3 * np.std(honest) / np.sqrt(runs)
    assert np.mean(covered) > 0.95 - 3 * np.sqrt(0.05 * 0.95 / runs)
    assert np.mean(by) == pytest.approx(np.mean(flattered), abs=0.0015)
