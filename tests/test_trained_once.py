"""Whatever people do around a finished run: a fold is trained once for the same data, and never lost.

Snakemake itself, on small images and a small network. A fold that is trained again has other seconds in its history.
"""

from __future__ import annotations

import json
import os
import random
import shutil
import signal
import subprocess
import sys
import time
from functools import partial
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from conftest import REPOSITORY, write_yaml
from projects import RECIPE, Project, new_project, write_colour
from safetensors.numpy import load_file

from kfold_ens.training.kept import KeptFold

CLASSES = ("7", "60", "119")
FOLDER = {"source": "imagefolder", "train": ["data/train", "data/more"], "test": "data/test"}
MODEL = "results/tiny/fold1/model.safetensors"
TABLES = {"source": "csv", "train": "train.csv", "test": "test.csv", "images": "images", "test_images": "pictures"}
AFTER_NEW_TEST_IMAGES = {"test_manifest", "test_pixels", "combine", "metrics", "write_submission", "submission"}
AFTER_NEW_TEST_IMAGES |= {"predict_test_fold0", "predict_test_fold1"}


def write_images(folder: Path, names: list[str], label: str, seed: int) -> None:
    for place, name in enumerate(names):
        write_colour(folder / name, label, np.random.default_rng([seed, place]))


def trained_project(folder: Path, data: dict) -> Project:
    project = new_project(folder, RECIPE | {"epochs": 1, "batch_size": 8}, data=data)
    done = project.run("submission")
    assert done.returncode == 0, done.stdout
    return project


@pytest.fixture(scope="session")
def of_folders(tmp_path_factory: pytest.TempPathFactory) -> Project:
    """A finished run on two training folders and a test folder."""
    folder = tmp_path_factory.mktemp("trained") / "folders"
    for seed, label in enumerate(CLASSES):
        write_images(folder / "data/train" / label, [f"{index}.png" for index in range(4)], label, seed)
        write_images(folder / "data/more" / label, [f"{index}.png" for index in range(3)], label, 10 + seed)
    write_images(folder / "data/test", [f"{index}.png" for index in range(3)], "60", 20)
    return trained_project(folder, FOLDER)


@pytest.fixture(scope="session")
def of_tables(tmp_path_factory: pytest.TempPathFactory) -> Project:
    """A finished run on tables."""
    folder = tmp_path_factory.mktemp("trained") / "tables"
    rows = [(f"{label}-{index}.png", label) for label in CLASSES for index in range(5)]
    for seed, (name, label) in enumerate(rows):
        write_images(folder / "images", [name], label, seed)
    write_images(folder / "pictures", ["a.png", "b.png", "c.png"], "7", 100)
    pd.DataFrame(rows, columns=["id", "label"]).to_csv(folder / "train.csv", index=False)
    pd.DataFrame({"id": ["a.png", "b.png", "c.png"]}).to_csv(folder / "test.csv", index=False)
    return trained_project(folder, TABLES)


def copy_of(project: Project, folder: Path) -> Project:
    """As ``cp -a`` copies: with times, and with hard links."""
    os.system(f"cp -a {project.folder} {folder}")
    return Project(folder)


@pytest.fixture
def project(of_folders: Project, tmp_path: Path) -> Project:
    return copy_of(of_folders, tmp_path / "project")


@pytest.fixture
def tables(of_tables: Project, tmp_path: Path) -> Project:
    return copy_of(of_tables, tmp_path / "project")


def histories(project: Project) -> dict[str, bytes]:
    return {str(path): path.read_bytes() for path in sorted(project.folder.glob("results/*/fold*/history.csv"))}


def planned_to_train(project: Project, *arguments: str) -> set[str]:
    return {rule for rule in project.planned(*arguments) if rule.startswith("train_")}


def run_without_training(project: Project, *arguments: str) -> str:
    """Run the rules that train, or others, and see that no fold was trained."""
    before = histories(project)
    assert len(before) == 2
    done = project.run(*(arguments or ("train_fold0", "train_fold1")))
    assert done.returncode == 0, done.stdout
    assert histories(project) == before
    return done.stdout


