"""The workflow through Snakemake, on small images and a small network."""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import sys
import time
import uuid
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import yaml
from conftest import REPOSITORY, write_classes, write_image, write_yaml
from disks import run_on_a_disk
from projects import RECIPE, Project, new_project, write_colour
from stages import smallest_sibling
from test_readme import competitions

from kfold_ens.config import load_recipe
from kfold_ens.logits import Logits, read_logits, write_logits

LABELS = [str(number) for number in [*range(18), 100, 101]]  # as text they sort 0, 1, 10, 100, ...
IMAGES_PER_CLASS = 8
TEST_IMAGES = 150


@pytest.fixture(scope="session")
def finished(tmp_path_factory: pytest.TempPathFactory) -> tuple[Project, dict[str, str]]:
    """A finished run over 20 classes, and the truth about its test images, whose names follow no order."""
    folder = tmp_path_factory.mktemp("finished") / "project"
    folder.mkdir()
    random = np.random.default_rng(0)
    for label in LABELS:
        for index in range(IMAGES_PER_CLASS):
            write_colour(folder / "data/train" / label / f"{index}.png", label, random)
    truth = {}
    for _ in range(TEST_IMAGES):
        name, label = str(uuid.UUID(bytes=random.bytes(16))), str(random.choice(LABELS))
        write_colour(folder / "data/test" / f"{name}.png", label, random)
        truth[name] = label
    data = {"source": "imagefolder", "train": "data/train", "test": "data/test"}
    project = new_project(folder, RECIPE | {"batch_size": 8}, data=data)
    done = project.run("submission")
    assert done.returncode == 0, done.stdout
    return project, truth


@pytest.fixture
def project(finished: tuple[Project, dict[str, str]], tmp_path: Path) -> Project:
    """A copy of the finished run, to modify; its models are hard links, since no job writes into them."""

    def copy(file: str, to: str) -> None:
        (os.link if file.endswith(".safetensors") else shutil.copy2)(file, to)

    return Project(Path(shutil.copytree(finished[0].folder, tmp_path / "project", symlinks=True, copy_function=copy)))


def test_the_submission_has_the_right_label_for_each_image(finished):
    project, truth = finished
    table = pd.read_csv(project.folder / "results/submission.csv", dtype=str)
    assert list(table) == ["image_name", "pred_label"]
    assert sorted(table["image_name"]) == sorted(truth)
    accuracy = (table["pred_label"] == table["image_name"].map(truth)).mean()
    assert accuracy > 0.8  # any mistake in the order of classes or images leaves about 0.05


def test_out_of_fold_accuracy_is_reported(finished):
    metrics = yaml.safe_load((finished[0].folder / "results/tiny/metrics.json").read_text())
    assert metrics["out_of_fold"]["images"] == len(LABELS) * IMAGES_PER_CLASS
    assert metrics["out_of_fold"]["accuracy"] > 0.7  # by chance 0.05
    assert metrics["methods"]["vote"] == {"test": None}


def scored_again(project: Project) -> tuple[dict, str]:
    """The scores with the choice of the epoch, and what Snakemake printed."""
    done = project.run("-R", "metrics", "submission")
    assert done.returncode == 0, done.stdout
    assert "train_fold" not in done.stdout
    return json.loads((project.folder / "results/tiny/metrics.json").read_text())["cross_fitted"], " ".join(
        done.stdout.split()
    )


def test_the_choice_of_the_epoch_is_scored_and_shown_with_the_score(project):
    entry, shown = scored_again(project)
    assert entry["state"] == "measured"
    assert entry["out_of_fold"]["images"] == len(LABELS) * IMAGES_PER_CLASS
    assert "all folds, cross-fitted" in shown
    assert f"flatters accuracy by {entry['flattered_by']['difference']:.4f}" in shown


def test_a_fold_of_an_earlier_version_is_not_retrained_to_score_the_choice_of_its_epoch(project):
    for path in [*project.folder.glob("results/tiny/fold1/oof_epochs.npz"), *project.folder.glob("trained/*/oof_*")]:
        path.unlink()
    assert project.planned("submission") == set()
    entry, shown = scored_again(project)
    assert entry["state"] == "unknown"
    assert "By how much is unknown: there is no results/tiny/fold1/oof_epochs.npz" in shown


def test_a_finished_run_has_nothing_to_do(project):
    assert project.planned("submission") == set()


def test_a_forced_fold_keeps_the_others_and_gives_the_same_submission(project):
    before, submission = project.times("results/tiny/*/model.safetensors"), project.folder / "results/submission.csv"
    predictions = submission.read_bytes()
    done = project.run("-R", "train_fold1", "submission")
    assert done.returncode == 0, done.stdout
    after = project.times("results/tiny/*/model.safetensors")
    assert [Path(path).parent.name for path in after if after[path] != before[path]] == ["fold1"]
    assert submission.read_bytes() == predictions


