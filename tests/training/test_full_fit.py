"""The full fit: a model trained on all images."""

from __future__ import annotations

import math
from dataclasses import replace

import numpy as np
import pandas as pd
import pytest
import torch
from stages import make_stage
from test_fold import RECIPE, train, train_until

from kfold_ens.config import Patience
from kfold_ens.data.folds import Images
from kfold_ens.files import write_table
from kfold_ens.history import COLUMNS, TIMINGS, median_epoch
from kfold_ens.members import FULL
from kfold_ens.training.fold import FoldFiles

LONG = RECIPE.model_copy(update={"epochs": 3})


@pytest.fixture(scope="module")
def stage(tmp_path_factory):
    return make_stage(tmp_path_factory.mktemp("stage"), {"dark": 7, "grey": 7, "light": 6})


class WithoutHeldOut:
    """A stage whose folds train on the same images but have no held-out images."""

    def __init__(self, stage):
        self._stage = stage

    def fold(self, number, seed):
        fold = self._stage.fold(number, seed)
        none = Images(fold.train.store, np.array([], dtype=object), np.array([], dtype=np.int64))
        return replace(fold, validation=none)


def trained_columns(history):
    """Columns of the history except held-out scores and times."""
    return history[
        [name for name in history if name in COLUMNS and name not in TIMINGS and not name.startswith("val_")]
    ]


@pytest.mark.parametrize("epochs", [2, 3])
def test_it_equals_a_fold_that_ends_after_the_same_epoch_bit_for_bit(stage, tmp_path, epochs):
    recipe = LONG.of_all_images(epochs)
    fold, full = train(stage, tmp_path / "fold", recipe), train(WithoutHeldOut(stage), tmp_path / "full", recipe)
    assert all(torch.equal(tensor, full.model.weights[name]) for name, tensor in fold.model.weights.items())
    assert trained_columns(full.history).equals(trained_columns(fold.history))
    assert len(full.history) == epochs
    assert not [name for name in full.history if name.startswith("val_")]


def test_it_follows_the_schedule_of_the_whole_recipe(stage, tmp_path):
    whole, full = train(stage, tmp_path / "fold", LONG), train(stage, tmp_path / "full", LONG.of_all_images(2))
    assert trained_columns(full.history).equals(trained_columns(whole.history)[:2])


def test_it_trains_on_every_image_and_holds_out_none(stage):
    full, folds = stage.fold(FULL), [stage.fold(number) for number in range(3)]
    held_out = [image for fold in folds for image in fold.validation.image_id]
    assert sorted(full.train.image_id) == sorted(held_out)
    assert full.train.keys() == sorted(full.train.keys())
    assert len(full.validation) == 0


def test_an_interrupted_full_fit_resumes_exactly(stage, tmp_path):
    recipe = LONG.of_all_images(2)
    whole = train(stage, tmp_path / "whole", recipe, number=FULL)
    for moment in (1, 3, 5):
        train_until(moment, stage, tmp_path / "again", recipe, number=FULL)
        assert train(stage, tmp_path / "again", recipe, number=FULL) == whole


# --- number of epochs, and fingerprint -------------------------------------------------------------------


def history_of(path, best, epochs=6):
    """Write a history whose best accuracy is in epoch ``best``."""
    rows = [
        {"epoch": epoch, "val_accuracy": float(epoch == best), "val_loss": 1 / epoch} for epoch in range(1, epochs + 1)
    ]
    write_table(path, pd.DataFrame(rows))
    return str(path)


@pytest.mark.parametrize("best", [(1,), (2, 3), (5, 1, 4), (6, 6, 1, 1), (3, 4, 3, 4)])
def test_it_trains_for_the_median_of_the_best_epochs_rounded_up(tmp_path, best):
    histories = [pd.read_csv(history_of(tmp_path / f"{place}.csv", at)) for place, at in enumerate(best)]
    ordered = sorted(best)
    half = len(best) // 2
    middle = ordered[half] if len(best) % 2 else (ordered[half - 1] + ordered[half]) / 2
    assert median_epoch([each.to_dict("records") for each in histories], "best_accuracy") == math.ceil(middle)


def files_of(stage, histories, recipe=LONG, seed=0):
    files = {name: stage.file(name) for name in ("folds", "classes", "pixels", "index")}
    return FoldFiles(recipe, FULL, seed, 1, **files, weights=None, histories=histories)


def test_its_fingerprint_depends_on_the_number_of_epochs_not_on_how_it_was_chosen(stage, tmp_path):
    two, three, last = (history_of(tmp_path / f"{best}.csv", best) for best in (2, 3, 6))
    own = files_of(stage, [two, three, last]).fingerprint()
    assert files_of(stage, [three]).fingerprint() == own
    assert (
        files_of(
            stage, [three], LONG.model_copy(update={"early_stopping": Patience(kind="patience", patience=2)})
        ).fingerprint()
        == own
    )
    others = {
        files_of(stage, [two]).fingerprint(),
        files_of(stage, [three], seed=1).fingerprint(),
        files_of(stage, [three], LONG.model_copy(update={"epochs": 9})).fingerprint(),
        files_of(stage, [three], LONG.model_copy(update={"select": "best_loss"})).fingerprint(),
    }
    assert len(others | {own}) == 5