def submitted(project: Project) -> list[str]:
    return pd.read_csv(project.folder / "results/submission.csv", dtype=str)["image_name"].tolist()


# --- the test half ---------------------------------------------------------------------------------------


@pytest.mark.slow
def test_new_test_images_retrain_nothing(project):
    write_images(project.folder / "data/test", [f"new{index}.png" for index in range(10)], "7", 30)
    assert project.planned("submission") == AFTER_NEW_TEST_IMAGES
    run_without_training(project, "submission")
    assert len(submitted(project)) == 13
    assert project.planned("submission") == set()


def test_a_replaced_test_image_retrains_nothing(project):
    write_colour(project.folder / "data/test/0.png", "119", np.random.default_rng(99))
    assert project.planned("submission") == AFTER_NEW_TEST_IMAGES


def test_the_intensity_range_decodes_again_and_its_default_does_nothing(project):
    project.configure(data=FOLDER | {"intensity_range": "full"})
    assert project.planned("submission") == set()
    project.configure(data=FOLDER | {"intensity_range": [0, 4095]})
    planned = project.planned("submission")
    assert {"pixels", "test_pixels", "train_fold0"} <= planned
    assert not {"manifest", "test_manifest", "folds"} & planned


SCORES = {"metrics", "submission"}


def test_another_metric_scores_again_and_trains_what_selects_by_it(project):
    project.configure(metric="f1_macro")
    assert project.planned("submission") == SCORES
    write_yaml(project.folder / "by_metric.yaml", RECIPE | {"epochs": 1, "batch_size": 8, "select": "best_metric"})
    project.configure(metric="accuracy", recipe="by_metric.yaml")
    assert planned_to_train(project, "submission") == {"train_fold0", "train_fold1"}
    project.configure(metric="f1_macro", recipe="by_metric.yaml")
    done = project.run("submission")
    assert done.returncode == 0, done.stdout
    assert "macro F1" in done.stdout
    assert "val_f1_macro" in pd.read_csv(project.folder / "results/by_metric/fold0/history.csv")
    assert project.planned("submission") == set()
    project.configure(metric="quadratic_kappa", recipe="by_metric.yaml")
    assert planned_to_train(project, "submission") == {"train_fold0", "train_fold1"}
    project.configure(metric="top_4_accuracy", recipe="by_metric.yaml")
    done = project.run("submission")
    assert "top_4_accuracy: there are only 3 classes" in done.stdout
    assert "rule train_" not in done.stdout


def test_another_test_folder_retrains_nothing(project):
    write_images(project.folder / "data/final", ["x.png", "y.png"], "7", 40)
    project.configure(data=FOLDER | {"test": "data/final"})
    assert project.planned("submission") == AFTER_NEW_TEST_IMAGES


@pytest.mark.slow
def test_rows_of_the_test_table_in_another_order_and_another_column_retrain_nothing(tables):
    rows = {"id": ["c.png", "a.png", "b.png"], "place": ["x", "y", "z"]}
    pd.DataFrame(rows).to_csv(tables.folder / "test.csv", index=False)
    assert tables.planned("submission") == AFTER_NEW_TEST_IMAGES


def test_half_a_test_image_is_refused_and_deleting_it_retrains_nothing(project):
    broken = project.folder / "data/test/broken.png"
    broken.write_bytes((project.folder / "data/test/0.png").read_bytes()[:60])
    for _ in range(2):
        done = project.run("submission")
        assert done.returncode != 0
        assert "data/test/broken.png" in done.stdout
    broken.unlink()
    assert project.planned("submission") == AFTER_NEW_TEST_IMAGES


def test_errors_in_training_and_test_images_are_reported_at_once_before_training(of_folders, tmp_path):
    shutil.copytree(of_folders.folder / "data", tmp_path / "data")
    for half in ("train/7", "test"):
        (tmp_path / f"data/{half}/broken.png").write_bytes(b"no image")
    done = new_project(tmp_path, RECIPE, data=FOLDER).run("submission")
    assert done.returncode != 0
    message = done.stdout.split("2 files cannot be used")[1]
    assert "data/train/7/broken.png" in message
    assert "data/test/broken.png" in message
    assert not (tmp_path / "results/tiny").exists()


