"""Train one fold on several devices: start, connect and watch one process per device.

Rank 0 is the job itself; the other ranks are its children and end with it. (With torchrun, rank 0 would be a child too,
and one more process would have to pass on signals and errors between it and Snakemake.)
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

NOTICE_SECONDS = 8  # to notice that a follower has died; its loader workers take up to five seconds to end
LINGER_SECONDS = 20  # before a follower fails: if rank 0 has the same error, rank 0 reports it first
PR_SET_PDEATHSIG = 1  # prctl(2)


def train_together(work: Callable[[Compute], None], computes: Sequence[Compute]) -> None:
    """Call ``work`` once per compute: with the first in this process, with each other in a new process.

    If another process dies, this one logs an error and exits with 1.

    Raises:
        Exception: any that ``work`` raises in this process.
    """
    if len(computes) == 1:
        work(computes[0])
        return
    with tempfile.TemporaryDirectory() as folder, _followers(work, computes, folder), _joined(computes[0], folder):
        work(computes[0])


@contextmanager
def _joined(compute: Compute, folder: str) -> Iterator[None]:
    """Join the process group of a folder.

    After an error, the group is not destroyed: NCCL would wait for the other ranks. The process ends instead.
    """
    if sys.platform == "linux":  # all ranks are on this machine
        os.environ["GLOO_SOCKET_IFNAME"] = os.environ["NCCL_SOCKET_IFNAME"] = "lo"
    backend = "nccl" if compute.device.type == "cuda" else "gloo"
    rank, count = compute.ranks.rank, compute.ranks.count
    distributed.init_process_group(backend, init_method=f"file://{folder}/meeting", rank=rank, world_size=count)
    yield
    distributed.destroy_process_group()


@contextmanager
def _followers(work: Callable[[Compute], None], computes: Sequence[Compute], folder: str) -> Iterator[None]:
    """Run the other ranks' processes. They end with this one, and this one ends if one of them dies."""
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
        watch.join(NOTICE_SECONDS)  # a follower's death may be the cause; _watch then reports it
        raise
    finally:
        done.set()
        for process in context.processes:
            process.kill()
            process.join()  # frees its device


def _watch(context: multiprocessing.ProcessContext, done: threading.Event, folder: str) -> None:
    """Wait for the followers; if one dies, end this process, as the other ranks would wait forever."""
    try:
        while not context.join(timeout=1):
            pass
    except Exception as error:
        if not done.is_set():
            log.error("ERROR: another process that trains this fold died: %s", str(error).strip().split("\n")[-1])
            shutil.rmtree(folder, ignore_errors=True)
            os._exit(1)


def _follow(
    index: int,
    work: Callable[[Compute], None],
    computes: Sequence[Compute],
    folder: str,
    settings: tuple[int, int, bool],
) -> None:
    """Main function of a follower process."""
    parent, threads, deterministic = settings
    _die_with_parent(parent)
    for name in ASKING_TO_END:
        signal.signal(name, signal.SIG_IGN)  # rank 0 saves the state, then ends this process
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


def _die_with_parent(parent: int) -> None:
    """Let the kernel kill this process when its parent ends for any reason."""
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, signal.SIGKILL)
    if os.getppid() != parent:
        os._exit(1)
