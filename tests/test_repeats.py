"""Repeats and a full fit through Snakemake, on small images and a small network."""

from __future__ import annotations

import json
import os
import shutil
import signal
import time
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from conftest import write_yaml
from projects import RECIPE, Project, new_project, write_colour

from kfold_ens.logits import read_logits
from kfold_ens.members import Member, folds_of

LABELS = ["0", "7", "90"]
SMALL = RECIPE | {"epochs": 3, "batch_size": 8}
REPEATED = ["--config", "repeats=2"]
EVERYTHING = ["--config", "repeats=2", "full_fit=true", "members=both"]
COMBINING = {"combine", "metrics", "write_submission", "submission"}
FULL_FIT = {"train_full", "predict_test_full"}
REPEAT = {f"{job}_repeat1_fold{fold}" for job in ("train", "predict_oof", "predict_test") for fold in range(2)}


@pytest.fixture(scope="module")
def without(tmp_path_factory: pytest.TempPathFactory) -> Project:
    """A finished run without repeats and full fit."""
    folder = tmp_path_factory.mktemp("without") / "project"
    folder.mkdir()
    random = np.random.default_rng(0)
    for label in LABELS:
        for index in range(8):
            write_colour(folder / "data/train" / label / f"{index}.png", label, random)
            write_colour(folder / "data/test" / f"{label}-{index}.png", label, random)
    project = new_project(folder, SMALL, data={"source": "imagefolder", "train": "data/train", "test": "data/test"})
    done = project.run("submission")
    assert done.returncode == 0, done.stdout
    return project


@pytest.fixture
def project(without: Project, tmp_path: Path) -> Project:
    return Project(Path(shutil.copytree(without.folder, tmp_path / "project", symlinks=True)))


@pytest.fixture(scope="module")
def everything(without: Project, tmp_path_factory: pytest.TempPathFactory) -> Project:
    """The same run with all of it, to submission and report."""
    folder = tmp_path_factory.mktemp("everything") / "project"
    project = Project(Path(shutil.copytree(without.folder, folder, symlinks=True)))
    for target in ("submission", "report"):
        done = project.run(target, *EVERYTHING)
        assert done.returncode == 0, done.stdout
    return project


# --- what is planned -------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("config", "expected"),
    [
        (["repeats=1", "full_fit=false", "members=folds"], set()),
        (["repeats=2"], REPEAT | COMBINING | {"folds_repeat1"}),
        (["full_fit=true"], FULL_FIT | {"submission"}),
        (["full_fit=true", "members=both"], FULL_FIT | COMBINING),
        (["full_fit=true", "members=full"], FULL_FIT | COMBINING),
    ],
)
def test_added_repeats_and_a_full_fit_train_only_themselves(project, config, expected):
    assert project.planned("submission", "--config", *config) == expected


def test_each_added_model_is_a_target_by_name(project):
    assert project.planned("train_repeat1_fold1", *REPEATED) == {"folds_repeat1", "train_repeat1_fold1"}
    assert project.planned("train_full", "--config", "full_fit=true") == {"train_full"}
    write_yaml(project.folder / "plain.yaml", SMALL | {"epochs": 2})
    config = ["--config", "repeats=2", "full_fit=true", "ablation=[plain.yaml]"]
    chosen = project.planned("train_plain_full", *config) & {"train_plain_fold0", "train_plain_repeat1_fold1"}
    assert len(chosen) == 2  # they choose its epochs
    assert "train_plain_repeat1_fold0" in project.planned("train_plain_repeat1_fold0", *config)


@pytest.mark.parametrize(("members", "is_trained"), [("folds", False), ("full", True), ("both", True)])
def test_an_ablation_trains_a_full_fit_only_if_its_predictions_count(project, members, is_trained):
    write_yaml(project.folder / "plain.yaml", SMALL | {"epochs": 2})
    config = ["--config", "full_fit=true", f"members={members}", "ablation=[plain.yaml]"]
    planned = project.planned("ablation", *config)
    assert {"train_plain_fold0", "predict_test_plain_fold1"} <= planned
    full_fit = {"train_plain_full", "predict_test_plain_full"}
    assert planned & full_fit == (full_fit if is_trained else set())


def test_a_report_of_finished_folds_trains_no_added_model(project):
    planned = project.planned("report", *EVERYTHING)
    assert "overview" in planned
    assert not {rule for rule in planned if rule.startswith(("train_f", "train_r", "predict_"))}


@pytest.mark.parametrize(
    ("config", "words"),
    [
        ({"repeats": 0}, "repeats: Input should be greater than 0"),
        ({"repeats": 2, "seed": 2**32 - 1}, "repeats: 2 repeats use the seeds from seed: 4294967295 on"),
        ({"members": "both"}, "members: both needs full_fit: true"),
        ({"members": "full"}, "members: full needs full_fit: true"),
        ({"repeats": 2, "ablation": ["repeat1.yaml"]}, "two recipes would share the rule train_repeat1_fold0; rename"),
    ],
)
def test_impossible_settings_are_refused_before_training(project, config, words):
    write_yaml(project.folder / "repeat1.yaml", SMALL)
    project.configure(**config)
    done = project.run("submission")
    assert done.returncode != 0
    assert words in done.stdout
    assert "Traceback" not in done.stdout