# --- the training half -----------------------------------------------------------------------------------


@pytest.mark.slow
def test_images_moved_to_another_disk_retrain_nothing(project, tmp_path):
    for name in ("train", "more", "test"):
        shutil.move(project.folder / "data" / name, tmp_path / "disk" / name)
    roots = [str(tmp_path / "disk" / name) for name in ("train", "more")]
    project.configure(data=FOLDER | {"train": roots, "test": str(tmp_path / "disk/test")})
    assert "already trained with the same data and recipe" in run_without_training(project)


def test_folders_in_another_order_run_nothing(project):
    project.configure(data=FOLDER | {"train": ["data/more", "data/train"]})
    assert project.planned("submission") == set()


@pytest.mark.slow
def test_renamed_images_retrain_nothing_and_keep_the_bits_of_the_weights(project):
    folds = project.folder / "results/data/folds.csv"
    before = pd.read_csv(folds, dtype=str).set_index("sha256")["fold"].to_dict()
    for place, path in enumerate(sorted((project.folder / "data/train").rglob("*.png"))):
        path.rename(path.with_name(f"{97 * place % 31}-renamed.png"))
    run_without_training(project)
    assert pd.read_csv(folds, dtype=str).set_index("sha256")["fold"].to_dict() == before
    weights = load_file(project.folder / "results/tiny/fold0/model.safetensors")
    done = project.run("-R", "train_fold0", "--", "train_fold0")  # trained by the new names
    assert done.returncode == 0, done.stdout
    again = load_file(project.folder / "results/tiny/fold0/model.safetensors")
    assert all(np.array_equal(weights[name], tensor) for name, tensor in again.items())


@pytest.mark.slow
def test_forcing_the_manifest_retrains_nothing(project):
    run_without_training(project, "-R", "manifest", "--", "train_fold0", "train_fold1")


@pytest.mark.slow
def test_half_a_training_image_is_refused_and_deleting_it_retrains_nothing(project):
    broken = project.folder / "data/train/7/broken.png"
    broken.write_bytes(b"half")
    for _ in range(2):
        assert project.run("submission").returncode != 0
    broken.unlink()
    run_without_training(project)


@pytest.mark.slow
def test_a_replaced_image_of_a_table_is_detected(tables):
    write_colour(tables.folder / "pictures/b.png", "119", np.random.default_rng(98))
    assert tables.planned("submission") == AFTER_NEW_TEST_IMAGES
    write_colour(tables.folder / "images/7-0.png", "7", np.random.default_rng(97))
    assert {"manifest", "train_fold0", "train_fold1"} <= tables.planned("submission")


# --- sources that are gone -------------------------------------------------------------------------------


def test_a_disk_that_is_not_mounted_loses_nothing(project):
    (project.folder / "data").rename(project.folder / "away")
    done = project.run("submission")
    assert "data.train: there is no folder data/train; using results/data/train.csv" in done.stdout
    assert "Nothing to be done" in done.stdout
    (project.folder / "away").rename(project.folder / "data")
    assert project.planned("submission") == set()


@pytest.mark.slow
def test_a_vote_and_a_report_need_no_images(project):
    shutil.rmtree(project.folder / "data")
    before = histories(project)
    for arguments in (("submission", "--config", "ensemble=vote"), ("report",)):
        done = project.run(*arguments)
        assert done.returncode == 0, done.stdout
    assert histories(project) == before
    assert (project.folder / "results/report.html").is_file()


@pytest.mark.slow
def test_another_form_of_the_submission_needs_no_tables(tables):
    for name in ("train.csv", "test.csv"):
        (tables.folder / name).unlink()
    tables.configure(submission={"label_column": "class"})
    assert tables.planned("submission") == {"write_submission", "metrics", "submission"}
    run_without_training(tables, "results/submission.csv")
    assert list(pd.read_csv(tables.folder / "results/submission.csv")) == ["image_name", "class"]


