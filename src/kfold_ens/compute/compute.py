"""How a process computes: its device, precision, threads and loader workers."""

from __future__ import annotations

import logging
import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor

from kfold_ens import config
from kfold_ens.compute.devices import autocast_dtype, leased_devices
from kfold_ens.compute.ranks import ALONE, Ranks
from kfold_ens.errors import KfoldError
from kfold_ens.jobs import keep_freed_memory, processes_at_once, usable_threads
from kfold_ens.loading.augmentation import to_input
from kfold_ens.loading.loader import Loading
from kfold_ens.network.classifier import memory_format

log = logging.getLogger(__name__)

SHARED_MEMORY = Path("/dev/shm")


@dataclass(frozen=True)
class Compute:
    """How a process computes.

    Attributes:
        dtype: of autocast; None for float32 throughout.
        workers: loader workers, at most.
        compile: whether to compile the network for training.
        ranks: this process among those that train the fold.
        at_once: how many processes of the run may compute on this machine at the same time.
    """

    device: torch.device
    dtype: torch.dtype | None
    workers: int
    compile: bool = False
    ranks: Ranks = ALONE
    at_once: int = 1

    def loading(self, batch_size: int, image: config.Image) -> Loading:
        """DataLoader settings, with no more workers than shared memory has space for."""
        workers = workers_with_room(self.workers, batch_size * 3 * image.size**2, self.at_once)
        return Loading(workers, pin=self.device.type == "cuda")

    def autocast(self) -> torch.autocast:
        return torch.autocast(self.device.type, self.dtype, enabled=self.dtype is not None)

    def input(self, views_nchw: Tensor, image: config.Image) -> Tensor:
        """Network input from views (N, 3, size, size) uint8: float32 on the device."""
        return to_input(views_nchw, image, self.device, memory_format(self.device))


@contextmanager
def leased_compute(run: config.Config, threads: int) -> Iterator[Compute]:
    """Lease the device that ``config.yaml`` names and set up torch for it. Raises as ``leased_computes`` does."""
    with leased_computes(run, threads, 1) as computes:
        yield computes[0]


@contextmanager
def leased_computes(run: config.Config, threads: int, count: int) -> Iterator[list[Compute]]:
    """Lease ``count`` devices of the kind that ``config.yaml`` names, one per rank, and share out the threads.

    Raises:
        KfoldError: if a device is missing, runs out of memory, or cannot be deterministic.
    """
    threads = max(1, usable_threads(threads) // count)
    configure_torch(threads, run.deterministic)
    with leased_devices(run.device, count, run.gpu_slots) as devices:
        if devices[0].type == "cpu":
            keep_freed_memory()
        try:
            yield [_compute(run, device, threads, Ranks(rank, count)) for rank, device in enumerate(devices)]
        except torch.OutOfMemoryError as error:
            raise KfoldError(
                f"out of memory on {devices[0]}; end other processes that use it, and if gpus_per_fold is above 1, "
                f"lower batch_size in the recipe.\n  {error}"
            ) from None
        except RuntimeError as error:
            if not run.deterministic or "deterministic" not in str(error):
                raise
            raise KfoldError(
                f"config.yaml: deterministic is true, but an operation of this recipe cannot be deterministic on "
                f"{devices[0]}; change the recipe or set deterministic: false.\n  {error}"
            ) from None


def _compute(run: config.Config, device: torch.device, threads: int, ranks: Ranks) -> Compute:
    workers = threads if device.type == "cuda" else 0  # on a CPU the network itself needs the threads
    dtype = autocast_dtype(device, run.precision)
    return Compute(device, dtype, workers, run.compile, ranks, at_once=processes_at_once())


def configure_torch(threads: int, deterministic: bool) -> None:
    """Set torch's number of threads, and deterministic algorithms or the fastest ones that cuDNN finds.

    https://docs.pytorch.org/docs/stable/notes/randomness.html
    """
    torch.set_num_threads(threads)
    if deterministic:
        os.environ["CUBLAS_WORKSPACE_CONFIG"] = ":4096:8"
    torch.use_deterministic_algorithms(deterministic)
    torch.backends.cudnn.benchmark = not deterministic


def workers_with_room(workers: int, batch_bytes: int, processes: int = 1) -> int:
    """Limit the number of loader workers to what fits in shared memory, split between ``processes``.

    Containers often have only 64 MB of it, and one batch too many kills the job. Training and validation each have
    this many workers, with two batches per worker, and one batch in use.
    """
    if not SHARED_MEMORY.is_dir():
        return workers
    memory = shutil.disk_usage(SHARED_MEMORY)
    batches_per_loader = min(memory.free, memory.total // processes) // batch_bytes // 2
    fitting = max(0, (batches_per_loader - 1) // 2)
    if fitting < workers:
        each = f" in each of {processes} processes" if processes > 1 else ""
        log.warning("%s has space for %d loader workers%s, not %d; enlarge it", SHARED_MEMORY, fitting, each, workers)
    return min(workers, fitting)
