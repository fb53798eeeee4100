"""Projects of kfold-init with only the wheel: five shapes of folders, each to a submission."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pandas as pd
import pytest
from conftest import REPOSITORY, write_classes, write_image, write_yaml
from projects import RECIPE

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def installed(tmp_path_factory) -> Path:
    """A folder with the package as the wheel installs it. Python finds it before the clone's."""
    folder = tmp_path_factory.mktemp("wheel")
    pip = [sys.executable, "-m", "pip"]
    build = [*pip, "wheel", "-q", "--no-deps", "--no-build-isolation", "-w", str(folder), str(REPOSITORY)]
    subprocess.run(build, check=True)
    (wheel,) = folder.glob("*.whl")
    subprocess.run([*pip, "install", "-q", "--no-deps", "--target", str(folder / "site"), str(wheel)], check=True)
    return folder / "site"


@pytest.fixture
def run(installed, tmp_path):
    """Run a program of the environment in the project; return what it printed."""
    project = tmp_path / "my project"
    project.mkdir()

    def command(*words: str, code: int = 0) -> str:
        variables = os.environ | {"PYTHONPATH": str(installed)}
        done = subprocess.run(
            [sys.executable, "-m", *words], cwd=project, env=variables, text=True, capture_output=True
        )
        assert done.returncode == code, done.stdout + done.stderr
        return done.stdout + done.stderr

    command.folder = project
    return command


def submission_of(run) -> pd.DataFrame:
    """The submission of the project, by a recipe in its own recipes/."""
    write_yaml(run.folder / "recipes/tiny.yaml", RECIPE | {"epochs": 2})
    said = run("snakemake", "check", "--config", "recipe=tiny", "num_folds=2")
    assert "No error found" in said
    assert "library of another folder" not in said
    run("snakemake", "--cores", "2", "submission", "--config", "recipe=tiny", "num_folds=2", "device=cpu")
    return pd.read_csv(run.folder / "results/submission.csv", dtype=str)


def images(folder: Path, *names: str) -> None:
    for seed, name in enumerate(names):
        write_image(folder / name, 200 * (seed % 2), seed)


def table(path: Path, *lines: str) -> None:
    path.write_text("\n".join([*lines, ""]))


def test_class_folders_lead_to_a_submission(run):
    write_classes(run.folder / "train", {"cat": 8, "dog": 8})
    images(run.folder / "test", "a.png", "b.png")
    run("kfold_ens.init.command", ".")
    assert sorted(submission_of(run)["image_name"]) == ["a", "b"]
    assert set(submission_of(run)["pred_label"]) <= {"cat", "dog"}


def test_tables_lead_to_a_submission(run):
    images(run.folder / "pictures", *(f"{number}.png" for number in range(20)))
    table(run.folder / "train.csv", "file;kind", *(f"{number}.png;{'ab'[number % 2]}" for number in range(16)))
    table(run.folder / "test.csv", "file", *(f"{number}.png" for number in range(16, 20)))
    run("kfold_ens.init.command", ".")
    assert sorted(submission_of(run)["image_name"]) == ["16.png", "17.png", "18.png", "19.png"]


def test_a_download_with_a_sample_leads_to_a_submission_like_it(run):
    images(run.folder / "train_images", *(f"x{number}.png" for number in range(16)))
    images(run.folder / "test_images", *(f"y{number}.png" for number in range(4)))
    table(run.folder / "train.csv", "id_code,diagnosis", *(f"x{number},{number % 2}" for number in range(16)))
    table(run.folder / "sample_submission.csv", "id_code,diagnosis", *(f"y{number},0" for number in (3, 1, 0, 2)))
    run("kfold_ens.init.command", ".")
    submission = submission_of(run)
    assert list(submission) == ["id_code", "diagnosis"]
    assert list(submission["id_code"]) == ["y3", "y1", "y0", "y2"]


def test_train_val_and_test_lead_to_a_submission_and_the_project_can_be_moved(run, tmp_path):
    write_classes(run.folder / "data/train", {"0": 6, "1": 6, "10": 6})
    write_classes(run.folder / "data/val", {"0": 2, "1": 2, "10": 2}, seed=9999)
    images(run.folder / "data/test", "5f3a.png", "77c1.png")
    run("kfold_ens.init.command", ".")
    assert list(submission_of(run)) == ["image_name", "pred_label"]
    run.folder.rename(tmp_path / "moved")
    run.folder.symlink_to(tmp_path / "moved")
    planned = run("snakemake", "-n", "submission", "--config", "recipe=tiny", "num_folds=2", "device=cpu")
    assert "Nothing to be done" in planned


def test_what_is_not_decided_needs_its_lines_uncommented(run):
    write_classes(run.folder / "photos", {"cat": 6, "dog": 6})
    write_classes(run.folder / "scans", {"cat": 4, "dog": 4}, seed=9999)
    images(run.folder / "new", "a.png", "b.png")
    run("kfold_ens.init.command", ".")
    assert "train: is missing" in run("snakemake", "check", code=1)
    file = run.folder / "config.yaml"
    undecided = file.read_text().replace("# test: new", "test: new")
    file.write_text(undecided.replace("# train: [photos, scans]", "train: [photos, scans]"))
    assert len(submission_of(run)) == 2