@pytest.mark.parametrize(
    ("targets", "words"),
    [
        (["train_repeat2_fold1"], ["train_repeat2_fold1: there is no such rule: repeats: 2 makes repeats 0 to 1"]),
        (["-R", "predict_oof_fold2"], ["predict_oof_fold2: there is no such rule: num_folds: 2 makes folds 0 to 1"]),
        (["train_plain_full"], ["train_plain_full: there is no such rule: full_fit is false; set full_fit: true"]),
        (["predict_test_full", "train_repeat0_fold1"], ["predict_test_full: there", "the fold is named fold1"]),
    ],
)
def test_a_model_that_is_not_configured_is_refused_by_the_key_that_adds_it(project, targets, words):
    write_yaml(project.folder / "plain.yaml", SMALL | {"epochs": 2})
    done = project.run("--dry-run", *targets, *REPEATED, "ablation=[plain.yaml]")
    assert done.returncode != 0
    assert all(each in done.stdout for each in words)
    assert done.stdout.count("there is no such rule") == len(words)
    assert "MissingRule" not in done.stdout


def test_a_plateau_without_held_out_images_is_refused_with_all_recipes_at_fault(project):
    for name in ("tiny", "plain"):
        write_yaml(project.folder / f"{name}.yaml", SMALL | {"schedule": {"kind": "plateau"}})
    done = project.run("submission", "--config", "full_fit=true", "ablation=[plain.yaml]")
    assert done.returncode != 0
    for name in ("tiny", "plain"):
        assert f"{name}.yaml: schedule: plateau needs held-out images" in done.stdout


# --- from images to submission and report ----------------------------------------------------------------


@pytest.mark.slow
def test_repeats_and_full_fit_reach_submission_and_report_and_keep_repeat_0(without, everything):
    models = "results/tiny/fold*/model.safetensors"
    assert list(without.times(models).values()) == list(everything.times(models).values())
    assert everything.planned("submission", "report", *EVERYTHING) == set()
    results = everything.folder / "results/tiny"
    for member in (*folds_of(2, 2), Member()):
        assert (results / "report" / f"{member.folder}.html").is_file()
    report = (everything.folder / "results/report.html").read_text(encoding="utf-8")
    assert "it has no out-of-fold score" in report
    assert not (results / "full/oof_logits.npz").exists()


@pytest.mark.slow
def test_the_submission_is_of_all_members_and_the_score_of_each_image_over_repeats(everything):
    results = everything.folder / "results/tiny"
    members = [read_logits(results / member.folder / "test_logits.npz") for member in (*folds_of(2, 2), Member())]
    combined = read_logits(results / "average/test_logits.npz")
    assert combined.values == pytest.approx(np.mean([each.values for each in members], axis=0), abs=1e-6)
    submission = pd.read_csv(everything.folder / "results/submission.csv", dtype=str)
    assert submission["pred_label"].tolist() == combined.predictions().tolist()
    total = {}
    for member in folds_of(2, 2):
        logits = read_logits(results / member.folder / "oof_logits.npz")
        for image, row in zip(logits.image_id, logits.values, strict=True):
            total[image] = total.get(image, 0) + row
    right = sum(logits.classes[row.argmax()] == image.split("/")[-2] for image, row in total.items())
    metrics = json.loads((results / "metrics.json").read_text())
    assert (metrics["out_of_fold"]["correct"], metrics["out_of_fold"]["images"]) == (right, 8 * len(LABELS))
    assert list(metrics["folds"]) == ["0", "1", "0 of repeat 1", "1 of repeat 1"]


@pytest.mark.slow
def test_other_members_are_combined_without_training(everything):
    for members in ("folds", "full"):
        config = [*EVERYTHING[:-1], f"members={members}"]
        assert everything.planned("submission", *config) == COMBINING


@pytest.mark.slow
def test_a_repeat_equals_a_run_with_its_seed(everything, tmp_path):
    project = Project(Path(shutil.copytree(everything.folder, tmp_path / "project", symlinks=True)))
    shutil.rmtree(project.folder / "results/tiny")
    done = project.run("train_fold1", "--config", "seed=1")
    assert done.returncode == 0, done.stdout
    assert "already trained with" in done.stdout
    assert "(tiny, fold 1 of repeat 1, " in done.stdout
    same = "results/tiny/{}/model.safetensors"
    own, repeat = project.folder / same.format("fold1"), everything.folder / same.format("repeat1/fold1")
    assert own.read_bytes() == repeat.read_bytes()


@pytest.mark.slow
def test_the_full_fit_is_trained_once_and_cleaning_keeps_it(everything, tmp_path):
    project = Project(Path(shutil.copytree(everything.folder, tmp_path / "project", symlinks=True)))
    for path in project.folder.glob("results/tiny/*/model.safetensors"):
        path.unlink()
    done = project.run("clean_models", *EVERYTHING)
    assert "removed" not in done.stdout
    done = project.run("train_full", *EVERYTHING)
    assert "already trained with the same data and recipe" in done.stdout
    assert "(tiny, full fit, " in done.stdout


@pytest.mark.slow
def test_a_stopped_full_fit_resumes_to_the_same_bits(everything, tmp_path):
    project = Project(Path(shutil.copytree(everything.folder, tmp_path / "project", symlinks=True)))
    model = project.folder / "results/tiny/full/model.safetensors"
    before, progress = model.read_bytes(), project.folder / "state/tiny/full/progress.json"
    config = [*EVERYTHING, "checkpoint_minutes=0"]
    with project.started("--cores", "1", "train_full", "-R", "train_full", *config) as process:
        while not progress.exists() and process.poll() is None:
            time.sleep(0.02)
        for job in project.processes("train.py"):
            os.kill(job, signal.SIGTERM)
        output = process.communicate()[0]
    assert "stopped by a signal" in output, output
    done = project.run("train_full", "--rerun-incomplete", *config)
    assert done.returncode == 0, done.stdout
    assert "full fit resumes at epoch" in done.stdout
    assert model.read_bytes() == before
