"""What kfold-init says and writes about a folder."""

from __future__ import annotations

import time
from pathlib import Path

import pytest
import yaml
from conftest import log_restored, write_classes, write_image

from kfold_ens.config import load_config
from kfold_ens.init.command import main


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    (tmp_path / "project").mkdir()
    return tmp_path / "project"


@pytest.fixture
def init(folder, capsys):
    """Run kfold-init in the folder; return its exit code, the keys of config.yaml, and what it printed."""

    def run() -> tuple[int, dict, str]:
        with pytest.raises(SystemExit) as end, log_restored():
            main([str(folder)])
        file = folder / "config.yaml"
        return end.value.code, yaml.safe_load(file.read_text()) if file.is_file() else {}, "".join(capsys.readouterr())

    return run


def images(folder: Path, *names: str) -> None:
    for seed, name in enumerate(names):
        write_image(folder / name, seed=seed)


def table(path: Path, header: str, *rows: str) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("\n".join([header, *rows, ""]), encoding="utf-8")


def labelled(folder: Path, header: str = "id,label", ending: str = ".png", form: str = "{name},{label}") -> None:
    """A training table of eight images of two classes in train/, and four images in test/."""
    names = [f"a{number}" for number in range(8)]
    images(folder / "train", *(name + ending for name in names))
    images(folder / "test", *(f"b{number}{ending}" for number in range(4)))
    rows = [form.format(name=name, label="xy"[at % 2], at=at) for at, name in enumerate(names)]
    table(folder / "train.csv", header, *rows)


# --- folders ---------------------------------------------------------------------------------------------


def test_class_folders_and_a_test_folder_are_found(folder, init):
    write_classes(folder / "train", {"cat": 3, "dog": 2})
    images(folder / "test", "1.png", "2.png")
    code, config, said = init()
    assert code == 0
    assert config["data"] == {"source": "imagefolder", "train": "train", "test": "test"}
    assert "data.train: train (5 images in 2 classes: cat, dog)" in said
    assert "data.test: test (by its name; 2 images)" in said
    assert said.splitlines()[-2:] == [f"Next: cd {folder} && snakemake check", "Then: snakemake --cores 4 submission"]


def test_train_and_val_are_merged(folder, init):
    write_classes(folder / "data/train", {"0": 3, "1": 3, "10": 3})
    write_classes(folder / "data/val", {"0": 1, "10": 1}, seed=99)
    images(folder / "data/test", "5f3a.jpg")
    _, config, said = init()
    assert config["data"] == {
        "source": "imagefolder",
        "train": ["data/train", "data/val"],
        "test": "data/test",
    }
    assert "merged, since folds need no validation set" in said


def test_classes_that_only_val_has_are_asked_about(folder, init):
    write_classes(folder / "train", {"cat": 3, "dog": 3})
    write_classes(folder / "val", {"cat": 1, "god": 1}, seed=99)
    images(folder / "test", "1.png")
    _, config, said = init()
    assert "train" not in config["data"]
    assert "val has classes that train lacks: god" in said


def test_val_without_test_images_has_two_answers(folder, init):
    write_classes(folder / "train", {"cat": 3, "dog": 3})
    write_classes(folder / "val", {"cat": 1, "dog": 1}, seed=99)
    _, config, said = init()
    assert config["data"] == {"source": "imagefolder"}
    written = (folder / "config.yaml").read_text()
    assert "  # train: train\n  # test: val\n" in written
    assert "  # train: [train, val]\n  # test: FOLDER\n" in written
    assert "First decide in config.yaml: data.train, data.test." in said


def test_a_folder_without_a_name_that_says_so_is_offered_for_prediction_not_taken(folder, init):
    write_classes(folder / "train", {"owl": 2, "tit": 2})
    images(folder / "to do", "1.PNG", "2.PNG")
    _, config, said = init()
    assert config["data"] == {"source": "imagefolder", "train": "train"}
    assert "data.test: not decided, since only its place says that it is to be predicted: test: to do" in said
    assert "  # test: to do # 2 images\n" in (folder / "config.yaml").read_text()


def test_cats_beside_breeds_of_dogs_may_be_a_class_or_the_test_images(folder, init):
    write_classes(folder / "dogs", {"beagle": 2, "poodle": 2})
    images(folder / "cats", "1.png")
    _, config, said = init()
    assert config["data"] == {"source": "imagefolder"}
    assert "data.train: not decided, since cats, dogs may be the classes" in said
    assert "First decide in config.yaml: data.train, data.test." in said


