"""One fold on several devices: starts, joins and watches the processes that train one network together.

The first of them, rank 0, is the job itself, and the others end with it. (Under torchrun it would be a child, with one
more process between it and Snakemake to pass signals and errors on.)
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

import torch
from torch import distributed, multiprocessing

from kfold_ens.compute.compute import Compute, configure_torch
from kfold_ens.errors import KfoldError
from kfold_ens.jobs import ASKING_TO_END, Preempted, keep_freed_memory

log = logging.getLogger(__name__)

NOTICE_SECONDS = 8  # within which a follower's end is noticed; its loader's workers, if it has any, take five to end
LINGER_SECONDS = 20  # how long a follower's own error waits: where rank 0 has the same, rank 0 tells it
PR_SET_PDEATHSIG = 1  # prctl(2)


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
    parent, threads, deterministic = settings
    _end_with(parent)
    for name in ASKING_TO_END:
        signal.signal(name, signal.SIG_IGN)  # rank 0 saves, and then ends this process
    logging.getLogger("kfold_ens").setLevel(logging.ERROR)
    configure_torch(threads, deterministic)
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