def test_one_fold_alone(project):
    for path in project.folder.glob("results/tiny/fold*/model.safetensors"):
        path.unlink()
    assert project.planned("train_fold1") == {"train_fold1"}


@pytest.mark.parametrize(
    ("arguments", "expected"),
    [
        (
            ["ensemble=vote", "checkpoint_minutes=0", "epoch_logits_mb=0", "precision=fp32"],
            {"write_submission", "submission"},
        ),
        (["submission={label_column: class}"], {"write_submission", "metrics", "submission"}),
    ],
)
def test_settings_that_do_not_affect_training_retrain_nothing(project, arguments, expected):
    assert project.planned("submission", "--config", *arguments) == expected


def test_comments_and_captions_retrain_nothing(project):
    for file, old, new in [
        ("workflow/scripts/train.py", "from functools import partial", "# a comment\nfrom functools import partial"),
        ("workflow/rules/training.smk", "# Fine-tune", "# Fine-tune, as they say,"),
        ("workflow/report/workflow.rst", "Images split", "All images, split"),
        ("workflow/rules/report.smk", "version=report_stage.VERSION", "version=report_stage.VERSION + 1"),
        ("tiny.yaml", "epochs: 8", "epochs:  8 # a comment"),
    ]:
        project.edit(file, old, new)
    assert project.planned("submission") == set()


TRAINING = {f"{job}_fold{fold}" for job in ("train", "predict_oof", "predict_test") for fold in range(2)}
COMBINING = {"combine", "metrics", "write_submission", "submission"}


@pytest.mark.parametrize(
    ("old", "new", "expected"),
    [
        ("lr: 0.003", "lr: 0.002", TRAINING | COMBINING),
        ("short_side: 16", "short_side: 20", {"pixels", "test_pixels"} | TRAINING | COMBINING),
    ],
)
def test_a_changed_recipe_value_runs_what_depends_on_it(project, old, new, expected):
    project.edit("tiny.yaml", old, new)
    assert project.planned("submission") == expected


def test_an_overlay_of_equal_values_trains_nothing_and_one_of_a_changed_base_trains(project):
    shutil.copy(project.folder / "tiny.yaml", project.folder / "base.yaml")
    write_yaml(project.folder / "tiny.yaml", {"base": "base.yaml"})
    assert project.planned("submission") == set()
    project.edit("base.yaml", "lr: 0.003", "lr: 0.002")
    assert project.planned("submission") == TRAINING | COMBINING


def test_a_new_image_is_detected(project):
    folder = project.folder / "data/train/7"
    shutil.copy(folder / "0.png", folder / "new.png")
    assert {"manifest", "folds", "pixels"} | TRAINING <= project.planned("submission")


def test_files_that_are_not_images_rerun_nothing(project):
    (project.folder / "data/train/7/.DS_Store").write_bytes(b"")
    (project.folder / "data/train/7/0.png").touch()
    assert project.planned("submission") == set()


def test_recipes_that_would_share_a_folder_are_refused(project):
    (project.folder / "mine").mkdir()
    shutil.copy(project.folder / "tiny.yaml", project.folder / "mine" / "tiny.yaml")
    done = project.run("submission", "--config", "ablation=[mine/tiny.yaml]")
    assert done.returncode != 0
    assert "would share results/tiny; rename one" in done.stdout
    assert "Traceback" not in done.stdout


def test_all_wrong_recipes_are_refused_at_once_without_a_traceback(project):
    for name in ("one", "two"):
        write_yaml(project.folder / f"{name}.yaml", RECIPE | {"epochs": name})
    done = project.run("submission", "--config", "ablation=[one.yaml, two.yaml, tiny.yaml]")
    assert done.returncode == 1
    message = "  epochs: Input should be a valid integer"
    expected = [f"{'ERROR: ' * (name == 'one')}{name}.yaml has errors:\n{message}" for name in ("one", "two")]
    assert all(each in done.stdout for each in expected), done.stdout
    assert not re.search(r"common\.smk|Traceback|line \d+", done.stdout)
    done = project.run("submission", "--config", "ablation=[three, four, five]")
    assert re.findall(r"there is no \S*/(\w+)\.yaml", done.stdout) == ["three", "four", "five"]


