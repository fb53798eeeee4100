"""An ablation as a race, through Snakemake. Most folds here are planted: files as if they were trained."""

from __future__ import annotations

import json
import re
import shutil
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from conftest import REPOSITORY, write_yaml
from projects import RECIPE, Project, new_project, write_colour

from kfold_ens.logits import Logits, write_logits

LABELS = ["0", "7", "90"]
NAMES = ["tiny", "twin", "bad"]
GOOD = RECIPE | {"batch_size": 5}
TWIN = GOOD | {"optimizer": RECIPE["optimizer"] | {"weight_decay": 0.02}}
BAD = GOOD | {"epochs": 1, "optimizer": RECIPE["optimizer"] | {"lr": 1e-12}}  # learns nothing
DATA = ["results/data/folds.csv", "results/data/folds_repeat1.csv", "results/data/test.csv"]
PIXELS = [f"results/data/pixels-16/{half}.npz" for half in ("train", "test")]
MODULE = """configfile: "config.yaml"
module kfold:
    snakefile: "{place}/workflow/Snakefile"
    config: config
use rule * from kfold as kfold_*
"""


def training(planned: set[str]) -> set[str]:
    """The folds that a plan trains: fold2, bad_fold3."""
    return {rule.split("train_")[1] for rule in planned if "train_" in rule}


def trained(project: Project) -> set[str]:
    """The folds of each recipe that are trained."""
    return {f"{path.parts[-3]} {path.parts[-2]}" for path in project.folder.glob("results/*/fold*/model.safetensors")}


def ran(project: Project, *arguments: str) -> str:
    done = project.run(*arguments)
    assert done.returncode == 0, done.stdout
    return done.stdout


@pytest.fixture(scope="module")
def untrained(tmp_path_factory: pytest.TempPathFactory) -> Project:
    """Two recipes that are equally good, and one that is bad, for a race over four folds."""
    folder = tmp_path_factory.mktemp("race") / "project"
    folder.mkdir()
    random = np.random.default_rng(0)
    for label in LABELS:
        for index in range(20):
            write_colour(folder / "data/train" / label / f"{index}.png", label, random)
        write_colour(folder / "data/test" / f"{label}.png", label, random)
    write_yaml(folder / "twin.yaml", TWIN)
    write_yaml(folder / "bad.yaml", BAD)
    data = {"source": "imagefolder", "train": "data/train", "test": "data/test"}
    ablation = [f"{name}.yaml" for name in NAMES]
    project = new_project(folder, GOOD, data=data, num_folds=4, repeats=2, ablation=ablation, ablation_race=True)
    ran(project, *DATA, *PIXELS)
    project.configure(repeats=1)
    return project


@pytest.fixture
def project(untrained: Project, tmp_path: Path) -> Project:
    return Project(Path(shutil.copytree(untrained.folder, tmp_path / "project", symlinks=True)))


def plant(project: Project, recipe: str, fold: str, share: float) -> None:
    """Write the files of a fold that predicts this share of its held-out images correctly, the same for all recipes."""
    folder = project.folder / "results" / recipe / fold
    folder.mkdir(parents=True)
    repeat, number = re.fullmatch(r"(?:repeat(\d)/)?fold(\d)", fold).groups()
    split = pd.read_csv(project.folder / f"results/data/folds{f'_repeat{repeat}' if repeat else ''}.csv", dtype=str)
    held_out = split[split["fold"] == number].sort_values("image_id")
    right = np.arange(len(held_out)) < share * len(held_out)
    columns = (held_out["label"].map(LABELS.index).to_numpy() + ~right) % len(LABELS)
    for name in ("history.csv", "model.safetensors"):
        (folder / name).write_text("planted")
    logits = Logits(held_out["image_id"].to_numpy(), 5 * np.eye(len(LABELS))[columns], tuple(LABELS))
    write_logits(folder / "oof_logits.npz", logits)  # last, or Snakemake would make it again


def plant_all(project: Project, folds: list[str], **shares: float) -> None:
    for recipe, share in ({"tiny": 0.9, "twin": 0.9, "bad": 0.1} | shares).items():
        for fold in folds:
            plant(project, recipe, fold, share)


# --- what is planned -------------------------------------------------------------------------------------


def test_a_dry_run_says_that_it_is_a_race(project):
    plant(project, "tiny", "fold1", 1)
    done = project.run("--dry-run", "ablation")
    assert "The ablation is a race of 3 recipes: at most 12 folds, 1 of them trained already." in done.stdout
    assert "The ablation is a race" in ran(project, "check")
    project.configure(ablation_race=False)
    assert "is a race" not in project.run("--dry-run", "ablation").stdout


def test_only_two_folds_are_trained_before_the_first_look(project):
    planned = project.planned("ablation")
    assert training(planned) == {f"{name}fold{fold}" for name in ("", "twin_", "bad_") for fold in range(2)}
    assert "race" in planned


