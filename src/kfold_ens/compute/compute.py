"""What a network says about images it is not training on."""

from __future__ import annotations

import logging
import os
import sys
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Literal

import numpy as np
import torch
from torch import Tensor, nn

from kfold_ens import config
from kfold_ens.devices import autocast_dtype, leased_devices
from kfold_ens.errors import KfoldError
from kfold_ens.jobs import keep_freed_memory, processes_at_once, usable_threads
from kfold_ens.network.classifier import memory_format
from kfold_ens.training.augmentation import to_input
from kfold_ens.training.loader import workers_with_room
from kfold_ens.training.ranks import ALONE, Ranks

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Compute:
    """How a process computes: its device, the type of its autocast (None: float32 throughout), its loader workers,
    whether torch compiles what it trains ("auto": where that pays), with which other processes it trains, and how many
    of the run may compute on this machine at once."""

    device: torch.device
    dtype: torch.dtype | None
    workers: int
    compile: bool | Literal["auto"] = False
    ranks: Ranks = ALONE
    at_once: int = 1

    @property
    def pin(self) -> bool:
        return self.device.type == "cuda"

    def workers_for(self, batch_size: int, image: config.Image) -> int:
        """Its loader workers, where there is room for their batches of uint8 views."""
        return workers_with_room(self.workers, batch_size * 3 * image.size**2, self.at_once)

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
        KfoldError: where the device is not there, its memory does not suffice, or it cannot be deterministic.
    """
    threads = max(1, usable_threads(threads) // count)
    prepare(threads, run.deterministic)
    with leased_devices(run.device, count, run.gpu_slots) as devices:
        device = devices[0]
        if device.type == "cpu":
            keep_freed_memory()
        workers = threads if device.type == "cuda" else 0  # on a CPU the network itself wants the threads
        how = (autocast_dtype(device, run.precision), workers, run.compile)
        try:
            yield [
                Compute(device, *how, Ranks(rank, count), processes_at_once()) for rank, device in enumerate(devices)
            ]
        except torch.OutOfMemoryError as error:
            raise KfoldError(
                f"out of memory on {device}; see that no other process uses it, and if several GPUs train a fold, "
                f"lower the recipe's batch_size.\n  {error}"
            ) from None
        except RuntimeError as error:
            if not run.deterministic or "deterministic" not in str(error):
                raise
            raise KfoldError(
                f"a part of this recipe cannot be deterministic on {device}; change it, or write deterministic: false "
                f"into config.yaml.\n  {error}"
            ) from None


def prepare(threads: int, deterministic: bool) -> None:
    """Set up torch for a process: only algorithms that give the same bits twice, or those that cuDNN finds the fastest.

    https://docs.pytorch.org/docs/stable/notes/randomness.html
    """
    torch.set_num_threads(threads)
    if deterministic:
        os.environ["CUBLAS_WORKSPACE_CONFIG"] = ":4096:8"
    torch.use_deterministic_algorithms(deterministic)
    torch.backends.cudnn.benchmark = not deterministic


@torch.inference_mode()
def predict_logits(network: nn.Module, batches: Iterable[Tensor], image: config.Image, compute: Compute) -> np.ndarray:
    """Logits of every image of the batches, in their order: (N, K) float32. Leaves the network in evaluation mode.

    Raises:
        KfoldError: if memory does not suffice for a single image.
    """
    network.eval()

    def forward(views: Tensor) -> Tensor:
        with compute.autocast():
            return network(compute.input(views, image)).float()

    logits, most = [], sys.maxsize
    for views in batches:
        some, most = _in_parts(forward, views, most)
        logits.append(some)
    return torch.cat(logits).cpu().numpy()


def _in_parts(forward: Callable[[Tensor], Tensor], views: Tensor, most: int) -> tuple[Tensor, int]:
    """A batch's logits, at most so many images at a time, and half as many while memory does not suffice."""
    while True:
        try:
            return torch.cat([forward(part) for part in views.split(most)]), most
        except torch.OutOfMemoryError as error:
            most = min(most, len(views)) // 2
            if not most:
                raise KfoldError(f"out of memory with a single image; use a GPU with more of it.\n  {error}") from None
        torch.cuda.empty_cache()  # the error held what did not fit
        log.warning("out of memory: predicts %d images at a time", most)