def test_test_labels_are_checked_before_training_and_change_only_the_scores(project):
    names = pd.read_csv(project.folder / "results/submission.csv", dtype=str)["image_name"]
    labels = project.folder / "labels.csv"
    pd.DataFrame({"image_name": names, "pred_label": "17"}).to_csv(labels, index=False)
    data = {"source": "imagefolder", "train": "data/train", "test": "data/test", "test_labels": "labels.csv"}
    project.configure(data=data)
    assert project.planned("submission") == {"metrics", "submission"}
    done = project.run("submission")
    assert re.search(r"average \* +0\.\d{4}", done.stdout), done.stdout
    labels.write_text("image_name,pred_label\n" + f"{names[0]},no such class\n")
    done = project.run("-R", "manifest", "submission")
    assert "no such class" in done.stdout
    assert "train_fold" not in re.sub(r"^train_fold\d +\d$", "", done.stdout, flags=re.MULTILINE)


@pytest.mark.slow
def test_a_sample_sets_the_order_and_a_zip_is_written_on_request(project):
    table = pd.read_csv(project.folder / "results/submission.csv", dtype=str)
    backwards = table[::-1].assign(pred_label="0")
    backwards.to_csv(project.folder / "sample.csv", index=False)
    project.configure(submission={"sample": "sample.csv", "zip_member": "prediction.csv"})
    assert project.planned("submission") == {"write_submission", "zip_submission", "metrics", "submission"}
    done = project.run("submission")
    assert done.returncode == 0, done.stdout
    assert pd.read_csv(project.folder / "results/submission.csv", dtype=str).equals(table[::-1].reset_index(drop=True))
    assert pd.read_csv(project.folder / "results/submission.zip", dtype=str).equals(table[::-1].reset_index(drop=True))
    backwards[1:].to_csv(project.folder / "sample.csv", index=False)
    done = project.run("-R", "manifest", "submission")
    assert "a test image that the sample lacks" in done.stdout
    assert "train_fold" not in re.sub(r"^train_fold\d +\d$", "", done.stdout, flags=re.MULTILINE)


# --- kinds of submissions --------------------------------------------------------------------------------


def largest_remainders(row: np.ndarray, decimals: int = 6) -> list[str]:
    """A row of chances as text that sums to 1, one unit at a time."""
    chances = np.exp(row - row.max())
    scaled = chances / chances.sum() * 10**decimals
    parts = [int(value) for value in scaled]
    for place in sorted(range(len(parts)), key=lambda place: parts[place] - scaled[place])[: 10**decimals - sum(parts)]:
        parts[place] += 1
    return [f"{part // 10**decimals}.{part % 10**decimals:0{decimals}d}" for part in parts]


def of_each_kind(kind: str, scores: dict[str, np.ndarray], classes: list[str]) -> tuple[list[str], list[str]]:
    """The lines of a sample in another order, and those of the expected submission."""
    order = sorted(scores, key=lambda stem: stem[::-1])
    columns = classes[::-1]
    back = [classes.index(label) for label in columns]
    rows = {
        "label": [(stem, ["0"], [classes[scores[stem].argmax()]]) for stem in order],
        "probabilities": [
            (f"test/{stem}.png", ["0"] * len(classes), largest_remainders(scores[stem][back])) for stem in order
        ],
        "top_k": [
            (
                f"{stem}.png",
                ["0 1 2"],
                [" ".join(classes[place] for place in np.argsort(-scores[stem], kind="stable")[:3])],
            )
            for stem in order
        ],
    }[kind]
    header = {
        "label": "Id,Category",
        "probabilities": ",".join(["id", *(f"p_{c}" for c in columns)]),
        "top_k": "f,best",
    }
    sample, expected = ([",".join([id_, *row[at]]) for id_, *row in rows] for at in (0, 1))
    return [header[kind], *sample], [header[kind], *expected]


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["label", "probabilities", "top_k"])
def test_a_sample_alone_sets_the_submission_and_retrains_nothing(project, kind):
    logits = read_logits(project.folder / "results/tiny/average/test_logits.npz")
    scores = {Path(image).stem: row for image, row in zip(logits.image_id, logits.values, strict=True)}
    sample, expected = of_each_kind(kind, scores, list(logits.classes))
    (project.folder / "sample.csv").write_text("\n".join(sample) + "\n")
    page = "results/tiny/report/submission.html"
    project.configure(submission={"sample": "sample.csv"})
    assert project.planned("submission") == {"write_submission", "metrics", "submission"}
    done = project.run("submission", page)
    assert done.returncode == 0, done.stdout
    assert f"sample.csv: inferred kind '{kind}'" in done.stdout
    assert (project.folder / "results/submission.csv").read_text() == "\n".join(expected) + "\n"
    assert "every " in (project.folder / page).read_text(encoding="utf-8")
    assert project.planned("submission", page) == set()