@pytest.mark.slow
def test_a_table_that_changed_while_its_images_are_gone_is_refused(tables):
    shutil.rmtree(tables.folder / "pictures")
    (tables.folder / "test.csv").write_text("id\nb.png\n")
    done = tables.run("submission")
    assert done.returncode == 1
    assert "data.test_images: there is no folder pictures" in done.stdout
    assert (tables.folder / "results/submission.csv").is_file()


def test_sources_that_were_never_read_are_refused_all_at_once_and_nothing_is_removed(project):
    files = sorted(path for path in (project.folder / "results").rglob("*") if path.is_file())
    project.configure(data=FOLDER | {"train": ["nowhere", "data/more"], "test": "gone"})
    done = project.run("submission")
    assert done.returncode == 1
    assert "data.train: there is no folder nowhere" in done.stdout
    assert "data.test: there is no folder gone" in done.stdout
    assert all(path.is_file() for path in files)


# --- the recipe ------------------------------------------------------------------------------------------


@pytest.mark.slow
def test_a_recipe_changed_and_changed_back_is_trained_twice_and_not_three_times(project):
    before, both = histories(project), ("train_fold0", "train_fold1")
    project.edit("tiny.yaml", "lr: 0.003", "lr: 0.002")
    assert project.run(*both).returncode == 0
    assert all(history != before[path] for path, history in histories(project).items())
    project.edit("tiny.yaml", "lr: 0.002", "lr: 0.003")
    assert project.run(*both).returncode == 0
    assert histories(project) == before
    done = project.run("clean_models")
    assert done.returncode == 0, done.stdout
    assert (done.stdout.count("MB, kept"), done.stdout.count("MB, removed")) == (2, 2), done.stdout
    assert len(list(project.folder.glob("trained/*"))) == 2


def test_the_same_recipe_by_another_name_retrains_nothing(project):
    shutil.copy(project.folder / "tiny.yaml", project.folder / "other.yaml")
    done = project.run("train_fold0", "train_fold1", "--config", "recipe=other.yaml")
    assert done.returncode == 0, done.stdout
    assert done.stdout.count("already trained with the same data and recipe") == 2


def test_a_new_option_at_its_default_runs_nothing(project, monkeypatch):
    """As a developer adds one to every model of the configuration."""
    source = Path(shutil.copytree(REPOSITORY / "src", project.folder / "src"))
    config = source / "kfold_ens/config.py"
    text = config.read_text()
    section = 'model_config = ConfigDict(extra="forbid", frozen=True, use_attribute_docstrings=True)\n'
    assert section in text
    config.write_text(text.replace(section, f"{section}\n    brand_new_option: int = 3\n"))
    monkeypatch.setenv("PYTHONPATH", str(source))
    assert project.planned("submission") == set()
    assert "already trained with" in run_without_training(project, "-R", "folds", "--", "train_fold0", "train_fold1")


def test_another_prediction_batch_size_reruns_nothing(project):
    project.configure(prediction_batch_size=2)
    assert project.planned("submission") == set()


@pytest.mark.slow
@pytest.mark.parametrize("asked", [("-R", "train_fold1", "--"), ("-R", MODEL, "--"), ("--force",), ("--forceall",)])
def test_a_forced_fold_is_retrained(project, asked):
    before = histories(project)
    done = project.run(*asked, "train_fold1")
    assert done.returncode == 0, done.stdout
    assert [Path(path).parent.name for path, each in histories(project).items() if each != before[path]] == ["fold1"]


@pytest.mark.slow
def test_old_predictions_do_not_replace_a_failed_fold(project):
    project.edit("tiny.yaml", "lr: 0.003", "lr: 0.002")
    obstacle = project.folder / "state/tiny/fold0"
    obstacle.parent.mkdir(parents=True, exist_ok=True)
    obstacle.write_text("where the fold's state should go")
    assert project.run("submission").returncode != 0
    obstacle.unlink()
    assert planned_to_train(project, "submission") == {"train_fold0"}