def test_screenshots_are_no_doubt_about_folders_that_are_named(folder, init):
    write_classes(folder / "photos", {"owl": 2, "tit": 2})
    images(folder, "docs/1.png", "test/1.png")
    assert init()[1]["data"] == {"source": "imagefolder", "train": "photos", "test": "test"}


# --- folders of classes that are named like halves of the data -------------------------------------------


@pytest.mark.parametrize("name", ["train", "test", "val", "sample", "sample_2", "freight_train", "test_tube", "Tests"])
@pytest.mark.parametrize("root", ["train", "data/train"])
def test_a_class_may_be_named_like_a_half_of_the_data(folder, init, root, name):
    write_classes(folder / root, {"apple": 2, "bus": 2, name: 2})
    images(folder / "test", "1.png")
    assert init()[1]["data"] == {"source": "imagefolder", "train": root, "test": "test"}
    assert name in (folder / "config.yaml").read_text()


def test_both_train_and_test_may_be_classes_in_a_folder_named_train(folder, init):
    write_classes(folder / "train", {"train": 2, "test": 2, "bus": 2})
    images(folder / "test", "1.png")
    assert init()[1]["data"] == {"source": "imagefolder", "train": "train", "test": "test"}


@pytest.mark.parametrize("name", ["freight_train", "test_tube", "sample_2", "samples"])
def test_a_class_named_with_more_than_a_half_needs_no_folder_named_train(folder, init, name):
    write_classes(folder / "things", {"apple": 2, name: 2})
    images(folder / "test", "1.png")
    assert init()[1]["data"] == {"source": "imagefolder", "train": "things", "test": "test"}


@pytest.mark.parametrize("name", ["test", "train", "val"])
def test_a_half_beside_classes_is_asked_about(folder, init, name):
    write_classes(folder / "things", {"apple": 2, "bus": 2, name: 2})
    _, config, said = init()
    assert config["data"] == {"source": "imagefolder"}
    assert f"since things/{name} may be no class; if so, move it out of things: train: things" in said


def test_patients_in_a_class_named_test_tube_are_training_images(folder, init):
    write_classes(folder / "train/test_tube", {"p1": 2, "p2": 2})
    write_classes(folder / "train/beaker", {"p1": 2, "p2": 2}, seed=99)
    _, config, said = init()
    assert "train: [train/beaker, train/test_tube]" in said
    assert "data.test: not found" in said


def test_a_single_class_named_test_tube_is_no_test_folder(folder, init):
    write_classes(folder / "train", {"test_tube": 2})
    write_classes(folder / "train/beaker", {"big": 2, "small": 2}, seed=99)
    assert "data.test: not found" in init()[2]


@pytest.mark.parametrize(
    ("train", "test"),
    [
        ("birds_train", "birds_test"),
        ("stage1_train", "stage1_test"),
        ("TrainImages", "TestImages"),
        ("training", "test2"),
        ("train_set/train", "test_set/test_set"),
        ("training_2019/train", "training_2019/test"),
    ],
)
def test_names_of_a_pair_are_halves(folder, init, train, test):
    write_classes(folder / train, {"owl": 2, "tit": 2})
    images(folder / test, "1.png")
    data = init()[1]["data"]
    assert data["train"] == train
    assert data["test"] in (test, test.split("/")[0])


def test_a_folder_whose_name_only_mentions_a_test_is_offered(folder, init):
    write_classes(folder / "train", {"beaker": 2, "flask": 2})
    images(folder / "test_tubes", "1.png")
    _, config, said = init()
    assert "test" not in config["data"]
    assert "not decided, since its name may mean something else: test: test_tubes (1 image)" in said


def test_loose_halves_of_a_table_are_no_classes(folder, init):
    images(folder / "data/train_images", *(f"a{number}.png" for number in range(4)))
    images(folder, "data/test_images/b.png", "data/masks/c.png")
    table(folder / "train.csv", "id,label", "a0,x", "a1,y", "a2,x", "a3,y")
    table(folder / "test.csv", "id", "b")
    data = init()[1]["data"]
    assert (data["source"], data["images"], data["test_images"]) == ("csv", "data/train_images", "data/test_images")


