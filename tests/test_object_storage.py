"""Results in an S3 storage: Snakemake's storage plugin against moto's server on loopback."""

from __future__ import annotations

import json
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import boto3
import numpy as np
import pytest
from cluster import s3_server
from projects import RECIPE, Project, new_project, write_colour

METRICS = "results/tiny/metrics.json"
DIGITS = {"source": "digits", "limit_per_class": 6}
SHORT = RECIPE | {"epochs": 1}


@pytest.fixture
def storage(monkeypatch: pytest.MonkeyPatch) -> Iterator[list[str]]:
    """Snakemake's options for an empty storage."""
    monkeypatch.setenv("SNAKEMAKE_STORAGE_S3_ACCESS_KEY", "key")
    monkeypatch.setenv("SNAKEMAKE_STORAGE_S3_SECRET_KEY", "secret")
    with s3_server() as address:
        prefix = ["--default-storage-provider", "s3", "--default-storage-prefix", "s3://bucket/project"]
        yield [*prefix, "--storage-s3-endpoint-url", address]


def bucket(storage: list[str]) -> Any:
    keys = {"aws_access_key_id": "key", "aws_secret_access_key": "secret", "region_name": "us-east-1"}
    return boto3.resource("s3", endpoint_url=storage[-1], **keys).Bucket("bucket")


def stored(storage: list[str]) -> dict[str, bytes]:
    """The contents of the storage, by their paths in a project."""
    objects = bucket(storage).objects.all()
    return {each.key.removeprefix("project/"): each.get()["Body"].read() for each in objects}


def project_in(folder: Path, **config: object) -> Project:
    folder.mkdir(exist_ok=True)
    return new_project(folder, SHORT, **config)


@pytest.mark.slow
def test_results_in_a_storage_are_the_same_and_stay_done_and_are_reported_without_their_copies(tmp_path, storage):
    plain, project = (project_in(tmp_path / name, data=DIGITS) for name in ("plain", "stored"))
    for done in (plain.run("submission"), project.run("submission", *storage)):
        assert done.returncode == 0, done.stdout
    assert "results/submission.csv is ready" in done.stdout
    there = stored(storage)
    for name in ("data/train.csv", "data/test.csv", "data/folds.csv", "submission.csv"):
        assert there[f"results/{name}"] == (plain.folder / "results" / name).read_bytes()
    assert (project.folder / "results/submission.csv").read_bytes() == there["results/submission.csv"]
    assert {"results/tiny/fold0/model.safetensors", "logs/tiny/fold0/train.log"} <= there.keys()
    entries = [json.loads(each)["cross_fitted"] for each in (there[METRICS], (plain.folder / METRICS).read_text())]
    assert entries[0] == entries[1]
    assert entries[0]["state"] == "measured"
    assert project.planned("submission", *storage) == set()
    for copies in ("results", ".snakemake/storage"):
        shutil.rmtree(project.folder / copies)
    assert project.planned("submission", *storage) == set()
    bucket(storage).Object("project/results/tiny/fold0/model.safetensors").delete()  # so fold 0 is not finished
    done = project.run("report", *storage)
    assert done.returncode == 0, done.stdout
    assert "train_fold" not in done.stdout
    report = (project.folder / "results/report.html").read_text(encoding="utf-8")
    assert "Only 1 of 2 folds are finished" in report
    assert stored(storage)["results/report.html"].decode() == report


@pytest.mark.slow
def test_folds_in_a_storage_without_logits_of_epochs_stay_and_say_so(tmp_path, storage):
    project = project_in(tmp_path / "stored", data=DIGITS)
    done = project.run("submission", *storage, "--config", "epoch_logits_mb=0")
    assert done.returncode == 0, done.stdout
    assert "By how much is unknown" in done.stdout
    for fold in range(2):  # as an earlier version left them
        bucket(storage).Object(f"project/results/tiny/fold{fold}/oof_epochs.npz").delete()
    shutil.rmtree(project.folder / ".snakemake/storage", ignore_errors=True)
    assert not [rule for rule in project.planned("submission", *storage) if rule.startswith("train")]


@pytest.mark.slow
def test_what_the_user_has_is_read_where_it_is(tmp_path, storage):
    random = np.random.default_rng(0)
    names = {split: [f"{split}{index}.png" for index in range(8)] for split in ("train", "test")}
    for split in names:
        for index, name in enumerate(names[split]):
            write_colour(tmp_path / "images" / name, str(index % 2), random)
        rows = [f"{name},{index % 2}" for index, name in enumerate(names[split])]
        (tmp_path / f"{split}.csv").write_text("\n".join(["id,label", *rows, ""]))
    columns = {"id_column": "id", "label_column": "label", "sample": "test.csv", "names": "file"}
    data = {"source": "csv", "train": "train.csv", "test": "test.csv", "images": "images", "test_labels": "test.csv"}
    project = project_in(tmp_path, data=data, submission=columns)
    done = project.run("manifest", "test_manifest", *storage)
    assert done.returncode == 0, done.stdout
    assert "results/data/train.csv" in stored(storage)
    assert {"pixels", "write_submission", "metrics"} <= project.planned("submission", *storage)
    assert "manifest" not in project.planned("submission", *storage)
    (tmp_path / "train.csv").write_text((tmp_path / "train.csv").read_text().replace("train0.png,0\n", ""))
    assert "manifest" in project.planned("submission", *storage)
