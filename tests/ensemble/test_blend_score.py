"""A blend's score with epochs and weights cross-fitted."""

from __future__ import annotations

import numpy as np
import pytest
from kept_epochs import CLASSES, write_folds

from kfold_ens.config import Choosing
from kfold_ens.ensemble.blend_score import cross_fitted_blend
from kfold_ens.ensemble.cross_fitting import ScoredBy

BEST, VIEWS = Choosing(select="best_accuracy"), Choosing(select="best_accuracy", has_views=True)


def scored(folder, weighing="equal", choosing=BEST, recipes=3, **options):
    """The entry ``cross_fitted`` of a blend, and the arguments that gave it."""
    histories = {}
    for number in range(recipes):
        histories[f"r{number}"], label_of = write_folds(folder / f"results/r{number}", model=number + 1, **options)
    blend = {
        "weighing": weighing,
        "of": "probabilities",
        "choosing": {recipe: choosing.model_dump(mode="json") for recipe in histories},
    }
    scored_by = ScoredBy(label_of)
    return cross_fitted_blend(histories, blend, scored_by), histories, blend, scored_by


@pytest.mark.parametrize("weighing", ["equal", "greedy", "simplex"])
def test_epochs_and_weights_as_chosen_score_better_by_the_difference(weighing, tmp_path):
    entry, *_ = scored(tmp_path, weighing)
    gain = entry["as_chosen"]["accuracy"] - entry["out_of_fold"]["accuracy"]
    assert entry["state"] == "measured"
    assert entry["flattered_by"]["difference"] == pytest.approx(gain)
    assert entry["flattered_by"]["low"] < gain < entry["flattered_by"]["high"]


def test_one_recipe_without_logits_of_epochs_makes_the_flattery_unknown(tmp_path):
    _, histories, blend, scored_by = scored(tmp_path)
    (tmp_path / "results/r1/repeat0/fold2/oof_epochs.npz").unlink()
    entry = cross_fitted_blend(histories, blend, scored_by)
    assert entry["state"] == "unknown"
    assert entry["why"].startswith("r1: ")


def test_a_recipe_with_test_time_views_makes_the_flattery_unknown(tmp_path):
    entry, *_ = scored(tmp_path, choosing=VIEWS)
    assert entry == {"state": "unknown", "why": "r0: test-time views of other epochs are not computed"}


def test_recipes_of_the_last_epoch_choose_nothing(tmp_path):
    assert scored(tmp_path, choosing=Choosing(select="last"))[0] == {"state": "nothing chosen"}


@pytest.mark.slow
@pytest.mark.parametrize(("weighing", "covers"), [("equal", 0.92), ("simplex", 0.89), ("greedy", 0.83)])
def test_on_noise_epochs_and_weights_as_chosen_exceed_chance_and_cross_fitted_ones_do_not(weighing, covers, tmp_path):
    chance, runs, chosen, crossed, covered = 1 / len(CLASSES), 100, [], [], 0
    for seed in range(runs):
        entry, *_ = scored(tmp_path / str(seed), weighing, recipes=4, epochs=10, seed=seed, folds=5, skill=0)
        chosen.append(entry["as_chosen"]["accuracy"])
        crossed.append(entry["out_of_fold"]["accuracy"])
        covered += entry["out_of_fold"]["low"] <= chance <= entry["out_of_fold"]["high"]
    assert np.mean(chosen) > chance + 5 * np.std(chosen) / np.sqrt(runs)
    assert abs(np.mean(crossed) - chance) < 4 * np.std(crossed) / np.sqrt(runs)
    assert covered / runs >= covers
