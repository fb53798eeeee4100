"""``snakemake certify``, as a user runs it."""

from __future__ import annotations

import shutil

import numpy as np
import pytest
from projects import RECIPE, new_project, write_colour

from kfold_ens.files import read_json, write_json

pytestmark = pytest.mark.slow
DATA = {"source": "imagefolder", "train": "train", "test": "test"}


@pytest.fixture(scope="module")
def project(tmp_path_factory):
    folder, random = tmp_path_factory.mktemp("certified"), np.random.default_rng(0)
    for label in ("0", "62", "124"):
        for index in range(8):
            write_colour(folder / "train" / label / f"{index}.png", label, random)
        write_colour(folder / "test" / f"{label}.png", label, random)
    return new_project(folder, RECIPE | {"select": "last", "batch_size": 8, "epochs": 3}, data=DATA)


def test_the_last_epoch_is_certified_and_the_best_one_is_not(project):
    assert "train_fold0" not in project.planned("certify")
    done = project.run("certify")
    assert done.returncode == 0, done.stdout
    assert "certified. Nothing that scores these folds has seen their labels: 0, 1" in done.stdout
    file = project.folder / "results/tiny/certificate.json"
    passed = read_json(file)
    assert passed["passed"]
    assert [entry["fold"] for entry in passed["folds"]] == [0, 1]
    assert not (project.folder / "trained").exists()
    assert not list((project.folder / "state").rglob("*.safetensors"))
    assert "train_fold0" in project.planned("submission")

    page = "results/tiny/report/certificate.html"
    assert "certificate_page" in project.planned("report")
    assert project.run(page).returncode == 0
    assert "Nothing that scores these folds has seen" in (project.folder / page).read_text(encoding="utf-8")

    project.edit("tiny.yaml", "select: last", "select: best_accuracy")
    assert project.run(page).returncode == 0
    stale = (project.folder / page).read_text(encoding="utf-8")
    assert "Certificate: no longer valid" in stale
    assert "Changed since: select of the recipe. Run snakemake certify again." in stale
    done = project.run("certify", "--config", "certify=[0]", "certify_epochs=3")
    assert done.returncode != 0
    assert "ERROR: results/tiny/certificate.json: the certificate fails" in done.stdout
    assert "select: best_accuracy looks at held-out labels" in done.stdout
    assert "Traceback" not in done.stdout
    failed = read_json(file)
    assert not failed["passed"]
    assert failed["findings"][0].startswith("fold 0: chosen epoch")
    assert project.run(page).returncode == 0
    shown = (project.folder / page).read_text(encoding="utf-8")
    assert "Certificate: failed" in shown
    assert "Only 1 of 2 folds were rebuilt." in shown
    assert "Changed since" not in shown

    project.configure(data=DATA | {"groups": r"^(\d)"})
    assert project.run(page).returncode == 0
    stale = (project.folder / page).read_text(encoding="utf-8")
    assert "Changed since: train.csv. Run snakemake certify again." in stale


def test_a_certificate_that_crashes_leaves_no_earlier_one_behind(project):
    file, scratch = project.folder / "results/tiny/certificate.json", project.folder / "state/.certificate"
    write_json(file, {"passed": True})
    scratch.parent.mkdir(exist_ok=True)
    shutil.rmtree(scratch, ignore_errors=True)
    scratch.touch()  # so that the folder of the rebuilds cannot be made
    assert project.run("certify").returncode != 0
    assert not file.exists()
    scratch.unlink()


def test_a_fold_that_does_not_exist_is_refused_before_anything_runs(project):
    done = project.run("certify", "--config", "certify=[2]")
    assert done.returncode != 0
    assert "certify lists fold 2, but num_folds: 2 makes folds 0 to 1" in done.stdout
