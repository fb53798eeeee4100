"""Rebuild a fold in a scratch folder, by the code that trains it for real.

Its models are never taken for trained folds: nothing keeps them, and no real fold has their fingerprint.
"""

from __future__ import annotations

import hashlib
import logging
import shutil
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import torch
from safetensors import safe_open

from kfold_ens.compute.compute import Compute
from kfold_ens.config import Config, TrainingRecipe, Tta
from kfold_ens.data.folds import Fold, read_fold
from kfold_ens.data.pixels import PixelStore
from kfold_ens.ensemble.out_of_fold import combined_over_repeats
from kfold_ens.files import write_table
from kfold_ens.history import Row
from kfold_ens.loading.augmentation import build_evaluation_view
from kfold_ens.loading.loader import EvaluationViews, evaluation_batches, training_batches, training_views
from kfold_ens.logits import Logits
from kfold_ens.members import Member, Number
from kfold_ens.network.classifier import load_model
from kfold_ens.prediction.predict import on_device, predict
from kfold_ens.training.fold import TrainingOutputs
from kfold_ens.training.loop import train_fold
from kfold_ens.training.mixing import seed_step
from kfold_ens.training.trainer import Trainer

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Bench:
    """What all rebuilds share.

    Attributes:
        recipe: with the certificate's number of epochs.
        epochs: of the recipe itself.
        classes: file of the class labels.
        scratch: folder of all files of the rebuilds.
    """

    run: Config
    recipe: TrainingRecipe
    epochs: int
    tta: Tta
    classes: str
    store: PixelStore
    weights: Path | None
    version: Any
    compute: Compute
    scratch: Path


@dataclass(frozen=True)
class Trained:
    """What training a fold gave: its history, a hash of its weights, and its logits for the held-out images."""

    history: Sequence[Row]
    weights: str
    logits: Logits

    @property
    def digest(self) -> str:
        """Hash of the logits."""
        return digest([self.logits.values])


@dataclass
class Rebuild:
    """A fold under the labels of ``split``; each part is built when it is first asked for.

    ``others`` are the folds of the run under their true labels, by member; this rebuild takes the place of its own.
    """

    bench: Bench
    member: Member
    split: pd.DataFrame
    others: Mapping[Member, Rebuild]

    @cached_property
    def label_of(self) -> dict[str, str]:
        """Labels by image id."""
        return dict(zip(self.split["image_id"], self.split["label"], strict=True))

    @cached_property
    def fold(self) -> Fold:
        """The fold's images, read from a table as for training."""
        file = self.bench.scratch / "folds.csv"
        write_table(file, self.split)
        seed = self.bench.run.seed + self.member.repeat
        return read_fold(self.member.trained_as, seed, str(file), self.bench.classes, self.bench.store)

    @cached_property
    def untrained(self) -> dict[str, str]:
        """Hashes of what training starts from: ``loss``, ``weights`` and ``inputs``."""
        bench = self.bench
        trainer = Trainer(bench.recipe, self.fold, bench.weights, bench.compute)
        weights = trainer.network.state_dict()
        return {
            "loss": digest([_losses(trainer, bench.epochs)]),
            "weights": digest(weights[name].cpu().numpy() for name in sorted(weights)),
            "inputs": digest(_first_inputs(trainer)),
        }

    @cached_property
    def trained(self) -> Trained:
        """Train the fold, predict its held-out images, and delete its files."""
        bench, folder = self.bench, self.bench.scratch / "fold"
        outputs = TrainingOutputs(
            history=folder / "history.csv",
            model=folder / "model.safetensors",
            state=folder / "state",
            scoring=bench.run.scoring,
        )
        version = ["certificate", bench.version]  # no real fold has this version, so none has this fingerprint
        train_fold(bench.recipe, self.fold, bench.weights, version, bench.compute, outputs)
        history = pd.read_csv(outputs.history).to_dict("records")
        trained = Trained(history, _digest_of_file(outputs.model), self._predicted(outputs.model))
        shutil.rmtree(folder)
        return trained

    def _predicted(self, file: Path) -> Logits:
        bench, model, images = self.bench, load_model(file), self.fold.validation
        size = bench.run.prediction_batch_size or bench.recipe.batch_size
        network = on_device(model, bench.compute)
        return predict(model, network, bench.tta, images.store, images.image_id, bench.compute, size)

    @property
    def _folds(self) -> list[Rebuild]:
        """All folds of the run: this one, and the others under their true labels."""
        return [self if member == self.member else other for member, other in self.others.items()]

    @property
    def histories(self) -> dict[Number, Sequence[Row]]:
        """Histories of all folds, by number."""
        return {each.member.number: each.trained.history for each in self._folds}

    @property
    def oof(self) -> list[Logits]:
        """Out-of-fold logits of all folds, combined over repeats."""
        return combined_over_repeats([each.trained.logits for each in self._folds], self.bench.run.over_repeats)


def _losses(trainer: Trainer, epochs: int) -> np.ndarray:
    """The loss of fixed logits for each class, at the recipe's first and last epoch: shows class weights and shifts."""
    classes = len(trainer.fold.classes)
    logits = torch.linspace(-1, 1, classes, device=trainer.compute.device)[None]
    labels = torch.arange(classes, device=trainer.compute.device)
    loss = trainer.backward.criterion
    return np.array([[float(loss(logits, label[None], epoch)) for label in labels] for epoch in (0, epochs - 1)])


def _first_inputs(trainer: Trainer) -> Iterable[np.ndarray]:
    """The network's input and targets in the first step, and its input for the first held-out images."""
    recipe, fold, compute = trainer.recipe, trainer.fold, trainer.compute
    views, labels = next(training_batches(training_views(recipe, fold), trainer.order.remaining(0, 0, 1)))
    seed_step(fold, 0, 0)
    device = compute.device
    mixed = trainer.mixing(compute.input(views.to(device), recipe.image), labels.to(device))
    held_out = EvaluationViews(fold.validation.store, fold.validation.image_id, build_evaluation_view(recipe.image))
    evaluated = next(iter(evaluation_batches(held_out, recipe.batch_size)))
    return [each.cpu().numpy() for each in (*mixed, compute.input(evaluated.to(device), recipe.image))]


def digest(arrays: Iterable[np.ndarray]) -> str:
    """Hash the type, shape and bytes of arrays: hexadecimal SHA-256."""
    found = hashlib.sha256()
    for array in arrays:
        found.update(f"{array.dtype} {array.shape}".encode())
        found.update(np.ascontiguousarray(array).tobytes())
    return found.hexdigest()


def _digest_of_file(model: Path) -> str:
    """Hash the weights in a model's file. Its header holds the fold's fingerprint, which covers held-out labels."""
    with safe_open(model, framework="np") as file:
        return digest(file.get_tensor(name) for name in sorted(file.keys()))
