"""The held-out logits of every epoch: kept, resumed exactly, and never a reason to train again."""

from __future__ import annotations

import logging
from functools import partial

import numpy as np
import pytest
import test_fold
from hypothesis import given
from hypothesis import strategies as st
from stages import make_stage, renamed_stage
from test_fold import RECIPE, train, train_until
from test_full_fit import WithoutHeldOut

from kfold_ens.epoch_logits import FILE, EpochLogits, NotKept, compact, read_epochs, write_epochs
from kfold_ens.files import read_table
from kfold_ens.metrics import value
from kfold_ens.training.epochs import epochs_size
from kfold_ens.training.fold import FoldFiles, TrainingOutputs
from kfold_ens.training.kept import KeptFolds, restore_fold

LONG = RECIPE.model_copy(update={"epochs": 3})


@pytest.fixture(scope="module")
def stage(tmp_path_factory):
    return make_stage(tmp_path_factory.mktemp("stage"), {"dark": 7, "grey": 7, "light": 6})


@pytest.fixture(scope="module")
def whole(stage, tmp_path_factory):
    """The folder of an uninterrupted training."""
    folder = tmp_path_factory.mktemp("whole")
    train(stage, folder, LONG)
    return folder


def test_the_logits_of_every_epoch_give_the_scores_of_the_history(stage, whole):
    epochs, history, fold = read_epochs(whole / "history.csv"), read_table(whole / "history.csv"), stage.fold()
    assert epochs.values.shape == (3, len(fold.validation), 3)
    assert epochs.values.dtype == np.float16
    for epoch in (1, 2, 3):
        logits = epochs.after(epoch)
        assert logits.image_id.tolist() == fold.validation.image_id.tolist()
        accuracy = value("accuracy", logits.values, fold.validation.target)
        assert accuracy == pytest.approx(float(history["val_accuracy"][epoch - 1]))
    sizes = epochs_size(LONG, fold)
    assert sizes == epochs.values.nbytes


@pytest.mark.parametrize("moment", [1, 4, 5, 8, 9])
def test_an_interrupted_fold_has_the_same_logits_of_epochs(moment, stage, whole, tmp_path):
    train_until(moment, stage, tmp_path, LONG)
    train(stage, tmp_path, LONG)
    np.testing.assert_array_equal(
        read_epochs(tmp_path / "history.csv").values, read_epochs(whole / "history.csv").values
    )


def test_a_run_of_another_recipe_in_between_changes_no_logits(stage, whole, tmp_path):
    train_until(5, stage, tmp_path, LONG)
    train_until(4, stage, tmp_path, LONG.model_copy(update={"batch_size": 5}))
    train(stage, tmp_path, LONG)
    np.testing.assert_array_equal(
        read_epochs(tmp_path / "history.csv").values, read_epochs(whole / "history.csv").values
    )


def test_a_fold_that_lacks_the_logits_of_an_epoch_ends_without_any(stage, tmp_path, caplog):
    train_until(5, stage, tmp_path, LONG)
    for file in (tmp_path / "state").glob("epochs-*/*.npy"):
        file.unlink()
    train(stage, tmp_path, LONG)
    assert "the logits of 1 of 3 epochs are missing, so none are kept" in caplog.text
    assert not (tmp_path / FILE).exists()


def test_more_than_the_limit_is_not_kept_and_a_stale_file_goes(stage, tmp_path, monkeypatch, caplog):
    train(stage, tmp_path, LONG)
    assert (tmp_path / FILE).is_file()
    monkeypatch.setattr(test_fold, "TrainingOutputs", partial(TrainingOutputs, epoch_logits_mb=1e-6))
    with caplog.at_level(logging.INFO, "kfold_ens"):
        train(stage, tmp_path, LONG)
    assert "epoch_logits_mb: 1e-06 is less than the 1 MB" in caplog.text
    assert not (tmp_path / FILE).exists()


def test_a_full_fit_has_none(stage, tmp_path):
    train(WithoutHeldOut(stage), tmp_path, LONG.of_all_images(2))
    assert not (tmp_path / FILE).exists()


# --- kept folds ------------------------------------------------------------------------------------------


@pytest.fixture
def kept(stage, tmp_path):
    kept = KeptFolds(tmp_path / "trained")
    train(stage, tmp_path / "tiny/fold1", LONG, kept=kept)
    return kept


def restored(kept, folder):
    outputs = TrainingOutputs(folder / "history.csv", folder / "model.safetensors", folder / "state")
    (entry,) = kept.all()
    assert kept.restore(entry.about["fingerprint"], outputs.by_name(), outputs.epochs)
    return outputs


