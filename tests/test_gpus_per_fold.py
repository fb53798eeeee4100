"""Train folds on several devices through Snakemake, also when one of the processes dies."""

from __future__ import annotations

import os
import signal
import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import pytest
from projects import RECIPE, Project, new_project, without_folds, write_colour

pytestmark = pytest.mark.slow

MAIN, FOLLOWER = "train.py", "spawn_main"  # words in the commands of rank 0 and of other ranks
LABELS = ["0", "31", "62", "93", "124"]  # from black to white


def make_project(folder: Path) -> Project:
    random = np.random.default_rng(0)
    for label in LABELS:
        for index in range(16):
            write_colour(folder / "data/train" / label / f"{index}.png", label, random)
    for index in range(20):
        write_colour(folder / f"data/test/{index}.png", LABELS[index % 5], random)
    data = {"source": "imagefolder", "train": "data/train", "test": "data/test"}
    return new_project(folder, RECIPE | {"batch_size": 8, "epochs": 12}, data=data, checkpoint_minutes=0.001)


@pytest.fixture
def alone(tmp_path: Path) -> Project:
    project = make_project(tmp_path / "alone")
    done = project.run("write_submission")
    assert done.returncode == 0, done.stdout
    return project


def submission(project: Project) -> bytes:
    return (project.folder / "results/submission.csv").read_bytes()


@contextmanager
def in_training(project: Project) -> Iterator[subprocess.Popen[str]]:
    """Start a run and wait until its first fold has saved its state."""
    with project.started("--cores", "2", "--rerun-incomplete", "train_fold0") as process:
        started, state = time.time(), project.folder / "state/tiny/fold0/previous.pt"
        while not (state.is_file() and state.stat().st_mtime > started) and time.time() < started + 120:
            time.sleep(0.02)
        yield process


def output_after(number: signal.Signals, word: str, project: Project) -> str:
    """Output of a run that fails when the process with ``word`` in its command gets a signal; no process is left."""
    with in_training(project) as run:
        (process,) = project.processes(word)
        os.kill(process, number)
        output = run.communicate()[0]
    assert run.returncode == 1
    assert not project.processes(FOLLOWER)
    return output


def test_two_processes_make_the_submission_of_one_whichever_dies(alone, tmp_path):
    project = without_folds(alone, tmp_path / "together")
    project.configure(gpus_per_fold=2)

    output = output_after(signal.SIGKILL, FOLLOWER, project)
    assert "another process that trains this fold died" in output
    output = output_after(signal.SIGKILL, MAIN, project)
    assert "resumes at epoch" in output
    output = output_after(signal.SIGTERM, MAIN, project)
    assert "the state is saved" in output

    project.configure(gpus_per_fold=1)
    done = project.run("train_fold0")
    assert done.returncode == 0, done.stdout
    assert "resumes at epoch" in done.stdout

    project.configure(gpus_per_fold=2)
    done = project.run("write_submission", "--cores", "2")
    assert done.returncode == 0, done.stdout
    assert submission(project) == submission(alone)
