"""Kept folds: found by fingerprint, and restored whole or not at all."""

from __future__ import annotations

import dataclasses
import logging
import os
import shutil
import stat
import subprocess
import sys
import time
from itertools import product
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from conftest import write_classes
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image
from safetensors.numpy import save_file
from stages import Hashes, make_stage, newer_config, of_folders, renamed_stage, stage_of, training_recipe

from kfold_ens.data.folds import Fold, Images, read_fold
from kfold_ens.data.manifest import read_manifest
from kfold_ens.data.pixels import write_pixels
from kfold_ens.files import fingerprint, read_json, write_json, write_table
from kfold_ens.splits.assign import assign_folds
from kfold_ens.training import kept as kept_folds
from kfold_ens.training.fold import FoldFiles, TrainingOutputs, fold_fingerprint
from kfold_ens.training.kept import HOUR, KeptFolds, clean, restore_fold

RECIPE = training_recipe()

# --- fingerprints ----------------------------------------------------------------------------------------

TRAIN = [("red", 0), ("green", 1), ("green", 1), ("blue", 0)]
HELD_OUT = [("cyan", 0), ("pink", 1)]


def images_of(pairs):
    ids = np.array([f"train/{index}.png" for index in range(len(pairs))], dtype=object)
    sha256 = [fingerprint(content) for content, _ in pairs]
    return Images(Hashes(ids, sha256), ids, np.array([target for _, target in pairs]))


def fold_of(train=TRAIN, held_out=HELD_OUT, number=1, seed=0, classes=("a", "b")):
    return Fold(number, seed, images_of(train), images_of(held_out), classes)


def print_of(recipe=RECIPE, weights=None, version=1, **fold):
    return fold_fingerprint(recipe, fold_of(**fold), weights, version)


def changed(**sections):
    return {"recipe": training_recipe(**sections)}


OTHERS = {
    "bytes of a training image": {"train": [*TRAIN[:3], ("black", 0)]},
    "bytes of a held-out image": {"held_out": [("black", 0), HELD_OUT[1]]},
    "label of a training image": {"train": [("red", 1), *TRAIN[1:]]},
    "label of a held-out image": {"held_out": [HELD_OUT[0], ("pink", 0)]},
    "one image more": {"train": [*TRAIN, ("black", 0)]},
    "one image fewer": {"train": TRAIN[:3]},
    "one copy more": {"train": [*TRAIN, ("blue", 0)]},
    "one copy fewer": {"train": [TRAIN[0], *TRAIN[2:]]},
    "one training image held out": {"train": TRAIN[1:], "held_out": [TRAIN[0], *HELD_OUT]},
    "name of a class": {"classes": ("a", "c")},
    "order of the classes": {"classes": ("b", "a")},
    "one class more": {"classes": ("a", "b", "c")},
    "seed": {"seed": 1},
    "fold": {"number": 2},
    "version": {"version": 2},
    "version of a stage": {"version": [1, 2]},
    "epochs": changed(epochs=2),
    "batch size": changed(batch_size=4),
    "selection": changed(select="last"),
    "learning rate": changed(optimizer={"kind": "adamw", "lr": 2e-3, "weight_decay": 0.01}),
    "a value that was at its default": changed(head={"kind": "linear", "dropout": 0.1}),
    "order of the augmentation": changed(augmentation=RECIPE.model_dump()["augmentation"][::-1]),
    "network": changed(backbone={"kind": "torchvision", "name": "resnet34", "weights": "none"}),
    "stored size": changed(image={"kind": "squash", "size": 16, "short_side": 32, "normalize": False}),
}


@pytest.mark.parametrize("other", OTHERS.values(), ids=OTHERS)
def test_what_changes_the_weights_changes_the_fingerprint(other):
    assert print_of(**other) != print_of()


