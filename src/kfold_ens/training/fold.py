"""Inputs, outputs and fingerprint of a fold's training. Imports no torch."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pandas as pd

from kfold_ens.config import Scoring, TrainingRecipe
from kfold_ens.data.folds import Fold, Images, read_fold
from kfold_ens.data.pixels import PixelStore
from kfold_ens.epoch_logits import FILE
from kfold_ens.files import fingerprint, sha256_of
from kfold_ens.history import median_epoch
from kfold_ens.members import FULL, Number, member_of, place_of, title


@dataclass(frozen=True)
class FoldFiles:
    """Files and values that a fold is trained from. Each rank opens the files itself."""

    recipe: TrainingRecipe
    number: Number
    seed: int
    version: Any
    folds: str
    classes: str
    pixels: str
    index: str
    weights: str | None
    histories: Sequence[str] = ()  # full fit only: the folds' histories, which set its number of epochs

    @property
    def own_recipe(self) -> TrainingRecipe:
        """The recipe; for a full fit, with the number of epochs that the folds' histories give."""
        if self.number != FULL:
            return self.recipe
        tables = (pd.read_csv(history).to_dict("records") for history in self.histories)
        return self.recipe.of_all_images(median_epoch(tables, self.recipe.select))

    def fold(self) -> Fold:
        """Read the fold's images."""
        return read_fold(self.number, self.seed, self.folds, self.classes, PixelStore(self.pixels, self.index))

    def fingerprint(self, fold: Fold | None = None) -> str:
        """Compute the fold's fingerprint, see ``fold_fingerprint``; reads its images unless given."""
        return fold_fingerprint(self.own_recipe, fold or self.fold(), self.weights_file, self.version)

    @property
    def weights_file(self) -> Path | None:
        """File of the pretrained weights; None for random weights."""
        return Path(self.weights) if self.weights else None


@dataclass(frozen=True)
class TrainingOutputs:
    """Where the training of a fold writes, and how often it saves its state.

    Attributes:
        history: CSV, rewritten after each epoch.
        model: the selected weights.
        state: folder of the resume state; removed at the end.
        checkpoint_minutes: time between two saved states.
        tensorboard: folder of event files; None for none.
        scoring: metric to record beside those of the recipe; it does not affect the weights.
        epoch_logits_mb: the most that the held-out logits of all epochs may take; if larger, they are not kept.
    """

    history: Path
    model: Path
    state: Path
    checkpoint_minutes: float = 5
    tensorboard: Path | None = None
    scoring: Scoring = Scoring()
    epoch_logits_mb: float = 200

    def place(self, number: Number) -> dict[str, Any]:
        """Recipe and fold by name, for people; ``number`` is the fold's number in its split."""
        recipe, member = place_of(self.model) or (self.model.parent.parent.name, member_of(number))
        return {"recipe": recipe, "fold": member.number}

    def title(self, number: Number) -> str:
        """Name of the fold, with its repeat, that starts log lines and errors: "fold 1 of repeat 2"."""
        return title(self.place(number)["fold"])

    def by_name(self) -> dict[str, Path]:
        """Files that every trained fold has, by name."""
        return {file.name: file for file in (self.model, self.history)}

    @property
    def epochs(self) -> Path:
        """File of the held-out logits of all epochs. Snakemake doesn't know it, so that folds without it stay."""
        return self.history.with_name(FILE)

    def to_keep(self) -> dict[str, Path]:
        """Files of a trained fold to keep, by name."""
        return self.by_name() | ({FILE: self.epochs} if self.epochs.is_file() else {})


def fold_fingerprint(recipe: TrainingRecipe, fold: Fold, weights: Path | None, version: Any) -> str:
    """Hexadecimal SHA-256 of everything that determines a fold's weights.

    Includes the bytes and labels of its images, its number and seed, the classes, the recipe's values that differ from
    their defaults, the bytes of the pretrained weights, ``version``, and ``intensity_range`` unless it is the default.
    Excludes names and paths.
    """
    return fingerprint(
        {
            "recipe": recipe.model_dump(mode="json", exclude_defaults=True, exclude={"backbone": {"weights"}}),
            "fold": [fold.number, fold.seed, fold.classes],
            "images": {"train": _identity(fold.train), "held out": _identity(fold.validation)},
            "weights": sha256_of(weights) if weights else None,
            "version": version,
        }
        | fold.train.store.decoding
    )


def _identity(images: Images) -> list[list]:
    return [images.keys(), images.target.tolist()]
