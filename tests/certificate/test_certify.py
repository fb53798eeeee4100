"""A certificate passes without a leak, and names each planted one."""

from __future__ import annotations

from dataclasses import replace
from types import SimpleNamespace

import numpy as np
import pandas as pd
import pytest
import torch
from conftest import log_restored
from stages import make_stage, signals_kept, training_recipe

from kfold_ens.certificate import artefacts
from kfold_ens.certificate.artefacts import ARTEFACTS, Artefact
from kfold_ens.certificate.certify import certify, write_certificate
from kfold_ens.certificate.compare import compare
from kfold_ens.certificate.rebuild import Bench, Rebuild
from kfold_ens.compute.compute import Compute
from kfold_ens.config import NoTta, load_config
from kfold_ens.data.folds import read_fold
from kfold_ens.ensemble.temperature import calibrate, fitted
from kfold_ens.errors import KfoldError
from kfold_ens.files import read_json, read_table
from kfold_ens.logits import Logits, concatenated
from kfold_ens.members import Member
from kfold_ens.training import loop
from kfold_ens.training.fold import fold_fingerprint
from kfold_ens.training.losses import build_loss
from kfold_ens.training.trainer import Trainer

CPU = Compute(torch.device("cpu"), None, 0)
CALIBRATED = {"submission": {"kind": "probabilities", "calibrate": True}}


@pytest.fixture(scope="module")
def stage(tmp_path_factory):
    return make_stage(tmp_path_factory.mktemp("stage"), {"dark": 13, "grey": 12, "light": 12})


def bench_of(stage, folder, epochs=1, run=None, **sections) -> Bench:
    keys = {"data": {"source": "digits"}, "num_folds": 3, "certify": [1]} | (run or {})
    recipe = training_recipe(**{"select": "last", "epochs": epochs} | sections)
    (folder / "scratch").mkdir()
    torch.set_num_threads(1)
    return Bench(
        run=load_config(keys),
        recipe=recipe,
        epochs=8,
        tta=NoTta(kind="none"),
        classes=stage.file("classes"),
        store=stage.store,
        weights=None,
        version=1,
        compute=CPU,
        scratch=folder / "scratch",
    )


def findings(bench, stage) -> list[str]:
    with signals_kept():
        (entry,) = certify(bench, [read_table(stage.file("folds"))])
    return entry["findings"]


# --- without a leak, and with the choices that a recipe may make ------------------------------------------


def test_the_last_epoch_is_certified_and_the_labels_did_change(stage, tmp_path):
    bench = bench_of(stage, tmp_path, sampler={"kind": "balanced"}, loss={"kind": "focal", "balanced": True})
    with signals_kept():
        (entry,) = certify(bench, [read_table(stage.file("folds"))])
    assert entry["findings"] == []
    assert all(each["is_same"] for each in entry["artefacts"])
    assert [each["is_same"] for each in entry["controls"]] == [False]
    assert entry["labels_changed"] > entry["held_out"] / 2


@pytest.mark.parametrize(
    ("sections", "key"),
    [
        ({"select": "best_accuracy"}, "select: best_accuracy"),
        ({"early_stopping": {"kind": "patience", "patience": 9}}, "early_stopping: patience on loss"),
        (
            {"schedule": {"kind": "plateau", "monitor": "accuracy"}},
            "schedule: plateau on accuracy",
        ),
    ],
)
def test_what_looks_at_held_out_labels_is_named_even_if_it_changed_nothing(stage, tmp_path, sections, key):
    (found,) = findings(bench_of(stage, tmp_path, **sections), stage)
    assert found.startswith("fold 1: ")
    assert f"{key} looks at held-out labels" in found
    assert "though it is the same here" in found


def test_a_choice_of_the_epoch_that_other_labels_change_is_named_with_both_epochs(stage, tmp_path):
    bench = bench_of(
        stage, tmp_path, epochs=4, select="best_loss", optimizer={"kind": "adamw", "lr": 3e-3, "weight_decay": 0}
    )
    with signals_kept():
        (entry,) = certify(bench, [read_table(stage.file("folds"))])
    (found,) = entry["findings"]
    same = {each["name"]: each["is_same"] for each in entry["artefacts"]}
    assert same["epoch by other folds"]  # which an honest score is for
    assert not same["chosen epoch"]
    assert "chosen epoch changed with the labels (" in found
    assert "and so did model.safetensors: select: best_loss looks at held-out labels" in found
    assert "select: last" in found


