"""Progress reports during training."""

from __future__ import annotations

import logging
import sys

import pytest
import torch
from stages import make_stage, signals_kept, training_recipe
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from kfold_ens.compute.compute import Compute
from kfold_ens.errors import KfoldError
from kfold_ens.files import read_json
from kfold_ens.progress import fold_rows
from kfold_ens.training import record
from kfold_ens.training.fold import TrainingOutputs
from kfold_ens.training.loop import train_fold

RECIPE = training_recipe(epochs=3)


@pytest.fixture(scope="module")
def stage(tmp_path_factory):
    return make_stage(tmp_path_factory.mktemp("stage"), {"dark": 12, "light": 12})


def train(stage, folder, **keywords):
    results, state = folder / "results/tiny/fold1", folder / "state/tiny/fold1"
    outputs = TrainingOutputs(results / "history.csv", results / "model.safetensors", state, 60, **keywords)
    compute = Compute(torch.device("cpu"), None, 0)
    with signals_kept():
        train_fold(RECIPE, stage.fold(), None, 1, compute, outputs)
    return outputs


def test_progress_can_be_read_by_another_process(stage, tmp_path, monkeypatch):
    seen = []
    after_step = record.Progress.after_step

    def watched(self):
        after_step(self)
        seen.append((read_json(tmp_path / "state/tiny/fold1/progress.json"), *fold_rows(tmp_path)))

    monkeypatch.setattr(record, "SECONDS", 0)
    monkeypatch.setattr(record.Progress, "after_step", watched)
    train(stage, tmp_path)
    assert [(told["epoch"], told["step"]) for told, _ in seen] == [
        (epoch, step) for epoch in (1, 2, 3) for step in (1, 2)
    ]
    assert all(row["is"] == "training" and row["left"] for _, row in seen)
    assert [told["seconds_left"] for told, _ in seen][-1] == 0
    assert [row["is"] for row in fold_rows(tmp_path)] == ["finished"]


def test_log_lines_name_the_repeat(stage, tmp_path, caplog):
    caplog.set_level(logging.INFO, "kfold_ens")
    place = "tiny/repeat2/fold1"
    outputs = TrainingOutputs(
        tmp_path / "results" / place / "history.csv",
        tmp_path / "results" / place / "model.safetensors",
        tmp_path / "state" / place,
    )
    with signals_kept():
        train_fold(RECIPE, stage.fold(), None, 1, Compute(torch.device("cpu"), None, 0), outputs)
    lines = [line for line in caplog.messages if "fold 1" in line]
    assert len(lines) == RECIPE.epochs + 1
    assert all(line.startswith("fold 1 of repeat 2") for line in lines)


def test_tensorboard_gets_the_history(stage, tmp_path):
    train(stage, tmp_path, tensorboard=tmp_path / "events")
    events = EventAccumulator(str(tmp_path / "events")).Reload()
    assert {"train_loss", "val_accuracy", "lr"} <= set(events.Tags()["scalars"])
    assert [event.step for event in events.Scalars("val_accuracy")] == [1, 2, 3]


def test_a_missing_tensorboard_package_is_refused_before_training(stage, tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "torch.utils.tensorboard", None)
    with pytest.raises(KfoldError, match="pip install"):
        train(stage, tmp_path, tensorboard=tmp_path / "events")
    assert not list(tmp_path.rglob("history.csv"))