def test_pretrained_weights_are_identified_by_bytes_not_by_name(tmp_path):
    one, same, other = (tmp_path / name for name in ("one.safetensors", "same.safetensors", "other.safetensors"))
    one.write_bytes(b"weights")
    shutil.copy(one, same)
    other.write_bytes(b"weighty")
    named = {
        name: training_recipe(backbone={"kind": "torchvision", "name": "resnet18", "weights": name})
        for name in ("IMAGENET1K_V1", str(one), str(same))
    }
    assert len({print_of(recipe, weights) for recipe in named.values() for weights in (one, same)}) == 1
    assert len({print_of(weights=weights) for weights in (None, one, other)}) == 3


def test_writing_out_defaults_changes_no_fingerprint():
    written = changed(
        augmentation=[{"kind": "horizontal_flip", "probability": 0.5}, {"kind": "resize", "size": None}],
        backbone={"kind": "torchvision", "name": "resnet18", "weights": "none", "frozen": [], "inserted": []},
        loss={"label_smoothing": 0.0, "kind": "cross_entropy"},
        optimizer={"kind": "adamw", "lr": "1e-3", "weight_decay": 0.01, "betas": [0.9, 0.999], "stage_lr": {}},
    )
    assert print_of(**written) == print_of()


def test_a_new_optional_key_in_every_model_changes_no_fingerprint():
    newer = newer_config().TrainingRecipe.model_validate(RECIPE.model_dump())
    assert newer.model_dump() != RECIPE.model_dump()
    assert print_of(newer) == print_of()


COPIES = st.lists(st.tuples(st.integers(0, 12), st.integers(0, 12)), max_size=4)
CHANGES = st.lists(st.sampled_from(["renamed", "moved", "reordered"]), min_size=1, max_size=4)


def a_table(copies):
    """Thirty labelled training images, some of them copies of others."""
    table = pd.DataFrame({"image_id": [f"train/{index:02d}.png" for index in range(30)], "label": ["a", "b"] * 15})
    content = table["image_id"].tolist()
    for one, other in copies:
        content[2 * one + 2] = content[2 * other]  # of one label
    return table.assign(sha256=[fingerprint(each) for each in content])


def as_read(table, folder):
    """Fold 1 as read from the files of the data stage."""
    write_table(folder / "folds.csv", assign_folds(table, 3, 0))
    write_json(folder / "classes.json", ["a", "b"])
    store = Hashes(table["image_id"], table["sha256"])
    return read_fold(1, 0, str(folder / "folds.csv"), str(folder / "classes.json"), store)


@given(st.randoms(use_true_random=False), COPIES, CHANGES)
def test_names_paths_and_row_order_change_no_fingerprint(tmp_path_factory, random, copies, changes):
    folder, table = tmp_path_factory.mktemp("stage"), a_table(copies)
    expected = fold_fingerprint(RECIPE, as_read(table, folder), None, 1)
    for change in changes:
        order = random.sample(range(30), 30)
        if change == "renamed":
            table = table.assign(image_id=[f"train/new {number:02d}.jpg" for number in order])
        elif change == "moved":
            table = table.assign(image_id=[f"train/{order[0]}/{name}" for name in table["image_id"]])
        else:
            table = table.iloc[order]
        assert fold_fingerprint(RECIPE, as_read(table, folder), None, 1) == expected
    table.loc[table.index[order[0]], "sha256"] = fingerprint("other bytes")
    assert fold_fingerprint(RECIPE, as_read(table, folder), None, 1) != expected


# --- keeping ---------------------------------------------------------------------------------------------

FINGERPRINT, OTHER = fingerprint("mine"), fingerprint("other")
ABOUT = {"recipe": "tiny", "fold": 1}


def trained(results, fingerprint=FINGERPRINT, recipe="tiny", fold=1, weights=1):
    """Files of a trained fold, as in results/."""
    folder = results / recipe / f"fold{fold}"
    folder.mkdir(parents=True, exist_ok=True)
    files = {name: folder / name for name in ("model.safetensors", "history.csv")}
    for file in files.values():
        file.unlink(missing_ok=True)  # as Snakemake does before it starts a job
    save_file({"w": np.full(50, weights)}, files["model.safetensors"], metadata={"fingerprint": fingerprint})
    files["history.csv"].write_text(f"epoch,val_loss\n1,{weights}\n")
    return files


