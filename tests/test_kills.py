"""A run that is killed repeatedly at random moments gives the same results as an undisturbed one.

Twenty kills in CI: every fourth kills the whole run, the others kill a job, which Snakemake retries.
For more kills: KFOLD_KILLS=100 python -m pytest -n 0 -m slow tests/test_kills.py
"""

from __future__ import annotations

import os
import random
import shutil
import signal
import subprocess
import time
from contextlib import suppress
from pathlib import Path

import pytest
from conftest import TINY_RECIPE
from projects import Project, assert_same_results, new_project

pytestmark = pytest.mark.slow

KILLS = int(os.environ.get("KFOLD_KILLS", "20"))
RECIPE = TINY_RECIPE | {
    "augmentation": [{"kind": "random_resized_crop"}, {"kind": "horizontal_flip"}],
    "mixing": {"kind": "mixup_or_cutmix", "alpha": 1.0, "probability": 0.5},
    "ema": {"kind": "ema", "decay": 0.9, "start_epoch": 2},
    "sampler": {"kind": "balanced"},
    "epochs": 40,
}


def make_project(folder: Path) -> Project:
    folder.mkdir()
    data = {"source": "digits", "limit_per_class": 6}
    return new_project(folder, RECIPE, data=data, checkpoint_minutes=0.01)


def run_and_kill(project: Project, moment: random.Random, kills: int) -> int:
    """Start a run, kill its jobs, and at the last kill the whole run. Returns the number of kills."""
    output = open(project.folder / "output.txt", "a")  # noqa: SIM115 (the run writes to it)
    options = {"stdout": output, "start_new_session": True}
    arguments = ["--cores", "1", "--rerun-incomplete", "--retries", str(kills), "write_submission"]
    started, done, since = project.start(*arguments, **options), 0, time.time()
    while done < kills and started.poll() is None:
        in_training = moment.random() < 0.8
        while in_training and started.poll() is None and not changed(project, since):
            time.sleep(0.05)
        with suppress(subprocess.TimeoutExpired):
            started.wait(moment.uniform(0, 3))
        since = time.time()
        if started.poll() is None:
            done += kill_job(project) if done < kills - 1 else kill_all(started)
    started.wait()
    output.close()
    return done


def changed(project: Project, since: float) -> bool:
    """Whether a training job has written progress since then."""
    files = project.folder.glob("state/tiny/fold*/progress.json")
    return any(file.stat().st_mtime > since for file in files if file.exists())


def kill_job(project: Project) -> bool:
    """Kill a training or prediction with its loader workers; False if there is none."""
    processes = project.processes("train.py") + project.processes("predict.py")
    for process in sorted(processes):  # the job before its workers
        with suppress(ProcessLookupError):  # it has ended meanwhile
            os.kill(process, signal.SIGKILL)
    return bool(processes)


def kill_all(started: subprocess.Popen) -> bool:
    os.killpg(started.pid, signal.SIGKILL)  # the group includes jobs and loader workers
    return True


def test_a_run_killed_at_any_moment_resumes_exactly(tmp_path):
    undisturbed, killed = (make_project(tmp_path / name) for name in ("undisturbed", "killed"))
    done = undisturbed.run("write_submission")
    assert done.returncode == 0, done.stdout
    moment, kills = random.Random(time.time_ns()), 0
    while kills < KILLS:
        planned = min(4, KILLS - kills)
        made = run_and_kill(killed, moment, planned)
        kills += made
        if made == planned:
            done = killed.run("--unlock")
            assert done.returncode == 0, done.stdout
        else:
            assert "Traceback" not in (killed.folder / "output.txt").read_text()
            shutil.rmtree(
                killed.folder / f"results/tiny/fold{moment.randrange(2)}"
            )  # run again for the remaining kills
            shutil.rmtree(killed.folder / "trained")
    done = killed.run("--rerun-incomplete", "write_submission")
    assert done.returncode == 0, done.stdout
    assert "resumes at epoch" in (killed.folder / "output.txt").read_text() + done.stdout
    assert_same_results(undisturbed, killed)
    assert not list(killed.folder.glob("state/*/*/*"))
    assert not list((killed.folder / "results").rglob("*.tmp"))
