"""An ablation as a race, through Snakemake, on small images and a small network."""

from __future__ import annotations

import json
import re
import shutil
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from conftest import write_yaml
from projects import RECIPE, Project, new_project, write_colour

LABELS = ["0", "7", "90"]
NAMES = ["tiny", "twin", "bad"]
GOOD = RECIPE | {"batch_size": 8}
TWIN = GOOD | {"optimizer": RECIPE["optimizer"] | {"weight_decay": 0.02}}
BAD = GOOD | {"epochs": 1, "optimizer": RECIPE["optimizer"] | {"lr": 1e-12}}  # learns nothing
LEFT_OUT = {f"{job}_bad_fold{fold}" for job in ("train", "predict_oof", "predict_test") for fold in (2, 3)}


def trained(project: Project) -> set[str]:
    """The folds of each recipe that are trained."""
    return {f"{path.parts[-3]} {path.parts[-2]}" for path in project.folder.glob("results/*/fold*/model.safetensors")}


def table_of(project: Project) -> pd.DataFrame:
    return pd.read_csv(project.folder / "results/ablation.csv").set_index("recipe")


@pytest.fixture(scope="module")
def untrained(tmp_path_factory: pytest.TempPathFactory) -> Project:
    """Two recipes that are equally good, and one that is bad, to be compared in a race over four folds."""
    folder = tmp_path_factory.mktemp("race") / "project"
    folder.mkdir()
    random = np.random.default_rng(0)
    for label in LABELS:
        for index in range(12):
            write_colour(folder / "data/train" / label / f"{index}.png", label, random)
        write_colour(folder / "data/test" / f"{label}.png", label, random)
    write_yaml(folder / "twin.yaml", TWIN)
    write_yaml(folder / "bad.yaml", BAD)
    data = {"source": "imagefolder", "train": "data/train", "test": "data/test"}
    ablation = [f"{name}.yaml" for name in NAMES]
    return new_project(folder, GOOD, data=data, num_folds=4, ablation=ablation, ablation_race=True)


@pytest.fixture(scope="module")
def finished(untrained: Project, tmp_path_factory: pytest.TempPathFactory) -> Project:
    folder = tmp_path_factory.mktemp("finished") / "project"
    project = Project(Path(shutil.copytree(untrained.folder, folder, symlinks=True)))
    done = project.run("ablation", "--cores", "2")
    assert done.returncode == 0, done.stdout
    return project


@pytest.fixture
def project(finished: Project, tmp_path: Path) -> Project:
    return Project(Path(shutil.copytree(finished.folder, tmp_path / "project", symlinks=True)))


def test_a_dry_run_says_that_it_is_a_race(untrained):
    done = untrained.run("--dry-run", "ablation")
    assert "The ablation is a race of 3 recipes: it trains at most 12 folds, of which 0 are trained" in done.stdout
    planned = untrained.planned("ablation")
    assert {f"train_{name}fold{fold}" for name in ("", "twin_", "bad_") for fold in range(2)} | {"race"} <= planned
    assert not {rule for rule in planned if re.fullmatch("train_.*fold[23]", rule)}  # the first look decides


def test_a_clearly_worse_recipe_trains_two_folds_only(finished):
    every = {f"{name} fold{fold}" for name in NAMES for fold in range(4)}
    assert every - trained(finished) == {"bad fold2", "bad fold3"}
    rows = table_of(finished)
    assert list(rows.index) == NAMES
    assert rows["folds"].to_list() == ["4 of 4", "4 of 4", "2 of 4"]
    assert rows["status"].to_list()[:2] == ["finished", "finished"]
    assert re.fullmatch(
        r"stopped after 2 folds: worse than (tiny|twin) by 0\.\d+ \[0\.\d+, 0\.\d+\]", rows["status"]["bad"]
    )
    assert rows["best_of"].dropna().to_list() == [2]
    assert (
        rows.loc["bad", ["out_of_fold", "difference", "average", "accuracy" if "accuracy" in rows else "log_loss"]]
        .isna()
        .all()
    )


def test_a_finished_race_plans_nothing(project):
    assert project.planned("ablation") == set()


def test_without_the_race_only_the_missing_folds_train(project):
    project.configure(ablation_race=False)
    planned = project.planned("ablation")
    assert {rule for rule in planned if "fold" in rule} == LEFT_OUT
