"""Groups, given folds, rare classes and extra images from images to submission and report, through Snakemake."""

import json

import pandas as pd
import pytest
from conftest import write_classes, write_image
from PIL import Image
from projects import RECIPE, Project, new_project

pytestmark = pytest.mark.slow

DATA = {"source": "imagefolder", "train": "data/train", "test": "data/test", "extra": "data/extra"}


@pytest.fixture(scope="module")
def finished(tmp_path_factory):
    """A run with groups, a rare class and extra images."""
    folder = tmp_path_factory.mktemp("splits")
    write_classes(folder / "data/train", {"cat": 12, "dog": 12, "owl": 1})
    write_classes(folder / "data/extra", {"cat": 3}, seed=7000)
    for number in range(4):
        write_image(folder / f"data/test/{number:04d}.png", 90, 9000 + number)
    data = DATA | {"groups": r"(\d)\.png$"}
    project = new_project(folder, RECIPE | {"epochs": 1}, data=data, rare_classes="train_only")
    done = project.run("submission", "results/tiny/report/data.html")
    assert done.returncode == 0, done.stdout
    return project, done.stdout


@pytest.fixture
def project(finished, copied):
    return Project(copied(finished[0].folder))


def folds_of(project):
    return pd.read_csv(project.folder / "results/data/folds.csv").set_index("image_id")["fold"]


def run_without_training(project):
    done = project.run("submission")
    assert done.returncode == 0, done.stdout
    assert "already trained with the same data and recipe" in done.stdout
    assert project.planned("submission") == set()


def test_groups_rare_classes_and_extra_images_lead_to_scores_and_a_report(finished):
    project, printed = finished
    folds = folds_of(project)
    assert (folds[folds.index.str.contains("extra/|/owl/")] == -1).all()
    held_out = folds[folds >= 0]
    assert (held_out.groupby(held_out.index.str[-5]).nunique() == 1).all()
    assert "the split, in images per class" in printed
    metrics = json.loads((project.folder / "results/tiny/metrics.json").read_text())
    assert metrics["out_of_fold"]["images"] == len(held_out) == 24
    assert (metrics["out_of_fold"]["classes"], metrics["out_of_fold"]["of_classes"]) == (2, 3)
    assert "accuracy" in printed
    assert "on 2 of 3 classes" in printed
    page = (project.folder / "results/tiny/report/data.html").read_text()
    assert "train only" in page
    assert "3 of them extra" in page
    assert len(pd.read_csv(project.folder / "results/submission.csv")) == 4
    assert project.planned("submission") == set()


def test_the_split_can_be_printed_without_training(project):
    done = project.run("folds", "-R", "folds", "--config", "seed=5")
    assert done.returncode == 0, done.stdout
    assert "class        images  groups  fold 0  fold 1  train only" in done.stdout
    assert "train_fold0" not in done.stdout


def test_the_same_folds_given_as_a_table_train_nothing(project):
    folds_of(project).rename_axis("image").reset_index().query("~image.str.startswith('extra/')").to_csv(
        project.folder / "folds.csv", index=False
    )
    data = DATA | {"groups": r"(\d)\.png$", "folds": "folds.csv"}
    project.configure(data=data)
    planned = project.planned("submission")
    assert "folds" in planned
    assert "manifest" not in planned
    run_without_training(project)


def test_other_names_of_the_same_groups_train_nothing(project):
    project.configure(data=DATA | {"groups": r"(\d\.png)$"})
    assert "manifest" in project.planned("submission")
    run_without_training(project)


def test_wrong_folds_end_the_run_before_training(project):
    (project.folder / "folds.csv").write_text("image,fold\ncat/0000.png,0\n")
    project.configure(data=DATA | {"folds": "folds.csv"})
    for target in ("submission", "check"):
        done = project.run(target)
        assert done.returncode != 0
        assert "lacks 24 of 25 training images" in done.stdout, done.stdout
        assert "Traceback" not in done.stdout
    project.configure(data=DATA | {"folds": "gone.csv"})
    done = project.run("submission")
    assert "data.folds: there is no file gone.csv" in done.stdout


def test_tables_with_groups_then_given_folds_then_extra_images(tmp_path):
    """Near-duplicates stay together too; only folds with other training images are retrained."""
    names, labels = [f"{number:02d}.png" for number in range(16)], ["cat", "dog"] * 8
    for number, name in enumerate([*names, "x.png", "y.png", "t.png"]):
        write_image(tmp_path / "images" / name, 90, number, (48, 48))
    with Image.open(tmp_path / "images/00.png") as image:
        image.point(lambda level: min(255, level + 2)).save(tmp_path / "images/02.png")
    train = pd.DataFrame({"id": names, "label": labels, "site": [f"s{number // 2}" for number in range(16)]})
    train.assign(part=[number % 4 // 2 for number in range(16)]).to_csv(tmp_path / "train.csv", index=False)
    pd.DataFrame({"id": ["x.png", "y.png"], "label": ["cat", "dog"]}).to_csv(tmp_path / "extra.csv", index=False)
    pd.DataFrame({"id": ["t.png"]}).to_csv(tmp_path / "test.csv", index=False)
    data = {"source": "csv", "train": "train.csv", "test": "test.csv", "images": "images", "group_column": "site"}
    project = new_project(tmp_path, RECIPE | {"epochs": 1}, data=data, keep_together="near_duplicates")
    done = project.run("submission")
    assert done.returncode == 0, done.stdout
    folds = folds_of(project)
    assert folds.groupby(train["site"].to_numpy()).nunique().eq(1).all()
    assert folds.iloc[0] == folds.iloc[2]  # of two sites
    project.configure(data=data | {"fold_column": "part"}, keep_together="none")
    assert project.run("submission").returncode == 0
    assert folds_of(project).loc[folds.index].tolist() == [number % 4 // 2 for number in range(16)]
    project.configure(data=data | {"fold_column": "part", "extra": "extra.csv"}, keep_together="none")
    done = project.run("submission", "report")
    assert done.returncode == 0, done.stdout
    assert (folds_of(project) == -1).sum() == 2
    assert "already trained with the same data" not in done.stdout
    assert project.planned("submission") == set()
