"""The workflow on a real Slurm: the same submission, two folds at once, and what happens to jobs there."""

from __future__ import annotations

import os
import re
import shutil
import signal
import subprocess
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager

import pytest
from projects import RECIPE, Project, assert_same_results, new_project, without_folds
from slurm import Slurm, start_slurm, until

pytestmark = pytest.mark.cluster

PROFILE = ["--workflow-profile", "profiles/slurm", "--slurm-init-seconds-before-status-checks", "2"]
PROFILE += ["--max-threads", "1"]  # as on one machine; two jobs at once have two cores here
MINUTES = 12  # after which a run is given up
# After each look at its jobs that finds none at an end, the plugin waits ten seconds longer, and no option limits that.
LOOK_OFTEN = """
from snakemake_executor_plugin_slurm import Executor

Executor.next_seconds_between_status_checks = property(lambda self: 2, lambda self, seconds: None)
"""


@pytest.fixture(scope="module")
def slurm(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Slurm]:
    require("munged", "slurmctld", "slurmd")
    with ExitStack() as cleanup:
        yield start_slurm(tmp_path_factory.mktemp("slurm"), cleanup)


def require(*daemons: str) -> None:
    if not all(map(shutil.which, daemons)) or os.geteuid() != 0:
        message = "as root: apt-get install slurm-wlm slurmdbd munge mariadb-server"
        pytest.fail(message) if os.environ.get("CI") else pytest.skip(message)


@contextmanager
def started(project: Project, slurm: Slurm, *arguments: str) -> Iterator[subprocess.Popen[str]]:
    """Snakemake on this Slurm; at the end neither it nor a job of it is left."""

    def nothing_left() -> bool:
        slurm.command("scancel", "--me")
        return not slurm.command("squeue", "--noheader")

    with project.start(*PROFILE, *arguments, env=slurm.environment) as process:
        try:
            yield process
        finally:
            process.kill()  # it would submit them again
            until(nothing_left, slurm)


def run(project: Project, slurm: Slurm, *arguments: str) -> None:
    with started(project, slurm, *arguments) as process:
        output = process.communicate(timeout=MINUTES * 60)[0]
    assert process.returncode == 0, output + slurm.logs()


@pytest.fixture(scope="module")
def finished(slurm: Slurm, tmp_path_factory: pytest.TempPathFactory) -> Project:
    """The digits through Slurm, from their export to the submission."""
    folder = tmp_path_factory.mktemp("cluster") / "project"
    folder.mkdir()
    project = new_project(folder, RECIPE, data={"source": "digits", "limit_per_class": 20}, checkpoint_minutes=0.001)
    with open(folder / "Snakefile", "a") as file:
        file.write(LOOK_OFTEN)
    run(project, slurm, "submission")
    return project


def train_log(project: Project) -> str:
    log = project.folder / "logs/tiny/fold0/train.log"
    return log.read_text() if log.is_file() else ""


def in_training(project: Project, fold: int) -> Callable[[], bool]:
    return (project.folder / f"state/tiny/fold{fold}/state.pt").is_file


def test_a_cluster_gives_the_submission_of_one_machine(finished, tmp_path):
    alone = without_folds(finished, tmp_path / "alone")
    shutil.rmtree(alone.folder / "results")
    done = alone.run("write_submission")
    assert done.returncode == 0, done.stdout
    assert_same_results(finished, alone)


def test_two_folds_are_trained_at_once_each_on_its_own_gpu(finished, slurm):
    jobs = [slurm.jobs_of(f"train_fold{fold}")[0] for fold in range(2)]
    assert max(job["start"] for job in jobs) < min(job["end"] for job in jobs)
    logs = [(finished.folder / f"logs/tiny/fold{fold}/train.log").read_text() for fold in range(2)]
    assert {re.search(r"CUDA_VISIBLE_DEVICES=(\S+)", log)[1] for log in logs} == {"0", "1"}


def test_small_rules_are_no_jobs_of_the_cluster(finished, slurm):
    stages = {job["rule"].split("_")[1] for job in slurm.jobs() if job["rule"].startswith("rule_")}
    assert stages == {"manifest", "test", "pixels", "train", "predict"}


def test_a_fold_on_a_node_that_goes_down_resumes_on_another(finished, slurm, tmp_path):
    project = without_folds(finished, tmp_path / "project")
    with started(project, slurm, "write_submission") as process, ExitStack() as nodes:
        until(in_training(project, 0), slurm)
        assert slurm.jobs_of("train_fold0")[-1]["node"] == "first"
        nodes.callback(slurm.set_node, "second", "drain")
        nodes.callback(slurm.set_node, "first", "resume")
        slurm.set_node("first", "down")
        slurm.set_node("second", "resume")
        output = process.communicate(timeout=MINUTES * 60)[0]
        for left in project.processes("snakemake"):  # a real cluster's nodes are rid of them by cgroups
            os.kill(left, signal.SIGKILL)
    assert process.returncode == 0, output + slurm.logs()
    assert slurm.jobs_of("train_fold0")[-1]["node"] == "second"
    assert "resumes at epoch" in train_log(project)
    assert_same_results(finished, project)