def contents(files):
    return {name: file.read_bytes() for name, file in files.items()}


@pytest.fixture
def kept(tmp_path):
    return KeptFolds(tmp_path / "trained")


@pytest.fixture
def files(kept, tmp_path):
    """Files of a fold that is also kept."""
    files = trained(tmp_path / "results")
    kept.keep(FINGERPRINT, files, ABOUT)
    return files


def test_a_kept_fold_is_restored_as_the_same_files(kept, files, caplog):
    before, (entry,) = contents(files), kept.all()
    for file in files.values():
        os.utime(file, (10**9, 10**9))
        file.unlink()
    started = time.time()
    with caplog.at_level(logging.INFO):
        assert kept.restore(FINGERPRINT, files)
    assert contents(files) == before
    for name, file in files.items():
        assert os.path.samefile(file, entry.folder / name)  # so it takes no extra space
        assert file.stat().st_mtime >= started - 1  # else Snakemake would see outputs older than the inputs
    day = time.strftime("%Y-%m-%d")
    assert f"already trained with the same data and recipe (tiny, fold 1, {day}" in caplog.text


def test_a_kept_fold_has_an_entry_that_describes_it(kept, files):
    (entry,) = kept.all()
    assert {name: entry.about[name] for name in ("recipe", "fold", "fingerprint")} == ABOUT | {
        "fingerprint": FINGERPRINT
    }
    assert entry.is_whole()
    assert entry.size >= sum(len(content) for content in contents(files).values())


def test_an_unknown_fingerprint_restores_nothing(kept, files, caplog):
    before = contents(files)
    assert not kept.restore(OTHER, files)
    assert contents(files) == before
    assert "damaged" not in caplog.text


def test_looking_up_an_empty_store_creates_nothing(tmp_path):
    kept = KeptFolds(tmp_path / "trained")
    assert kept.all() == []
    assert not kept.restore(FINGERPRINT, {})
    assert os.listdir(tmp_path) == []


def test_a_fold_removed_from_the_results_stays_kept(kept, files):
    before = contents(files)
    shutil.rmtree(files["model.safetensors"].parents[2])
    assert kept.restore(FINGERPRINT, files)
    assert contents(files) == before


