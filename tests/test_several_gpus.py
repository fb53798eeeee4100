"""Two runs on one machine share four (faked) GPUs while their jobs are killed repeatedly."""

from __future__ import annotations

import os
import random
import signal
import subprocess
import time
from contextlib import suppress
from pathlib import Path

import pytest
from conftest import REPOSITORY
from leases import assert_never_shared_never_idle, read_log
from projects import RECIPE, Project, new_project

pytestmark = pytest.mark.slow

KILLS = 15  # test_devices.py has more kills, of smaller jobs
MINUTES = 15  # timeout of the runs
IDLE = 1.0  # seconds that a device may be free while a job waits: twenty polls, with more jobs than cores


def make_project(folder: Path) -> Project:
    folder.mkdir()
    project = new_project(folder, RECIPE, data={"source": "digits", "limit_per_class": 12}, num_folds=4)
    for script in ("train", "predict"):
        project.edit(f"workflow/scripts/{script}.py", FIRST, f"import leases; {FIRST}")  # faked GPUs
    return project


FIRST = "from kfold_ens.compute.compute"


def start(project: Project, leases: Path) -> subprocess.Popen[str]:
    options = ["--cores", "4", "--max-threads", "1", "--resources", "gpu=4", "--retries", str(KILLS)]
    paths = os.pathsep.join([str(REPOSITORY / "tests"), *filter(None, [os.environ.get("PYTHONPATH")])])
    environment = os.environ | {"PYTHONPATH": paths, "KFOLD_FAKED_GPUS": str(leases)}
    output = open(project.folder / "output.txt", "w")  # noqa: SIM115 (the run writes to it)
    return project.start(*options, "write_submission", env=environment, stdout=output)


def kill_one(leases: Path, killed: dict[str, float], chance: random.Random) -> None:
    """Kill a job that has a device or waits for one."""
    log = read_log(leases)
    ended = {line[0] for line in log if line[1] == "gives"} | set(killed)
    alive = sorted({line[0] for line in log} - ended)
    if alive:
        job = chance.choice(alive)
        now = time.monotonic()
        with suppress(ProcessLookupError):  # it has ended meanwhile
            os.kill(int(job), signal.SIGKILL)
            killed[job] = now


def test_four_gpus_are_never_shared_and_never_idle_while_a_fold_waits(tmp_path):
    projects = [make_project(tmp_path / name) for name in ("one", "other")]
    leases, chance, killed = tmp_path / "leases", random.Random(0), {}
    runs = [start(project, leases) for project in projects]
    try:
        until = time.monotonic() + MINUTES * 60
        while any(run.poll() is None for run in runs) and time.monotonic() < until:
            time.sleep(chance.uniform(0.5, 3))
            if len(killed) < KILLS:
                kill_one(leases, killed, chance)
    finally:
        for run in runs:
            run.kill()
            run.wait()
    outputs = [(project.folder / "output.txt").read_text() for project in projects]
    assert [run.returncode for run in runs] == [0, 0], outputs
    log = read_log(leases)
    assert len(killed) == KILLS
    assert len({line[0] for line in log if line[1] == "has"} & set(killed)) >= 5
    assert_never_shared_never_idle(log, killed, IDLE)
