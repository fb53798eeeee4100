"""Training one fold, from images and a recipe to the chosen weights."""

from __future__ import annotations

import logging
import resource
import sys
import time
from collections.abc import Iterator
from contextlib import closing
from dataclasses import asdict, dataclass, field
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import torch
from torch import Tensor, nn
from torch._dynamo.exc import TorchDynamoException
from torch.nn.utils import get_total_norm

from kfold_ens.config import TrainingRecipe
from kfold_ens.data.folds import Fold
from kfold_ens.devices import Utilization, device_name
from kfold_ens.errors import KfoldError
from kfold_ens.files import require_space, write_table
from kfold_ens.jobs import usable_threads
from kfold_ens.network.classifier import Classifier, TrainedModel, memory_format, save_model
from kfold_ens.randomness import derive_seed
from kfold_ens.training.augmentation import build_augmentation, build_evaluation_view
from kfold_ens.training.compilation import Compilation
from kfold_ens.training.ema import build_ema
from kfold_ens.training.evaluation import Compute, predict_logits
from kfold_ens.training.kept import FoldFiles, KeptFolds, fold_fingerprint
from kfold_ens.training.loader import (
    EpochOrder,
    TrainingViews,
    build_sampler,
    evaluation_batches,
    training_batches,
)
from kfold_ens.training.losses import build_loss
from kfold_ens.training.mixing import build_mixing
from kfold_ens.training.optimizers import build_optimizer
from kfold_ens.training.progress import Progress
from kfold_ens.training.schedules import build_schedule
from kfold_ens.training.state import Checkpoints, StateFile
from kfold_ens.training.stopping import stops

log = logging.getLogger(__name__)


def training_order(recipe: TrainingRecipe, fold: Fold) -> EpochOrder:
    """The batches of a fold's epochs."""
    draw = build_sampler(recipe.sampler, fold.train.target)
    return EpochOrder(len(fold.train), recipe.batch_size, fold.seed, fold.number, draw)


def training_views(recipe: TrainingRecipe, fold: Fold) -> TrainingViews:
    """A fold's augmented images."""
    return TrainingViews(fold.train, build_augmentation(recipe.augmentation, recipe.image.size), fold.seed, fold.number)


def seed_step(fold: Fold, epoch: int, step: int) -> None:
    """What a step draws, mixing first, follows from where it is."""
    torch.manual_seed(derive_seed("step", fold.seed, fold.number, epoch, step))


@dataclass
class Position:
    """Where in the run training is, and what this epoch has added up to so far."""

    epoch: int = 0
    step: int = 0
    images: int = 0
    correct: float = 0
    loss: float = 0  # summed over images
    seconds: float = 0
    waiting: float = 0  # of these seconds, for the batches
    broken: float = 0  # the first step, counted from 1, whose loss or gradient was not finite; 0 for none


@dataclass
class Best:
    """The weights chosen so far."""

    epoch: int = -1
    score: float = -float("inf")
    weights: dict[str, Tensor] = field(default_factory=dict)


