"""Take one training step at a time, and hold all state that a step changes."""

from __future__ import annotations

import logging
import resource
import sys
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn.utils import get_total_norm

from kfold_ens import members
from kfold_ens.compute.collectives import gather
from kfold_ens.compute.compute import Compute
from kfold_ens.compute.devices import Utilization, device_name
from kfold_ens.config import TrainingRecipe
from kfold_ens.data.folds import Fold
from kfold_ens.errors import KfoldError
from kfold_ens.history import selecting_value
from kfold_ens.jobs import usable_threads
from kfold_ens.loading.samplers import epoch_order
from kfold_ens.network.classifier import Classifier, memory_format
from kfold_ens.randomness import derive_seed
from kfold_ens.training.backward import Backward
from kfold_ens.training.ema import build_ema
from kfold_ens.training.losses import build_loss
from kfold_ens.training.mixing import build_mixing, seed_rank, seed_step
from kfold_ens.training.optimizers import build_optimizer, step_if
from kfold_ens.training.schedules import build_schedule
from kfold_ens.training.stopping import stops

log = logging.getLogger(__name__)


@dataclass
class Position:
    """Position in the run, and totals of this epoch so far.

    Tensors stay on the device, so that a step does not wait for it.
    """

    epoch: int = 0
    step: int = 0
    images: int = 0
    correct: float | Tensor = 0
    loss: float | Tensor = 0  # summed over images
    seconds: float = 0
    waiting: float = 0  # seconds of these spent waiting for batches
    first_nonfinite_step: float | Tensor = 0  # loss or gradient not finite; counted from 1; 0 for none

    def count(self, loss: Tensor, correct: Tensor, length: int) -> None:
        """Add a batch of ``length`` images with its mean loss, and move to the next step."""
        self.images += length
        self.loss = self.loss + loss * length
        self.correct = self.correct + correct
        self.step += 1

    def note(self, finite: Tensor) -> None:
        """Record this step if it is the first that is not finite."""
        step = (self.step + 1) * (~finite).float()
        self.first_nonfinite_step = self.first_nonfinite_step + step * (self.first_nonfinite_step == 0)

    def saved(self) -> dict[str, float]:
        """Plain values to save. All steps so far are finite: ``Trainer.state`` checks it."""
        values = asdict(self) | {"loss": float(self.loss), "correct": float(self.correct)}
        return {name: value for name, value in values.items() if name != "first_nonfinite_step"}

    @classmethod
    def of(cls, saved: dict[str, Any]) -> Position:
        """Load a saved position; ignores keys of older versions."""
        return cls(**{name: value for name, value in saved.items() if name in cls.__dataclass_fields__})


@dataclass
class Best:
    """Weights of the best epoch so far."""

    epoch: int = -1
    score: float = -float("inf")
    weights: dict[str, Tensor] = field(default_factory=dict)


