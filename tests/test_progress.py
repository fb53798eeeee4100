"""``kfold-progress`` reads the files of running and finished folds."""

from __future__ import annotations

import json
import os
import sys
import time

import numpy as np
import pandas as pd
import pytest
from safetensors.numpy import save_file

from kfold_ens import progress
from kfold_ens.files import write_json, write_table
from kfold_ens.members import Member

LIVE = {"epoch": 2, "epochs": 4, "step": 5, "steps": 10, "loss": 0.5, "accuracy": 0.75}
LIVE |= {"images_per_second": 99.6, "seconds_left": 3725}
NAMES = ("epoch", "train_loss", "train_accuracy", "val_loss", "val_accuracy", "images_per_second")
EPOCHS = pd.DataFrame([(1, 2.0, 0.5, 0.7, 0.9, 80.0), (2, 1.0, 0.6, 0.4, 0.8, 90.0)], columns=NAMES)


def write_model(folder, select):
    recipe = json.dumps({"select": select})
    save_file({"weight": np.zeros(1)}, folder / "results/tiny/fold0/model.safetensors", {"recipe": recipe})


@pytest.fixture
def folder(tmp_path):
    for fold in (0, 2):
        write_table(tmp_path / f"results/tiny/fold{fold}/history.csv", EPOCHS)
    write_model(tmp_path, "best_accuracy")
    for fold in (2, 10):
        write_json(tmp_path / f"state/tiny/fold{fold}/progress.json", LIVE)
    past = time.time() - 2 * progress.STALE
    os.utime(tmp_path / "state/tiny/fold10/progress.json", (past, past))
    return tmp_path


def test_every_fold_that_has_started_has_a_row(folder):
    rows = {row["fold"]: row for row in progress.fold_rows(folder)}
    assert list(rows) == ["0", "2", "10"]
    assert [row["is"] for row in rows.values()] == ["finished", "training", "silent for 2 min"]
    assert rows["0"] | {"recipe": ""} == {
        "recipe": "",
        "fold": "0",
        "is": "finished",
        "epoch": "2",
        "loss": "1.000",
        "accuracy": "0.600",
        "held-out": "accuracy 0.8000 (best 0.9000), loss 0.4000",
        "images/s": "90",
        "left": "",
    }
    live = {"epoch": "1.5/4", "loss": "0.500", "accuracy": "0.750", "images/s": "100", "left": "1:02:05"}
    assert {name: rows["2"][name] for name in live} == live
    assert rows["10"]["held-out"] == ""


@pytest.mark.parametrize(
    ("select", "shown"),
    [
        ("best_accuracy", "accuracy 0.8000 (best 0.9000), loss 0.4000"),
        ("best_loss", "accuracy 0.8000, loss 0.4000 (best 0.4000)"),
        ("last", "accuracy 0.8000, loss 0.4000"),
        ("of another version", "accuracy 0.8000, loss 0.4000"),
    ],
)
def test_the_best_value_is_that_of_the_selecting_score(folder, select, shown):
    write_model(folder, select)
    write_json(folder / "state/tiny/fold2/progress.json", LIVE | {"select": select})
    assert [row["held-out"] for row in progress.fold_rows(folder)] == [shown, shown, ""]


def test_no_best_is_shown_if_the_recipe_is_unknown(folder):
    (folder / "results/tiny/fold0/model.safetensors").write_bytes(b"")  # being written
    assert [row["held-out"] for row in progress.fold_rows(folder)] == ["accuracy 0.8000, loss 0.4000"] * 2 + [""]


def test_the_metric_comes_first(folder):
    scored = EPOCHS.assign(val_f1_macro=[0.3, 0.2])
    write_table(folder / "results/tiny/fold0/history.csv", scored)
    write_model(folder, "best_f1_macro")
    assert progress.fold_rows(folder)[0]["held-out"] == "macro F1 0.2000 (best 0.3000), accuracy 0.8000, loss 0.4000"


def test_files_that_vanish_or_are_not_json_are_skipped(folder):
    (folder / "state/tiny/fold2/progress.json").write_text("{")
    assert len(progress.fold_rows(folder)) == 3


def test_the_command_prints_a_table_or_says_why_there_is_none(folder, tmp_path_factory, monkeypatch, capsys):
    monkeypatch.setattr(sys, "argv", ["kfold-progress", str(folder)])
    progress.main()
    assert [line.split()[:3] for line in capsys.readouterr().out.splitlines()[1:]][1] == ["tiny", "2", "training"]
    monkeypatch.setattr(sys, "argv", ["kfold-progress", str(tmp_path_factory.mktemp("empty"))])
    progress.main()
    assert "No fold has started" in capsys.readouterr().out


def test_repeats_and_a_full_fit_have_rows_too(folder):
    for place in ("repeat1/fold0", "full"):
        write_table(folder / f"results/tiny/{place}/history.csv", EPOCHS[["epoch", "train_loss", "train_accuracy"]])
        write_json(folder / f"state/tiny/{place}/progress.json", LIVE | {"select": "last"})
    rows = progress.fold_rows(folder)
    assert [row["fold"] for row in rows] == ["0", "2", "10", "0 of repeat 1", "full"]
    assert (rows[-1]["is"], rows[-1]["held-out"]) == ("training", "")


def test_a_fold_that_resumes_does_not_show_the_progress_of_the_run_before(folder):
    now = time.time()
    assert progress.live_row(folder, "tiny", Member(0, 2), now + 1) == {}
    assert progress.live_row(folder, "tiny", Member(0, 2), now - 60)["left"]


def test_a_fold_that_has_ended_its_training_has_no_time_left(folder):
    (folder / "state/tiny/fold2/progress.json").unlink()
    assert progress.live_row(folder, "tiny", Member(0, 2), time.time() - 60)["left"] == ""