@pytest.mark.parametrize("name", ["train_1", "masks"])
def test_a_table_decides_about_a_folder_named_train_beside_others(folder, init, name):
    images(folder / "data/train", *(f"a{number}.png" for number in range(4)))
    images(folder / "data" / name, "c.png")
    table(folder / "train.csv", "id,label", "a0,x", "a1,y", "a2,x", "a3,y")
    assert init()[1]["data"]["source"] == "csv"


def test_only_a_sample_of_class_folders_has_a_key(folder, init):
    write_classes(folder / "sample", {"cat": 2, "dog": 2})
    images(folder / "test", "1.png")
    assert init()[1]["data"] == {"source": "imagefolder", "train": "sample", "test": "test"}


def test_a_sample_beside_all_images_has_two_answers(folder, init):
    write_classes(folder / "train", {"cat": 3, "dog": 3})
    write_classes(folder / "sample", {"cat": 1, "dog": 1}, seed=99)
    _, config, said = init()
    assert "train" not in config["data"]
    assert "train: [train, sample]" in said


def test_val_and_screenshots_may_both_be_the_test_images(folder, init):
    write_classes(folder / "train", {"cat": 3, "dog": 3})
    write_classes(folder / "val", {"cat": 1, "dog": 1}, seed=99)
    images(folder / "docs", "1.png")
    _, config, said = init()
    assert config["data"] == {"source": "imagefolder"}
    assert "train: [train, val], test: docs" in said


def test_two_folders_of_class_folders_have_several_answers(folder, init):
    write_classes(folder / "photos", {"cat": 2, "dog": 2})
    write_classes(folder / "scans", {"cat": 2, "dog": 2}, seed=99)
    images(folder / "test", "1.png")
    _, config, said = init()
    assert config["data"] == {"source": "imagefolder", "test": "test"}
    written = (folder / "config.yaml").read_text()
    assert "  # train: [photos, scans]\n" in written
    assert "  # train: photos\n" in written
    assert "3 answers are possible, since several folders hold class folders" in said


def test_patients_in_class_folders_may_be_the_classes_or_not(folder, init):
    for label in ("ill", "well"):
        write_classes(folder / "train" / label, {"p1": 2, "p2": 2})
    images(folder / "test", "1.png")
    _, config, _ = init()
    assert "train" not in config["data"]
    written = (folder / "config.yaml").read_text()
    assert "  # train: [train/ill, train/well]\n" in written
    assert "  # train: train\n" in written


def test_two_test_folders_are_both_named(folder, init):
    write_classes(folder / "train", {"cat": 2, "dog": 2})
    images(folder, "test_a/1.png", "test_b/2.png")
    _, config, said = init()
    assert "test" not in config["data"]
    assert "data.test: 2 answers are possible: test: test_a (1 image); or test: test_b (1 image)" in said


def test_class_folders_at_the_top_are_refused(folder, init):
    write_classes(folder, {"cat": 2, "dog": 2})
    code, config, said = init()
    assert (code, config) == (2, {})
    assert "cat, dog lie directly in this folder" in said
    assert not list(folder.glob("Snakefile"))


def test_only_a_validation_folder_is_not_taken_for_training(folder, init):
    write_classes(folder / "val", {"cat": 2, "dog": 2})
    images(folder / "test", "1.png")
    _, config, said = init()
    assert "train" not in config["data"]
    assert "data.train: not decided, since its name says it is for validation: train: val" in said


def test_labelled_test_images_are_no_training_set(folder, init):
    write_classes(folder / "train", {"cat": 2, "dog": 2})
    write_classes(folder / "test", {"cat": 1, "dog": 1}, seed=99)
    _, config, _ = init()
    assert config["data"] == {"source": "imagefolder", "train": "train", "test": "test"}
    assert config["submission"]["names"] == "path"


def test_numbered_class_names_are_not_taken_for_images(folder, init):
    write_classes(folder / "train", {"cat": 2, "dog": 2, "owl": 2})
    images(folder / "test", "0.png", "1.png", "2.png")
    table(folder / "classes.csv", "number,word", "0,cat", "1,dog", "2,owl")
    assert init()[1]["data"] == {"source": "imagefolder", "train": "train", "test": "test"}


def test_a_single_class_is_no_training_set(folder, init):
    write_classes(folder / "train", {"cat": 3})
    images(folder / "test", "1.png")
    _, config, said = init()
    assert config["data"] is None
    assert "images lie in test (1), train/cat (3); needs two or more class folders" in said