# --- planted leaks ----------------------------------------------------------------------------------------


def after_init(monkeypatch, change) -> None:
    """Change each trainer once it is built."""
    init = Trainer.__init__

    def changed(self, *arguments, **keywords):
        init(self, *arguments, **keywords)
        change(self)

    monkeypatch.setattr(Trainer, "__init__", changed)


def count_held_out_labels(trainer) -> None:
    both = np.concatenate([trainer.fold.train.target, trainer.fold.validation.target])
    counts = np.bincount(both, minlength=len(trainer.fold.classes))
    trainer.backward.criterion = build_loss(trainer.recipe.loss, counts)


def test_a_class_weight_computed_from_held_out_labels_is_named(stage, tmp_path, monkeypatch):
    after_init(monkeypatch, count_held_out_labels)
    weighted = {"kind": "cross_entropy", "weights": "balanced"}
    (found,) = findings(bench_of(stage, tmp_path, loss=weighted), stage)
    assert found.startswith(
        "fold 1: class weights changed with the labels, and so did model.safetensors: the loss weighs"
    )


def test_a_leak_into_the_loss_of_late_epochs_is_named_by_a_short_certificate(stage, tmp_path, monkeypatch):
    """The recipe switches its loss in epoch 6 of 8; the certificate trains one epoch."""
    after_init(monkeypatch, count_held_out_labels)
    weighted = {"kind": "cross_entropy", "weights": "balanced"}
    blend = {"blend_from": 6, "switch_at": 6}
    switched = {"kind": "switched", "before": {"kind": "cross_entropy"}, "after": weighted, **blend}
    (found,) = findings(bench_of(stage, tmp_path, loss=switched), stage)
    assert found.startswith("fold 1: class weights changed with the labels: the loss weighs")


def test_normalisation_by_a_statistic_of_held_out_labels_is_named(stage, tmp_path, monkeypatch):
    def shift(trainer):
        mean = float(trainer.fold.validation.target.mean())
        monkeypatch.setattr(Compute, "input", lambda self, views, image: views.float() / 255 - mean)

    after_init(monkeypatch, shift)
    (found,) = findings(bench_of(stage, tmp_path), stage)
    assert "network input changed with the labels, and so did model.safetensors" in found
    assert "normalisation" in found


def test_training_on_held_out_images_is_named(stage, tmp_path, monkeypatch):
    def everything(*arguments):
        fold = read_fold(*arguments)
        return replace(fold, train=read_fold("full", *arguments[1:]).train)

    monkeypatch.setattr("kfold_ens.certificate.rebuild.read_fold", everything)
    (found,) = findings(bench_of(stage, tmp_path), stage)
    assert "training images changed with the labels" in found


def test_a_head_set_up_from_held_out_labels_is_named(stage, tmp_path, monkeypatch):
    def prior(trainer):
        with torch.no_grad():
            trainer.network.head.bias += float(trainer.fold.validation.target.mean())

    after_init(monkeypatch, prior)
    (found,) = findings(bench_of(stage, tmp_path), stage)
    assert "initial weights changed with the labels" in found


def test_labels_that_enter_a_step_by_another_way_are_named_by_the_model(stage, tmp_path, monkeypatch):
    step = Trainer.step

    def leaky(self, views, labels):
        self.optimizer.param_groups[0]["weight_decay"] = float(self.fold.validation.target.mean())
        step(self, views, labels)

    monkeypatch.setattr(Trainer, "step", leaky)
    (found,) = findings(bench_of(stage, tmp_path), stage)
    assert found.startswith("fold 1: model.safetensors changed with the labels: training itself used held-out labels")


# --- quantities that are fitted on logits -----------------------------------------------------------------


def folds_of_logits(scale=3.0, images=60):
    """Overconfident logits of three folds, with a table of their labels."""
    random, oof, rows = np.random.default_rng(0), [], []
    for fold in range(3):
        ids = np.array([f"{fold}/{index}" for index in range(images)], dtype=object)
        values = random.normal(0, 1, (images, 3))
        labels = [str((row + random.gumbel(size=3)).argmax()) for row in values]
        rows += [(image, label, str(fold)) for image, label in zip(ids, labels, strict=True)]
        oof.append(Logits(ids, values * scale, ("0", "1", "2")))
    return oof, pd.DataFrame(rows, columns=["image_id", "label", "fold"])