def test_a_preempted_fold_resumes(finished, slurm, tmp_path):
    project = without_folds(finished, tmp_path / "project")
    with started(project, slurm, "write_submission") as process:
        until(in_training(project, 0), slurm)
        urgent = ["--partition=urgent", "--gres=gpu:2", "--output=/dev/null", "--wait", "--wrap=sleep 1"]
        slurm.command("sbatch", *urgent)
        output = process.communicate(timeout=MINUTES * 60)[0]
    assert process.returncode == 0, output + slurm.logs()
    assert "Restarts=1" in slurm.command("scontrol", "show", "job", slurm.jobs_of("train_fold0")[-1]["id"])
    assert "resumes at epoch" in train_log(project)
    assert_same_results(finished, project)


def test_a_fold_over_its_time_limit_resumes_with_more_time(finished, slurm, tmp_path):
    project = without_folds(finished, tmp_path / "project")
    project.edit("workflow/rules/training.smk", "more_each_attempt(1440)", "more_each_attempt(1)")
    project.edit("tiny.yaml", "epochs: 8", "epochs: 100000")
    project.configure(checkpoint_minutes=60)  # so what is saved was saved because of the signal
    with started(project, slurm, "train_fold0"):
        until(lambda: "resumes at epoch" in train_log(project), slurm, 300)
        first, second = slurm.jobs_of("train_fold0")[-2:]
    assert first["state"] == "TIMEOUT"
    assert (first["minutes"], second["minutes"]) == ("1:00", "2:00")


def test_a_cancelled_fold_resumes_in_the_next_run_and_in_the_same(finished, slurm, tmp_path):
    project = without_folds(finished, tmp_path / "project")
    project.configure(checkpoint_minutes=60)  # so what is saved was saved because of the signal
    with started(project, slurm, "--retries", "0", "write_submission") as process:
        until(lambda: "epoch 1/" in train_log(project), slurm)
        slurm.command("scancel", slurm.jobs_of("train_fold0")[-1]["id"])
        output = process.communicate(timeout=MINUTES * 60)[0]
    assert process.returncode == 1, output
    assert "the state is saved" in train_log(project)
    with started(project, slurm, "write_submission") as process:
        until(lambda: slurm.jobs_of("train_fold0")[-1]["state"] == "RUNNING", slurm)
        slurm.command("scancel", slurm.jobs_of("train_fold0")[-1]["id"])
        output = process.communicate(timeout=MINUTES * 60)[0]
    assert process.returncode == 0, output + slurm.logs()
    states = [job["state"] for job in slurm.jobs_of("train_fold0")]
    assert states[-3:] == ["CANCELLED", "CANCELLED", "COMPLETED"]
    assert "resumes at epoch" in train_log(project)
    assert_same_results(finished, project)


def test_with_accounting_jobs_are_charged_to_the_default_account_or_that_of_the_profile(
    finished, tmp_path, tmp_path_factory
):
    require("slurmdbd", "mariadbd")
    project = without_folds(finished, tmp_path / "project")
    with ExitStack() as cleanup:
        slurm = start_slurm(tmp_path_factory.mktemp("slurm"), cleanup, accounting=True)
        for account in ("usual", "lab"):
            slurm.command("sacctmgr", "--immediate", "add", "account", account)
            slurm.command("sacctmgr", "--immediate", "add", "user", "root", f"account={account}")
        slurm.command("sacctmgr", "--immediate", "modify", "user", "root", "set", "defaultaccount=usual")
        run(project, slurm, "train_fold0")
        project.edit("profiles/slurm/config.yaml", "# slurm_account: my_account", "slurm_account: lab")
        run(project, slurm, "--slurm-status-command", "sacct", "write_submission")
        columns = "--format=comment,account,state,alloctres"
        jobs = slurm.command(
            "sacct", "--allocations", "--noheader", "--parsable2", "--starttime=now-1day", columns
        ).split()
    assert_same_results(finished, project)
    accounts = dict.fromkeys(["predict_test_fold0", "predict_test_fold1", "train_fold1"], "lab") | {
        "train_fold0": "usual"
    }
    charged = [f"rule_{rule}|{account}|COMPLETED" for rule, account in sorted(accounts.items())]
    assert sorted(job.rpartition("|")[0] for job in jobs) == charged
    assert all("gres/gpu=1," in job for job in jobs)


def test_a_job_on_two_gpus_over_its_memory_is_retried_with_more(finished, slurm, tmp_path):
    project = without_folds(finished, tmp_path / "project")
    project.edit("workflow/rules/training.smk", "16000 * RUN", "500 * RUN")
    project.configure(gpus_per_fold=2)
    run(project, slurm, "train_fold0")
    jobs = slurm.jobs_of("train_fold0")
    first = next(index for index, job in enumerate(jobs) if job["memory"] == "1000M")
    assert jobs[first]["state"] == "FAILED"
    assert [job["memory"] for job in jobs[first + 1 :]] in (["2000M"], ["2000M", "3000M"])
    assert jobs[-1]["state"] == "COMPLETED"
    assert train_log(project).count("CUDA_VISIBLE_DEVICES=0,1") == 1
