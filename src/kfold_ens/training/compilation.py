"""Whether, and from which step on, torch compiles a fold's network."""

from __future__ import annotations

import logging
import time
from collections.abc import Iterator
from contextlib import contextmanager
from statistics import median

import torch
from torch import nn

from kfold_ens.training.evaluation import Compute

log = logging.getLogger(__name__)

WARMUP = 20  # steps in which cuDNN looks for its algorithms
WATCHED = 30  # steps after these, by which all that are left are judged
PAYS_FROM = 30 * 60  # seconds of steps, of which a tenth won is worth three minutes of compiling


class Compilation:
    """The network that steps call: compiled from the start, never, or once the steps left promise to pay for it.

    Left to itself ("auto") only one process on a CUDA device compiles: on a CPU it did not pay, and where several train
    together a compiled step that memory does not suffice for would end them all.
    """

    def __init__(self, network: nn.Module, compute: Compute, fold: int) -> None:
        self.eager, self._device, self._fold = network, compute.device, fold
        self._watching = compute.compile == "auto" and compute.device.type == "cuda" and compute.ranks.count == 1
        self._seconds: list[float] = []  # of each step so far
        self.forward = self._compiled() if compute.compile is True else network

    def _compiled(self) -> nn.Module:
        return torch.compile(self.eager, dynamic=False)

    @contextmanager
    def step(self, left: int) -> Iterator[None]:
        """Around a step; ``left`` are planned, this one included."""
        if not self._watching:
            yield
            return
        started = self._now()
        yield
        self._seconds.append(self._now() - started)
        if self._watching and len(self._seconds) == WARMUP + WATCHED:
            self._decide(median(self._seconds[WARMUP:]) * (left - 1))

    def _decide(self, seconds: float) -> None:
        self._watching = False
        if seconds >= PAYS_FROM:
            log.info("fold %d: compiles the network, as %.0f minutes of steps are left", self._fold, seconds / 60)
            self.forward = self._compiled()

    def give_up(self) -> None:
        """Compute as the network is, from now on."""
        self.forward, self._watching = self.eager, False

    def _now(self) -> float:
        torch.cuda.synchronize(self._device)
        return time.perf_counter()