FIRST_LINES = {  # of the submission, by the row of the README's table
    "accuracy of labels": r"image_name,pred_label\n[0-9a-f-]{36},\d+\n",
    "macro F1": r"image_name,pred_label\n[0-9a-f-]{36},\d+\n",
    "ROC AUC, with probabilities": r"image_name,0,1,2,3,.*\n[0-9a-f-]{36}(,[01]\.\d{6}){20}\n",
    "log loss": r"image_name,0,1,2,3,.*\n[0-9a-f-]{36}(,[01]\.\d{6}){20}\n",
    "quadratic weighted kappa": r"image_name,pred_label\n[0-9a-f-]{36},\d+\n",
    "MAP@5, five labels per image": r"image_name,pred_label\n[0-9a-f-]{36},\d+( \d+){4}\n",
    '"as in this sample"': r"f,best\n[0-9a-f-]{36}\.png,\d+\n",
    "ids with folders: test/123.png": r"image_name,pred_label\ntest/[0-9a-f-]{36}\.png,\d+\n",
    "a zip with prediction.csv": r"image_name,pred_label\n[0-9a-f-]{36},\d+\n",
    "class names as columns": r"id,0,1,2,3,.*\n[0-9a-f-]{36}(,[01]\.\d{6}){20}\n",
}


@pytest.mark.slow
@pytest.mark.parametrize("says", FIRST_LINES)
def test_readme_settings_for_a_competition_make_its_submission_and_retrain_nothing(project, says):
    written = competitions()[says]
    stems = sorted(path.stem for path in (project.folder / "data/test").iterdir())
    sample = "\n".join(["f,best", *(f"{stem}.png,0" for stem in stems)])
    (project.folder / "sample_submission.csv").write_text(f"{sample}\n")
    project.configure(**written)
    assert not {rule for rule in project.planned("submission") if rule.startswith(("train_", "predict_"))}
    done = project.run("submission")
    assert done.returncode == 0, done.stdout
    assert re.match(FIRST_LINES[says], (project.folder / "results/submission.csv").read_text())
    metric = written.get("metric", "accuracy")
    own = json.loads((project.folder / "results/tiny/metrics.json").read_text())
    assert own["metric"] == metric
    entry = own["out_of_fold"]
    assert entry["low"] <= entry[metric] <= entry["high"]
    assert {"accuracy", "log_loss"} <= set(entry)
    assert (project.folder / "results/submission.zip").is_file() == ("zip" in says)


@pytest.mark.slow
def test_calibrated_probabilities_are_those_at_the_fitted_temperature(project):
    project.configure(submission={"kind": "probabilities", "calibrate": True})
    assert project.planned("submission") == {"write_submission", "metrics", "submission"}
    page, overview = "results/tiny/report/calibration.html", "results/tiny/report/overview.html"
    done = project.run("submission", page, overview)
    assert done.returncode == 0, done.stdout
    found = re.search(
        r"log loss ([\d.]+) before, ([\d.]+) after \(cross-fitted by fold\): temp\S+ ([\d.]+)", done.stdout
    )
    before, after, temperature = map(float, found.groups())
    assert after < before
    scored = json.loads((project.folder / "results/tiny/metrics.json").read_text())["calibrated"]
    assert scored["out_of_fold"]["log_loss"] == pytest.approx(after, abs=1e-4)
    assert "all folds, as chosen, calibrated" in done.stdout
    logits = read_logits(project.folder / "results/tiny/average/test_logits.npz")
    table = pd.read_csv(project.folder / "results/submission.csv", index_col="image_name")
    stems = [Path(image).stem for image in logits.image_id]
    chances = np.exp((logits.values - logits.values.max(axis=1, keepdims=True)) / temperature)
    expected = chances / chances.sum(axis=1, keepdims=True)
    assert np.allclose(table.loc[stems].to_numpy(), expected, atol=2e-4)
    assert "After calibration" in (project.folder / page).read_text(encoding="utf-8")
    assert "average, calibrated (submitted)" in (project.folder / overview).read_text(encoding="utf-8")
    assert {"write_submission"} <= project.planned("submission", "-R", "predict_oof_fold0")


def test_the_risk_coverage_page_needs_logits_alone_and_follows_the_ensembling_method(project):
    page = "results/tiny/report/risk_coverage.html"
    assert project.planned(page) == {"risk_coverage_page"}
    done = project.run(page)
    assert done.returncode == 0, done.stdout
    assert "own curve cannot be shown" in (project.folder / page).read_text(encoding="utf-8")
    assert project.planned(page) == set()
    assert project.planned(page, "--config", "ensemble=vote") == {"risk_coverage_page"}
    assert "risk_coverage_page" not in project.planned("submission")


