import copy
import itertools
import logging
import multiprocessing
import os
import shutil
import signal
import time
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch
from safetensors.torch import save_file
from stages import make_stage, renamed_stage, signals_kept, training_recipe

from kfold_ens.compute.compute import Compute
from kfold_ens.errors import KfoldError
from kfold_ens.files import read_table
from kfold_ens.history import COLUMNS, TIMINGS
from kfold_ens.jobs import ASKING_TO_END, Preempted, job
from kfold_ens.network.classifier import Classifier, TrainedModel, load_model
from kfold_ens.training.fold import TrainingOutputs, fold_fingerprint
from kfold_ens.training.kept import KeptFolds
from kfold_ens.training.loop import train_fold
from kfold_ens.training.optimizers import OPTIMIZERS
from kfold_ens.training.state import Checkpoints
from kfold_ens.training.trainer import Trainer

RECIPE = training_recipe(  # every random part, in two epochs of three steps
    augmentation=[{"kind": "random_resized_crop"}, {"kind": "rotation", "degrees": 15}],
    mixing={"kind": "mixup_or_cutmix", "alpha": 1, "probability": 0.5},
    schedule={"kind": "one_cycle"},
    epochs=2,
)
SAVES = 8  # times a state can be saved: after each of six steps, and after each of two epochs


@dataclass(frozen=True)
class Outcome:
    model: TrainedModel
    history: pd.DataFrame

    def __eq__(self, other):
        """Bit-for-bit equality."""
        return (
            self.history.drop(columns=TIMINGS).equals(other.history.drop(columns=TIMINGS))
            and (self.model.recipe, self.model.classes, self.model.fingerprint)
            == (other.model.recipe, other.model.classes, other.model.fingerprint)
            and self.model.weights.keys() == other.model.weights.keys()
            and all(torch.equal(tensor, other.model.weights[name]) for name, tensor in self.model.weights.items())
        )


@pytest.fixture(scope="module")
def stage(tmp_path_factory):
    """25 training images, so that the last batch of an epoch would have one image, and 12 held-out images."""
    return make_stage(tmp_path_factory.mktemp("stage"), {"dark": 13, "grey": 12, "light": 12})


def train(
    stage,
    folder,
    recipe=RECIPE,
    number=1,
    seed=0,
    weights=None,
    version=1,
    workers=0,
    minutes=60,
    compute=None,
    threads=1,
    kept=None,
):
    outputs = TrainingOutputs(folder / "history.csv", folder / "model.safetensors", folder / "state", minutes)
    compute = compute or Compute(torch.device("cpu"), None, workers)
    torch.set_num_threads(threads)  # fastest for so small a network, also beside other jobs
    for file in outputs.by_name().values():
        file.unlink(missing_ok=True)  # as Snakemake does before it starts a job
    with signals_kept():
        train_fold(recipe, stage.fold(number, seed), weights, version, compute, outputs, kept)
    outcome = Outcome(load_model(outputs.model), read_table(outputs.history))
    outputs.model.unlink()  # pytest keeps the folders, and there are many
    return outcome


def train_until(moment, *arguments, **keywords):
    """Train until a SIGTERM at save number ``moment``, counted from 1."""
    after_step, moments = Checkpoints.after_step, itertools.count(1)

    def interrupted(self, state):
        if next(moments) == moment:
            signal.raise_signal(signal.SIGTERM)
        after_step(self, state)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Checkpoints, "after_step", interrupted)
        with pytest.raises(Preempted):
            train(*arguments, **keywords)


@pytest.fixture(scope="module")
def whole(stage, tmp_path_factory):
    """Outcome of an uninterrupted training."""
    return train(stage, tmp_path_factory.mktemp("whole"))


# --- resuming --------------------------------------------------------------------------------------------


