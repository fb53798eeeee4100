"""Batches of views, each a function of (seed, fold, epoch, image) and never of the worker that made it."""

from __future__ import annotations

import logging
import multiprocessing
import shutil
import signal
import sys
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from multiprocessing.util import Finalize
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import DataLoader, Dataset, default_collate
from torchvision.transforms import v2

from kfold_ens import config
from kfold_ens.data.folds import Images
from kfold_ens.data.pixels import PixelStore
from kfold_ens.jobs import ASKING_TO_END
from kfold_ens.randomness import derive_seed
from kfold_ens.training.ranks import ALONE, Ranks

log = logging.getLogger(__name__)

SHARED_MEMORY = Path("/dev/shm")


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

    def __init__(self, store: PixelStore, image_ids: np.ndarray, view: v2.Transform, name: str) -> None:
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


Draw = Callable[[np.random.Generator, int], np.ndarray]


def _shuffled(slot: config.Shuffle, target: np.ndarray) -> Draw:
    return np.random.Generator.permutation


def _balanced(slot: config.Balanced, target: np.ndarray) -> Draw:
    odds = 1 / np.bincount(target)[target]
    return lambda generator, num_images: generator.choice(num_images, num_images, p=odds / odds.sum())


SAMPLERS: dict[str, Callable[..., Draw]] = {"shuffle": _shuffled, "balanced": _balanced}


def build_sampler(slot: config.Sampler, target: np.ndarray) -> Draw:
    """What draws an epoch's N positions, from a generator and N, among images of class indices ``target`` (N,)."""
    return SAMPLERS[slot.kind](slot, target)


@dataclass(frozen=True)
class EpochOrder:
    """The batches of every epoch, as positions; the rest of a run can be had from any step on."""

    num_images: int
    batch_size: int
    seed: int
    fold: int
    draw: Draw = np.random.Generator.permutation

    def length(self, step: int) -> int:
        """How many images the batch of a step has."""
        return min(self.batch_size, self.num_images - step * self.batch_size)

    @property
    def steps_per_epoch(self) -> int:
        """A last batch of a single image is left out: batch normalisation cannot train on it."""
        full, rest = divmod(self.num_images, self.batch_size)
        return full + (rest > 1)

    def batches(self, epoch: int) -> list[np.ndarray]:
        """The positions of each batch of an epoch."""
        generator = np.random.default_rng(derive_seed("order", self.seed, self.fold, epoch))
        order = self.draw(generator, self.num_images)
        cuts = range(self.batch_size, self.num_images, self.batch_size)
        return np.split(order, cuts)[: self.steps_per_epoch]

    def remaining(self, epoch: int, step: int, epochs: int) -> Iterator[list[tuple[int, int]]]:
        """Indices into TrainingViews for every batch from (epoch, step) to the end of the run."""
        while epoch < epochs:
            for positions in self.batches(epoch)[step:]:
                yield [(epoch, int(position)) for position in positions]
            epoch, step = epoch + 1, 0


class _Batches:
    """What DataLoader wants of a batch sampler: something that can be iterated."""

    def __init__(self, order: EpochOrder, start: tuple[int, int], epochs: int, ranks: Ranks) -> None:
        self._arguments = (*start, epochs)
        self._order, self._ranks = order, ranks

    def __iter__(self) -> Iterator[list[tuple[int, int]]]:
        for batch in self._order.remaining(*self._arguments):
            yield batch[self._ranks.own(len(batch))]


def workers_with_room(workers: int, batch_bytes: int, processes: int = 1) -> int:
    """As many of these workers as one of so many processes has room for in shared memory.

    Containers often have 64 MB of it, and one batch too many ends the job. Training and validation each have so many
    workers, two batches a worker, and one that is in use.
    """
    if not SHARED_MEMORY.is_dir():
        return workers
    memory = shutil.disk_usage(SHARED_MEMORY)
    batches_a_loader = min(memory.free, memory.total // processes) // batch_bytes // 2
    room = max(0, (batches_a_loader - 1) // 2)
    if room < workers:
        many = f" in each of {processes} processes that may run at once" if processes > 1 else ""
        log.warning(
            "%s has room for %d loader workers%s, not for %d; make it larger", SHARED_MEMORY, room, many, workers
        )
    return min(workers, room)


def _leave_signals_to_the_job(worker: int) -> None:
    """A signal to all processes of a job must not end a worker whose batch the job's last step waits for."""
    for name in ASKING_TO_END:
        signal.signal(name, signal.SIG_IGN)


def _end_workers() -> None:
    """At a job's end multiprocessing would ask its workers to end by the very signal they ignore, and wait for ever."""
    signal.signal(signal.SIGCHLD, signal.SIG_DFL)  # torch's handler would call their end a fault
    for worker in multiprocessing.active_children():
        worker.kill()


def _loader_options(workers: int, pin: bool) -> dict[str, Any]:
    options: dict[str, Any] = {"num_workers": workers, "pin_memory": pin}
    if workers and sys.platform == "linux":
        options["multiprocessing_context"] = "fork"  # it starts at once, and shares what it has read
    if workers:
        options["worker_init_fn"] = _leave_signals_to_the_job
        Finalize(None, _end_workers, exitpriority=1)
    return options


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


def training_batches(
    views: TrainingViews,
    order: EpochOrder,
    start: tuple[int, int],
    epochs: int,
    workers: int,
    pin: bool,
    ranks: Ranks = ALONE,
) -> Iterator[tuple[Tensor, Tensor]]:
    """Batches (views (B, 3, size, size) uint8, class indices (B,)) from (epoch, step) to the end of the run; where
    several ranks train together, this one's part of each."""
    sampler = _Batches(order, start, epochs, ranks)
    return iter(DataLoader(views, batch_sampler=sampler, collate_fn=_labelled, **_loader_options(workers, pin)))


def evaluation_batches(
    store: PixelStore,
    image_ids: Sequence[str],
    view: v2.Transform,
    batch_size: int,
    workers: int,
    pin: bool,
    name: str = "evaluation",
    again: bool = False,
) -> DataLoader:
    """Batches of a view (B, 3, size, size) uint8, in the order of the ids; ``again`` keeps the workers."""
    views = EvaluationViews(store, np.asarray(image_ids), view, name)
    options = _loader_options(workers, pin) | {"persistent_workers": again and workers > 0}
    return DataLoader(views, batch_size, collate_fn=stacked, **options)