@pytest.mark.parametrize(
    "asked",
    [["-R", "manifest"], ["-R", "train_fold0"], ["--cores", "8", "-R", "test_manifest", "train_fold0"]],
    ids=["manifest", "training", "both"],
)
def test_a_sample_that_does_not_fit_is_refused_before_training(project, asked):
    before = project.times("results/tiny/*/model.safetensors")
    (project.folder / "sample.csv").write_text("id,0,1,1000\nnone,0,0,1\n")
    project.configure(submission={"sample": "sample.csv"})
    done = project.run(*asked, "--", "submission")
    assert done.returncode != 0
    assert "Traceback" not in done.stdout
    assert project.times("results/tiny/*/model.safetensors") == before
    assert "1000: a column that is not a class" in done.stdout
    assert "names the test images" in done.stdout
    assert "rule train_fold" not in done.stdout
    assert "1000: a column that is not a class" in project.run("check").stdout


# --- failures --------------------------------------------------------------------------------------------


@pytest.mark.parametrize("asked", [["-R", "manifest", "--"], ["-R", "train_fold0", "--"], ["check"]])
def test_metrics_of_recipes_that_do_not_fit_are_refused_before_training(project, asked):
    before = project.times("results/tiny/*/model.safetensors")
    stopping = {"kind": "patience", "monitor": "map_at_30", "patience": 2}
    write_yaml(project.folder / "arm.yaml", {"base": "tiny.yaml", "early_stopping": stopping})
    project.edit("tiny.yaml", "best_accuracy", "best_top_50_accuracy")
    project.configure(ablation=["arm.yaml"])
    done = project.run(*asked, *([] if "check" in asked else ["submission"]))
    assert done.returncode == 1
    for words in (
        "tiny.yaml: select, arm.yaml: select: top_50_accuracy: there are only 20 classes",
        "arm.yaml: early_stopping.monitor: map_at_30: there are only 20 classes",
    ):
        assert words in done.stdout
    assert project.times("results/tiny/*/model.safetensors") == before


def test_a_metric_that_does_not_fit_is_refused_without_test_images(project):
    (project.folder / "results/data/test.csv").unlink()
    project.configure(metric="map_at_30")
    done = project.run("-R", "train_fold0", "--", "train_fold0")
    assert done.returncode == 1
    assert "metric: map_at_30: there are only 20 classes" in done.stdout


@pytest.mark.slow
def test_if_a_fold_fails_the_others_finish_and_it_alone_is_retrained(project):
    for folder in ("results/tiny", "trained"):
        shutil.rmtree(project.folder / folder)
    (project.folder / "results/submission.csv").unlink()
    obstacle = project.folder / "state/tiny/fold0"
    obstacle.parent.mkdir(parents=True, exist_ok=True)
    obstacle.write_text("where the fold's state should go")
    done = project.run("submission")
    assert done.returncode != 0
    assert "ERROR" in done.stdout
    assert "Traceback" not in done.stdout
    assert (project.folder / "results/tiny/fold1/test_logits.npz").is_file()
    obstacle.unlink()
    assert project.planned("submission") == COMBINING | {"train_fold0", "predict_oof_fold0", "predict_test_fold0"}


