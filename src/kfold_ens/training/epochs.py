"""Keep the held-out logits of each epoch while a fold trains. Imports no torch."""

from __future__ import annotations

import logging
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from kfold_ens.config import TrainingRecipe
from kfold_ens.data.folds import Fold
from kfold_ens.epoch_logits import EpochLogits, compact, size_of, write_epochs
from kfold_ens.files import atomic

log = logging.getLogger(__name__)
MB = 10**6


@dataclass(frozen=True)
class KeptEpochs:
    """A file per epoch beside the resume state, so that resuming has exactly those of the finished epochs.

    ``folder`` belongs to one fingerprint. None: nothing is kept.
    """

    folder: Path | None

    def add(self, epoch: int, logits: np.ndarray) -> None:
        """Keep the logits (N, K) after an epoch, counted from 1."""
        if self.folder:
            with atomic(_file(self.folder, epoch)) as temporary, open(temporary, "wb") as file:
                np.save(file, compact(logits), allow_pickle=False)

    def write(self, path: Path, fold: Fold, history: Path, epochs: int) -> None:
        """Write those of all epochs to one file; removes one of an earlier training if there are none."""
        path.unlink(missing_ok=True)
        files = [_file(self.folder, epoch) for epoch in range(1, epochs + 1)] if self.folder else []
        missing = [file.name for file in files if not file.is_file()]
        if missing:
            log.warning("the logits of %d of %d epochs are missing, so none are kept", len(missing), epochs)
        elif files:
            values = np.stack([np.load(file, allow_pickle=False) for file in files])
            write_epochs(path, EpochLogits(fold.validation.image_id, values, tuple(fold.classes)), history)


def _file(folder: Path, epoch: int) -> Path:
    return folder / f"{epoch:04d}.npy"


def kept_epochs(recipe: TrainingRecipe, fold: Fold, state: Path, fingerprint: str, most_mb: float) -> KeptEpochs:
    """Decide whether to keep the logits of a fold's epochs: if they take at most ``most_mb`` MB."""
    size = epochs_size(recipe, fold)
    if size > most_mb * MB:
        log.info(
            "epoch_logits_mb: %g is less than the %.0f MB of the epochs' held-out logits, so these are not kept, and "
            "the out-of-fold score is not cross-fitted over epochs",
            *(most_mb, np.ceil(size / MB)),
        )
    return KeptEpochs(state / f"epochs-{fingerprint[:16]}" if 0 < size <= most_mb * MB else None)


def epochs_size(recipe: TrainingRecipe, fold: Fold) -> int:
    """Return the bytes of a fold's logits of all epochs; 0 without held-out images."""
    return size_of(recipe.last_epoch, len(fold.validation), len(fold.classes))
