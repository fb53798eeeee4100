"""Datasets and DataLoaders. Each view depends on (seed, fold, epoch, image) only, not on the worker that makes it."""

from __future__ import annotations

import multiprocessing
import signal
import sys
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from multiprocessing.util import Finalize
from typing import Any, Protocol

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import DataLoader, Dataset, default_collate
from torchvision.transforms import v2

from kfold_ens.config import TrainingRecipe
from kfold_ens.data.folds import Fold, Images
from kfold_ens.jobs import ASKING_TO_END
from kfold_ens.loading.augmentation import build_augmentation
from kfold_ens.members import Number
from kfold_ens.randomness import derive_seed

Indices = Iterable[list[tuple[int, int]]]  # per batch: indices into TrainingViews


@dataclass(frozen=True)
class Loading:
    """DataLoader settings: number of worker processes, and whether to put batches in pinned memory."""

    workers: int = 0
    pin: bool = False

    def options(self) -> dict[str, Any]:
        """Keyword arguments of DataLoader."""
        options: dict[str, Any] = {"num_workers": self.workers, "pin_memory": self.pin}
        if self.workers and sys.platform == "linux":
            options["multiprocessing_context"] = "fork"  # starts at once and shares memory with this process
        if self.workers:
            options["worker_init_fn"] = _ignore_signals
            Finalize(None, _end_workers, exitpriority=1)
        return options


IN_THIS_PROCESS = Loading()


class TrainingViews(Dataset):
    """Augmented views with their class indices, indexed by (epoch, position)."""

    def __init__(self, images: Images, augmentation: v2.Transform, seed: int, fold: Number) -> None:
        self._images = images
        self._rows = images.store.rows(images.image_id)
        self._keys = images.keys()
        self._augmentation = augmentation
        self._seed = (seed, fold)

    def __getitem__(self, index: tuple[int, int]) -> tuple[Tensor, int]:
        epoch, position = index
        _seed_view("view", *self._seed, epoch, self._keys[position])
        image = as_tensor(self._images.store, self._rows[position])
        return self._augmentation(image), int(self._images.target[position])


class Stored(Protocol):
    """Stored images: what evaluation needs of a ``PixelStore``."""

    def sha256(self, image_ids: np.ndarray) -> np.ndarray: ...

    def rows(self, image_ids: np.ndarray) -> np.ndarray: ...

    def __getitem__(self, row: int) -> np.ndarray: ...


class EvaluationViews(Dataset):
    """One view per image, in the order of the ids. Random draws depend on ``name`` and the image only."""

    def __init__(
        self, store: Stored, image_ids: Sequence[str] | np.ndarray, view: v2.Transform, name: str = "evaluation"
    ) -> None:
        ids = np.asarray(image_ids)
        self._store = store
        self._sha256 = store.sha256(ids)
        self._rows = store.rows(ids)
        self._view = view
        self._name = name

    def __len__(self) -> int:
        return len(self._rows)

    def __getitem__(self, position: int) -> Tensor:
        _seed_view("evaluation", self._name, str(self._sha256[position]))
        return self._view(as_tensor(self._store, self._rows[position]))


def _seed_view(*parts: int | str) -> None:
    """Seed the CPU generator only: torch.manual_seed also seeds all devices, which takes as long as a crop."""
    torch.default_generator.manual_seed(derive_seed(*parts))


def as_tensor(store: Stored, row: int) -> Tensor:
    """Stored image as a tensor (3, height, width) uint8."""
    return torch.from_numpy(store[row].copy()).permute(2, 0, 1)


def _ignore_signals(worker: int) -> None:
    """Ignore signals in a worker: a signal sent to the whole job must not kill a worker that the last step needs."""
    for name in ASKING_TO_END:
        signal.signal(name, signal.SIG_IGN)


def _end_workers() -> None:
    """Kill the workers at exit: multiprocessing would send them SIGTERM, which they ignore, and wait forever."""
    signal.signal(signal.SIGCHLD, signal.SIG_DFL)  # torch's handler would report killed workers as an error
    for worker in multiprocessing.active_children():
        worker.kill()


def stacked(views: Sequence[Tensor]) -> Tensor:
    """Stack views (3, height, width) into a batch (B, 3, height, width).

    Keeps the memory format of the first view: converting each channels-last view would take time.
    """
    if views[0].stride(0) != 1:
        return default_collate(list(views))
    return default_collate([view.permute(1, 2, 0) for view in views]).permute(0, 3, 1, 2)


def _labelled(samples: Sequence[tuple[Tensor, int]]) -> tuple[Tensor, Tensor]:
    views, targets = zip(*samples, strict=True)
    return stacked(views), default_collate(list(targets))


def training_views(recipe: TrainingRecipe, fold: Fold) -> TrainingViews:
    """Augmented training views of a fold."""
    return TrainingViews(fold.train, build_augmentation(recipe.augmentation, recipe.image.size), fold.seed, fold.number)


def training_batches(
    views: TrainingViews, batches: Indices, loading: Loading = IN_THIS_PROCESS
) -> Iterator[tuple[Tensor, Tensor]]:
    """Batches for these indices: views (B, 3, size, size) uint8 and class indices (B,)."""
    return iter(DataLoader(views, batch_sampler=batches, collate_fn=_labelled, **loading.options()))


def evaluation_batches(
    views: EvaluationViews, batch_size: int, loading: Loading = IN_THIS_PROCESS, again: bool = False
) -> DataLoader:
    """Batches of views (B, 3, size, size) uint8, in order; ``again`` keeps the workers for another pass."""
    options = loading.options() | {"persistent_workers": again and loading.workers > 0}
    return DataLoader(views, batch_size, collate_fn=stacked, **options)
