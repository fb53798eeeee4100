"""Datasets and DataLoaders. Each view is a function of (seed, fold, epoch, image), never of the worker that made it."""

from __future__ import annotations

import multiprocessing
import signal
import sys
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from multiprocessing.util import Finalize
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import DataLoader, Dataset, default_collate
from torchvision.transforms import v2

from kfold_ens.config import TrainingRecipe
from kfold_ens.data.folds import Fold, Images
from kfold_ens.data.pixels import PixelStore
from kfold_ens.jobs import ASKING_TO_END
from kfold_ens.loading.augmentation import build_augmentation
from kfold_ens.randomness import derive_seed

Indices = Iterable[Sequence[tuple[int, int]]]  # of each batch, into TrainingViews


@dataclass(frozen=True)
class Loading:
    """How a DataLoader works: its number of worker processes, and whether batches go into pinned memory."""

    workers: int = 0
    pin: bool = False

    def options(self) -> dict[str, Any]:
        """As keyword arguments of DataLoader."""
        options: dict[str, Any] = {"num_workers": self.workers, "pin_memory": self.pin}
        if self.workers and sys.platform == "linux":
            options["multiprocessing_context"] = "fork"  # it starts at once, and shares what it has read
        if self.workers:
            options["worker_init_fn"] = _leave_signals_to_the_job
            Finalize(None, _end_workers, exitpriority=1)
        return options


IN_THIS_PROCESS = Loading()


class TrainingViews(Dataset):
    """Indexed by (epoch, position): one augmented view, and the image's class index."""

    def __init__(self, images: Images, augmentation: v2.Transform, seed: int, fold: int) -> None:
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


class EvaluationViews(Dataset):
    """One view of each image, in the order of the ids; what is random in it follows from ``name`` and the image."""

    def __init__(
        self, store: PixelStore, image_ids: Sequence[str], view: v2.Transform, name: str = "evaluation"
    ) -> None:
        image_ids = np.asarray(image_ids)
        self._store = store
        self._sha256 = store.sha256(image_ids)
        self._rows = store.rows(image_ids)
        self._view = view
        self._name = name

    def __len__(self) -> int:
        return len(self._rows)

    def __getitem__(self, position: int) -> Tensor:
        _seed_view("evaluation", self._name, str(self._sha256[position]))
        return self._view(as_tensor(self._store, self._rows[position]))


def _seed_view(*parts: int | str) -> None:
    """Seed what augmentation draws from; torch.manual_seed also visits all devices, which takes as long as a crop."""
    torch.default_generator.manual_seed(derive_seed(*parts))


def as_tensor(store: PixelStore, row: int) -> Tensor:
    """One stored image: (3, height, width) uint8."""
    return torch.from_numpy(store[row].copy()).permute(2, 0, 1)


def _leave_signals_to_the_job(worker: int) -> None:
    """A signal to all processes of a job must not end a worker whose batch the job's last step waits for."""
    for name in ASKING_TO_END:
        signal.signal(name, signal.SIG_IGN)


def _end_workers() -> None:
    """At a job's end multiprocessing would ask its workers to end by the very signal they ignore, and wait for ever."""
    signal.signal(signal.SIGCHLD, signal.SIG_DFL)  # torch's handler would call their end a fault
    for worker in multiprocessing.active_children():
        worker.kill()


def stacked(views: Sequence[Tensor]) -> Tensor:
    """Views (3, height, width) to a batch (B, 3, height, width).

    Where the first has its channels last in memory, so has the batch: turning each round would take time.
    """
    if views[0].stride(0) != 1:
        return default_collate(views)
    return default_collate([view.permute(1, 2, 0) for view in views]).permute(0, 3, 1, 2)


def _labelled(samples: Sequence[tuple[Tensor, int]]) -> tuple[Tensor, Tensor]:
    views, targets = zip(*samples, strict=True)
    return stacked(views), default_collate(targets)


def training_views(recipe: TrainingRecipe, fold: Fold) -> TrainingViews:
    """A fold's augmented images."""
    return TrainingViews(fold.train, build_augmentation(recipe.augmentation, recipe.image.size), fold.seed, fold.number)


def training_batches(
    views: TrainingViews, batches: Indices, loading: Loading = IN_THIS_PROCESS
) -> Iterator[tuple[Tensor, Tensor]]:
    """The batches with these indices: views (B, 3, size, size) uint8, class indices (B,)."""
    return iter(DataLoader(views, batch_sampler=batches, collate_fn=_labelled, **loading.options()))


def evaluation_batches(
    views: EvaluationViews, batch_size: int, loading: Loading = IN_THIS_PROCESS, again: bool = False
) -> DataLoader:
    """Batches of views (B, 3, size, size) uint8, in their order; ``again`` keeps the workers."""
    options = loading.options() | {"persistent_workers": again and loading.workers > 0}
    return DataLoader(views, batch_size, collate_fn=stacked, **options)
