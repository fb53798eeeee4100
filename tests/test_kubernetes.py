"""The profile for Kubernetes: what is asked of a cluster, and that what is asked for makes a submission.

No cluster is at hand here: see cluster.py for what plays it.
"""

from __future__ import annotations

import json
import subprocess
import time
from collections.abc import Callable
from contextlib import ExitStack
from pathlib import Path

import pytest
import yaml
from cluster import Cluster, container_of, kubernetes_api, rule_of, s3_server
from conftest import REPOSITORY
from projects import RECIPE, Project, new_project

PROFILE = yaml.safe_load((REPOSITORY / "profiles/kubernetes/config.yaml").read_text())
DIGITS = {"source": "digits", "limit_per_class": 6}


@pytest.fixture
def cluster_at(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    """A cluster and a storage, which Snakemake finds in its environment."""
    with ExitStack() as stack:

        def start(played: bool) -> Cluster:
            (tmp_path / "cluster").mkdir()
            monkeypatch.setenv("KUBECONFIG", str(tmp_path / "cluster/kubeconfig"))
            monkeypatch.setenv("SNAKEMAKE_STORAGE_S3_ENDPOINT_URL", stack.enter_context(s3_server()))
            monkeypatch.setenv("SNAKEMAKE_STORAGE_S3_ACCESS_KEY", "key")
            monkeypatch.setenv("SNAKEMAKE_STORAGE_S3_SECRET_KEY", "not to be seen")
            return stack.enter_context(kubernetes_api(tmp_path / "cluster", played))

        yield start


def committed_project(folder: Path, **config: object) -> Project:
    """A project under git, which says what pods are sent; its recipe would else be missing."""
    folder.mkdir()
    project = new_project(folder, RECIPE, data=DIGITS, **config)
    subprocess.run(["git", "init", "-q"], cwd=folder, check=True)
    subprocess.run(["git", "add", "."], cwd=folder, check=True)
    return project


def start(project: Project, *arguments: str) -> subprocess.Popen[str]:
    options = ["--workflow-profile", "profiles/kubernetes", "--seconds-between-status-checks", "1"]
    return project.start(*options, "write_submission", *arguments)


def wait_for(something: Callable[[], object], run: subprocess.Popen[str]) -> None:
    while not something():
        assert run.poll() is None, run.stdout.read()
        time.sleep(0.02)


def test_a_fold_asks_for_a_gpu_and_what_its_rule_says(tmp_path, cluster_at):
    cluster = cluster_at(played=False)
    output, _ = start(committed_project(tmp_path / "project"), "--retries", "0").communicate()
    assert {rule_of(job) for job in cluster.jobs} == {"train_fold0", "train_fold1"}, output  # the rest ran here
    for job in cluster.jobs:
        pod, container = job["spec"]["template"]["spec"], container_of(job)
        asked = {"memory": "16000M", "ephemeral-storage": "50000M", "nvidia.com/gpu": "1"}
        assert container["resources"] == {"requests": asked | {"cpu": "3800m"}, "limits": asked | {"cpu": "4000m"}}
        assert container["image"] == PROFILE["container-image"]
        assert {"name": "kfold-state", "mountPath": "/workdir/state"} in container["volumeMounts"]
        assert {"name": "kfold-state", "persistentVolumeClaim": {"claimName": "kfold-state"}} in pod["volumes"]
        assert [each["key"] for each in pod["tolerations"]] == ["nvidia.com/gpu"]
        assert (pod["restartPolicy"], job["spec"]["backoffLimit"]) == ("Never", 0)  # Snakemake tries again, and counts
    assert "not to be seen" not in json.dumps(cluster.jobs) + output


@pytest.mark.cluster
def test_pods_make_the_same_submission_and_a_fold_outlives_its_pod(tmp_path, cluster_at):
    plain, project = (committed_project(tmp_path / name, checkpoint_minutes=0) for name in ("plain", "project"))
    done = plain.run("write_submission", "--cores", "4", "--resources", "gpu=1")  # as many threads as a pod takes
    assert done.returncode == 0, done.stdout
    cluster = cluster_at(played=True)
    run = start(project)
    wait_for(lambda: (cluster.folder / "volumes/kfold-state/tiny/fold0/state.pt").is_file(), run)
    cluster.kill(cluster.of_rule("train_fold0")[0])
    output, _ = run.communicate()
    assert run.returncode == 0, output
    first, second = map(cluster.log_of, cluster.of_rule("train_fold0"))
    assert ("resumes at epoch" in first, "resumes at epoch" in second) == (False, True)
    assert len(cluster.jobs) == 5  # two folds, each trained and asked, and one begun twice
    submissions = [(each.folder / "results/submission.csv").read_bytes() for each in (plain, project)]
    assert submissions[0] == submissions[1]
    assert not list((cluster.folder / "volumes/kfold-state").rglob("*.pt"))
