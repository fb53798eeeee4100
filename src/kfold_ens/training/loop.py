"""Train one fold, from images and a recipe to the selected weights."""

from __future__ import annotations

import logging
import time
from collections.abc import Iterator
from contextlib import closing
from itertools import islice
from pathlib import Path
from typing import Any

import pandas as pd
import torch
from torch import Tensor
from torch.utils.data import DataLoader

from kfold_ens.compute.collectives import gather, wait_for_all
from kfold_ens.compute.compute import Compute
from kfold_ens.compute.inference import predict_logits
from kfold_ens.config import TrainingRecipe
from kfold_ens.data.folds import Fold
from kfold_ens.errors import KfoldError
from kfold_ens.files import require_space, write_table
from kfold_ens.loading.augmentation import build_evaluation_view
from kfold_ens.loading.loader import EvaluationViews, Loading, evaluation_batches, training_batches, training_views
from kfold_ens.network.classifier import TrainedModel, save_model
from kfold_ens.training.epochs import KeptEpochs, epochs_size, kept_epochs
from kfold_ens.training.fold import FoldFiles, TrainingOutputs, fold_fingerprint
from kfold_ens.training.kept import KeptFolds
from kfold_ens.training.optimizers import state_size
from kfold_ens.training.record import NoRecord, Progress, Record
from kfold_ens.training.scored import ScoredBy, scored_by
from kfold_ens.training.state import Checkpoints, StateFile
from kfold_ens.training.trainer import Trainer

log = logging.getLogger(__name__)


def train_fold_of_files(compute: Compute, files: FoldFiles, outputs: TrainingOutputs, kept: KeptFolds) -> None:
    """Call ``train_fold`` with the files of the data stage."""
    train_fold(files.own_recipe, files.fold(), files.weights_file, files.version, compute, outputs, kept)


def train_fold(
    recipe: TrainingRecipe,
    fold: Fold,
    weights: Path | None,
    version: Any,
    compute: Compute,
    outputs: TrainingOutputs,
    kept: KeptFolds | None = None,
) -> None:
    """Train a fold, or resume it from a saved state, and save the selected weights.

    A saved state is used only if its fingerprint is the same. It is removed once model and history are written and
    added to ``kept``.

    Raises:
        KfoldError: if the loss is not finite, the pretrained weights do not fit, or the disk is full.
        Preempted: if a signal stopped the job; the state is saved.
    """
    owner = fold_fingerprint(recipe, fold, weights, version)
    title = outputs.title(fold.number)
    scored = scored_by(recipe, fold, outputs.scoring, title)
    trainer = Trainer(recipe, fold, weights, compute, title)
    file = StateFile(outputs.state, owner)
    epochs = kept_epochs(recipe, fold, outputs.state, owner, outputs.epoch_logits_mb)
    require_space(outputs.state, _disk_space(trainer, epochs) - file.size, f"training {title}")
    _resume(trainer, file)
    if not compute.ranks.is_main:
        fit(trainer, scored, NoRecord())
        return
    progress = Progress(trainer, outputs.state / "progress.json", outputs.tensorboard)
    fit(trainer, scored, Record(Checkpoints(file, outputs.checkpoint_minutes), progress, outputs.history, epochs))
    _write(trainer, owner, outputs, epochs)
    if kept:
        kept.keep(owner, outputs.to_keep(), outputs.place(fold.number))
    file.remove()


def _write(trainer: Trainer, fingerprint: str, outputs: TrainingOutputs, epochs: KeptEpochs) -> None:
    """Write the history, the logits of epochs and the selected weights."""
    # fit writes no history if the saved state was past the last epoch
    write_table(outputs.history, pd.DataFrame(trainer.history))
    log.info("%s: kept the weights of epoch %d", trainer.title, trainer.best.epoch)
    epochs.write(outputs.epochs, trainer.fold, outputs.history, len(trainer.history))
    save_model(outputs.model, TrainedModel(trainer.recipe, trainer.fold.classes, fingerprint, trainer.best.weights))


def _resume(trainer: Trainer, file: StateFile) -> None:
    state = file.load()
    wait_for_all(trainer.compute.ranks)  # else rank 0 could remove the file before another rank reads it
    if state:
        trainer.restore(state)
        at = trainer.position
        log.info("%s resumes at epoch %d, step %d", trainer.title, at.epoch + 1, at.step)