class Trainer:
    """Trains a fold step by step. The state can be saved after any step, and training resumes from it.

    Log lines and errors start with ``title``, because a fold has the same number in every repeat.
    """

    def __init__(
        self, recipe: TrainingRecipe, fold: Fold, weights: Path | None, compute: Compute, title: str | None = None
    ) -> None:
        torch.manual_seed(derive_seed("weights", fold.seed, fold.number))
        self.recipe, self.fold, self.compute = recipe, fold, compute
        self.title = title or members.title(fold.number)
        self.network = Classifier(recipe, len(fold.classes), weights)
        self.network.to(compute.device).to(memory_format=memory_format(compute.device))
        self.order = epoch_order(recipe, fold)
        criterion = build_loss(recipe.loss, np.bincount(fold.train.target, minlength=len(fold.classes)))
        self.backward = Backward(self.network, criterion, compute, recipe.batch_size, self.title)
        self.optimizer = build_optimizer(recipe.optimizer, self.network)
        self.schedule = build_schedule(recipe.schedule, self.optimizer, recipe.epochs * self.order.steps_per_epoch)
        self.ema = build_ema(recipe.ema, self.network)
        self.mixing = build_mixing(recipe.mixing, len(fold.classes))
        self.position, self.best = Position(), Best()
        self.history: list[dict[str, Any]] = []
        self.utilization = Utilization(compute.device)

    def step(self, views: Tensor, labels: Tensor) -> None:
        """Train on one batch, or this rank's part of it: views (B, 3, size, size) uint8, class indices (B,)."""
        at = self.position
        seed_step(self.fold, at.epoch, at.step)
        inputs = self.compute.input(self._whole(views), self.recipe.image)
        inputs, targets = self.mixing(inputs, self._whole(labels))
        if self.compute.ranks.count > 1:
            seed_rank(self.compute.ranks.rank)
        loss, correct = self.backward(inputs, targets, at.epoch)
        self._update(loss)
        self.schedule.after_step()
        self.ema.after_step(self.network, at.epoch)
        at.count(loss, correct, len(inputs))

    def _whole(self, part: Tensor) -> Tensor:
        """Gather the whole batch on the device, so that mixing does not depend on the number of ranks."""
        part = part.to(self.compute.device, non_blocking=True)
        return gather(self.compute.ranks, part, self.order.length(self.position.step))

    def _update(self, loss: Tensor) -> None:
        """Step the optimizer unless the loss or the gradient is not finite."""
        gradients = [each.grad for each in self.network.parameters() if each.grad is not None]
        finite = get_total_norm(gradients).isfinite() & loss.isfinite()
        step_if(finite, self.optimizer)
        self.optimizer.zero_grad(set_to_none=True)
        self.position.note(finite)

    @property
    def evaluated(self) -> nn.Module:
        """Network to evaluate: the trained one, or the average of its weights."""
        return self.ema.evaluated(self.network, self.position.epoch)

    @property
    def learning_rate(self) -> float:
        """Largest learning rate of the parameter groups."""
        return max(group["lr"] for group in self.optimizer.param_groups)

    @property
    def over(self) -> bool:
        """Whether training has ended, by number of epochs or early stopping."""
        return self.position.epoch >= self.recipe.epochs or stops(self.recipe.early_stopping, self.history)

    def finish_epoch(self, scores: dict[str, float], seconds: float) -> dict[str, Any]:
        """Add the epoch to the history, keep its weights if they are the best, and start the next epoch."""
        row = self._history_row(scores, seconds)
        self.history.append(row)
        score = selecting_value(self.recipe.select, row)
        if score > self.best.score:
            weights = {name: tensor.detach().cpu().clone() for name, tensor in self.evaluated.state_dict().items()}
            self.best = Best(row["epoch"], score, weights)
        self.schedule.after_epoch(row)
        self.position = Position(epoch=self.position.epoch + 1)
        return row

    def _history_row(self, scores: dict[str, float], seconds: float) -> dict[str, Any]:
        at = self.position
        return {
            "epoch": at.epoch + 1,
            "lr": self.learning_rate,
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
        """Complete state, as tensors and plain values."""
        self.check_finite()
        return {
            "network": self.network.state_dict(),
            "ema": self.ema.averaged.state_dict() if self.ema.averaged else None,
            "optimizer": self.optimizer.state_dict(),
            "scheduler": self.schedule.scheduler.state_dict(),
            "position": self.position.saved(),
            "best": vars(self.best),
            "history": self.history,
            "threads": torch.get_num_threads() if self.compute.device.type == "cpu" else 0,
        }

    def restore(self, state: dict[str, Any]) -> None:
        """Resume from a saved state."""
        self.network.load_state_dict(state["network"])
        if self.ema.averaged:
            self.ema.averaged.load_state_dict(state["ema"])
        self.optimizer.load_state_dict(state["optimizer"])
        self.schedule.scheduler.load_state_dict(state["scheduler"])
        self.position = Position.of(state["position"])
        self.best = Best(**state["best"])
        self.history = list(state["history"])
        if self.compute.device.type == "cpu" and state["threads"]:
            self._keep_threads(usable_threads(state["threads"]))

    def _keep_threads(self, threads: int) -> None:
        """Use as many threads as before: on a CPU, their number decides the order of sums and so the last bits."""
        if threads != torch.get_num_threads():
            log.info("%s resumes with %d threads, as it started with", self.title, threads)
            torch.set_num_threads(threads)

    def check_finite(self) -> None:
        """Fail if a loss or gradient was not finite. That step has not changed the weights.

        Raises:
            KfoldError: with fold, epoch, step and learning rate.
        """
        if float(self.position.first_nonfinite_step):
            raise KfoldError(
                f"{self.title}: loss or gradient is not finite in epoch {self.position.epoch + 1}, "
                f"step {self.position.first_nonfinite_step:.0f}, at learning rate {self.learning_rate:.3g}; "
                "the last saved state is kept. Lower optimizer.lr in the recipe and rerun."
            )


def _peak_memory_mb(device: torch.device) -> float:
    if device.type == "cuda":
        return torch.cuda.max_memory_allocated(device) / 2**20
    unit = 1 if sys.platform == "darwin" else 2**10  # ru_maxrss is in bytes on macOS, in KiB elsewhere
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit / 2**20