def test_what_a_run_made_is_not_taken_for_data(folder, init):
    write_classes(folder / "train", {"cat": 2, "dog": 2})
    images(folder, "test/1.png", "results/data/images/train/1.png", ".hidden/cat/1.png")
    _, config, said = init()
    assert config["data"] == {"source": "imagefolder", "train": "train", "test": "test"}
    assert "5 images" in said


@pytest.mark.parametrize(
    "name", ["a b", "{fold}", "Grün", "yes", "1e3", "a: b", "#1", "a,b", "tab\there", "- x", "'q\"", "~x"]
)
def test_odd_names_are_written_as_they_are(folder, init, name):
    write_classes(folder / "train" / name, {name: 2, "dog": 2})
    images(folder / "test", "1.png")
    _, config, _ = init()
    assert config["data"]["train"] == f"train/{name}"
    load_config(config)


def test_equal_names_of_test_images_are_told_apart(folder, init):
    write_classes(folder / "train", {"cat": 2, "dog": 2})
    images(folder / "test", "1.png", "1.jpg")
    assert init()[1]["submission"]["names"] == "file"


# --- tables ----------------------------------------------------------------------------------------------


def test_tables_with_their_columns_and_folders_are_found(folder, init):
    labelled(folder)
    table(folder / "test.csv", "id", *(f"b{number}" for number in range(4)))
    _, config, said = init()
    assert config["data"] == {
        "source": "csv",
        "train": "train.csv",
        "test": "test.csv",
        "id_column": "id",
        "images": "train",
        "test_images": "test",
        "label_column": "label",
    }
    assert "data.label_column: label (by its name; values 'x', 'y')" in said


def test_semicolons_and_upper_case_endings_are_read(folder, init):
    labelled(folder, "file;class", ending=".PNG", form="{name}.PNG;{label}")
    table(folder / "test.csv", "file", *(f"b{number}.PNG" for number in range(4)))
    data = init()[1]["data"]
    assert (data["id_column"], data["label_column"]) == ("file", "class")


def test_paths_in_a_table_lie_below_the_project(folder, init):
    labelled(folder, form="train/{name}.png,{label}")
    table(folder / "test.csv", "id", *(f"test/b{number}.png" for number in range(4)))
    data = init()[1]["data"]
    assert data["images"] == "."
    assert "test_images" not in data


def test_two_columns_that_name_the_images_have_two_answers(folder, init):
    labelled(folder, "id,image,label", form="{name},{name}.png,{label}")
    table(folder / "test.csv", "id,image", *(f"b{number},b{number}.png" for number in range(4)))
    _, config, said = init()
    assert "id_column" not in config["data"]
    assert "2 answers are possible, since each column names the images: id_column: id" in said
    assert "  # id_column: id\n" in (folder / "config.yaml").read_text()
    assert "  # id_column: image\n" in (folder / "config.yaml").read_text()


def test_the_sample_says_which_of_two_columns_names_the_images(folder, init):
    labelled(folder, "id,image,label", form="{name},{name}.png,{label}")
    table(folder / "sample_submission.csv", "image,label", *(f"b{number}.png,x" for number in range(4)))
    _, config, said = init()
    assert config["data"]["id_column"] == "image"
    assert "also in sample_submission.csv" in said


def test_columns_that_may_all_be_labels_are_listed(folder, init):
    labelled(folder, "id,colour,form", form="{name},{label},{label}")
    table(folder / "test.csv", "id", *(f"b{number}" for number in range(4)))
    _, config, said = init()
    assert "label_column" not in config["data"]
    assert "label_column: colour (values 'x', 'y'); or label_column: form" in said


def test_a_column_of_patients_is_offered_not_taken(folder, init):
    labelled(folder, "id,label,patient_id", form="{name},{label},{at}")
    table(folder / "test.csv", "id", *(f"b{number}" for number in range(4)))
    _, config, said = init()
    assert "group_column" not in config["data"]
    assert "  # group_column: patient_id # 8 values\n" in (folder / "config.yaml").read_text()
    assert "First decide" not in said