@pytest.mark.slow
def test_a_second_run_in_the_same_folder_is_refused(project):
    command = [sys.executable, "-m", "snakemake", "--cores", "1", "submission", "-R", "train_fold0"]
    first = subprocess.Popen(command, cwd=project.folder, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    try:
        while not list(project.folder.glob("state/tiny/fold0/progress.json")):
            assert first.poll() is None
            time.sleep(0.1)
        second = project.run("submission", "--rerun-incomplete")  # else half of a file may refuse it
        assert second.returncode != 0
        assert "lock" in second.stdout
    finally:
        assert first.wait() == 0


@pytest.mark.slow
def test_the_report_follows_the_command_line(project):
    done = project.run("report", "--config", "ensemble=vote")
    assert done.returncode == 0, done.stdout
    report = (project.folder / "results/report.html").read_text(encoding="utf-8")
    assert "<strong>vote</strong>" in report
    assert "<strong>average</strong>" not in report


@pytest.mark.slow
def test_a_report_of_one_fold_trains_nothing_and_says_that_folds_are_missing(project):
    (project.folder / "results/tiny/fold1/model.safetensors").unlink()  # as where fold 1 was stopped on its second time
    planned = project.planned("report")
    assert {"overview", "report"} <= planned
    assert planned.isdisjoint(TRAINING | {"ensemble_pages", "submission_page"})
    done = project.run("report")
    assert done.returncode == 0, done.stdout
    assert "Only 1 of 2 folds are finished" in (project.folder / "results/report.html").read_text(encoding="utf-8")


def test_other_recipes_keep_this_ones_results_and_use_the_same_folds(project):
    shutil.copy(project.folder / "tiny.yaml", project.folder / "other.yaml")
    assert project.planned("submission", "--config", "recipe=other.yaml") == TRAINING | COMBINING


@pytest.mark.parametrize(
    ("config", "words"),
    [
        ({"colour": "red"}, ["config.yaml", "colour: no such key"]),
        ({"num_folds": 1, "ensemble": "best"}, ["num_folds", "ensemble"]),
        ({"recipe": "kfold_mics"}, ["kfold_mics", "kfold_mix"]),
        ({"data": {"source": "imagefolder", "train": "nowhere", "test": "data/test"}}, ["nowhere"]),
    ],
)
def test_bad_configuration_is_one_message(project, config, words):
    project.configure(**config)
    done = project.run("submission")
    assert done.returncode != 0
    assert "Traceback" not in done.stdout
    assert all(word in done.stdout for word in words), done.stdout


def test_bad_images_are_listed_before_any_training(project):
    for name, content in {"empty.png": b"", "page.jpg": b"<html>"}.items():
        (project.folder / "data/train/3" / name).write_bytes(content)
    done = project.run("submission")
    assert done.returncode != 0
    assert "Traceback" not in done.stdout
    assert "data/train/3/empty.png: the file is empty" in done.stdout
    assert "data/train/3/page.jpg: not an image" in done.stdout
    assert "train_fold" not in re.sub(r"^train_fold\d +\d$", "", done.stdout, flags=re.MULTILINE)


@pytest.mark.parametrize(
    ("arguments", "gpus"),
    [
        (["--resources", "gpu=3"], 3),
        (["--config", "gpus_per_fold=2"], 2),
    ],
)
def test_the_gpu_limit_is_the_number_of_jobs_that_can_have_one(project, arguments, gpus):
    asks = "from kfold_ens.jobs import processes_at_once\nprint(processes_at_once(), 'at once')\nif __name__"
    project.edit("workflow/scripts/submission.py", "if __name__", asks)
    done = project.run("-R", "write_submission", *arguments, "--", "submission")
    assert done.returncode == 0, done.stdout
    assert re.search(rf'Provided resources:.*gpu=({gpus}\b|Resource\("gpu", {gpus}\))', done.stdout), done.stdout
    assert f"{gpus} at once" in done.stdout


def test_other_resources_do_not_drop_the_cap_on_gpus(project):
    (project.folder / "results/submission.csv").unlink()
    done = project.run("--resources", "mem_mb=64000")
    assert re.search(r'Provided resources:.*gpu=(1|Resource\("gpu", 1\))', done.stdout), done.stdout


def test_reading_the_workflow_imports_no_torch(project):
    command = [sys.executable, "-X", "importtime", "-m", "snakemake", "--dry-run", "submission"]
    done = subprocess.run(command, cwd=project.folder, text=True, capture_output=True, check=True)
    imported = {line.rsplit("|", 1)[-1].strip() for line in done.stderr.splitlines() if line.startswith("import time:")}
    assert "kfold_ens.config" in imported
    assert imported.isdisjoint({"torch", "torchvision", "sklearn", "matplotlib", "altair"})


@pytest.mark.slow
def test_every_recipe_goes_from_images_to_a_submission(tmp_path):
    names = [path.stem for path in sorted((REPOSITORY / "recipes").glob("*.yaml"))]
    names.remove("kfold_mix_70")  # differs from kfold_mix in its epochs, which are two here
    names.remove("digits")  # .ci/run makes a submission with it
    data = {"source": "digits", "limit_per_class": 8}
    project = new_project(tmp_path, RECIPE, data=data, ablation=[f"{name}_small.yaml" for name in names])
    for name in names:
        small = smallest_sibling(load_recipe(REPOSITORY / f"recipes/{name}.yaml", REPOSITORY / "recipes"), size=16)
        write_yaml(tmp_path / f"{name}_small.yaml", small | {"epochs": 2})
    done = project.run("ablation", "--cores", "2")
    assert done.returncode == 0, done.stdout
    table = pd.read_csv(tmp_path / "results/ablation.csv").set_index("recipe")
    assert list(table.index) == [f"{name}_small" for name in names]
    of_the_best, crossed = table.filter(regex="best_of|honest|flattered_by"), table.filter(like="cross_fitted")
    assert table.drop(columns=[*of_the_best, *crossed]).notna().all(axis=None)
    has_views = [load_recipe(tmp_path / f"{name}_small.yaml", tmp_path).tta.kind != "none" for name in names]
    assert crossed.isna().all(axis=1).tolist() == has_views  # the views of other epochs are not computed
    assert of_the_best.notna().all(axis=1).sum() == 1
    assert (table["difference"].iloc[0], table["difference_low"].iloc[0] < 0) == (0, True)
    for name in names:
        assert len(read_logits(tmp_path / f"results/{name}_small/average/test_logits.npz").image_id) == 80
    first, second, *_ = (f"{name}_small.yaml" for name in names)
    config = ["--config", f"recipe={second}", f"ablation=[{first}, {second}]"]
    done = project.run("submission", "report", "--cores", "2", *config)
    assert done.returncode == 0, done.stdout
    assert not re.search(r"^(train|predict)_\w+ +\d+$", done.stdout, re.MULTILINE)
    assert len(pd.read_csv(tmp_path / "results/submission.csv")) == 80
    assert "results/ablation.csv" in (tmp_path / "results/report.html").read_text(encoding="utf-8")


def test_a_check_shows_classes_and_plan_without_training(project):
    before = sorted(path for path in (project.folder / "results").rglob("*"))
    done = project.run("check")
    assert done.returncode == 0, done.stdout
    assert re.search(r"\d+ classes: .* images each\)", done.stdout)
    assert "2 folds: all trained" in done.stdout
    assert "No error found" in done.stdout
    assert sorted(path for path in (project.folder / "results").rglob("*")) == before


def test_a_check_lists_what_a_run_would_refuse(tmp_path):
    data = {"source": "imagefolder", "train": "train", "test": "test"}
    write_classes(tmp_path / "train", {"cat": 3, "cat ": 3})
    write_image(tmp_path / "test" / "0.png", seed=99)
    (tmp_path / "test" / "phone.heic").write_bytes(b"\0\0\0\x18ftypheic")
    project = new_project(tmp_path, RECIPE, data=data)
    for target in ("check", "submission"):
        done = project.run(target)
        assert done.returncode != 0
        for words in ("these labels look the same", "'cat ' (3 images)", "phone.heic: not an image"):
            assert words in done.stdout, done.stdout
    assert not (tmp_path / "results/data/folds.csv").exists()


def test_both_manifests_can_be_merged(project):
    done = project.run("results/data/manifest.csv")
    assert done.returncode == 0, done.stdout
    table = pd.read_csv(project.folder / "results/data/manifest.csv")
    assert table["split"].value_counts().to_dict() == {"train": len(LABELS) * IMAGES_PER_CLASS, "test": TEST_IMAGES}


def test_a_run_names_the_classes_of_an_earlier_manifest(project):
    done = project.run("write_submission", "-R", "write_submission")
    assert done.returncode == 0, done.stdout
    assert len(re.findall(r"\d+ classes: .* images each\)", done.stdout)) == 1


def test_an_empty_ablation_gives_advice(project):
    done = project.run("ablation")
    assert done.returncode != 0
    assert "ablation: config.yaml names no recipes" in done.stdout
    assert "Traceback" not in done.stdout


@pytest.mark.slow
def test_fashion_mnist_through_torchvision(tmp_path, fashion_mnist):
    data = {"source": "torchvision", "name": "FashionMNIST", "root": str(fashion_mnist), "limit_per_class": 60}
    project = new_project(tmp_path, RECIPE, data=data)
    done = project.run("submission")
    assert done.returncode == 0, done.stdout
    metrics = yaml.safe_load((project.folder / "results/tiny/metrics.json").read_text())
    assert metrics["methods"]["average"]["test"]["images"] == 600
    assert metrics["methods"]["average"]["test"]["accuracy"] > 0.6
    labels = set(pd.read_csv(project.folder / "results/submission.csv", dtype=str)["pred_label"])
    assert {"Ankle boot", "T-shirt/top"} <= labels


# --- the ensemble as one file ----------------------------------------------------------------------------


def test_an_ensemble_file_is_written_on_request(project):
    assert project.planned("submission") == set()
    assert project.planned("ensemble") == {"ensemble"}
    assert project.planned("submission", "--config", "bundle=true") == {"ensemble", "submission"}


def predicted_elsewhere(project, folder):
    """What the ensemble file says of the test images in another folder."""
    shutil.copytree(project.folder / "data/test", folder / "new")
    shutil.copy(project.folder / "results/tiny/ensemble.safetensors", folder)
    command = [sys.executable, "-m", "kfold_ens.bundle.command", "ensemble.safetensors", "new", "--out", "out.csv"]
    done = subprocess.run(command, cwd=folder, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    return pd.read_csv(folder / "out.csv", dtype=str)


@pytest.mark.slow
def test_an_ensemble_file_predicts_the_submission_elsewhere(project, tmp_path):
    done = project.run("ensemble")
    assert done.returncode == 0, done.stdout
    assert "Out-of-fold scores" in (project.folder / "results/tiny/ensemble.md").read_text()
    predicted = predicted_elsewhere(project, tmp_path / "elsewhere")
    submission = pd.read_csv(project.folder / "results/submission.csv", dtype=str)
    assert [Path(image).stem for image in predicted["image"]] == submission["image_name"].tolist()
    assert predicted["label"].tolist() == submission["pred_label"].tolist()
    assert project.planned("ensemble") == set()


@pytest.mark.slow
def test_rounded_weights_take_half_the_bytes_and_predict_elsewhere(project, tmp_path):
    assert project.planned("submission", "--config", "bundle_dtype=bf16") == set()
    assert project.planned("ensemble", "--config", "bundle_dtype=bf16") == {"rounding", "ensemble"}
    project.configure(bundle_dtype="bf16", metric="top_5_accuracy")  # as one image in 160 is more than the tolerance
    done = project.run("ensemble")
    assert done.returncode == 0, done.stdout
    results = project.folder / "results/tiny"
    models = sum(path.stat().st_size for path in results.glob("fold*/model.safetensors"))
    assert 0.49 < (results / "ensemble.safetensors").stat().st_size / models < 0.51
    rounding = json.loads((results / "rounding.json").read_text())
    assert rounding["before"] == json.loads((results / "metrics.json").read_text())["out_of_fold"]["top_5_accuracy"]
    assert rounding["images"] == len(LABELS) * IMAGES_PER_CLASS
    assert f"top-5 accuracy {rounding['before']:.4f} before rounding" in (results / "ensemble.md").read_text()
    submission = pd.read_csv(project.folder / "results/submission.csv", dtype=str)
    predicted = predicted_elsewhere(project, tmp_path / "elsewhere")
    assert (predicted["label"] == submission["pred_label"]).mean() > 0.95
    assert project.planned("ensemble") == set()
    assert project.planned("ensemble", "--config", "bundle_dtype=fp32") == {"ensemble"}


@pytest.mark.slow
def test_rounding_with_a_cost_is_refused_and_writes_nothing(project):
    file = project.folder / "results/tiny/fold0/oof_logits.npz"
    logits = read_logits(file)
    truth = [[100.0 * (f"/{label}/" in f"/{image}") for label in logits.classes] for image in logits.image_id]
    write_logits(file, Logits(logits.image_id, np.array(truth), logits.classes))  # as if the model had been perfect
    project.configure(bundle_dtype="bf16", metric="log_loss")
    done = project.run("ensemble")
    assert done.returncode != 0
    assert re.search(r"ERROR: bundle_dtype: bf16 costs more than the tolerance: log loss \S+ before", done.stdout)
    assert "write bundle_dtype: fp32 into config.yaml" in done.stdout
    assert "Traceback" not in done.stdout
    made = {path.name for path in (project.folder / "results/tiny").iterdir()}
    assert "metrics.json" in made
    assert not made & {"ensemble.safetensors", "ensemble.md", "rounding.json"}


ENSEMBLE_ON_A_FULL_DISK = """
import os, shutil, subprocess, sys
from pathlib import Path

shutil.copytree("../before", ".", dirs_exist_ok=True)
Path("filler").write_bytes(b"0" * (shutil.disk_usage(".").free - 40_000_000))

def make():
    command = [sys.executable, "-m", "snakemake", "--cores", "1", "ensemble"]
    done = subprocess.run(command, cwd="..", stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
    print("MADE", done.returncode, sorted(os.listdir("tiny")), done.stdout, flush=True)

make()
os.remove("filler")
make()
"""


@pytest.mark.slow
def test_an_ensemble_on_a_full_disk_is_refused_and_leaves_no_file(project):
    (project.folder / "results").rename(project.folder / "before")
    before = sorted(os.listdir(project.folder / "before/tiny"))
    done = run_on_a_disk(project.folder / "results", "250m", ENSEMBLE_ON_A_FULL_DISK)
    assert done.returncode == 0, done.stderr
    _, refused, made = done.stdout.split("MADE ")
    assert refused.startswith(f"1 {before} ")
    assert re.search(
        r"ERROR: writing results/tiny/ensemble.safetensors needs 0.09 GB below \S+, but only 0.04 GB", refused
    )
    assert "Traceback" not in refused
    assert made.startswith(f"0 {sorted([*before, 'ensemble.md', 'ensemble.safetensors'])} "), made
