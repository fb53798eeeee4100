"""The workflow as a module of a user's own Snakefile, from a path and from git."""

from __future__ import annotations

import base64
import os
import re
import shutil
import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest
import yaml
from conftest import REPOSITORY, TINY_RECIPE, write_classes, write_image, write_yaml
from projects import WORKFLOW, Project
from snakemake.settings.enums import RerunTrigger

DATA = {"source": "imagefolder", "train": "data/train", "test": "data/test"}
CONFIG = {"recipe": "tiny", "num_folds": 2, "device": "cpu", "data": DATA}
SNAKEFILE = """{above}configfile: "config.yaml"

module kfold:
    snakefile: {snakefile}
    config: {config}
{options}
use rule * from kfold{named}
{below}"""
ASKED = ("Snakefile", "workflow/Snakefile")
JOBS = {"manifest", "test_manifest", "folds", "pixels", "test_pixels", "combine", "metrics", "write_submission"}
JOBS |= {f"{job}_fold{fold}" for job in ("train", "predict_oof", "predict_test") for fold in range(2)} | {"submission"}
PREFIXED = {f"kfold_{job}" for job in JOBS}
CHANGED_SCRIPT = ("workflow/scripts/train.py", "from functools import partial", "# why\nfrom functools import partial")


def git(folder: Path, *arguments: str) -> None:
    identity = ["-c", "user.name=me", "-c", "user.email=me@example.org"]
    subprocess.run(["git", *identity, *arguments], cwd=folder, check=True, capture_output=True)


def commit(repository: Path) -> None:
    git(repository, "add", "--all")
    git(repository, "commit", "--message", "Change it")


