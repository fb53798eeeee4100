"""What a fold is trained from, what its training writes, and its fingerprint. Imports no torch."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pandas as pd

from kfold_ens.config import Scoring, TrainingRecipe
from kfold_ens.data.folds import Fold, Images, read_fold
from kfold_ens.data.pixels import PixelStore
from kfold_ens.files import fingerprint, sha256_of
from kfold_ens.history import median_epoch
from kfold_ens.members import FULL, Number, member_of, place_of, title


@dataclass(frozen=True)
class FoldFiles:
    """The files and values that a fold is trained from; each process that takes part opens the files for itself."""

    recipe: TrainingRecipe
    number: Number
    seed: int
    version: Any
    folds: str
    classes: str
    pixels: str
    index: str
    weights: str | None
    histories: Sequence[str] = ()  # of a full fit alone: those of the folds, which choose its epochs

    @property
    def own_recipe(self) -> TrainingRecipe:
        """What this fold is trained by: the recipe, or for a full fit what follows from it and the folds' histories."""
        if self.number != FULL:
            return self.recipe
        tables = (pd.read_csv(history).to_dict("records") for history in self.histories)
        return self.recipe.of_all_images(median_epoch(tables, self.recipe.select))

    def fold(self) -> Fold:
        """The fold's images."""
        return read_fold(self.number, self.seed, self.folds, self.classes, PixelStore(self.pixels, self.index))

    def fingerprint(self) -> str:
        """The fold's fingerprint."""
        return fold_fingerprint(self.own_recipe, self.fold(), self.weights_file, self.version)

    @property
    def weights_file(self) -> Path | None:
        """The pretrained weights; None for random ones."""
        return Path(self.weights) if self.weights else None


@dataclass(frozen=True)
class TrainingOutputs:
    """Where the training of a fold writes, and how often it saves its state.

    ``history`` is rewritten after each epoch. ``state`` is a folder for the saved state, which is removed at the end.
    ``tensorboard`` is a folder for event files, None for none. ``scoring`` names a metric that the history
    holds beside those of the recipe; no weight depends on it.
    """

    history: Path
    model: Path
    state: Path
    checkpoint_minutes: float = 5
    tensorboard: Path | None = None
    scoring: Scoring = Scoring()

    def place(self, number: Number) -> dict[str, Any]:
        """The names of the model's recipe and fold, for people; ``number`` is the fold's in its split."""
        recipe, member = place_of(self.model) or (self.model.parent.parent.name, member_of(number))
        return {"recipe": recipe, "fold": member.number}

    def title(self, number: Number) -> str:
        """The same fold in words, with its repeat: log lines and errors begin with it."""
        return title(self.place(number)["fold"])

    def by_name(self) -> dict[str, Path]:
        """The files that are kept of a trained fold."""
        return {file.name: file for file in (self.model, self.history)}


def fold_fingerprint(recipe: TrainingRecipe, fold: Fold, weights: Path | None, version: Any) -> str:
    """The hexadecimal SHA-256 of all that a fold's weights follow from.

    These are the bytes and labels of its images, its number and seed, the classes, the recipe without what is at its
    default, the bytes of the pretrained weights, ``version``, and an ``intensity_range`` that is not the default.
    Names and places are not among them.
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
