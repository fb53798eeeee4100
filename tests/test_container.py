"""The Dockerfile, as far as it can be tried without an engine to build it."""

from __future__ import annotations

import re
import shlex
import shutil
import subprocess
import sys
import tomllib

import pytest
from conftest import REPOSITORY
from packaging.specifiers import SpecifierSet

PROJECT = tomllib.loads((REPOSITORY / "pyproject.toml").read_text())["project"]


def instructions(name: str) -> list[str]:
    """What follows a word of the Dockerfile, each time."""
    return re.findall(rf"^{name} (.*)", (REPOSITORY / "Dockerfile").read_text(), re.MULTILINE)


def copied() -> list[str]:
    return [source for line in instructions("COPY") for source in shlex.split(line)[:-1]]


def pip(command: str) -> list[str]:
    """The arguments of the one RUN that calls a command of pip."""
    (line,) = [line for line in instructions("RUN") if line.startswith(f"pip {command} ")]
    return shlex.split(line)[1:]


def test_the_images_python_is_supported_by_the_project():
    (image,) = instructions("FROM")
    version = re.fullmatch(r"python:([\d.]+)-slim", image)[1]
    assert version in SpecifierSet(PROJECT["requires-python"])


def test_all_copied_files_exist_and_no_others_are_sent_to_the_engine():
    assert all((REPOSITORY / source).exists() for source in copied())
    ignored, *kept = (REPOSITORY / ".dockerignore").read_text().split()
    assert ignored == "*"
    assert [line.removeprefix("!") for line in kept] == copied()


def test_the_extras_it_installs_exist():
    extras = re.fullmatch(r"\.\[(.*)\]", pip("install")[-1])[1].split(",")
    assert set(extras) <= PROJECT["optional-dependencies"].keys()
    assert "kubernetes" in extras


@pytest.mark.slow
def test_its_install_resolves_from_what_it_copies_and_its_wheels_need_no_network(tmp_path):
    for source in copied():
        copy = shutil.copytree if (REPOSITORY / source).is_dir() else shutil.copy
        copy(REPOSITORY / source, tmp_path / source)
    run = {"cwd": tmp_path, "check": True}
    subprocess.run([sys.executable, "-m", "pip", *pip("install"), "--dry-run"], **run)
    download = [argument.replace("/opt/wheels", "wheels") for argument in pip("download")]
    subprocess.run([sys.executable, "-m", "pip", *download], **run)
    in_pod = ["--isolated", "install", "--no-index", "--find-links", "wheels", "--target", "pod"]
    subprocess.run([sys.executable, "-m", "pip", *in_pod, "snakemake-storage-plugin-s3"], **run)
    assert (tmp_path / "pod/snakemake_storage_plugin_s3").is_dir()
