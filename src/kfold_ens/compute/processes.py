"""One fold on several devices: processes that train one network together, each on its part of every batch.

The first of them, rank 0, is the job itself: it alone takes signals, saves, logs and writes, and the others end with
it. (Under torchrun it would be a child, with one more process between it and Snakemake to pass signals and errors on.)
"""

from __future__ import annotations

import ctypes
import logging
import os
import shutil
import signal
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch
from torch import Tensor, distributed, multiprocessing, nn
from torch.nn.parallel import DistributedDataParallel

from kfold_ens.errors import KfoldError
from kfold_ens.jobs import ASKING_TO_END, Preempted, keep_freed_memory
from kfold_ens.network.synchronized import synchronize_batch_norms

if TYPE_CHECKING:
    from kfold_ens.training.evaluation import Compute

log = logging.getLogger(__name__)

NOTICE_SECONDS = 8  # within which a follower's end is noticed; its loader's workers, if it has any, take five to end
LINGER_SECONDS = 20  # how long a follower's own error waits: where rank 0 has the same, rank 0 tells it
PR_SET_PDEATHSIG = 1  # prctl(2)


@dataclass(frozen=True)
class Ranks:
    """The processes that train a fold together, and which of them this is. One alone needs no other."""

    rank: int = 0
    count: int = 1

    @property
    def leads(self) -> bool:
        return self.rank == 0

    def own(self, length: int) -> slice:
        """This rank's part of a batch; the whole where it has fewer images than there are ranks."""
        if length < self.count:
            return slice(0, length)
        cuts = [length * rank // self.count for rank in range(self.count + 1)]
        return slice(cuts[self.rank], cuts[self.rank + 1])

    def share(self, length: int) -> float:
        """The weight of that part in the mean over a batch; over all ranks they add up to 1."""
        return 1 / self.count if length < self.count else self._size(length) / length

    def _size(self, length: int) -> int:
        own = self.own(length)
        return own.stop - own.start

    def gather(self, own: Tensor, length: int) -> Tensor:
        """The whole batch (length, ...), of which every rank gives its part."""
        if self.count == 1 or len(own) == length:
            return own
        sizes = [Ranks(rank, self.count)._size(length) for rank in range(self.count)]
        padded = own.new_zeros(max(sizes), *own.shape[1:])
        padded[: len(own)] = own
        parts = [torch.empty_like(padded) for _ in sizes]
        distributed.all_gather(parts, padded)
        return torch.cat([part[:size] for part, size in zip(parts, sizes, strict=True)])

    def sum(self, tensor: Tensor) -> Tensor:
        """The sum over all ranks."""
        if self.count > 1:
            distributed.all_reduce(tensor)
        return tensor

    def wait_for_all(self) -> None:
        """Until every rank has come here."""
        if self.count > 1:
            distributed.barrier()

    def wrap(self, network: nn.Module) -> nn.Module:
        """A network whose gradients, and batch statistics, are those of the whole batch."""
        if self.count == 1:
            return network
        synchronize_batch_norms(network)
        return DistributedDataParallel(network)


ALONE = Ranks()


def train_together(work: Callable[[Compute], None], computes: Sequence[Compute]) -> None:
    """Call ``work`` with each: with the first one here, with the others in processes of their own.

    Raises:
        whatever ``work`` raises here; where another process is gone, this one ends with a message and 1.
    """
    if len(computes) == 1:
        work(computes[0])
        return
    with tempfile.TemporaryDirectory() as folder, _followers(work, computes, folder), _joined(computes[0], folder):
        work(computes[0])


@contextmanager
def _joined(compute: Compute, folder: str) -> Iterator[None]:
    """In the group of the processes that meet in a folder.

    After an error nothing is taken down in good order: NCCL would wait there for the others. The process ends.
    """
    if sys.platform == "linux":  # all of them are on this machine
        os.environ["GLOO_SOCKET_IFNAME"] = os.environ["NCCL_SOCKET_IFNAME"] = "lo"
    backend = "nccl" if compute.device.type == "cuda" else "gloo"
    rank, count = compute.ranks.rank, compute.ranks.count
    distributed.init_process_group(backend, init_method=f"file://{folder}/meeting", rank=rank, world_size=count)
    yield
    distributed.destroy_process_group()


@contextmanager
def _followers(work: Callable[[Compute], None], computes: Sequence[Compute], folder: str) -> Iterator[None]:
    """The other ranks' processes, which end with this one; where one of them ends first, so does this one."""
    settings = (os.getpid(), torch.get_num_threads(), torch.are_deterministic_algorithms_enabled())
    arguments = (work, computes, folder, settings)
    context = multiprocessing.start_processes(
        _follow, arguments, nprocs=len(computes) - 1, join=False, start_method="spawn"
    )
    done = threading.Event()
    watch = threading.Thread(target=_watch, args=(context, done, folder), daemon=True)
    watch.start()
    try:
        yield
        watch.join()
    except (KfoldError, Preempted):
        raise
    except Exception:
        watch.join(NOTICE_SECONDS)  # if a follower is gone, that is why, and is told there
        raise
    finally:
        done.set()
        for process in context.processes:
            process.kill()
            process.join()  # its device is free then


def _watch(context: multiprocessing.ProcessContext, done: threading.Event, folder: str) -> None:
    """Wait for the followers; without one of them the others would wait for it for ever."""
    try:
        while not context.join(timeout=1):
            pass
    except Exception as error:
        if not done.is_set():
            log.error("ERROR: a process that trained with this one is gone: %s", str(error).strip().split("\n")[-1])
            shutil.rmtree(folder, ignore_errors=True)
            os._exit(1)


def _follow(
    index: int,
    work: Callable[[Compute], None],
    computes: Sequence[Compute],
    folder: str,
    settings: tuple[int, int, bool],
) -> None:
    """A follower's whole life."""
    from kfold_ens.training.evaluation import prepare

    parent, threads, deterministic = settings
    _end_with(parent)
    for name in ASKING_TO_END:
        signal.signal(name, signal.SIG_IGN)  # rank 0 saves, and then ends this process
    logging.getLogger("kfold_ens").setLevel(logging.ERROR)
    prepare(threads, deterministic)
    compute = computes[index + 1]
    if compute.device.type == "cuda":
        torch.cuda.set_device(compute.device)
    else:
        keep_freed_memory()
    with _joined(compute, folder):
        try:
            work(compute)
        except Exception:
            time.sleep(LINGER_SECONDS)
            raise


def _end_with(parent: int) -> None:
    """Let the system kill this process when its parent ends, however that ends."""
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, signal.SIGKILL)
    if os.getppid() != parent:
        os._exit(1)
