"""Odd files and environments of users: Snakemake on a project that was never run."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from conftest import REPOSITORY, write_classes, write_yaml
from projects import RECIPE, Project, new_project

from kfold_ens.files import fingerprint

FOLDER = {"source": "imagefolder", "train": "data/train", "test": "data/test"}
TABLES = {"source": "csv", "train": "train.csv", "test": "test.csv", "images": "images"}
TRACES = ("Traceback", "Exception", "WildcardError", ".smk")


@pytest.fixture
def project(tmp_path: Path) -> Project:
    folder = tmp_path / "project"
    write_classes(folder / "data/train", {"cat": 4, "dog": 4})
    write_classes(folder / "data", {"test": 3}, seed=9000)
    return new_project(folder, RECIPE | {"epochs": 1, "batch_size": 8}, data=FOLDER)


def refusal(project: Project, *arguments: str) -> list[str]:
    """The lines of the message that Snakemake ends with."""
    done = project.run("--dry-run", *(arguments or ("submission",)))
    assert done.returncode == 1, done.stdout
    assert not any(trace in done.stdout for trace in TRACES), done.stdout
    return done.stdout.partition("ERROR: ")[2].splitlines()


# --- files that are not there, or are something else -----------------------------------------------------


def test_all_files_that_are_missing_or_of_another_kind_are_named_by_key(project, monkeypatch):
    monkeypatch.delenv("NOWHERE", raising=False)
    backbone = RECIPE["backbone"] | {"weights": "gone.pth"}
    write_yaml(project.folder / "pretrained.yaml", RECIPE | {"backbone": backbone})
    data = FOLDER | {"test": "$NOWHERE/test", "test_labels": "data"}
    project.configure(data=data, submission={"sample": "sampel.csv"}, recipe="pretrained.yaml")
    kept = project.folder / "results/submission.csv"
    kept.parent.mkdir()
    kept.touch()
    assert refusal(project) == [
        "data.test: there is no folder $NOWHERE/test; the environment variable NOWHERE is not set",
        "submission.sample: there is no file sampel.csv",
        "data.test_labels: data is a folder, not a file",
        "pretrained.yaml: backbone.weights: there is no file gone.pth",
        f"Paths are relative to {project.folder}. Correct the configuration, or mount the disk.",
    ]
    assert kept.exists()


def test_a_folder_where_a_table_should_be_and_a_file_where_a_folder_should_be(project):
    (project.folder / "train.csv").mkdir()
    (project.folder / "images").touch()
    (project.folder / "test.csv").symlink_to("gone.csv")
    project.configure(data=TABLES)
    assert refusal(project)[:-1] == [
        "data.train: train.csv is a folder, not a table",
        "data.images: images is a file, not a folder",
        "data.test: there is no table test.csv; it is a link to gone.csv, which does not exist",
    ]


def test_without_download_the_dataset_must_exist(project):
    project.configure(data={"source": "torchvision", "name": "MNIST", "root": "gone", "download": False})
    assert refusal(project)[0] == "data.root: there is no folder gone"
    project.configure(data={"source": "torchvision", "name": "MNIST", "root": "gone"})
    assert "manifest" in project.planned("submission")


def test_weights_that_were_converted_may_be_gone_but_not_become_a_folder(project):
    write_yaml(project.folder / "mine.yaml", RECIPE | {"backbone": RECIPE["backbone"] | {"weights": "w.pth"}})
    project.configure(recipe="mine.yaml")
    (project.folder / "w.pth").touch()
    converted = f"resources/weights/resnet18.{fingerprint('w.pth')[:8]}.safetensors"
    assert "weights" in project.planned("submission")
    (project.folder / "w.pth").unlink()
    assert refusal(project)[0] == "mine.yaml: backbone.weights: there is no file w.pth"
    (project.folder / converted).parent.mkdir(parents=True)
    (project.folder / converted).touch()
    assert "weights" not in project.planned("submission")
    (project.folder / "w.pth").mkdir()
    assert refusal(project)[0] == "mine.yaml: backbone.weights: w.pth is a folder, not a file"


# --- braces and other odd characters ---------------------------------------------------------------------


@pytest.mark.parametrize(
    "name", ["{train}", "{", "a}{b", "{{x}}", "it's", 'a "b"', "a*[b]?", "50%", "$5", "a\\b", " a "]
)
def test_odd_characters_in_settings_are_kept(project, name):
    (project.folder / "data").rename(project.folder / name)
    data = FOLDER | {"train": f"{name}/train", "test": f"{name}/test"}
    submission = {"id_column": name, "label_column": f"{name}2", "zip_member": name}
    views = {"kind": "views", "average": "logits", "views": [{"name": name, "steps": []}]}
    write_yaml(project.folder / "tiny.yaml", RECIPE | {"tta": views})
    project.configure(data=data, submission=submission)
    planned = project.planned("submission")
    assert {"manifest", "train_fold0", "zip_submission"} <= planned


def test_a_folder_of_any_name_holds_a_project(project):
    folder = project.folder.rename(project.folder.parent / "my{project} {1")
    assert {"train_fold0", "write_report"} <= Project(folder).planned("submission", "report")


def test_inputs_named_like_wildcards_are_refused_by_key(project):
    names = ("{a}.csv", "b/{1}/b.csv", "{c}.csv", "{d}.csv", "{e}.pth")
    for name in names:
        (project.folder / name).parent.mkdir(parents=True, exist_ok=True)
        (project.folder / name).touch()
    (project.folder / "images").mkdir()
    (project.folder / "images/a.png").touch()
    write_yaml(project.folder / "tiny.yaml", RECIPE | {"backbone": RECIPE["backbone"] | {"weights": names[4]}})
    data = TABLES | {"train": names[0], "test": names[1], "test_labels": names[2]}
    project.configure(data=data, submission={"sample": names[3]})
    keys = ("data.train", "data.test", "data.test_labels", "submission.sample", "tiny.yaml: backbone.weights")
    advice = "rename it, or its folder: Snakemake reads a word in braces as a wildcard"
    assert set(refusal(project)) == {f"{key}: {name}: {advice}" for key, name in zip(keys, names, strict=True)}


@pytest.mark.parametrize("name", ["tiny{1}", "tiny{", "{recipe}"])
def test_a_recipe_with_a_brace_in_its_name_is_refused(project, name):
    (project.folder / "tiny.yaml").rename(project.folder / f"{name}.yaml")
    project.configure(recipe=f"{name}.yaml")
    assert refusal(project)[0].startswith(f"{name}.yaml: rename this recipe: Snakemake reads the brace in")


def test_weights_with_a_brace_in_their_name_are_refused(project):
    (project.folder / "my{x}").mkdir()
    write_yaml(project.folder / "my{x}/a.yaml", RECIPE | {"backbone": RECIPE["backbone"] | {"weights": "V{1}"}})
    project.configure(recipe="my{x}/a.yaml")
    assert refusal(project) == ["my{x}/a.yaml: backbone.weights: there are no weights resnet18.V{1}; correct the name"]
    project.edit("my{x}/a.yaml", "V{1}", "none")
    assert "train_fold0" in project.planned("submission", "report")


# --- the configuration -----------------------------------------------------------------------------------


def test_a_wrong_key_is_named_by_the_file_it_was_merged_from(project):
    write_yaml(project.folder / "other.yaml", {"numfolds": 3})
    project.configure(seed=-1)
    assert refusal(project, "--configfile", "other.yaml", "--config", "ensemble=mean", "--", "submission") == [
        "config.yaml with other.yaml and --config merged into it has errors:",
        "  seed: Input should be greater than or equal to 0 (got -1) (in config.yaml)",
        "  ensemble: Input should be 'average', 'softmax' or 'vote' (got 'mean') (in --config)",
        "  numfolds: no such key; did you mean num_folds? (in other.yaml)",
    ]


def test_a_repeated_key_in_config_yaml_is_refused(project):
    with open(project.folder / "config.yaml", "a") as file:
        file.write("num_folds: 3\n")
    assert "num_folds occurs twice" in "\n".join(refusal(project))


@pytest.mark.parametrize(
    ("text", "place"),
    [
        ("data:\n\tsource: digits\n", 'in "config.yaml", line 2, column 1:'),
        ("data: {source: digits}\nseed: 010\n", 'in "config.yaml", line 2, column 7:'),
    ],
)
def test_a_yaml_error_in_config_yaml_is_reported_with_its_line(project, text, place):
    """Snakemake would say that it is not valid YAML, or take 010 for 8."""
    (project.folder / "config.yaml").write_text(text)
    assert place in "\n".join(refusal(project))


def test_home_is_expanded_and_the_manifest_names_the_images(project, monkeypatch):
    (project.folder / "data").rename(project.folder.parent / "data")
    monkeypatch.setenv("HOME", str(project.folder.parent))
    project.configure(data=FOLDER | {"train": "~/data/train", "test": "${HOME}/data/test"})
    done = project.run("results/data/train.csv")
    assert done.returncode == 0, done.stdout
    assert f"{project.folder.parent}/data/train/cat/0000.png" in (project.folder / "results/data/train.csv").read_text()
    project.configure(data=FOLDER | {"train": f"{project.folder.parent}/data/train", "test": "~/data/test"})
    assert project.planned("results/data/train.csv") == set()  # the same place


# --- where it runs ---------------------------------------------------------------------------------------


def run_alone(project: Project, *arguments: str, **environment: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "snakemake", "--cores", "1", *(arguments or ("--dry-run", "submission"))]
    printed = {"stdout": subprocess.PIPE, "stderr": subprocess.STDOUT, "text": True}
    return subprocess.run(command, cwd=project.folder, env=os.environ | environment, **printed)


def test_a_library_from_another_folder_is_warned_about(project):
    assert "library of another folder" not in project.run("--dry-run").stdout  # no library beside this workflow
    (project.folder / "src").mkdir()
    (project.folder / "src/kfold_ens").symlink_to(REPOSITORY / "src/kfold_ens")
    assert "library of another folder" not in project.run("--dry-run").stdout
    (project.folder / "src/kfold_ens").unlink()
    shutil.copytree(REPOSITORY / "src/kfold_ens", project.folder / "src/kfold_ens")
    done = project.run("--dry-run")
    assert done.returncode == 0
    warning = f"The workflow of {project.folder} runs with the library of another folder: {REPOSITORY}/src/kfold_ens."
    assert warning in done.stdout
    assert f"pip install -e {project.folder}" in done.stdout


def test_names_of_files_are_utf8_or_the_run_is_refused(project):
    folder = project.folder.rename(project.folder.parent / "dätä 数")
    done = run_alone(Project(folder), LC_ALL="C")
    assert done.returncode == 0, done.stdout  # Python then takes UTF-8
    done = run_alone(Project(folder), LC_ALL="C", PYTHONUTF8="0", PYTHONCOERCECLOCALE="0")
    assert done.returncode == 1
    assert "set PYTHONUTF8=1" in done.stdout
    assert not any(trace in done.stdout for trace in TRACES), done.stdout


def test_a_folder_for_temporary_files_that_cannot_be_written_to_is_refused(project):
    done = run_alone(project, TMPDIR="/proc")
    assert done.returncode == 1
    assert "ERROR: TMPDIR: cannot write to /proc" in done.stdout
    assert not any(trace in done.stdout for trace in TRACES), done.stdout
    assert run_alone(project, TMPDIR="/nowhere/tmp").returncode == 0  # Python takes another


@pytest.mark.slow
def test_few_open_files_and_no_home_make_a_manifest(project):
    prepared = ["bash", "-c", 'ulimit -n 64; unset HOME; exec "$@"', "bash"]
    command = [*prepared, sys.executable, "-m", "snakemake", "--cores", "1", "results/data/folds.csv"]
    assert subprocess.run(command, cwd=project.folder).returncode == 0
