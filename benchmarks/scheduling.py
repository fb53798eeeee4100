"""Measure how long Snakemake plans a large run, and the overhead per job. Needs no GPU and trains nothing.

python benchmarks/scheduling.py
"""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import numpy as np
import yaml

from kfold_ens.logits import Logits, write_logits

REPOSITORY = Path(__file__).parents[1]
RECIPES, FOLDS = 10, 20
REPEATS = 3


def make_project(folder: Path, num_folds: int) -> None:
    """Write a configuration that compares ten recipes."""
    names = [f"recipe{number}" for number in range(RECIPES)]
    for name in names:
        shutil.copy(REPOSITORY / "recipes/digits.yaml", folder / f"{name}.yaml")
    files = [f"{name}.yaml" for name in names]
    config = {"data": {"source": "digits"}, "num_folds": num_folds, "recipe": files[0], "ablation": files}
    (folder / "config.yaml").write_text(yaml.safe_dump(config))


def snakemake(folder: Path, *arguments: str) -> tuple[float, str]:
    """Run Snakemake, and return its seconds and its output."""
    options = ["--snakefile", str(REPOSITORY / "Snakefile"), "--configfile", "config.yaml", "--cores", "1"]
    started = time.perf_counter()
    command = [sys.executable, "-m", "snakemake", *options, *arguments]
    done = subprocess.run(command, cwd=folder, text=True, stdout=subprocess.PIPE, stderr=subprocess.STDOUT)
    if done.returncode:
        sys.exit(done.stdout)
    return time.perf_counter() - started, done.stdout


def planning() -> tuple[list[float], int]:
    """Seconds of dry runs of everything, and the number of planned jobs."""
    with tempfile.TemporaryDirectory() as folder:
        make_project(Path(folder), FOLDS)
        runs = [
            snakemake(Path(folder), "ablation", "submission", "--dry-run", "--quiet", "rules") for _ in range(REPEATS)
        ]
    return [seconds for seconds, _ in runs], int(re.search(r"^total +(\d+)", runs[0][1], re.MULTILINE)[1])


def around_a_job() -> tuple[list[float], int]:
    """Seconds per job of runs whose jobs have almost nothing to do, without planning; and the number of jobs."""
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        make_project(folder, 2)
        logits = Logits(np.array(["a", "b"]), np.eye(2, dtype=np.float32), ("x", "y"))
        for recipe in range(RECIPES):
            for fold in range(2):
                path = folder / f"results/recipe{recipe}/fold{fold}/test_logits.npz"
                path.parent.mkdir(parents=True)
                write_logits(path, logits)
        methods = ("average", "softmax", "vote")
        targets = [
            f"results/recipe{recipe}/{method}/test_logits.npz" for recipe in range(RECIPES) for method in methods
        ]
        only = [*targets, "--allowed-rules", "combine", "--forcerun", "combine"]
        seconds = []
        for _ in range(REPEATS):
            planned, _ = snakemake(folder, "--dry-run", *only, "--quiet", "rules")
            seconds.append((snakemake(folder, *only)[0] - planned) / len(targets))
    return seconds, len(targets)


def line(what: str, seconds: list[float]) -> str:
    return f"{what}: {np.median(seconds):.2f} s ({min(seconds):.2f} to {max(seconds):.2f}, {len(seconds)} runs)"


if __name__ == "__main__":
    seconds, jobs = planning()
    print(line(f"planning {RECIPES} recipes x {FOLDS} folds x 3 ensembling methods, {jobs} jobs", seconds))
    seconds, jobs = around_a_job()
    print(line(f"overhead of one job that has nothing to do, of {jobs}", seconds))
    print(f"{os.cpu_count()} cores, Python {sys.version.split()[0]}")