@pytest.fixture(scope="module")
def repository(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A git repository with the workflow as it is now, on the branch main."""
    folder = tmp_path_factory.mktemp("git") / "someone" / "kfold_ens"
    folder.mkdir(parents=True)
    for name in (*WORKFLOW, "pyproject.toml"):
        (shutil.copytree if (REPOSITORY / name).is_dir() else shutil.copy)(REPOSITORY / name, folder / name)
    git(folder, "init", "--initial-branch", "main")
    commit(folder)
    return folder


@pytest.fixture(autouse=True)
def offline(tmp_path_factory: pytest.TempPathFactory, repository: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """GitHub's someone/kfold_ens is that repository, and Snakemake's cache is empty."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path_factory.mktemp("cache")))
    monkeypatch.setenv("GIT_CONFIG_COUNT", "1")
    monkeypatch.setenv("GIT_CONFIG_KEY_0", f"url.file://{repository.parent}/.insteadOf")
    monkeypatch.setenv("GIT_CONFIG_VALUE_0", "https://github.com/someone/")


def from_path(folder: Path) -> str:
    return f'"{folder}/workflow/Snakefile"'


def from_git(repository: Path) -> str:
    return f'"git+file://{repository}/workflow/Snakefile@main"'


@pytest.fixture
def user(tmp_path: Path) -> Callable[..., Project]:
    """Makes a folder with images, a configuration, a recipe and a Snakefile, and no file of the workflow."""

    def make(snakefile: str, values: dict = CONFIG, **parts: str) -> Project:
        folder = tmp_path / "user"
        write_classes(folder / "data/train", {"a": 8, "b": 8})
        for index in range(4):
            write_image(folder / f"data/test/{index}.png", 60 * index, 10**6 + index)
        write_yaml(folder / "recipes/tiny.yaml", TINY_RECIPE)
        write_yaml(folder / "config.yaml", values)
        blanks = dict.fromkeys(("above", "options", "named", "below"), "") | {"config": "config"}
        (folder / "Snakefile").write_text(SNAKEFILE.format(snakefile=snakefile, **blanks | parts))
        return Project(folder)

    return make


@pytest.mark.parametrize("file", ASKED)
def test_a_module_from_a_path_plans_the_whole_run_with_my_recipe(user, file):
    assert user(f'"{REPOSITORY / file}"').planned() == JOBS


def test_a_module_from_git_plans_the_whole_run(user, repository):
    project = user(from_git(repository))
    assert project.planned() == JOBS
    assert project.planned("--config", "recipe=digits", "num_folds=2") == JOBS  # one of the workflow's recipes


@pytest.mark.parametrize("file", ASKED)
def test_a_module_from_github_plans_the_whole_run(user, file):
    assert user(f'github("someone/kfold_ens", path="{file}", branch="main")').planned() == JOBS


def test_the_top_snakefile_and_the_catalogues_plan_the_same(user):
    project = user(from_path(REPOSITORY))
    assert [project.planned("--snakefile", str(REPOSITORY / file)) for file in ASKED] == [JOBS, JOBS]


def test_rules_are_named_as_i_type_them(user):
    project = user(from_path(REPOSITORY), named=" as kfold_*")
    assert project.planned() == PREFIXED
    assert "kfold_train_fold0" not in project.planned("kfold_train_fold1")
    done = project.run("--dry-run", "kfold_train_fold7")
    assert "ERROR: kfold_train_fold7: there is no such rule: num_folds: 2 makes folds 0 to 1" in done.stdout
    assert "not present in the Snakefile" not in project.run("--dry-run").stdout  # Snakemake's warning about localrules


def test_check_names_the_rule_to_start(user):
    done = user(from_path(REPOSITORY), named=" as kfold_*").run("kfold_check")
    assert "To start: snakemake --cores 4 kfold_submission" in done.stdout, done.stdout


def test_my_recipe_comes_before_one_of_the_workflow(user):
    project = user(from_path(REPOSITORY))
    write_yaml(project.folder / "recipes/digits.yaml", TINY_RECIPE | {"epochs": "many"})
    done = project.run("--dry-run", "--config", "recipe=digits")
    assert "ERROR: recipes/digits.yaml has errors" in done.stdout


def test_an_unknown_recipe_is_refused_with_mine_and_the_workflows(user):
    done = user(from_path(REPOSITORY)).run("--dry-run", "--config", "recipe=unknown")
    assert f"there is no recipes/unknown.yaml and no {REPOSITORY}/recipes/unknown.yaml" in done.stdout
    known = re.search("Known recipes: (.*);", done.stdout)[1].split(", ")
    assert {"tiny", "kfold_mix"} <= set(known)


def test_recipes_of_an_ablation_are_found_beside_the_workflow(user, repository):
    project = user(from_git(repository), {**CONFIG, "recipe": "kfold_mix", "ablation": ["ablation/plain"]})
    assert "train_plain_fold1" in project.planned("ablation")


def test_a_blend_is_planned_under_my_names(user):
    project = user(from_path(REPOSITORY), CONFIG | {"blend": ["tiny", "digits"]}, named=" as kfold_*")
    assert project.planned() >= PREFIXED | {"kfold_blend", "kfold_train_digits_fold1"}
    done = project.run("--dry-run", "kfold_ensemble")
    assert "an ensemble file holds the models of one recipe, but blend: has several" in done.stdout
    done = project.run("--dry-run", "--config", "allow_partial=true")
    assert "(snakemake --cores 4 kfold_train_digits_fold0)" in done.stdout


def test_a_part_of_my_configuration_configures_the_module(user):
    project = user(from_path(REPOSITORY), {"other": 1, "kfold": CONFIG}, config='config["kfold"]')
    assert project.planned() == JOBS


def test_a_changed_script_reruns_nothing_unless_i_ask_for_it(user, repository, tmp_path):
    copy = Path(shutil.copytree(repository, tmp_path / "copy", ignore=shutil.ignore_patterns(".git")))
    project = user(from_path(copy))
    assert project.run("manifest").returncode == 0
    script = copy / "workflow/scripts/manifest.py"
    script.write_text(script.read_text() + "# why\n")
    assert project.planned("manifest") == set()
    assert project.planned("manifest", "--rerun-triggers", *RerunTrigger.choices()) == {"manifest"}


def test_conda_is_left_to_my_own_rules(user):
    assert user(from_path(REPOSITORY)).planned("--sdm", "conda") == JOBS


def test_a_prefix_of_paths_is_refused(user):
    done = user(from_path(REPOSITORY), options='    prefix: "kfold"').run("--dry-run")
    assert "ERROR: module: prefix and replace_prefix would move some results only." in done.stdout


def test_a_module_with_another_library_is_warned_of(user, repository, tmp_path):
    clone = Path(shutil.copytree(repository, tmp_path / "clone", ignore=shutil.ignore_patterns(".git")))
    (clone / "src/kfold_ens").mkdir(parents=True)
    (clone / "src/kfold_ens/__init__.py").touch()
    done = user(from_path(clone)).run("--dry-run")
    assert f"The workflow of {clone} runs with the library of another folder: " in done.stdout
    assert f"pip install -e {clone}" in done.stdout
    assert "another folder" not in user(from_path(REPOSITORY)).run("--dry-run").stdout


def test_a_wheels_workflow_with_another_library_is_warned_of(user, repository, tmp_path):
    package = tmp_path / "site-packages/kfold_ens"
    shutil.copytree(repository, package / "workflow_files", ignore=shutil.ignore_patterns(".git"))
    (package / "__init__.py").touch()
    done = user(from_path(package / "workflow_files")).run("--dry-run")
    assert f"Changes in {package} have no effect." in done.stdout
    assert "pip install -e" not in done.stdout


def test_a_module_from_git_with_another_version_is_warned_of(user, repository, tmp_path):
    clone = Path(shutil.copytree(repository, tmp_path / "clone"))
    project = clone / "pyproject.toml"
    project.write_text(re.sub(r'(?m)^version = ".*"', 'version = "99.0"', project.read_text()))
    commit(clone)
    done = user(from_git(clone)).run("--dry-run")
    assert "The workflow is version 99.0, the library " in done.stdout
    assert f"pip install git+file://{clone}@main" in done.stdout


@pytest.mark.slow
def test_a_module_from_git_runs_to_a_submission_and_a_report(user, repository):
    said = {"above": 'onstart:\n    print("mine starts")\n\n', "below": 'onsuccess:\n    print("mine succeeds")\n'}
    project = user(from_git(repository), named=" as kfold_*", **said)
    done = project.run()
    assert done.returncode == 0, done.stdout
    for line in ("mine starts", "mine succeeds", "all folds", "results/submission.csv is ready"):
        assert line in done.stdout

    report = project.run("kfold_report")
    assert report.returncode == 0, report.stdout
    page = (project.folder / "results/report.html").read_text()
    assert "Images split into 2 stratified" in page
    assert project.run("--report", "own.zip").returncode == 0

    path = repository / CHANGED_SCRIPT[0]
    path.write_text(path.read_text().replace(*CHANGED_SCRIPT[1:]))
    commit(repository)
    assert project.planned() == project.planned("kfold_folds") == set()
    assert project.planned("kfold_report") == {"kfold_provenance", "kfold_write_report", "kfold_report"}  # a new commit

    model = base64.urlsafe_b64encode(b"results/tiny/fold1/model.safetensors").decode()
    (project.folder / ".snakemake/incomplete" / model).touch()  # as a killed run leaves it
    assert "kfold_train_fold1" in project.planned()

    before = project.times("results/tiny/*/model.safetensors")
    forced = project.run("-R", "kfold_train_fold1", "--", "kfold_submission")
    assert forced.returncode == 0, forced.stdout
    after = project.times("results/tiny/*/model.safetensors")
    assert [Path(path).parent.name for path in after if after[path] != before[path]] == ["fold1"]


@pytest.mark.slow
def test_a_module_from_a_read_only_path_runs_with_a_part_of_my_configuration(user, repository, tmp_path):
    copy = Path(shutil.copytree(repository, tmp_path / "copy", ignore=shutil.ignore_patterns(".git")))
    for path in [copy, *copy.rglob("*")]:
        path.chmod(path.stat().st_mode & ~0o222)
    project = user(from_path(copy), {"other": 1, "kfold": CONFIG}, config='config["kfold"]')
    done = project.run("report", "submission", "--config", "kfold={ensemble: vote}")
    assert done.returncode == 0, done.stdout
    page = (project.folder / "results/report.html").read_text()
    assert "by the recipe" in page
    assert "<strong>vote</strong>" in page


def test_a_starter_configuration_lies_where_snakedeploy_copies_it_from():
    starter = REPOSITORY / "config/config.yaml"
    assert yaml.safe_load(starter.read_text()) == yaml.safe_load((REPOSITORY / "config.yaml").read_text())
    assert os.readlink(starter) == "../config.yaml"  # one file to maintain
    assert (REPOSITORY / "config/README.md").is_file()