def _disk_space(trainer: Trainer, epochs: KeptEpochs) -> int:
    """Maximum bytes a fold writes: three states (newest, previous, being written), the selected weights, and the
    logits of epochs twice.
    """
    weights = sum(each.nbytes for each in trainer.network.state_dict().values())
    trained = sum(each.nbytes for each in trainer.network.parameters() if each.requires_grad)
    copies = 2 + (trainer.ema.averaged is not None)  # current and best weights; the average
    state = copies * weights + state_size(trainer.optimizer) * trained
    logits = epochs_size(trainer.recipe, trainer.fold) if epochs.folder else 0
    return int(3 * state + weights + 2 * logits)


def fit(trainer: Trainer, scored: ScoredBy, record: Record | NoRecord) -> None:
    """Train to the last epoch. Each epoch trains, validates if there are held-out images, and adds a history row."""
    loading = trainer.compute.loading(trainer.recipe.batch_size, trainer.recipe.image)
    batches = _batches(trainer, loading)
    validation = _validation_batches(trainer, loading) if len(trainer.fold.validation) else None
    with closing(record):
        while not trainer.over:
            remaining = trainer.order.steps_per_epoch - trainer.position.step
            train_epoch(trainer, islice(batches, remaining), record)
            started = time.perf_counter()
            logits = held_out_logits(trainer, validation) if validation is not None else None
            scores = {} if logits is None else validate(trainer, logits, scored)
            row = trainer.finish_epoch(scores, time.perf_counter() - started)
            record.after_epoch(trainer, row, logits)


def _batches(trainer: Trainer, loading: Loading) -> Iterator[tuple[Tensor, Tensor]]:
    """This rank's part of each remaining batch of the run."""
    recipe, compute, at = trainer.recipe, trainer.compute, trainer.position
    remaining = trainer.order.remaining(at.epoch, at.step, recipe.epochs)
    indices = (batch[compute.ranks.own(len(batch))] for batch in remaining)
    return training_batches(training_views(recipe, trainer.fold), indices, loading)


def _validation_batches(trainer: Trainer, loading: Loading) -> DataLoader:
    """This rank's part of the held-out images."""
    recipe, compute, images = trainer.recipe, trainer.compute, trainer.fold.validation
    own = images.image_id[compute.ranks.own(len(images))]
    views = EvaluationViews(images.store, own, build_evaluation_view(recipe.image))
    return evaluation_batches(views, recipe.batch_size, loading, again=True)


def train_epoch(trainer: Trainer, batches: Iterator[tuple[Tensor, Tensor]], record: Record | NoRecord) -> None:
    """Train on the remaining batches of an epoch."""
    trainer.network.train()
    before, started = trainer.position.seconds, time.perf_counter()
    asked = started
    for views, labels in batches:
        trainer.position.waiting += time.perf_counter() - asked
        trainer.step(views, labels)
        trainer.utilization.look()
        if trainer.compute.device.type == "cpu":  # on a GPU this would wait for the device
            trainer.check_finite()
        trainer.position.seconds = before + time.perf_counter() - started
        record.after_step(trainer)
        asked = time.perf_counter()
    trainer.check_finite()
    trainer.position.seconds = before + time.perf_counter() - started


def held_out_logits(trainer: Trainer, batches: DataLoader) -> Tensor:
    """Predict the fold's held-out images: (N, K) float32. ``batches`` are this rank's part of them."""
    compute = trainer.compute
    part = torch.from_numpy(predict_logits(trainer.evaluated, batches, trainer.recipe.image, compute))
    return gather(compute.ranks, part.to(compute.device), len(trainer.fold.validation)).cpu()


def validate(trainer: Trainer, logits: Tensor, scored: ScoredBy) -> dict[str, float]:
    """Score the logits of the fold's held-out images: (N, K)."""
    target = trainer.fold.validation.target
    if not logits.isfinite().all():
        raise KfoldError(
            f"{trainer.title}: held-out logits are not finite; lower optimizer.lr in the recipe and rerun."
        )
    loss = trainer.backward.criterion(logits, torch.from_numpy(target), trainer.position.epoch)
    return {"val_loss": float(loss)} | scored.of(logits.numpy(), target)
