"""Projects as their users have them: a folder with the workflow, a configuration and images, to run Snakemake in."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import yaml
from conftest import REPOSITORY, TINY_RECIPE, write_yaml
from PIL import Image
from safetensors.numpy import load_file
from snakemakes import run_snakemake

from kfold_ens.history import TIMINGS

WORKFLOW = ("Snakefile", "workflow", "profiles", "recipes", "environment.yml")
RECIPE = TINY_RECIPE | {
    "augmentation": [{"kind": "resize"}],
    "optimizer": {"kind": "adamw", "lr": 3e-3, "weight_decay": 0.01},
    "epochs": 8,
    "batch_size": 32,
}


@dataclass(frozen=True)
class Project:
    """A folder that a user runs snakemake in."""

    folder: Path

    def start(self, *arguments: str, **options: Any) -> subprocess.Popen[str]:
        """Snakemake in this folder, by these options of Popen; what it prints can be read from it."""
        command = [sys.executable, "-m", "snakemake", *arguments]
        printed = {"stdout": subprocess.PIPE, "stderr": subprocess.STDOUT, "text": True}
        return subprocess.Popen(command, **{"cwd": self.folder} | printed | options)

    @contextmanager
    def started(self, *arguments: str, **options: Any) -> Iterator[subprocess.Popen[str]]:
        """The same, waited for at the end; where the block fails it is killed first."""
        with self.start(*arguments, **options) as process:
            try:
                yield process
            except BaseException:
                process.kill()
                raise

    def run(self, *arguments: str) -> subprocess.CompletedProcess[str]:
        return run_snakemake(self.folder, ["--cores", "1", *arguments])  # a thread a training

    def planned(self, *arguments: str) -> set[str]:
        """The rules that a dry run would run."""
        done = self.run("--dry-run", *arguments)
        assert done.returncode == 0, done.stdout
        return set(re.findall(r"^(\w+) +\d+$", done.stdout, re.MULTILINE)) - {"total"}

    def edit(self, file: str, old: str, new: str) -> None:
        path = self.folder / file
        assert old in path.read_text()
        path.write_text(path.read_text().replace(old, new))

    def configure(self, **values: object) -> None:
        path = self.folder / "config.yaml"
        write_yaml(path, yaml.safe_load(path.read_text()) | values)

    def processes(self, word: str) -> list[int]:
        """Those with a word in their command that work in this folder."""
        found = []
        for process in Path("/proc").glob("[0-9]*"):
            with suppress(OSError):  # it is gone
                command, folder = (process / "cmdline").read_bytes().decode(), os.readlink(process / "cwd")
                if word in command and folder == str(self.folder):
                    found.append(int(process.name))
        return found

    def times(self, pattern: str) -> dict[str, int]:
        return {str(path): path.stat().st_mtime_ns for path in sorted(self.folder.glob(pattern))}


def new_project(folder: Path, recipe: dict, **config: object) -> Project:
    for name in WORKFLOW:
        copy = shutil.copytree if (REPOSITORY / name).is_dir() else shutil.copy
        copy(REPOSITORY / name, folder / name)
    write_yaml(folder / "tiny.yaml", recipe)
    write_yaml(folder / "config.yaml", {"recipe": "tiny.yaml", "num_folds": 2, "device": "cpu"} | config)
    return Project(folder)


def without_folds(project: Project, folder: Path) -> Project:
    """A copy with its folds to be trained, and all that follows."""
    shutil.copytree(project.folder, folder, ignore=shutil.ignore_patterns("tiny", "submission.csv", "trained"))
    return Project(folder)


def colour(label: str) -> np.ndarray:
    """A colour of its own for each of 125 labels."""
    number = int(label)
    return np.array([number % 5, number // 5 % 5, number // 25]) * 60


def write_colour(path: Path, label: str, random: np.random.Generator) -> None:
    pixels = colour(label) + random.integers(0, 12, (16, 16, 3))
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(pixels.astype(np.uint8)).save(path)


def assert_same_results(one: Project, other: Project) -> None:
    """Weights, histories, logits and submission of two folds, bit for bit."""
    for fold in range(2):
        folders = [project.folder / f"results/tiny/fold{fold}" for project in (one, other)]
        weights = [load_file(folder / "model.safetensors") for folder in folders]
        assert weights[0].keys() == weights[1].keys()
        assert all(np.array_equal(tensor, weights[1][name]) for name, tensor in weights[0].items())
        histories = [pd.read_csv(folder / "history.csv").drop(columns=TIMINGS) for folder in folders]
        assert histories[0].equals(histories[1])
        made = [{path.name for path in folder.glob("*_logits.npz")} for folder in folders]
        assert "test_logits.npz" in made[0] & made[1]  # out of fold too, unless only the submission was asked for
        for name in made[0] & made[1]:
            logits = [np.load(folder / name) for folder in folders]
            assert all(np.array_equal(logits[0][key], logits[1][key]) for key in logits[0].files)
    submissions = [(project.folder / "results/submission.csv").read_bytes() for project in (one, other)]
    assert submissions[0] == submissions[1]