def rebuilt(labels: pd.DataFrame, oof) -> SimpleNamespace:
    """What ``compare`` needs of a rebuild of fold 1 whose training used no label of it."""
    images = SimpleNamespace(keys=lambda: ["a"], target=np.array([0]))
    row = {"lr": 0.1, "epoch": 1, "val_accuracy": (labels["label"] == "0").mean()}
    return SimpleNamespace(
        member=Member(0, 1),
        bench=SimpleNamespace(
            run=load_config({"data": {"source": "digits"}} | CALIBRATED),
            recipe=training_recipe(select="last"),
            compute=CPU,
        ),
        fold=SimpleNamespace(train=images, validation=[0] * 60),
        untrained={"loss": "", "weights": "", "inputs": ""},
        trained=SimpleNamespace(history=[row], weights="", digest=""),
        label_of=dict(zip(labels["image_id"], labels["label"], strict=True)),
        oof=oof,
    )


@pytest.fixture
def both():
    """The same logits, with the true and with other labels of fold 1."""
    oof, labels = folds_of_logits()
    other = labels.copy()
    own = other["fold"] == "1"
    other.loc[own, "label"] = other.loc[own, "label"].map({"0": "1", "1": "1", "2": "0"})
    return rebuilt(labels, oof), rebuilt(other, oof)


def compared(both, **plants):
    with pytest.MonkeyPatch.context() as patch:
        for name, artefact in plants.items():
            patch.setitem(ARTEFACTS, name.replace("_", " "), artefact)
        return compare(*both, again=lambda: both[0])


def test_a_temperature_fitted_on_the_other_folds_stays_and_one_fitted_on_all_folds_does_not(both):
    entry = compared(both)
    assert entry["findings"] == []
    assert entry["artefacts"][-1]["name"] == "temperature"
    control = entry["controls"][-1]
    assert control["name"] == "temperature fitted on all folds"
    assert not control["is_same"]


def test_an_epoch_that_the_scored_fold_helps_to_choose_is_named(both, monkeypatch):
    def by_all(histories, select):
        return dict.fromkeys(histories, sum(rows[0]["val_accuracy"] for rows in histories.values()))

    for each in both:
        each.bench.recipe = training_recipe(select="best_accuracy")
        each.histories = {0: [{"val_accuracy": 0.5}], 1: each.trained.history}
    monkeypatch.setattr(artefacts, "cross_fitted_epochs", by_all)
    chosen, by_others = compared(both)["findings"]
    assert "select: best_accuracy looks at held-out labels" in chosen
    assert by_others.startswith("fold 1: epoch by other folds changed with the labels (")


def test_a_temperature_fitted_on_the_fold_it_scores_is_named(both, monkeypatch):
    def on_all(oof, label_of):
        return replace(calibrate(oof, label_of), of_folds=(fitted(concatenated(oof), label_of),) * len(oof))

    monkeypatch.setattr(artefacts, "calibrate", on_all)
    (found,) = compared(both)["findings"]
    assert found.startswith("fold 1: temperature changed with the labels (")
    assert "was fitted on its own labels, or dropped by them; fit it on the other folds only" in found


def accuracy_weights(rebuild, folds) -> list[float]:
    """Weights of two members, the logits and a poor copy, by their accuracy on some folds."""
    logits = concatenated([rebuild.oof[fold] for fold in folds])
    truth = np.array([int(rebuild.label_of[image]) for image in logits.image_id])
    return [float((values.argmax(axis=1) == truth).mean()) for values in (logits.values, logits.values[:, ::-1])]


@pytest.mark.parametrize(("folds", "is_leak"), [([0, 2], False), ([0, 1, 2], True)])
def test_weights_fitted_on_the_fold_that_they_score_are_named(both, folds, is_leak):
    weights = Artefact(
        lambda rebuild: accuracy_weights(rebuild, folds), "weights saw the fold's labels", "fit elsewhere"
    )
    found = compared(both, blend_weights=weights)["findings"]
    assert found == (
        ["fold 1: blend weights changed with the labels: weights saw the fold's labels; fit elsewhere"]
        if is_leak
        else []
    )


