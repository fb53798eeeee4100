"""A blend of two recipes, by Snakemake itself."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest
from projects import RECIPE, new_project

from kfold_ens.config import load_config
from kfold_ens.errors import ConfigError
from kfold_ens.files import read_json
from kfold_ens.logits import read_logits

DATA = {"source": "digits", "limit_per_class": 20}
TRAINING = ("train_", "predict_")
TWO = {"blend": ["digits", "kfold_mix"]}
RANKS = TWO | {"blend_of": "ranks", "metric": "roc_auc", "submission": {"kind": "probabilities"}}


@pytest.fixture
def project(tmp_path):
    made = new_project(tmp_path, RECIPE, data=DATA, blend=["tiny.yaml", "other.yaml"], blend_weights="simplex")
    (tmp_path / "other.yaml").write_text("base: tiny.yaml\nloss: {kind: focal, gamma: 2}\n")
    return made


def trains(project, *config):
    return {rule for rule in project.planned("submission", *config) if rule.startswith(TRAINING)}


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"blend": ["digits"]}, "blend: needs at least two recipes"),
        ({"blend": ["digits", "digits"]}, "lists digits twice"),
        (TWO | {"bundle": True}, "bundle: true writes the models of one recipe"),
        (TWO | {"blend_of": "ranks"}, "blend_of: ranks needs metric: roc_auc"),
        (RANKS | {"submission": {"kind": "label"}}, "blend_of: ranks orders images.*submission.kind: probabilities"),
        (RANKS | {"blend_weights": "simplex"}, "blend_weights: simplex minimises the log loss.*blend_of: ranks"),
        (
            RANKS | {"submission": {"kind": "probabilities", "calibrate": True}},
            "submission.calibrate: true minimises the log loss",
        ),
    ],
)
def test_an_impossible_blend_is_refused(values, message):
    with pytest.raises(ConfigError, match=message):
        load_config({"data": {"source": "digits"}} | values)


@pytest.mark.slow
def test_two_recipes_blend_to_a_submission_and_other_weights_train_nothing(project):
    done = project.run("submission", "results/blend/report/blend.html")
    assert done.returncode == 0, done.stdout
    metrics = read_json(project.folder / "results/blend/metrics.json")
    assert sum(metrics["blend"]["weights"].values()) == pytest.approx(1)
    assert "all folds, weights as fitted, epochs as chosen" in done.stdout
    test = read_logits(project.folder / "results/blend/average/test_logits.npz")
    table = pd.read_csv(project.folder / "results/submission.csv", dtype=str)
    assert sorted(table["pred_label"]) == sorted(test.predictions())
    page = (project.folder / "results/blend/report/blend.html").read_text()
    assert "Models in the blend" in page
    planned = project.run("--dry-run", "report")
    assert planned.returncode == 0, planned.stdout
    assert "write_report" in planned.stdout
    assert "Error" not in planned.stdout
    for config in (["ensemble=softmax"], ["blend_weights=greedy"], ["blend=[other.yaml, tiny.yaml]"]):
        assert not trains(project, "--config", *config), config
    assert project.planned("submission", "--config", "blend=[other.yaml, tiny.yaml]") <= {"submission"}

    for file in (project.folder / "results/other/fold1").iterdir():
        file.unlink()
    assert "train_other_fold1" in trains(project)
    partial = ("--config", "allow_partial=true", "blend_weights=equal")
    assert not trains(project, *partial)
    done = project.run("submission", "results/blend/report/blend.html", *partial)
    assert done.returncode == 0, done.stdout
    assert "other lacks fold 1" in done.stdout
    assert read_json(project.folder / "results/blend/blend.json")["missing"] == {"other": ["1"]}
    assert "missing" in (project.folder / "results/blend/report/blend.html").read_text()
    one, blended = (read_logits(project.folder / f"results/{name}/fold1/oof_logits.npz") for name in ("tiny", "blend"))
    assert np.array_equal(one.predictions(), blended.predictions())


def test_a_partial_blend_of_nothing_is_refused_with_the_command_that_trains_a_fold(project):
    done = project.run("--dry-run", "submission", "--config", "allow_partial=true")
    assert done.returncode
    assert "allow_partial: no recipe of blend: has fold0, fold1" in done.stdout
    assert "train_other_fold0" in done.stdout
    assert "train_other_fold0" in project.planned("train_other_fold0", "--config", "allow_partial=true")


def test_an_ensemble_file_of_a_blend_is_refused(project):
    done = project.run("--dry-run", "ensemble")
    assert "an ensemble file holds the models of one recipe, but blend: has several" in done.stdout


def test_a_recipe_named_blend_is_refused(project):
    (project.folder / "other.yaml").rename(project.folder / "blend.yaml")
    done = project.run("--dry-run", "submission", "--config", "blend=[blend.yaml, tiny.yaml]")
    assert "rename this recipe: results/blend is the folder of blend:" in done.stdout