def test_a_kept_fold_is_restored_with_the_logits_of_its_epochs(kept, tmp_path):
    outputs = restored(kept, tmp_path / "again")
    np.testing.assert_array_equal(
        read_epochs(outputs.history).values, read_epochs(tmp_path / "tiny/fold1/history.csv").values
    )


def test_the_logits_of_renamed_images_have_their_new_names(stage, kept, tmp_path):
    renamed = renamed_stage(stage, tmp_path / "renamed")
    outputs = TrainingOutputs(*(tmp_path / name for name in ("history.csv", "model.safetensors", "state")))
    paths = {name: renamed.file(name) for name in ("folds", "classes", "pixels", "index")}
    files = FoldFiles(LONG, 1, 0, 1, **paths, weights=None)
    assert restore_fold(files, outputs, kept, again=False)
    found, before = read_epochs(outputs.history), read_epochs(tmp_path / "tiny/fold1/history.csv")
    assert list(found.image_id) == list(files.fold().validation.image_id) != list(before.image_id)
    np.testing.assert_array_equal(found.values, before.values)


@pytest.mark.parametrize("damage", ["missing", "damaged"])
def test_a_kept_fold_without_them_is_restored_all_the_same(damage, kept, tmp_path, caplog):
    (entry,) = kept.all()
    (entry.folder / FILE).unlink()
    if damage == "damaged":
        (entry.folder / FILE).write_bytes(b"no logits")
    (tmp_path / "again").mkdir()
    (tmp_path / "again" / FILE).write_bytes(b"of another training")
    with caplog.at_level(logging.INFO, "kfold_ens"):
        outputs = restored(kept, tmp_path / "again")
    assert outputs.model.is_file()
    assert not outputs.epochs.exists()
    assert "has no held-out logits of epochs" in caplog.text


def test_a_restored_full_fit_lacks_nothing_since_it_holds_out_no_image(stage, tmp_path, caplog):
    kept = KeptFolds(tmp_path / "trained")
    train(WithoutHeldOut(stage), tmp_path / "results/tiny/full", LONG.of_all_images(2), kept=kept)
    with caplog.at_level(logging.INFO, "kfold_ens"):
        outputs = restored(kept, tmp_path / "again")
    assert "already trained" in caplog.text
    assert "has no held-out logits" not in caplog.text
    assert not outputs.epochs.exists()


# --- the file --------------------------------------------------------------------------------------------


def written(folder, epochs=2):
    values = np.stack([compact(np.random.default_rng(epoch).normal(size=(4, 3))) for epoch in range(epochs)])
    (folder / "history.csv").write_text("epoch\n1\n2\n")
    ids = np.array(["a", "b", "c", "d"], dtype=object)
    write_epochs(folder / FILE, EpochLogits(ids, values, ("x", "y", "z")), folder / "history.csv")
    return folder / "history.csv"


@pytest.mark.parametrize("left", [1, 30, 400])
def test_a_damaged_file_is_named(left, tmp_path):
    history = written(tmp_path)
    (tmp_path / FILE).write_bytes((tmp_path / FILE).read_bytes()[:left])
    with pytest.raises(NotKept, match=rf"{FILE} is damaged"):
        read_epochs(history)


def test_a_file_of_another_training_is_refused(tmp_path):
    history = written(tmp_path)
    history.write_text("epoch\n1\n2\n3\n")
    with pytest.raises(NotKept, match="is of another training than"):
        read_epochs(history)


@pytest.mark.parametrize("is_empty", [False, True])
def test_a_missing_file_says_what_writes_it(is_empty, tmp_path):
    if is_empty:
        (tmp_path / FILE).touch()
    with pytest.raises(NotKept, match="epoch_logits_mb"):
        read_epochs(tmp_path / "history.csv")


@given(st.integers(0, 2**32 - 1), st.sampled_from([1, 30, 3000, 1e6]))
def test_float16_changes_no_prediction_and_the_log_loss_by_little(seed, scale):
    random = np.random.default_rng(seed)
    logits = (scale * random.normal(size=(50, 7)) + 100 * random.normal(size=(50, 1))).astype(np.float32)
    target = random.integers(0, 7, 50)
    kept = compact(logits).astype(np.float32)
    assert np.isfinite(kept).all()
    assert (kept.argmax(axis=1) == logits.argmax(axis=1)).all()
    if scale <= 30:
        assert value("log_loss", kept, target) == pytest.approx(value("log_loss", logits, target), rel=5e-4)