def test_labels_in_folders_and_in_a_table_have_two_answers(folder, init):
    write_classes(folder / "train", {"cat": 4, "dog": 4})
    images(folder / "test", "1.png")
    names = [f"{label}/{index:04d}.png" for label in ("cat", "dog") for index in range(4)]
    table(folder / "train.csv", "id,label", *(f"{name},{name[:3]}" for name in names))
    _, config, said = init()
    assert config["data"] is None
    assert "2 answers are possible, since both folders and a table say the labels" in said
    assert "  # source: imagefolder\n" in (folder / "config.yaml").read_text()
    assert "  # source: csv\n" in (folder / "config.yaml").read_text()


def test_a_table_that_names_no_images_is_said_to_be_unused(folder, init):
    write_classes(folder / "train", {"cat": 2, "dog": 2})
    images(folder / "test", "1.png")
    table(folder / "classes.csv", "number,word", "0,cat", "1,dog")
    table(folder / "broken.csv", "a,a;b", "1,2;3", '"')
    _, config, said = init()
    assert config["data"]["source"] == "imagefolder"
    assert "classes.csv: not used (no column names images: 'number', 'word')" in said
    assert "broken.csv: not used (" in said


def test_a_table_for_validation_is_offered_for_training(folder, init):
    labelled(folder)
    images(folder / "train", "v0.png", "v1.png")
    table(folder / "val.csv", "id,label", "v0,x", "v1,y")
    table(folder / "test.csv", "id", *(f"b{number}" for number in range(4)))
    _, config, said = init()
    assert "extra" not in config["data"]
    assert "its images can train in every fold, and are never held out: extra: val.csv (2 rows)" in said
    assert "First decide" not in said
    load_config(yaml.safe_load((folder / "config.yaml").read_text().replace("# extra: val.csv", "extra: val.csv")))


def test_a_table_for_validation_with_images_elsewhere_is_said_to_be_unused(folder, init):
    labelled(folder)
    images(folder / "val", "v0.png", "v1.png")
    table(folder / "val.csv", "id,label", "v0,x", "v1,y")
    table(folder / "test.csv", "id", *(f"b{number}" for number in range(4)))
    assert "val.csv: not used (its name says it is for validation" in init()[2]


def test_labels_of_test_images_are_offered_for_scores(folder, init):
    labelled(folder)
    table(folder / "test.csv", "id,label", *(f"b{number},{'xy'[number % 2]}" for number in range(4)))
    _, config, said = init()
    assert config["data"]["test"] == "test.csv"
    assert "test_labels" not in config["data"]
    assert "test_labels: test.csv (4 rows; also write submission.id_column: id, submission.label_column: label)" in said
    assert "First decide" not in said


def test_labels_that_training_images_lack_are_not_offered(folder, init):
    labelled(folder)
    table(folder / "test.csv", "id,label", *(f"b{number},unknown" for number in range(4)))
    assert "data.test_labels" not in init()[2]


def test_a_table_of_test_labels_is_not_taken_for_the_list_of_test_images(folder, init):
    labelled(folder)
    table(folder / "test.csv", "id", *(f"b{number}" for number in range(4)))
    table(folder / "test_labels.csv", "id,label", *(f"b{number},x" for number in range(4)))
    _, config, said = init()
    assert config["data"]["test"] == "test.csv"
    assert "test_labels: test_labels.csv (4 rows" in said


def test_labels_of_test_images_are_offered_beside_class_folders(folder, init):
    write_classes(folder / "train", {"cat": 2, "dog": 2})
    images(folder / "test", "1.png", "2.png")
    table(folder / "test.csv", "name,class", "1,cat", "2,dog")
    table(folder / "val.csv", "name,class", "1,cat", "2,dog")
    said = init()[2]
    assert "test_labels: test.csv (2 rows" in said
    assert "val.csv: not used (" in said


def test_several_columns_named_as_labels_are_said_to_be_so(folder, init):
    labelled(folder, "id,label,category", form="{name},{label},{at}")
    table(folder / "test.csv", "id", *(f"b{number}" for number in range(4)))
    assert "data.label_column: 2 answers are possible, since several names say that they hold labels" in init()[2]


def test_a_column_of_0_and_1_per_class_is_no_column_of_labels(folder, init):
    labelled(folder, "id,rust,scab", form="{name},0,1")
    table(folder / "test.csv", "id", *(f"b{number}" for number in range(4)))
    _, config, said = init()
    assert "label_column" not in config["data"]
    assert "data.label_column: not found; 'rust', 'scab' have a single 1 in each row" in said


