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
        ({"blend": ["digits", "kfold_mix"], "bundle": True}, "bundle: true writes the models of one recipe"),
        ({"blend": ["digits", "kfold_mix"], "blend_of": "ranks"}, "blend_of: ranks needs metric: roc_auc"),
    ],
)
def test_an_impossible_blend_is_refused(values, message):
    with pytest.raises(ConfigError, match=message):
        load_config({"data": {"source": "digits"}} | values)


@pytest.mark.slow
def test_two_recipes_blend_to_a_submission_and_other_weights_train_nothing(project):
    done = project.run("submission", "results/report.html")
    assert done.returncode == 0, done.stdout
    metrics = read_json(project.folder / "results/blend/metrics.json")
    assert sum(metrics["blend"]["weights"].values()) == pytest.approx(1)
    assert "weights as fitted (too high)" in done.stdout
    test = read_logits(project.folder / "results/blend/average/test_logits.npz")
    table = pd.read_csv(project.folder / "results/submission.csv", dtype=str)
    assert sorted(table["pred_label"]) == sorted(test.predictions())
    assert (project.folder / "results/blend/report/blend.html").is_file()
    for config in (["ensemble=softmax"], ["blend_weights=greedy"], ["blend=[other.yaml, tiny.yaml]"]):
        assert not trains(project, "--config", *config), config
    assert project.planned("submission", "--config", "blend=[other.yaml, tiny.yaml]") <= {"submission"}

    for file in (project.folder / "results/other/fold1").iterdir():
        file.unlink()
    assert "train_other_fold1" in trains(project)
    done = project.run("submission", "--config", "allow_partial=true", "blend_weights=equal")
    assert done.returncode == 0, done.stdout
    assert read_json(project.folder / "results/blend/blend.json")["missing_folds"] == {"other": ["1"]}
    one, blended = (read_logits(project.folder / f"results/{name}/fold1/oof_logits.npz") for name in ("tiny", "blend"))
    assert np.array_equal(one.predictions(), blended.predictions())


def test_an_ensemble_file_of_a_blend_is_refused(project):
    done = project.run("--dry-run", "ensemble")
    assert "an ensemble file holds the models of one recipe, but blend: has several" in done.stdout