class Training:
    """Everything that changes while a fold is trained; it can be saved after any step and go on from there."""

    def __init__(self, recipe: TrainingRecipe, fold: Fold, weights: Path | None, compute: Compute) -> None:
        torch.manual_seed(derive_seed("weights", fold.seed, fold.number))
        self.recipe, self.fold, self.compute = recipe, fold, compute
        self.network = Classifier(recipe, len(fold.classes), weights)
        self.network.to(compute.device, memory_format=memory_format(compute.device))
        self.order = training_order(recipe, fold)
        self.compilation = Compilation(compute.ranks.wrap(self.network), compute, fold.number)
        self.optimizer = build_optimizer(recipe.optimizer, self.network)
        self.schedule = build_schedule(recipe.schedule, self.optimizer, recipe.epochs * self.order.steps_per_epoch)
        self.criterion = build_loss(recipe.loss, np.bincount(fold.train.target, minlength=len(fold.classes)))
        self.ema = build_ema(recipe.ema, self.network)
        self.mixing = build_mixing(recipe.mixing, len(fold.classes))
        self.position = Position()
        self.best = Best()
        self.at_a_time = recipe.batch_size  # images in one pass of the network: as many as memory holds
        self.history: list[dict[str, Any]] = []
        self.utilization = Utilization(compute.device)

    def step(self, views: Tensor, labels: Tensor) -> None:
        """One batch, or this rank's part of it: views (B, 3, size, size) uint8 and class indices (B,)."""
        with self.compilation.step(self.steps_left):
            self._step(views, labels)

    def _step(self, views: Tensor, labels: Tensor) -> None:
        seed_step(self.fold, self.position.epoch, self.position.step)
        views, labels = self._whole(views), self._whole(labels)
        inputs, targets = self.mixing(self.compute.input(views, self.recipe.image), labels)
        if self.compute.ranks.count > 1:  # what follows, dropout, is drawn by each rank for its own images
            torch.manual_seed(derive_seed("rank", torch.initial_seed(), self.compute.ranks.rank))
        loss, correct = self._gradients(inputs, targets)
        self._update(loss)
        self.schedule.after_step()
        self.ema.after_step(self.network, self.position.epoch)
        self._count(loss, correct, len(inputs))

    def _whole(self, part: Tensor) -> Tensor:
        """A whole batch on the device: it is mixed as one, whoever trains on which part of it."""
        length = self.order.length(self.position.step)
        return self.compute.ranks.gather(part.to(self.compute.device, non_blocking=True), length)

    def _gradients(self, inputs: Tensor, targets: Tensor) -> tuple[Tensor, Tensor]:
        """A batch's loss, and how many of it are right; its gradient is left in the parameters.

        Where memory does not suffice, the batch goes through the network in halves, quarters, ..., whose gradients add
        up to that of the whole; only batch normalisation then sees fewer images at a time. They are not compiled; and
        where a network cannot be, or memory does not suffice for a compiled step, it first goes on as it is.

        Raises:
            KfoldError: where it does not suffice for two images.
        """
        while True:
            try:
                return self._in_parts(inputs, targets)
            except torch.OutOfMemoryError as error:
                if self.compute.ranks.count > 1:
                    raise  # the other ranks are in the middle of this attempt
                if self._network_for(len(inputs)) is not self.compilation.eager:
                    log.warning("fold %d: out of memory; goes on without compiling", self.fold.number)
                else:
                    self._halve(len(inputs), error)
            except TorchDynamoException as error:
                log.warning("fold %d: not compiled, which costs speed only: %s", self.fold.number, _summary(error))
            self.compilation.give_up()  # also in halves, which are not compiled
            self.optimizer.zero_grad(set_to_none=True)
            if self.compute.device.type == "cuda":
                torch.cuda.empty_cache()

    def _halve(self, length: int, error: torch.OutOfMemoryError) -> None:
        if self.at_a_time < 4:
            raise KfoldError(
                f"fold {self.fold.number}: out of memory with {self.at_a_time} images at a time; "
                f"lower image.size in the recipe, or take a smaller backbone.\n  {error}"
            ) from None
        self.at_a_time //= 2
        log.warning(
            "fold %d: out of memory; goes on with %d images at a time, and still %d a step",
            *(self.fold.number, self.at_a_time, length),
        )

    def _in_parts(self, inputs: Tensor, targets: Tensor) -> tuple[Tensor, Tensor]:
        ranks, length = self.compute.ranks, len(inputs)
        own, share = ranks.own(length), ranks.share(length)
        inputs, targets = inputs[own], targets[own]
        parts = -(-len(inputs) // self.at_a_time)
        parts -= parts > len(inputs) // 2 > 0  # batch normalisation cannot train on a single image
        sums = torch.zeros(2, device=inputs.device)
        for some, wanted in zip(inputs.tensor_split(parts), targets.tensor_split(parts), strict=True):
            weight = len(some) / len(inputs) * share
            with self.compute.autocast():
                logits = self._network_for(length)(some).float()
            loss = self.criterion(logits, wanted, self.position.epoch) * weight
            (loss * ranks.count).backward()  # the mean of all ranks' gradients is what each gets
            sums += torch.stack([loss.detach(), _correct(logits.detach(), wanted) * (share * length / len(inputs))])
        return tuple(ranks.sum(sums))

    def _network_for(self, length: int) -> nn.Module:
        """For a batch of so many images: compiled is only the one size that most batches have."""
        whole = length == self.recipe.batch_size == self.at_a_time
        return self.compilation.forward if whole else self.compilation.eager

    def _update(self, loss: Tensor) -> None:
        """One step of the optimizer, or none where loss or gradient is not finite; the device is not waited for."""
        gradients = [each.grad for each in self.network.parameters() if each.grad is not None]
        broken = ~(get_total_norm(gradients).isfinite() & loss.isfinite())
        self.optimizer.found_inf = broken.float()  # fused optimizers then leave everything as it is
        self.optimizer.step()
        self.optimizer.zero_grad(set_to_none=True)
        step = (self.position.step + 1) * broken.float()
        self.position.broken = self.position.broken + step * (self.position.broken == 0)

    def _count(self, loss: Tensor, correct: Tensor, length: int) -> None:
        """Add a batch to the epoch's sums; they stay on the device, so nothing waits for it."""
        self.position.images += length
        self.position.loss = self.position.loss + loss * length
        self.position.correct = self.position.correct + correct
        self.position.step += 1

    @property
    def evaluated(self) -> nn.Module:
        """The network that an epoch is judged by: this one, or the average of its weights."""
        return self.ema.evaluated(self.network, self.position.epoch)

    @property
    def steps_left(self) -> int:
        """In all epochs of the recipe."""
        return (self.recipe.epochs - self.position.epoch) * self.order.steps_per_epoch - self.position.step

    @property
    def over(self) -> bool:
        """Whether this was the last epoch, as planned or as early stopping has it."""
        return self.position.epoch >= self.recipe.epochs or stops(self.recipe.early_stopping, self.history)

    def finish_epoch(self, scores: dict[str, float], seconds: float) -> dict[str, Any]:
        """Write the epoch into the history, keep its weights if they are the best, and move on."""
        row = self._history_row(scores, seconds)
        self.history.append(row)
        score = {"best_accuracy": row["val_accuracy"], "best_loss": -row["val_loss"], "last": row["epoch"]}
        if score[self.recipe.select] > self.best.score:
            weights = {name: tensor.detach().cpu().clone() for name, tensor in self.evaluated.state_dict().items()}
            self.best = Best(row["epoch"], score[self.recipe.select], weights)
        self.schedule.after_epoch(row)
        self.position = Position(epoch=self.position.epoch + 1)
        return row

    def _history_row(self, scores: dict[str, float], seconds: float) -> dict[str, Any]:
        at = self.position
        return {
            "epoch": at.epoch + 1,
            "lr": max(group["lr"] for group in self.optimizer.param_groups),
            "train_loss": float(at.loss) / at.images,
            "train_accuracy": float(at.correct) / at.images,
            **scores,
            "seconds": round(at.seconds + seconds, 2),
            "images_per_second": round(at.images / at.seconds, 1),
            "waiting_share": round(at.waiting / at.seconds, 4),
            "gpu_utilization": self.utilization.mean(),
            "peak_memory_mb": round(_peak_memory_mb(self.compute.device)),
            "device": device_name(self.compute.device),
        }

    def state(self) -> dict[str, Any]:
        """All of it, as tensors and plain values."""
        self.check_finite()
        sums = {name: float(getattr(self.position, name)) for name in ("loss", "correct", "broken")}
        position = asdict(self.position) | sums
        return {
            "network": self.network.state_dict(),
            "ema": self.ema.averaged.state_dict() if self.ema.averaged else None,
            "optimizer": self.optimizer.state_dict(),
            "scheduler": self.schedule.scheduler.state_dict(),
            "position": position,
            "best": {"epoch": self.best.epoch, "score": self.best.score, "weights": self.best.weights},
            "history": self.history,
            "threads": torch.get_num_threads() if self.compute.device.type == "cpu" else 0,
        }

    def restore(self, state: dict[str, Any]) -> None:
        """Go on from a saved state."""
        self.network.load_state_dict(state["network"])
        if self.ema.averaged:
            self.ema.averaged.load_state_dict(state["ema"])
        self.optimizer.load_state_dict(state["optimizer"])
        self.schedule.scheduler.load_state_dict(state["scheduler"])
        self.position = Position(**state["position"])
        self.best = Best(**state["best"])
        self.history = list(state["history"])
        if self.compute.device.type == "cpu" and state["threads"]:
            self._keep_threads(usable_threads(state["threads"]))

    def _keep_threads(self, threads: int) -> None:
        """Compute with as many threads as before: they decide in which parts a CPU sums, and so the last bits."""
        if threads != torch.get_num_threads():
            log.info("fold %d computes on %d threads, as before", self.fold.number, threads)
            torch.set_num_threads(threads)

    def check_finite(self) -> None:
        """Stop where a loss or a gradient was not finite; the weights are those before it.

        Raises:
            KfoldError: naming fold, epoch, step and learning rate.
        """
        if float(self.position.broken):
            rate = max(group["lr"] for group in self.optimizer.param_groups)
            raise KfoldError(
                f"fold {self.fold.number}: loss or gradient is not finite in epoch {self.position.epoch + 1}, step "
                f"{self.position.broken:.0f}, at learning rate {rate:.3g}; the last saved state is kept. "
                "Lower optimizer.lr in the recipe and run again."
            )


def _correct(logits: Tensor, targets: Tensor) -> Tensor:
    """How many of a batch are right; of a mixed image the class that is most of it counts."""
    labels = targets if targets.ndim == 1 else targets.argmax(dim=1)
    return (logits.argmax(dim=1) == labels).sum()


def _summary(error: Exception) -> str:
    return " ".join(str(error).split("\n\n")[0].split())


def _peak_memory_mb(device: torch.device) -> float:
    if device.type == "cuda":
        return torch.cuda.max_memory_allocated(device) / 2**20
    unit = 1 if sys.platform == "darwin" else 2**10  # ru_maxrss: bytes there, KiB elsewhere
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit / 2**20


def train_fold_of_files(
    compute: Compute,
    files: FoldFiles,
    state_folder: Path,
    kept: KeptFolds,
    checkpoint_minutes: float,
    history_file: Path,
    model_file: Path,
    tensorboard: Path | None,
) -> None:
    """``train_fold`` for files of the data stage."""
    train_fold(
        recipe=files.recipe,
        fold=files.fold(),
        weights=Path(files.weights) if files.weights else None,
        compute=compute,
        checkpoint_minutes=checkpoint_minutes,
        state_folder=state_folder,
        history_file=history_file,
        model_file=model_file,
        version=files.version,
        tensorboard=tensorboard,
        kept=kept,
    )


def train_fold(
    recipe: TrainingRecipe,
    fold: Fold,
    weights: Path | None,
    compute: Compute,
    checkpoint_minutes: float,
    state_folder: Path,
    history_file: Path,
    model_file: Path,
    version: Any,
    tensorboard: Path | None = None,
    kept: KeptFolds | None = None,
) -> None:
    """Train a fold, resume it if there is a saved state, and save the chosen weights.

    ``history_file`` is rewritten after each epoch. The saved state is good for the same fingerprint only, and is
    removed once model and history are written and added to ``kept``. ``tensorboard`` is a folder for event files.

    Raises:
        KfoldError: if the loss is not finite, the pretrained weights do not fit, or the disk is full.
        Preempted: if a signal asked the job to end, after saving.
    """
    owner = fold_fingerprint(recipe, fold, weights, version)
    training = Training(recipe, fold, weights, compute)
    file = StateFile(state_folder, owner)
    require_space(state_folder, _disk_space(training) - file.size, f"training fold {fold.number}")
    state = file.load()
    compute.ranks.wait_for_all()  # or rank 0, where no epoch is left, might remove it before another reads it
    if state:
        training.restore(state)
        at = training.position
        log.info("fold %d goes on at epoch %d, step %d", fold.number, at.epoch + 1, at.step)
    if not compute.ranks.leads:
        fit(training, NoRecord())
        return
    progress = Progress(training, state_folder / "progress.json", tensorboard)
    fit(training, Record(Checkpoints(file, checkpoint_minutes), progress, history_file))
    write_table(history_file, pd.DataFrame(training.history))  # also where the saved state was past the last epoch
    log.info("fold %d: kept the weights of epoch %d", fold.number, training.best.epoch)
    save_model(model_file, TrainedModel(recipe, fold.classes, owner, training.best.weights))
    if kept:
        about = {"recipe": model_file.parent.parent.name, "fold": fold.number}
        kept.keep(owner, {file.name: file for file in (model_file, history_file)}, about)
    file.remove()


def _disk_space(training: Training) -> int:
    """What a fold writes at most, in bytes: a state, the one before, the one being written, and the chosen weights."""
    weights = sum(each.nbytes for each in training.network.state_dict().values())
    copies = 4 + (training.ema.averaged is not None)  # the network, the best so far, two of an optimizer's; the average
    return (3 * copies + 1) * weights


@dataclass(frozen=True)
class Record:
    """What is kept, and told, of a training while it goes on."""

    checkpoints: Checkpoints
    progress: Progress
    history_file: Path

    def after_step(self, training: Training) -> None:
        self.progress.after_step()
        self.checkpoints.after_step(training.state)

    def after_epoch(self, training: Training, row: dict[str, Any]) -> None:
        write_table(self.history_file, pd.DataFrame(training.history))
        self.progress.after_epoch(row)
        self.checkpoints.after_step(training.state)

    def close(self) -> None:
        self.progress.close()


class NoRecord:
    """Of a rank that does not lead."""

    def after_step(self, training: Training) -> None:
        pass

    def after_epoch(self, training: Training, row: dict[str, Any]) -> None:
        pass

    def close(self) -> None:
        pass


def fit(training: Training, record: Record | NoRecord) -> None:
    """Train to the last epoch: steps, then evaluation, then the epoch's row."""
    recipe, fold, compute, order = training.recipe, training.fold, training.compute, training.order
    start = (training.position.epoch, training.position.step)
    loading = (compute.workers_for(recipe.batch_size, recipe.image), compute.pin)
    batches = training_batches(training_views(recipe, fold), order, start, recipe.epochs, *loading, compute.ranks)
    own = fold.validation.image_id[compute.ranks.own(len(fold.validation))]
    view = build_evaluation_view(recipe.image)
    validation = evaluation_batches(fold.validation.store, own, view, recipe.batch_size, *loading, again=True)
    with closing(record):
        while not training.over:
            remaining = order.steps_per_epoch - training.position.step
            train_epoch(training, islice(batches, remaining), record)
            started = time.perf_counter()
            scores = validate(training, validation)
            row = training.finish_epoch(scores, time.perf_counter() - started)
            record.after_epoch(training, row)


def train_epoch(training: Training, batches: Iterator[tuple[Tensor, Tensor]], record: Record | NoRecord) -> None:
    """The rest of an epoch's steps."""
    training.network.train()
    before, started = training.position.seconds, time.perf_counter()
    asked = started
    for views, labels in batches:
        training.position.waiting += time.perf_counter() - asked
        training.step(views, labels)
        training.utilization.look()
        if training.compute.device.type == "cpu":  # elsewhere one would wait for the device
            training.check_finite()
        training.position.seconds = before + time.perf_counter() - started
        record.after_step(training)
        asked = time.perf_counter()
    training.check_finite()
    training.position.seconds = before + time.perf_counter() - started


def validate(training: Training, batches: Any) -> dict[str, float]:
    """Loss and accuracy of the network on the fold's held-out images; each rank's batches are of its part of them."""
    compute, target = training.compute, training.fold.validation.target
    part = torch.from_numpy(predict_logits(training.evaluated, batches, training.recipe.image, compute))
    logits = compute.ranks.gather(part.to(compute.device), len(target)).cpu()
    if not logits.isfinite().all():
        raise KfoldError(f"fold {training.fold.number}: logits are not finite; lower optimizer.lr and run again.")
    loss = training.criterion(logits, torch.from_numpy(target), training.position.epoch)
    return {"val_loss": float(loss), "val_accuracy": float((logits.numpy().argmax(axis=1) == target).mean())}