def test_what_is_not_certain_about_one_of_two_sources_is_said(folder, init):
    write_classes(folder / "birds", {"owl": 4, "tit": 4})
    images(folder / "new", "1.png")
    table(folder / "notes.csv", "file,note", *(f"birds/owl/{index:04d}.png,x{index}" for index in range(4)))
    said = init()[2]
    assert "2 answers are possible, since both folders and a table say the labels" in said
    assert "data.test: not decided, since only its place says" in said


# --- what is not data -----------------------------------------------------------------------------------


def test_images_where_a_run_writes_are_said_to_be_unused(folder, init):
    write_classes(folder / "train", {"cat": 2, "dog": 2})
    images(folder, "test/1.png", "resources/1.png")
    table(folder / "logs/train.csv", "id,label", "1,cat")
    said = init()[2]
    assert "resources: not used (holds 1 image or table, but a run writes its own files there" in said
    assert "logs: not used (" in said


@pytest.mark.parametrize(
    ("place", "sign"),
    [("venv", "pyvenv.cfg"), ("tools/env", "conda-meta/history"), ("web/node_modules", "x"), ("my/site-packages", "x")],
)
def test_images_of_installed_programs_are_no_data(folder, init, place, sign):
    write_classes(folder / "train", {"cat": 2, "dog": 2})
    images(folder / "test", "1.png")
    write_classes(folder / place / "lib/icons", {"a": 2, "b": 2}, seed=99)
    table(folder / place / sign, "")
    _, config, said = init()
    assert config["data"] == {"source": "imagefolder", "train": "train", "test": "test"}
    assert f"{place}: not used (holds installed programs)" in said
    assert "holds 5 images and 0 tables" in said


# --- samples ---------------------------------------------------------------------------------------------


def test_a_download_with_a_sample_is_complete(folder, init):
    labelled(folder, "id_code,diagnosis,age", form="{name},{at},{at}")
    table(folder / "sample_submission.csv", "id_code,diagnosis", *(f"b{number},0" for number in range(4)))
    _, config, said = init()
    assert config["data"]["test"] == "sample_submission.csv"
    assert config["data"]["label_column"] == "diagnosis"
    assert config["submission"]["sample"] == "sample_submission.csv"
    assert "names the test images, such as 'b0'; predicts diagnosis" in said


@pytest.mark.parametrize("name", ["sampleSubmission.csv", "SampleSubmission.csv", "samplesubmission.csv"])
def test_a_sample_may_be_one_word(folder, init, name):
    labelled(folder)
    table(folder / name, "id,label", *(f"b{number},x" for number in range(4)))
    _, config, _ = init()
    assert config["submission"]["sample"] == name


def test_a_sample_beside_class_folders_says_the_form_of_ids(folder, init):
    write_classes(folder / "train", {"cat": 2, "dog": 2})
    images(folder / "test", "1.png", "2.png")
    table(folder / "sample.csv", "file,cat,dog", "test/1.png,0.5,0.5", "test/2.png,0.5,0.5")
    _, config, said = init()
    assert config["submission"]["sample"] == "sample.csv"
    assert "such as 'test/1.png'; predicts 2 columns of probabilities" in said


def test_a_sample_of_other_images_is_left_to_the_user(folder, init):
    write_classes(folder / "train", {"cat": 2, "dog": 2})
    images(folder / "test", "1.png", "2.png")
    table(folder / "sample.csv", "id,label", "7,cat", "8,cat")
    _, config, said = init()
    assert "sample" not in config["submission"]
    assert "submission.sample: not decided, no column of sample.csv names the test images" in said
    assert "  # sample: sample.csv # by its name\n" in (folder / "config.yaml").read_text()


# --- large folders ---------------------------------------------------------------------------------------


@pytest.mark.slow
def test_a_hundred_thousand_images_take_seconds(folder, init):
    for label in range(100):
        (folder / f"train/{label}").mkdir(parents=True)
        for number in range(1000):
            (folder / f"train/{label}/{label}_{number}.jpg").touch()
    (folder / "test").mkdir()
    (folder / "test/1.jpg").touch()
    table(folder / "notes.csv", "a,b", *(f"{number},{number}" for number in range(1000)))
    start = time.perf_counter()
    _, config, _ = init()
    assert time.perf_counter() - start < 15
    assert config["data"]["train"] == "train"