def test_without_models_and_pixels_a_vote_trains_nothing(project):
    for path in [*project.folder.glob("results/tiny/fold*/model.safetensors"), *project.folder.glob("trained/*/*")]:
        path.unlink()
    shutil.rmtree(project.folder / "results/data/pixels-16")
    assert project.planned("submission", "--config", "ensemble=vote") == {"write_submission", "submission"}


# --- copies and disks ------------------------------------------------------------------------------------


def test_a_copy_without_times_has_nothing_to_do(of_folders, tmp_path):
    copy = Path(shutil.copytree(of_folders.folder, tmp_path / "copy", copy_function=shutil.copyfile))
    now = time.time()
    for path in copy.glob("results/data/**/*"):
        os.utime(path, (now + 5, now + 5))  # the last that was copied
    profile = copy / "profiles/default/config.yaml"
    largest_table = max(path.stat().st_size for path in copy.glob("results/data/**/*.csv"))
    pixels = min(path.stat().st_size for path in copy.glob("results/data/pixels-*/*.u8"))
    lines = profile.read_text().splitlines()
    lines = [line for line in lines if not line.startswith("max-checksum-file-size")]
    profile.write_text("\n".join([*lines, "max-checksum-file-size: 20000"]))
    assert largest_table < 20000
    assert pixels > 0
    assert (copy / "results/tiny/fold0/model.safetensors").stat().st_size > 20000
    assert Project(copy).planned("submission") == set()


@pytest.mark.slow
def test_a_damaged_kept_fold_is_retrained_and_an_intact_one_is_not(project):
    before = histories(project)
    shutil.rmtree(project.folder / "results/tiny")
    entries = [path.parent for path in project.folder.glob("trained/*/entry.json")]
    (fold0,) = (entry for entry in entries if json.loads((entry / "entry.json").read_text())["fold"] == 0)
    (fold0 / "model.safetensors").write_bytes(b"damaged")
    done = project.run("train_fold0", "train_fold1")
    assert done.returncode == 0, done.stdout
    assert "is damaged; retraining the fold" in done.stdout
    assert [Path(path).parent.name for path, each in histories(project).items() if each == before[path]] == ["fold1"]


def test_kept_folds_take_no_extra_disk_space(of_folders):
    models = sorted(of_folders.folder.glob("results/tiny/fold*/model.safetensors"))
    kept = {path.stat().st_ino for path in of_folders.folder.glob("trained/*/model.safetensors")}
    assert {path.stat().st_ino for path in models} == kept


KEEPS_FOR_EVER = """
import itertools, os
from functools import partial
from pathlib import Path
from kfold_ens.files import atomic
from kfold_ens.training.kept import KeptFolds

print("ready", flush=True)
for number in itertools.count():
    files = {name: Path("results", name) for name in ("model.safetensors", "history.csv")}
    for file in files.values():
        with atomic(file) as temporary:
            temporary.write_bytes(os.urandom(300_000))
    KeptFolds(Path("trained")).keep(str(number % 3) * 64, files, {"recipe": "tiny", "fold": 0})
"""


@pytest.mark.slow
def test_a_kill_while_keeping_a_fold_leaves_no_partial_one(tmp_path):
    draw, found = random.Random(time.time_ns()), 0
    for _ in range(15):
        command = [sys.executable, "-c", KEEPS_FOR_EVER]
        with subprocess.Popen(command, cwd=tmp_path, stdout=subprocess.PIPE, text=True) as process:
            process.stdout.readline()
            time.sleep(draw.uniform(0, 0.3))
            process.kill()
        kept = [KeptFold(path) for path in (tmp_path / "trained").glob("[!.]*")]
        assert all(fold.is_whole() for fold in kept)
        found = max(found, len(kept))
    assert found == 3


# --- a closed terminal -----------------------------------------------------------------------------------


