"""How a process computes: its device, number type, threads and loader workers."""

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

    ``dtype`` is that of autocast, None for float32 throughout; ``compile`` is whether torch compiles the network that
    is trained; ``ranks`` are the processes that train together; ``at_once`` is how many processes of the run may
    compute on this machine at the same time.
    """

    device: torch.device
    dtype: torch.dtype | None
    workers: int
    compile: bool = False
    ranks: Ranks = ALONE
    at_once: int = 1

    def loading(self, batch_size: int, image: config.Image) -> Loading:
        """As many of its loader workers as there is shared memory for, given batches of uint8 views."""
        workers = workers_with_room(self.workers, batch_size * 3 * image.size**2, self.at_once)
        return Loading(workers, pin=self.device.type == "cuda")

    def autocast(self) -> torch.autocast:
        return torch.autocast(self.device.type, self.dtype, enabled=self.dtype is not None)

    def input(self, views_nchw: Tensor, image: config.Image) -> Tensor:
        """Views (N, 3, size, size) uint8 to the network's float32 input on the device."""
        return to_input(views_nchw, image, self.device, memory_format(self.device))


@contextmanager
def leased_compute(run: config.Config, threads: int) -> Iterator[Compute]:
    """The device a run asks for, held until the end, with a rule's threads put to use; errors as below."""
    with leased_computes(run, threads, 1) as computes:
        yield computes[0]


@contextmanager
def leased_computes(run: config.Config, threads: int, count: int) -> Iterator[list[Compute]]:
    """As many devices, of the kind a run asks for, for as many processes that train together.

    Raises:
        KfoldError: if the device is not there, its memory does not suffice, or it cannot be deterministic.
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
                f"out of memory on {devices[0]}; see that no other process uses it, and if several GPUs train a fold, "
                f"lower the recipe's batch_size.\n  {error}"
            ) from None
        except RuntimeError as error:
            if not run.deterministic or "deterministic" not in str(error):
                raise
            raise KfoldError(
                f"a part of this recipe cannot be deterministic on {devices[0]}; change it, or write "
                f"deterministic: false into config.yaml.\n  {error}"
            ) from None


def _compute(run: config.Config, device: torch.device, threads: int, ranks: Ranks) -> Compute:
    workers = threads if device.type == "cuda" else 0  # on a CPU the network itself needs the threads
    dtype = autocast_dtype(device, run.precision)
    return Compute(device, dtype, workers, run.compile, ranks, at_once=processes_at_once())


def configure_torch(threads: int, deterministic: bool) -> None:
    """Set up torch for a process: algorithms that give the same bits twice, or those that cuDNN finds the fastest.

    https://docs.pytorch.org/docs/stable/notes/randomness.html
    """
    torch.set_num_threads(threads)
    if deterministic:
        os.environ["CUBLAS_WORKSPACE_CONFIG"] = ":4096:8"
    torch.use_deterministic_algorithms(deterministic)
    torch.backends.cudnn.benchmark = not deterministic


def workers_with_room(workers: int, batch_bytes: int, processes: int = 1) -> int:
    """The number of these workers that one of so many processes has room for in shared memory.

    Containers often have 64 MB of it, and one batch too many ends the job. Training and validation each have so many
    workers, two batches per worker, and one that is in use.
    """
    if not SHARED_MEMORY.is_dir():
        return workers
    memory = shutil.disk_usage(SHARED_MEMORY)
    batches_per_loader = min(memory.free, memory.total // processes) // batch_bytes // 2
    room = max(0, (batches_per_loader - 1) // 2)
    if room < workers:
        many = f" in each of {processes} processes that may run at once" if processes > 1 else ""
        log.warning(
            "%s has room for %d loader workers%s, not for %d; make it larger", SHARED_MEMORY, room, many, workers
        )
    return min(workers, room)