def truncate(path):
    os.truncate(path, path.stat().st_size // 2)


def flip_a_bit(path):
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 1
    path.write_bytes(content)


def holding(content):
    return lambda path: path.write_bytes(content)


DAMAGES = {
    "half a model": ("model.safetensors", truncate),
    "a flipped bit in the model": ("model.safetensors", flip_a_bit),
    "no model": ("model.safetensors", Path.unlink),
    "a flipped bit in the history": ("history.csv", flip_a_bit),
    "no history": ("history.csv", Path.unlink),
    "half an entry": ("entry.json", truncate),
    "no entry": ("entry.json", Path.unlink),
    "an empty entry": ("entry.json", holding(b"")),
    "an entry of zeros": ("entry.json", holding(bytes(200))),
    "an entry that is not text": ("entry.json", holding(b"\xff\xfe")),
    "an entry without hashes": ("entry.json", holding(b"{}")),
    "an entry without files": ("entry.json", holding(b'{"sha256": {}}')),
    "an entry of other files": ("entry.json", holding(b'{"sha256": {"notes.txt": "0"}}')),
    "an entry that is a list": ("entry.json", holding(b"[]")),
    "hashes that are a list": ("entry.json", holding(b'{"sha256": [1]}')),
}


@pytest.mark.parametrize(("name", "damage"), DAMAGES.values(), ids=DAMAGES)
def test_a_damaged_fold_is_retrained_and_replaced(name, damage, kept, files, tmp_path, caplog):
    (entry,) = kept.all()
    damage(entry.folder / name)
    again = {name: tmp_path / "again" / name for name in files}
    with caplog.at_level(logging.WARNING):
        assert not kept.restore(FINGERPRINT, again)
    assert f"{entry.folder} is damaged; retraining the fold" in caplog.text
    assert not (tmp_path / "again").exists()
    fresh = trained(tmp_path / "results", weights=2)
    kept.keep(FINGERPRINT, fresh, ABOUT)
    assert kept.restore(FINGERPRINT, again)
    assert contents(again) == contents(fresh)


def test_a_fold_kept_twice_replaces_the_first(kept, files, tmp_path):
    fresh = trained(tmp_path / "results", weights=2)
    kept.keep(FINGERPRINT, fresh, ABOUT)
    (entry,) = kept.all()
    assert contents({name: entry.folder / name for name in fresh}) == contents(fresh)
    assert os.listdir(tmp_path / "trained") == [entry.folder.name]


def test_kept_folds_are_listed_oldest_first(kept, files, tmp_path):
    kept.keep(OTHER, trained(tmp_path / "results", OTHER, weights=2), ABOUT)
    for age, entry in enumerate(sorted(kept.all(), key=lambda entry: entry.about["fingerprint"] == OTHER)):
        os.utime(entry.folder / "entry.json", (10**9 - age, 10**9 - age))
    assert [entry.about["fingerprint"] for entry in kept.all()] == [OTHER, FINGERPRINT]
    for mine, weights in ((FINGERPRINT, 1), (OTHER, 2)):
        assert kept.restore(mine, files)
        assert files["history.csv"].read_text().endswith(f"1,{weights}\n")


def test_without_hard_links_files_are_copied(kept, tmp_path, monkeypatch):
    def refuse(*arguments, **keywords):
        raise OSError(1, "Operation not permitted")

    monkeypatch.setattr(os, "link", refuse)
    files = trained(tmp_path / "results")
    kept.keep(FINGERPRINT, files, ABOUT)
    before = contents(files)
    shutil.rmtree(tmp_path / "results")
    assert kept.restore(FINGERPRINT, files)
    assert contents(files) == before


def test_kept_folds_have_the_permissions_of_the_results(kept, files):
    (entry,) = kept.all()
    modes = [stat.S_IMODE(folder.stat().st_mode) for folder in (entry.folder, files["history.csv"].parent)]
    assert modes[0] == modes[1]


@pytest.mark.parametrize("name", ["entry.json", "history.csv"])
def test_leftovers_of_a_killed_job_are_ignored_and_removed_later(name, kept, files, tmp_path):
    ours, theirs = (tmp_path / "trained" / f".{each}.tmp" for each in ("old", "running"))
    for left in (ours, theirs):
        left.mkdir()
        shutil.copy(files["history.csv"], left / name)
    os.utime(ours, (time.time() - 2 * HOUR,) * 2)
    assert [entry.about["fingerprint"] for entry in kept.all()] == [FINGERPRINT]
    assert kept.restore(FINGERPRINT, files)
    kept.keep(OTHER, trained(tmp_path / "results", OTHER), ABOUT)
    assert not ours.exists()
    assert theirs.exists()  # another job may still be writing it
    assert len(kept.all()) == 2


class Killed(BaseException):
    """An exception that the package does not catch."""


STEPS = {  # of keeping a fold, and the module or class to patch
    "link": kept_folds,
    "sha256_of": kept_folds,
    "write_json": kept_folds,
    "sync": kept_folds,
    "mkdtemp": kept_folds.tempfile,
    "rename": Path,
    "rmtree": shutil,
}


def keep_until(step, moment, kept, files):
    """Keep a fold, but kill it at call number ``moment`` of a step; False if there are fewer calls."""
    place, left = STEPS[step], [moment]
    done = getattr(place, step)

    def kill(*arguments, **keywords):
        left[0] -= 1
        if left[0] < 0:
            raise Killed
        return done(*arguments, **keywords)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(place, step, kill)
        try:
            kept.keep(FINGERPRINT, files, ABOUT)
        except Killed:
            return True
    return False


@pytest.mark.parametrize("before", [False, True], ids=["new", "replacing another"])
def test_a_job_killed_while_it_keeps_a_fold_leaves_it_whole_or_absent(before, tmp_path):
    outcomes = []
    for step, moment in product(STEPS, range(4)):
        folder = tmp_path / f"{step}{moment}"
        kept, files = KeptFolds(folder / "trained"), trained(folder / "results")
        if before:
            kept.keep(FINGERPRINT, files, ABOUT)
        fresh = trained(folder / "results", weights=2)
        if keep_until(step, moment, kept, fresh):
            again = {name: folder / "again" / name for name in fresh}
            assert all(entry.is_whole() for entry in kept.all())
            outcomes.append(again["history.csv"].read_text()[-2] if kept.restore(FINGERPRINT, again) else "none")
            kept.keep(FINGERPRINT, fresh, ABOUT)  # leftovers do not get in the way
            assert kept.restore(FINGERPRINT, again)
            assert contents(again) == contents(fresh)
    assert len(outcomes) == (11 if before else 10)
    assert set(outcomes) == ({"none", "1", "2"} if before else {"none", "2"})


# --- cleaning --------------------------------------------------------------------------------------------


def models_of(results, *recipes, folds=(0, 1)):
    models = [results / recipe / f"fold{fold}" / "model.safetensors" for recipe in recipes for fold in folds]
    return [model for model in models if model.is_file()]


@pytest.fixture
def several(kept, tmp_path):
    """Two folds of a recipe, each also from before a change of the recipe, and one of a deleted recipe."""
    for recipe, fold in (("tiny", 0), ("tiny", 1), ("gone", 0)):
        for weights in (1, 2):
            name = fingerprint([recipe, fold, weights])
            about = {"recipe": recipe, "fold": fold}
            kept.keep(name, trained(tmp_path / "results", name, recipe, fold, weights), about)
    return kept


def names_of(kept):
    return {entry.about["fingerprint"] for entry in kept.all()}


def test_cleaning_removes_folds_that_no_recipe_uses(several, tmp_path, caplog):
    models = models_of(tmp_path / "results", "tiny")
    with caplog.at_level(logging.INFO):
        clean(several, models, [])
    assert names_of(several) == {fingerprint(["tiny", fold, 2]) for fold in (0, 1)}
    day = time.strftime("%Y-%m-%d")
    said = [line for line in caplog.messages if line.startswith(day)]
    assert len(said) == 6
    assert sorted(line.split(", ")[-1] for line in said) == ["kept"] * 2 + ["removed"] * 4
    assert all(model.is_file() for model in models)


def newest(fold):
    return fingerprint(["tiny", fold, 2])


def test_cleaning_keeps_the_folds_of_a_recipe_that_was_changed_back(stage, kept, tmp_path):
    files = FoldFiles(**{name: value for name, value in job_of(stage, tmp_path).items() if name in FILES_OF_A_FOLD})
    for name in (files.fingerprint(), fingerprint("of another recipe")):
        kept.keep(name, trained(tmp_path / "results", name), ABOUT)
    clean(kept, [], [files])
    assert names_of(kept) == {files.fingerprint()}


def test_cleaning_without_pixels_keeps_all_versions_of_a_configured_fold(stage, several, tmp_path):
    job = job_of(stage, tmp_path) | {"pixels": "gone", "index": "gone"}
    clean(several, [], [FoldFiles(**{name: value for name, value in job.items() if name in FILES_OF_A_FOLD})])
    assert names_of(several) == {fingerprint(["tiny", 1, weights]) for weights in (1, 2)}


def test_cleaning_keeps_the_folds_of_a_renamed_recipe(several, tmp_path):
    """The entry still has the old name."""
    os.rename(tmp_path / "results/tiny", tmp_path / "results/mine")
    clean(several, models_of(tmp_path / "results", "mine"), [])
    assert names_of(several) == {newest(0), newest(1)}


@pytest.mark.parametrize(
    "content", [b"", b"{}", b"[]", bytes(100), b"\xff\xfe"], ids=["empty", "no keys", "list", "zeros", "not text"]
)
def test_cleaning_works_with_a_damaged_fold(several, tmp_path, content):
    entry = next(each for each in several.all() if each.about["fingerprint"] == newest(0))
    (entry.folder / "entry.json").write_bytes(content)
    clean(several, models_of(tmp_path / "results", "tiny"), [])
    assert newest(1) in {each.about["fingerprint"] for each in several.all() if each.is_whole()}


def test_cleaning_an_empty_store_does_nothing(kept, tmp_path):
    clean(kept, models_of(tmp_path / "results", "tiny"), [])
    assert os.listdir(tmp_path) == []


# --- looking a fold up -----------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def stage(tmp_path_factory):
    return make_stage(tmp_path_factory.mktemp("stage"), {"dark": 6, "light": 6})


FILES_OF_A_FOLD = [field.name for field in dataclasses.fields(FoldFiles)]


def was_trained_before(*, state_folder, kept_folder, history_file, model_file, again, **files):
    outputs = TrainingOutputs(*map(Path, (history_file, model_file, state_folder)))
    return restore_fold(FoldFiles(**files), outputs, KeptFolds(Path(kept_folder)), again)


def job_of(stage, folder, recipe=RECIPE, **others):
    """Arguments of the training job of a fold."""
    results = folder / "results" / "tiny" / "fold1"
    files = {name: stage.file(name) for name in ("folds", "classes", "pixels", "index")}
    places = {"state_folder": str(folder / "state"), "kept_folder": str(folder / "trained")}
    outputs = {"history_file": str(results / "history.csv"), "model_file": str(results / "model.safetensors")}
    how = {"recipe": recipe, "number": 1, "seed": 0, "weights": None, "version": 1}
    return how | files | places | outputs | others


def keep_a_fold(stage, folder, recipe=RECIPE, weights=None):
    """Keep a fold as if it had been trained, then remove its results."""
    name = fold_fingerprint(recipe, stage.fold(), weights, 1)
    files = trained(folder / "results", name)
    before = contents(files)
    KeptFolds(folder / "trained").keep(name, files, ABOUT)
    shutil.rmtree(folder / "results")
    return files, before


def test_a_fold_trained_before_is_restored(stage, tmp_path):
    assert not was_trained_before(**job_of(stage, tmp_path), again=False)
    files, before = keep_a_fold(stage, tmp_path)
    assert was_trained_before(**job_of(stage, tmp_path), again=False)
    assert contents(files) == before


def test_renamed_moved_or_copied_images_retrain_nothing(stage, tmp_path):
    keep_a_fold(stage, tmp_path / "run")
    elsewhere = renamed_stage(stage, tmp_path / "elsewhere")
    assert was_trained_before(**job_of(elsewhere, tmp_path / "run"), again=False)


def test_changed_images_labels_or_recipes_retrain(stage, tmp_path):
    keep_a_fold(stage, tmp_path)
    for others in ({"seed": 1}, {"number": 0}, {"version": 2}, {"recipe": training_recipe(epochs=2)}):
        assert not was_trained_before(**job_of(stage, tmp_path) | others, again=False)
    for change in ("bytes", "label"):
        folder = tmp_path / change
        shutil.copytree(stage.folder / "train", folder / "train")
        shutil.copytree(stage.folder / "test", folder / "test")
        image = folder / "train/dark/0000.png"
        if change == "bytes":
            image.write_bytes(image.read_bytes() + b" ")
        else:
            image.rename(folder / "train/light/moved.png")
        assert not was_trained_before(**job_of(stage_of(of_folders(folder), folder), tmp_path), again=False)
    assert was_trained_before(**job_of(stage, tmp_path), again=False)


@pytest.mark.parametrize("bits", [8, 16])
def test_another_intensity_range_retrains_only_if_an_image_has_16_bits(tmp_path, bits):
    data, other = tmp_path / "data", {name: str(tmp_path / name) for name in ("pixels", "index")}
    write_classes(data / "train", {"cat": 6, "dog": 6})
    write_classes(data, {"test": 2}, seed=9)
    if bits == 16:
        Image.fromarray(np.arange(256, dtype=np.uint16).reshape(16, 16)).save(data / "train/cat/0000.png")
    stage = stage_of(of_folders(data), data)
    keep_a_fold(stage, tmp_path)
    for intensity_range in ("per_image", (0, 4095), "full"):
        files = [Path(file) for file in other.values()]
        write_pixels(read_manifest(stage.file("train.csv")), 16, *files, 1, intensity_range)
        trained_before = was_trained_before(**job_of(stage, tmp_path) | other, again=False)
        assert trained_before == (intensity_range == "full" or bits == 8)


def test_other_test_images_retrain_nothing(stage, tmp_path):
    keep_a_fold(stage, tmp_path)
    shutil.copytree(stage.folder / "train", tmp_path / "data/train")
    shutil.copytree(stage.folder / "test", tmp_path / "data/test")
    (tmp_path / "data/test/0.png").unlink()
    other = stage_of(of_folders(tmp_path / "data"), tmp_path / "data")
    assert was_trained_before(**job_of(other, tmp_path), again=False)


def test_other_pretrained_weights_retrain(stage, tmp_path):
    for name, content in (("one", b"weights"), ("same", b"weights"), ("other", b"weighty")):
        (tmp_path / name).write_bytes(content)
    keep_a_fold(stage, tmp_path, weights=tmp_path / "one")
    found = {
        name: was_trained_before(**job_of(stage, tmp_path, weights=name and str(tmp_path / name)), again=False)
        for name in ("one", "same", "other", None)
    }
    assert found == {"one": True, "same": True, "other": False, None: False}


def test_a_forced_fold_is_retrained_even_after_an_interruption(stage, tmp_path):
    files, before = keep_a_fold(stage, tmp_path)
    job = job_of(stage, tmp_path)
    assert not was_trained_before(**job, again=True)
    assert not was_trained_before(**job, again=False)  # the job above was interrupted
    assert not files["model.safetensors"].exists()
    assert len(KeptFolds(tmp_path / "trained").all()) == 1  # the old fold stays until the new one is trained
    shutil.rmtree(tmp_path / "state")  # as training does at its end
    assert was_trained_before(**job, again=False)


def test_forcing_a_fold_affects_only_its_recipe(stage, tmp_path):
    other = training_recipe(epochs=2)
    keep_a_fold(stage, tmp_path)
    keep_a_fold(stage, tmp_path, other)
    assert not was_trained_before(**job_of(stage, tmp_path), again=True)
    assert was_trained_before(**job_of(stage, tmp_path, other), again=False)
    assert not was_trained_before(**job_of(stage, tmp_path), again=False)  # still forced


LOOK_UP = """
import json, sys
from kfold_ens.config import TrainingRecipe
from pathlib import Path
from kfold_ens.training.fold import FoldFiles, TrainingOutputs
from kfold_ens.training.kept import KeptFolds, restore_fold
job = json.loads(sys.argv[1])
state, kept, history, model = (Path(job.pop(name + "_" + kind)) for name, kind in
    (("state", "folder"), ("kept", "folder"), ("history", "file"), ("model", "file")))
files = FoldFiles(**job | {"recipe": TrainingRecipe.model_validate(job["recipe"])})
found = restore_fold(files, TrainingOutputs(history, model, state), KeptFolds(kept), again=False)
print(found, sorted({"torch", "torchvision", "sklearn"} & set(sys.modules)))
"""


def test_looking_up_a_fold_does_not_import_torch(stage, tmp_path):
    keep_a_fold(stage, tmp_path)
    write_json(tmp_path / "job.json", job_of(stage, tmp_path, RECIPE.model_dump(mode="json")))
    arguments = [sys.executable, "-c", LOOK_UP, (tmp_path / "job.json").read_text()]
    done = subprocess.run(arguments, capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "True []"
    assert read_json(tmp_path / "job.json")["number"] == 1