@pytest.mark.parametrize("moment", range(1, SAVES + 1))
def test_a_fold_interrupted_at_any_step_resumes_exactly(moment, stage, whole, tmp_path):
    train_until(moment, stage, tmp_path, workers=moment % 2)
    assert train(stage, tmp_path) == whole
    assert sorted(os.listdir(tmp_path)) == ["history.csv", "oof_epochs.npz"]


def test_a_fold_resumes_with_its_first_number_of_threads(stage, tmp_path, monkeypatch):
    """On a CPU, the number of threads decides the order of sums and so the last bits of the weights."""
    monkeypatch.setattr(
        "kfold_ens.training.trainer.usable_threads", lambda threads: threads
    )  # for machines with one core
    train_until(3, stage, tmp_path, threads=2)
    train(stage, tmp_path, threads=1)
    assert torch.get_num_threads() == 2
    torch.set_num_threads(1)


def test_too_little_disk_space_is_refused_before_training(stage, tmp_path, monkeypatch):
    monkeypatch.setattr(shutil, "disk_usage", lambda folder: shutil._ntuple_diskusage(10**12, 10**12, 10**6))
    with pytest.raises(KfoldError, match=r"training fold 1 needs 0\.\d+ GB below .*state, but only 0\.00 GB are free"):
        train(stage, tmp_path)
    assert not (tmp_path / "history.csv").exists()


def test_a_fold_writes_no_more_than_the_disk_space_it_checked(stage, tmp_path, monkeypatch):
    asked = []
    monkeypatch.setattr("kfold_ens.training.loop.require_space", lambda folder, needed, doing: asked.append(needed))
    train_until(4, stage, tmp_path, STATEFUL, minutes=0)
    states = [path.stat().st_size for path in (tmp_path / "state").glob("*.pt")]
    model = sum(each.nbytes for each in Classifier(STATEFUL, 3).state_dict().values())
    assert len(states) == 2
    assert 0.5 * asked[0] < max(states) * 3 + model < asked[0] * 1.02
    train_until(2, stage, tmp_path, STATEFUL, minutes=0)
    assert asked[1] == asked[0] - sum(states)  # the space of existing states is not needed again
    (tmp_path / "state" / ".state.pt.x.tmp").write_bytes(bytes(1000))  # left by a killed save; the next save removes it
    states = [path.stat().st_size for path in (tmp_path / "state").glob("*.pt*")]
    train_until(2, stage, tmp_path, STATEFUL, minutes=0)
    assert asked[2] == asked[0] - sum(states)


STATEFUL = training_recipe(  # every part with state beyond the network
    backbone={
        "kind": "torchvision",
        "name": "resnet18",
        "weights": "none",
        "frozen": ["conv1", "bn1"],
        "inserted": [{"kind": "dropout", "after": "layer2", "probability": 0.3}, {"kind": "cbam", "after": "layer4"}],
    },
    head={"kind": "mlp", "hidden": [8], "dropout": [0.3]},
    loss={"kind": "switched", "before": {"kind": "cross_entropy"}, "after": {"kind": "focal"}}
    | {"blend_from": 0, "switch_at": 2},
    optimizer={"kind": "sgd", "lr": 0.1, "stage_lr": {"layer1": 0.01}},
    schedule={"kind": "plateau", "patience": 0},
    ema={"kind": "ema", "decay": 0.5, "start_epoch": 1},
    sampler={"kind": "balanced"},
    early_stopping={"kind": "patience", "patience": 2},
    epochs=4,
)


def test_every_part_with_state_resumes_exactly(stage, tmp_path):
    whole = train(stage, tmp_path, STATEFUL)
    for moment in (4, 3, 2):  # stop after epoch 1, before the end of epoch 2, and in epoch 3
        train_until(moment, stage, tmp_path, STATEFUL)
    assert train(stage, tmp_path, STATEFUL) == whole


def test_a_state_of_an_earlier_version_can_be_resumed(stage, whole, tmp_path):
    """Its position has a key that no longer exists."""
    train_until(3, stage, tmp_path)
    path = tmp_path / "state" / "state.pt"
    state = torch.load(path)
    state["position"]["broken"] = 0.0
    torch.save(state, path)
    assert train(stage, tmp_path) == whole