def test_a_leak_into_what_other_folds_fit_is_named_even_after_another_one(both):
    own = Artefact(lambda rebuild: rebuild.label_of, "one", "")
    fit = replace(own, path="two", is_of_others=True)
    found = compared(both, learning_rates=own, chosen_epoch=own, temperature=fit)["findings"]
    assert [words.split(": ")[1:] for words in found] == [
        ["learning rates changed with the labels", "one; "],
        ["temperature changed with the labels", "two; "],
    ]


def test_a_rebuild_that_the_other_labels_did_not_reach_proves_nothing(both):
    (found,) = compare(both[0], both[0], again=lambda: both[0])["findings"]
    assert "nothing is proven" in found


def test_held_out_scores_that_never_move_prove_nothing_even_if_a_temperature_moves(both):
    for each in both:
        each.trained.history[0]["val_accuracy"] = 0.5
    entry = compared(both)
    assert [each["is_same"] for each in entry["controls"]] == [True, False]
    (found,) = entry["findings"]
    assert "held-out scores of each epoch did not change with the labels" in found
    assert "nothing is proven" in found


def test_training_that_is_not_reproducible_is_no_leak_but_proves_nothing(both):
    draws = iter(range(9))
    (found,) = compared(both, **{"model.safetensors": Artefact(lambda rebuild: next(draws), "", "")})["findings"]
    assert "model.safetensors changed even with the same labels, so nothing is proven on cpu" in found


# --- the files --------------------------------------------------------------------------------------------


def write(stage, bench, path) -> None:
    manifests, about = [stage.file("train.csv"), stage.file("test.csv")], {"recipe": "tiny", "commit": None}
    with signals_kept(), log_restored():
        write_certificate(path, bench, [stage.file("folds")], manifests, stage.file("alike"), about)


def test_a_failed_certificate_is_written_before_the_error(stage, tmp_path):
    path = tmp_path / "certificate.json"
    with pytest.raises(KfoldError, match="the certificate fails.*\n  fold 1: .*select: best_accuracy"):
        write(stage, bench_of(stage, tmp_path, select="best_accuracy"), path)
    written = read_json(path)
    assert not written["passed"]
    assert written["findings"]
    assert written["settings"]["epochs"] == 1
    assert not (tmp_path / "scratch").exists()


def test_no_model_of_a_certificate_is_taken_for_a_trained_fold(stage, tmp_path, monkeypatch):
    owners, save = [], loop.save_model

    def noted(path, model):
        owners.append(model.fingerprint)
        save(path, model)

    monkeypatch.setattr(loop, "save_model", noted)
    bench = bench_of(stage, tmp_path)
    write(stage, bench, tmp_path / "certificate.json")
    assert len(owners) == 2
    assert fold_fingerprint(bench.recipe, stage.fold(1), None, 1) not in owners
    assert sorted(each.name for each in tmp_path.iterdir()) == ["certificate.json"]


@pytest.mark.slow
def test_every_fold_of_every_repeat_is_certified_with_a_temperature_of_its_own(stage, tmp_path):
    run = CALIBRATED | {"repeats": 2, "certify": [0]}
    folds = read_table(stage.file("folds"))
    again = folds.assign(fold=[str((int(fold) + 1) % 3) for fold in folds["fold"]])
    with signals_kept():
        entries = certify(bench_of(stage, tmp_path, run=run), [folds, again])
    assert [entry["fold"] for entry in entries] == [0, "0 of repeat 1"]
    assert [each["name"] for each in entries[0]["artefacts"]][-1] == "temperature"


def test_a_rebuild_holds_the_logits_of_the_other_folds_fixed(stage, tmp_path):
    bench, split = bench_of(stage, tmp_path), read_table(stage.file("folds"))
    others = {
        Member(0, fold): SimpleNamespace(trained=SimpleNamespace(logits=f"fold {fold}"), member=Member(0, fold))
        for fold in range(3)
    }
    rebuild = Rebuild(bench, Member(0, 1), split, others)
    rebuild.__dict__["trained"] = SimpleNamespace(logits="own")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("kfold_ens.certificate.rebuild.combined_over_repeats", lambda folds, method: folds)
        assert rebuild.oof == ["fold 0", "own", "fold 2"]
