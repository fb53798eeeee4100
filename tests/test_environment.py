"""environment.yml asks for the same packages as pyproject.toml, under conda's names."""

from __future__ import annotations

import tomllib

import yaml
from conftest import REPOSITORY
from packaging.requirements import Requirement

CONDA_NAMES = {"matplotlib": "matplotlib-base", "snakemake": "snakemake-minimal", "torch": "pytorch"}


def test_conda_and_pip_agree():
    project = tomllib.loads((REPOSITORY / "pyproject.toml").read_text())["project"]
    wanted = {"python": project["requires-python"], "pip": ""}
    for requirement in map(Requirement, project["dependencies"]):
        wanted[CONDA_NAMES.get(requirement.name, requirement.name)] = str(requirement.specifier)
    conda = yaml.safe_load((REPOSITORY / "environment.yml").read_text())["dependencies"]
    given = {requirement.name: str(requirement.specifier) for requirement in map(Requirement, conda)}
    assert given == wanted