def test_each_look_stops_recipes_before_they_train_the_next_fold(project):
    plant_all(project, ["fold0", "fold1"])
    assert training(project.planned("ablation")) == set()  # not before the look
    ran(project, "results/race/after_2_folds.json")
    assert training(project.planned("ablation")) == {"fold2", "twin_fold2"}
    plant(project, "tiny", "fold2", 1)
    plant(project, "twin", "fold2", 0)
    ran(project, "results/race/after_3_folds.json")
    race = json.loads((project.folder / "results/race/after_3_folds.json").read_text())
    assert race["racing"] == ["tiny"]
    assert {name: stopped["folds"] for name, stopped in race["stopped"].items()} == {"bad": 2, "twin": 3}
    assert training(project.planned("ablation")) == {"fold3"}


def test_the_last_one_in_the_race_trains_all_its_folds_at_once(project):
    plant_all(project, ["fold0", "fold1"], twin=0.1)
    ran(project, "results/race/after_3_folds.json")
    assert training(project.planned("ablation")) == {"fold2", "fold3"}


def test_looks_depend_on_results_only(project):
    plant_all(project, ["fold0", "fold1"])
    looks = project.folder / "results/race"
    ran(project, "results/race/after_2_folds.json")
    before = (looks / "after_2_folds.json").read_bytes()
    shutil.rmtree(looks)
    ran(project, "results/race/after_2_folds.json")
    assert (looks / "after_2_folds.json").read_bytes() == before


def test_without_the_race_every_recipe_trains_the_folds_that_are_missing(project):
    plant_all(project, ["fold0", "fold1"])
    ran(project, "results/race/after_2_folds.json")
    project.configure(ablation_race=False)
    planned = project.planned("ablation")
    assert training(planned) == {f"{name}fold{fold}" for name in ("", "twin_", "bad_") for fold in (2, 3)}
    assert "race" not in planned


def test_a_fold_by_name_and_a_submission_know_no_race(project):
    plant_all(project, ["fold0", "fold1"], tiny=0.1)
    ran(project, "results/race/after_2_folds.json")
    assert training(project.planned("train_bad_fold3")) == {"bad_fold3"}
    assert training(project.planned("submission")) == {"fold2", "fold3"}


def test_repeats_race_too(project):
    project.configure(repeats=2, num_folds=4)
    plant_all(project, [f"fold{fold}" for fold in range(4)], bad=0.9)
    plant_all(project, ["repeat1/fold0"], bad=0.9)
    ran(project, "results/race/after_5_folds.json")
    assert training(project.planned("ablation")) == {f"{name}repeat1_fold1" for name in ("", "twin_", "bad_")}


def test_a_module_with_a_prefix_races(project):
    (project.folder / "Snakefile").write_text(MODULE.format(place=REPOSITORY))
    plant_all(project, ["fold0", "fold1"])
    assert "kfold_race" in project.planned("kfold_ablation")
    ran(project, "results/race/after_2_folds.json")
    assert training(project.planned("kfold_ablation")) == {"fold2", "twin_fold2"}


def test_a_race_over_two_folds_is_refused(project):
    project.configure(num_folds=2)
    done = project.run("--dry-run", "ablation")
    assert "ablation_race stops recipes after 2 folds at the earliest, but there are only 2" in done.stdout


# --- a whole race ----------------------------------------------------------------------------------------


@pytest.mark.slow
def test_a_clearly_worse_recipe_trains_two_folds_only(project):
    ran(project, "ablation", "--cores", "2")
    every = {f"{name} fold{fold}" for name in NAMES for fold in range(4)}
    assert every - trained(project) == {"bad fold2", "bad fold3"}
    rows = pd.read_csv(project.folder / "results/ablation.csv").set_index("recipe")
    assert list(rows.index) == NAMES
    assert rows["folds"].to_list() == ["4 of 4", "4 of 4", "2 of 4"]
    assert rows["status"].to_list()[:2] == ["finished", "finished"]
    assert re.fullmatch(
        r"stopped after 2 folds: worse than (tiny|twin) by 0\.\d+ \[0\.\d+, 0\.\d+\]", rows["status"]["bad"]
    )
    assert rows["best_of"].dropna().to_list() == [2]
    assert rows.loc["bad", ["out_of_fold", "difference", "average", "log_loss"]].isna().all()

    assert project.planned("ablation") == set()
    before = project.times("results/*/fold*/model.safetensors")
    assert training(project.planned("report")) == set()
    ran(project, "submission", "results/ablation.html", "--cores", "2")
    assert project.times("results/*/fold*/model.safetensors") == before
    assert "bad was stopped after 2 folds" in (project.folder / "results/ablation.html").read_text(encoding="utf-8")

    project.configure(ablation_race=False)
    planned = project.planned("ablation")
    assert training(planned) == {"bad_fold2", "bad_fold3"}
    ran(project, "ablation", "--cores", "2")
    after = project.times("results/*/fold*/model.safetensors")
    assert {path: after[path] for path in before} == before
    assert "status" not in pd.read_csv(project.folder / "results/ablation.csv")