@pytest.mark.slow
def test_a_closed_terminal_saves_the_fold_and_leaves_no_lock(project):
    project.edit("tiny.yaml", "epochs: 1", "epochs: 2000")
    at_a_terminal = partial(signal.signal, signal.SIGHUP, signal.SIG_DFL)  # also if the tests run under nohup
    options = {"start_new_session": True, "preexec_fn": at_a_terminal}
    with project.started("--cores", "1", "submission", **options) as snakemake:
        while not list(project.folder.glob("state/tiny/fold*/progress.json")):  # Snakemake begins with any
            assert snakemake.poll() is None
            time.sleep(0.2)
        time.sleep(2)
        os.killpg(snakemake.pid, signal.SIGHUP)
        snakemake.communicate(timeout=60)
    assert list(project.folder.glob("state/tiny/fold*/state.pt"))
    planned = project.planned("submission")  # refused if the folder were locked
    assert {"train_fold0", "predict_test_fold0"} <= planned


# --- everything at once ----------------------------------------------------------------------------------


class Deeds:
    """What a user may do to a project that changes nothing that weights follow from."""

    def __init__(self, project: Project, draw: random.Random) -> None:
        self.project, self.draw = project, draw
        self.data = dict(FOLDER)

    def rename(self) -> None:
        path = self.draw.choice(sorted((self.project.folder / self.data["train"][0]).rglob("*.png")))
        path.rename(path.with_name(f"{self.draw.random()}.png"))

    def touch(self) -> None:
        for path in self.project.folder.glob("results/data/*"):
            if self.draw.random() < 0.5:
                path.touch()

    def move(self) -> None:
        folder = self.project.folder / self.data["train"][0]
        moved = folder.with_name(f"moved{self.draw.randrange(10**6)}")
        folder.rename(moved)
        self.data["train"] = [str(moved.relative_to(self.project.folder)), *self.data["train"][1:]]

    def reorder(self) -> None:
        self.data["train"] = self.data["train"][::-1]

    def add_a_test_image(self) -> None:
        seed = self.draw.randrange(10**6)
        write_images(self.project.folder / "data/test", [f"{seed}.png"], "7", seed)

    def remove_a_test_image(self) -> None:
        images = sorted((self.project.folder / "data/test").iterdir())
        if len(images) > 1:
            self.draw.choice(images).unlink()

    def copy(self) -> None:
        target = self.project.folder.with_name(f"copy{self.draw.randrange(10**6)}")
        shutil.copytree(self.project.folder, target, copy_function=shutil.copyfile)
        shutil.rmtree(self.project.folder)
        self.project = Project(target)

    def change_the_recipe(self) -> None:
        path = self.project.folder / "tiny.yaml"
        write_yaml(path, RECIPE | {"epochs": 1, "batch_size": self.draw.choice([8, 6])})

    def any(self) -> str:
        names = [name for name in vars(Deeds) if name not in ("any",) and not name.startswith("_")]
        name = self.draw.choice(names)
        getattr(self, name)()
        self.project.configure(data=self.data)
        return name


@pytest.mark.slow
def test_no_order_of_actions_trains_a_fold_twice_on_the_same_content(project):
    """Two recipes are changed back and forth, so at most two histories a fold are ever seen, each with its weights."""
    seed = time.time_ns()
    deeds, seen, done = Deeds(project, random.Random(seed)), {}, []
    for _ in range(12):
        done += [deeds.any() for _ in range(deeds.draw.randrange(1, 3))]
        run = deeds.project.run("train_fold0", "train_fold1")
        assert run.returncode == 0, (seed, done, run.stdout)
        batch_size = (deeds.project.folder / "tiny.yaml").read_text().split("batch_size: ")[1].split()[0]
        for folder in sorted(deeds.project.folder.glob("results/tiny/fold*")):
            found = (folder / "history.csv").read_bytes(), (folder / "model.safetensors").read_bytes()
            assert seen.setdefault((batch_size, folder.name), found) == found, (seed, done)
        assert planned_to_train(deeds.project, "train_fold0", "train_fold1") == set(), (seed, done)
