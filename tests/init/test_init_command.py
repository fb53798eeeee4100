"""What kfold-init does to a folder's files, and when it refuses."""

from __future__ import annotations

import os
import re

import pytest
import yaml
from conftest import REPOSITORY, log_restored, write_classes, write_image

from kfold_ens.config import load_config
from kfold_ens.errors import ConfigError
from kfold_ens.init.command import main
from kfold_ens.init.project import NOT_IN_GIT


@pytest.fixture
def project(in_folder):
    """The working folder, with class folders and a test image."""
    write_classes(in_folder / "train", {"cat": 2, "dog": 2})
    write_image(in_folder / "test/1.png")
    return in_folder


def exit_code(*arguments: str) -> int:
    with pytest.raises(SystemExit) as end, log_restored():
        main(arguments)
    return end.value.code


def test_the_snakefile_names_no_folder_of_this_machine(project):
    assert exit_code(".") == 0
    assert "/" not in (project / "Snakefile").read_text()
    assert str(REPOSITORY) not in (project / "config.yaml").read_text()


def test_the_profile_is_the_workflows_own(project):
    exit_code(".")
    own = REPOSITORY / "profiles/default/config.yaml"
    assert (project / "profiles/default/config.yaml").read_text() == own.read_text()


def test_every_document_that_the_files_mention_is_there(project):
    exit_code(".")
    text = "".join(
        (project / name).read_text() for name in ("Snakefile", "config.yaml", "profiles/default/config.yaml")
    )
    mentioned = set(re.findall(r"(?<![\w{}/])[\w./*{}-]+\.(?:md|ya?ml|toml|py)\b|(?:docs|ablations)/\S*", text))
    assert [name for name in mentioned if not list(project.glob(name))] == []
    assert "pip install -e" not in text


@pytest.mark.parametrize("name", ["Snakefile", "config.yaml"])
def test_nothing_that_exists_is_overwritten(project, capsys, name):
    (project / name).write_text("mine")
    assert exit_code(".") == 1
    assert (project / name).read_text() == "mine"
    assert f"{name} existed already and is unchanged" in capsys.readouterr().out
    assert (project / "Snakefile").is_file()
    assert (project / "config.yaml").is_file()


def test_a_gitignore_of_the_user_stays_and_is_no_failure(project):
    (project / ".gitignore").write_text("mine\n")
    assert exit_code(".") == 0
    assert (project / ".gitignore").read_text() == "mine\n"


def test_a_second_time_changes_nothing(project, capsys):
    exit_code(".")
    before = {path: path.read_bytes() for path in project.rglob("*") if path.is_file()}
    capsys.readouterr()
    assert exit_code(".") == 1
    assert {path: path.read_bytes() for path in project.rglob("*") if path.is_file()} == before
    assert "Wrote nothing." in capsys.readouterr().out


def test_a_link_that_leads_nowhere_is_not_replaced(project):
    os.symlink("elsewhere", project / "config.yaml")
    assert exit_code(".") == 1
    assert (project / "config.yaml").is_symlink()


def test_a_folder_that_is_missing_is_refused(in_folder, capsys):
    assert exit_code("nowhere") == 2
    assert "there is no folder nowhere. Create it" in capsys.readouterr().err


def test_a_file_is_no_folder(in_folder, capsys):
    (in_folder / "x").touch()
    assert exit_code("x") == 2
    assert "x is a file, not a folder" in capsys.readouterr().err


def test_an_empty_folder_gets_a_project_to_fill_in(in_folder, capsys):
    assert exit_code(".") == 0
    assert "data.source: not found; there are no images" in capsys.readouterr().out
    assert (in_folder / "Snakefile").is_file()


def test_an_undecided_configuration_is_refused_with_what_to_do(in_folder):
    exit_code(".")
    with pytest.raises(ConfigError, match="data: is empty; write its keys below it, or remove the #"):
        load_config(yaml.safe_load((in_folder / "config.yaml").read_text()))


def test_names_with_spaces_are_quoted_in_the_next_command(in_folder, capsys):
    (in_folder / "my cats").mkdir()
    exit_code("my cats")
    assert "Next: cd 'my cats' && snakemake check" in capsys.readouterr().out


def test_git_ignores_what_a_run_makes():
    assert set(NOT_IN_GIT) <= set((REPOSITORY / ".gitignore").read_text().splitlines())