def test_loader_workers_change_nothing(stage, whole, tmp_path):
    assert train(stage, tmp_path, workers=2) == whole


@pytest.fixture(scope="module")
def twice_interrupted(stage, tmp_path_factory):
    """Folder with a newest and a previous state."""
    folder = tmp_path_factory.mktemp("interrupted")
    train_until(2, stage, folder)
    train_until(3, stage, folder)
    return folder


@pytest.fixture
def interrupted(twice_interrupted, tmp_path):
    return Path(shutil.copytree(twice_interrupted, tmp_path / "copy", copy_function=os.link))


@pytest.mark.parametrize(
    ("damaged", "resumed_at"), [([], "epoch 2, step 1"), (["state"], "epoch 1, step 2"), (["state", "previous"], None)]
)
def test_a_damaged_state_falls_back_to_the_one_before(damaged, resumed_at, stage, whole, interrupted, caplog):
    caplog.set_level(logging.INFO, "kfold_ens")
    for path in [interrupted / "state" / f"{name}.pt" for name in damaged]:
        content = path.read_bytes()
        path.unlink()  # hard link: do not change the file of other tests
        path.write_bytes(content[: len(content) // 2])
    assert train(stage, interrupted) == whole
    assert caplog.text.count("is damaged") == len(damaged)
    assert (f"fold 1 resumes at {resumed_at}" in caplog.text) == (resumed_at is not None) == ("resumes" in caplog.text)


OTHERS = {
    "recipe": {"recipe": RECIPE.model_copy(update={"epochs": 3})},
    "seed": {"seed": 1},
    "fold": {"number": 2},
    "version": {"version": 2},
    "weights": {"weights": "weights.safetensors"},
    "images": {},
}


@pytest.mark.parametrize("what", OTHERS)
def test_a_state_of_another_run_is_ignored(what, stage, interrupted, caplog):
    caplog.set_level(logging.INFO, "kfold_ens")
    others = dict(OTHERS[what])
    if what == "images":
        stage = make_stage(interrupted / "stage", {"dark": 13, "grey": 12, "light": 12}, seed=1)
    if what == "weights":
        others["weights"] = interrupted / "weights.safetensors"
        save_file(Classifier(RECIPE, 3).backbone.state_dict(), others["weights"])
    train_until(1, stage, interrupted, **others)
    assert "belongs to another recipe, split, data or weights" in caplog.text
    assert "resumes" not in caplog.text


def test_a_fold_resumes_after_its_images_are_renamed_and_moved(stage, whole, tmp_path, caplog):
    caplog.set_level(logging.INFO, "kfold_ens")
    train_until(4, stage, tmp_path / "run")
    assert train(renamed_stage(stage, tmp_path / "elsewhere"), tmp_path / "run") == whole
    assert "fold 1 resumes at epoch 2" in caplog.text


def test_a_state_of_another_run_leads_to_a_fresh_start(stage, whole, tmp_path):
    train_until(4, stage, tmp_path, seed=1)
    assert train(stage, tmp_path) == whole


def run_job(stage, folder):
    os.setpgrp()  # as shells and schedulers do
    signal.signal(signal.SIGHUP, signal.SIG_DFL)  # in case the tests run under nohup
    with job(str(folder / "train.log")):
        train(stage, folder, minutes=0, workers=1)


def start_job(stage, folder):
    """Start a job in a forked process, because importing torch takes longer than the training."""
    folder.mkdir()
    process = multiprocessing.get_context("fork").Process(target=run_job, args=(stage, folder))
    process.start()
    return process


def test_a_job_stopped_by_a_signal_resumes(stage, whole, tmp_path):
    """Loader workers get the signal too, as with Ctrl-C, Slurm and a closed terminal."""
    codes = dict.fromkeys(ASKING_TO_END, 143) | {signal.SIGKILL: -9}
    jobs = {number: start_job(stage, tmp_path / number.name) for number in codes}
    for number, process in jobs.items():
        while not (tmp_path / number.name / "state" / "state.pt").exists() and process.is_alive():
            time.sleep(0.01)
        os.killpg(process.pid, number)
    for number, process in jobs.items():
        process.join(60)
        assert process.exitcode == codes[number]
        log = (tmp_path / number.name / "train.log").read_text()
        assert ("the state is saved" in log) == (codes[number] == 143)
        assert train(stage, tmp_path / number.name, workers=2) == whole


# --- keeping ---------------------------------------------------------------------------------------------


def test_only_finished_folds_are_kept(stage, whole, tmp_path):
    folder, kept = tmp_path / "tiny" / "fold1", KeptFolds(tmp_path / "trained")
    train_until(4, stage, folder, kept=kept)
    assert kept.all() == []
    assert train(stage, folder, kept=kept) == whole
    (entry,) = kept.all()
    about = entry.about
    assert (about["recipe"], about["fold"]) == ("tiny", 1)
    assert about["fingerprint"] == whole.model.fingerprint == fold_fingerprint(RECIPE, stage.fold(), None, 1)
    files = {name: tmp_path / "again" / name for name in ("model.safetensors", "history.csv")}
    assert kept.restore(whole.model.fingerprint, files)
    assert Outcome(load_model(files["model.safetensors"]), read_table(files["history.csv"])) == whole


def test_a_fold_killed_before_it_is_kept_is_kept_by_the_next_run(stage, whole, tmp_path, monkeypatch):
    kept = KeptFolds(tmp_path / "trained")
    with monkeypatch.context() as patch:
        patch.setattr(KeptFolds, "keep", lambda *_: 1 / 0)
        with pytest.raises(ZeroDivisionError):
            train(stage, tmp_path / "run", minutes=0, kept=kept)
    assert train(stage, tmp_path / "run", kept=kept) == whole
    assert len(kept.all()) == 1
    assert not (tmp_path / "run" / "state").exists()


# --- training --------------------------------------------------------------------------------------------


def test_a_fold_trains_on_the_other_folds(stage):
    label_of = {path: Path(path).parent.name for path in read_table(stage.file("folds"))["image_id"]}
    held_out = []
    for number in range(3):
        fold = stage.fold(number)
        assert set(fold.train.image_id) == set(label_of) - set(fold.validation.image_id)
        held_out += fold.validation.image_id.tolist()
        for images in (fold.train, fold.validation):
            assert [fold.classes[target] for target in images.target] == [label_of[path] for path in images.image_id]
    assert sorted(held_out) == sorted(label_of)


def score(model, stage):
    """Loss and accuracy on the held-out images, computed without the loader and the training loop."""
    images = stage.fold().validation
    inputs = torch.stack([torch.from_numpy(images.store[row].copy()) for row in images.store.rows(images.image_id)])
    inputs = torch.nn.functional.interpolate(
        inputs.permute(0, 3, 1, 2) / 255, (16, 16), mode="bilinear", antialias=True
    )
    with torch.inference_mode():
        logits = model.network()(inputs)
    target = torch.from_numpy(images.target)
    return float(torch.nn.functional.cross_entropy(logits, target)), float((logits.argmax(1) == target).float().mean())


def test_a_fold_learns_an_easy_dataset(stage, tmp_path):
    backbone = {"kind": "torchvision", "name": "resnet18", "weights": "none", "zero_init_residual": True}
    outcome = train(stage, tmp_path, training_recipe(backbone=backbone, epochs=12, batch_size=4, select="best_loss"))
    assert (outcome.history["gpu_utilization"] == "").all()  # no GPU
    history = outcome.history.drop(columns=["device", "gpu_utilization"]).astype(float)
    assert history["waiting_share"].between(0, 1, inclusive="neither").all()
    assert list(outcome.history) == list(COLUMNS)
    assert history["epoch"].tolist() == list(range(1, 13))
    assert history["val_accuracy"].max() > 0.9
    assert (
        history["train_loss"].min() < history["train_loss"].iloc[0] / 2
    )  # epochs are noisy with four images per batch
    best = history.loc[history["val_loss"].idxmin()]
    assert score(outcome.model, stage) == pytest.approx((best["val_loss"], best["val_accuracy"]), rel=0.05, abs=0.01)


def test_the_history_has_the_learning_rate_of_each_epoch(stage, tmp_path):
    schedule = {"kind": "cosine_warm_restarts", "t_0": 2, "t_mult": 2}
    outcome = train(stage, tmp_path, training_recipe(schedule=schedule, epochs=6, batch_size=32))
    progress = np.array([0, 1 / 2, 0, 1 / 4, 1 / 2, 3 / 4])
    assert outcome.history["lr"].astype(float).tolist() == pytest.approx(1e-3 * (1 + np.cos(np.pi * progress)) / 2)


SCORES = [(0.5, 0.9), (0.7, 0.6), (0.7, 0.5), (0.6, 0.4), (0.5, 0.8)]  # accuracy and loss per epoch


@pytest.mark.parametrize(("select", "epoch"), [("best_accuracy", 2), ("best_loss", 4), ("last", 5)])
def test_the_weights_of_the_selected_epoch_are_kept(select, epoch, stage):
    training = Trainer(
        training_recipe(select=select, epochs=5), stage.fold(), None, Compute(torch.device("cpu"), None, 0)
    )
    views, labels = torch.zeros(2, 3, 16, 16, dtype=torch.uint8), torch.tensor([0, 1])
    seen = []
    for accuracy, loss in SCORES:
        training.position.seconds = 1
        training.step(views, labels)
        seen.append(training.network.head.bias.detach().clone())
        training.finish_epoch({"val_accuracy": accuracy, "val_loss": loss}, 0)
    assert training.best.epoch == epoch
    assert torch.equal(training.best.weights["head.bias"], seen[epoch - 1])
    assert len({tuple(bias.tolist()) for bias in seen}) == len(SCORES)


def test_a_loss_that_is_not_finite_stops_the_fold_and_is_not_saved(stage, tmp_path):
    recipe = training_recipe(optimizer={"kind": "adamw", "lr": 1e30, "weight_decay": 0})
    with pytest.raises(KfoldError, match=r"^fold 1: .* not finite in epoch 1, step 2, .* optimizer\.lr"):
        train(stage, tmp_path, recipe, minutes=0)
    assert torch.load(tmp_path / "state" / "state.pt")["position"]["step"] == 1
    assert os.listdir(tmp_path) == ["state"]


def a_training(stage, **sections):
    return Trainer(training_recipe(**sections), stage.fold(), None, Compute(torch.device("cpu"), None, 0))


def a_batch(images=8):
    return torch.randint(256, (images, 3, 16, 16), dtype=torch.uint8), torch.arange(images) % 3


NEEDED = {"adamw": {"weight_decay": 0.1}}  # keys without a default


@pytest.mark.parametrize("fused", [True, False])
@pytest.mark.parametrize("kind", OPTIMIZERS)
def test_a_gradient_that_is_not_finite_changes_nothing(stage, kind, fused):
    optimizer = {"kind": kind, "lr": 0.1} | NEEDED.get(kind, {})
    training = a_training(stage, optimizer=optimizer, schedule={"kind": "constant"})
    if not fused and training.optimizer.defaults.get("fused"):  # like an optimizer without found_inf
        training.optimizer = type(training.optimizer)(training.network.parameters(), lr=0.1, fused=False)
    training.step(*a_batch())
    before = {name: tensor.clone() for name, tensor in training.network.named_parameters()}
    state = copy.deepcopy(training.optimizer.state_dict()["state"])
    training.network.head.bias.register_hook(lambda gradient: gradient * float("nan"))  # the loss itself is finite
    training.step(*a_batch())
    training.step(*a_batch())
    assert all(torch.equal(tensor, before[name]) for name, tensor in training.network.named_parameters())
    torch.testing.assert_close(training.optimizer.state_dict()["state"], state, rtol=0, atol=0)
    with pytest.raises(KfoldError, match="step 2,"):
        training.check_finite()


# --- out of memory ---------------------------------------------------------------------------------------


def short_of_memory(training, most):
    """Make the network run out of memory with more than ``most`` images; list the sizes of the passes."""
    forward, passes = training.network.forward, []

    def refusing(images):
        if len(images) > most:
            raise torch.OutOfMemoryError("CUDA out of memory (faked)")
        passes.append(len(images))
        return forward(images)

    training.network.forward = refusing
    return passes


LOSSES_IN_PARTS = [
    {"kind": "cross_entropy", "label_smoothing": 0.1},
    {"kind": "focal", "balanced": True},
    {
        "kind": "sum",
        "terms": [{"weight": 0.7, "loss": {"kind": "focal"}}, {"weight": 2, "loss": {"kind": "cross_entropy"}}],
    },
]


@pytest.mark.filterwarnings("ignore:Seems like")  # the optimizer step is disabled
@pytest.mark.parametrize("loss", LOSSES_IN_PARTS, ids=lambda loss: loss["kind"])
@pytest.mark.parametrize(("most", "passes"), [(8, [7]), (4, [4, 3]), (3, [3, 2, 2])])
def test_micro_batches_give_the_gradient_of_the_whole_batch(stage, loss, most, passes, caplog):
    whole, parts = (a_training(stage, loss=loss, batch_size=8) for _ in range(2))
    for training in (whole, parts):
        training.network.eval()  # batch normalisation would see smaller batches
        training.optimizer.step = lambda: None
        training.optimizer.zero_grad = lambda set_to_none: None
    done = short_of_memory(parts, most)
    batch = a_batch(7)
    with caplog.at_level(logging.WARNING):
        whole.step(*batch)
        parts.step(*batch)
    assert done == passes
    assert ("micro-batches of" in caplog.text) == (most < 8)
    assert float(parts.position.loss) == pytest.approx(float(whole.position.loss), rel=1e-5)
    assert int(parts.position.correct) == int(whole.position.correct)
    for one, other in zip(whole.network.parameters(), parts.network.parameters(), strict=True):
        assert torch.allclose(one.grad, other.grad, rtol=1e-3, atol=1e-6)


def test_out_of_memory_with_two_images_is_a_clear_error(stage):
    training = a_training(stage, batch_size=8)
    short_of_memory(training, 0)
    with pytest.raises(KfoldError, match=r"^fold 1: out of memory with micro-batches of 2 images"):
        training.step(*a_batch())


def test_training_starts_from_the_pretrained_weights(stage, tmp_path):
    pretrained = Classifier(RECIPE, 3).backbone.state_dict()
    save_file(pretrained, tmp_path / "weights.safetensors")
    compute = Compute(torch.device("cpu"), None, 0)
    network = Trainer(RECIPE, stage.fold(), tmp_path / "weights.safetensors", compute).network
    assert all(torch.equal(tensor, pretrained[name]) for name, tensor in network.backbone.state_dict().items())


def test_weights_of_another_network_are_refused_before_the_first_step(stage, tmp_path):
    other = training_recipe(backbone={"kind": "torchvision", "name": "resnet34", "weights": "none"})
    save_file(Classifier(other, 3).backbone.state_dict(), tmp_path / "weights.safetensors")
    with pytest.raises(KfoldError, match="weights.safetensors does not fit the backbone"):
        train(stage, tmp_path, weights=tmp_path / "weights.safetensors")
    assert os.listdir(tmp_path) == ["weights.safetensors"]
