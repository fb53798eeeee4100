"""Whether, and from which step on, torch compiles a fold's network."""

from __future__ import annotations

import logging
import time

import torch
from torch import nn

from kfold_ens.training.evaluation import Compute

log = logging.getLogger(__name__)

WARMUP = 20  # steps in which cuDNN looks for its algorithms
WATCHED = 30  # steps after these, by which all that are left are judged
PAYS_FROM = 30 * 60  # seconds: three minutes of compiling are won back by a sixth of what training then takes, and more


class Compilation:
    """The network that steps call: compiled from the start, never, or once the steps left promise to pay for it."""

    def __init__(self, network: nn.Module, compute: Compute, fold: int) -> None:
        self.eager, self._compute, self._fold = network, compute, fold
        self._undecided = compute.compile == "auto"
        self._seen, self._started = 0, 0.0
        self.forward = self._compiled() if compute.compile is True else network

    def _compiled(self) -> nn.Module:
        return torch.compile(self.eager, dynamic=False)

    def before_step(self, left: int) -> None:
        """Count a step; ``left`` are to come, this one included."""
        if not self._undecided:
            return
        if self._seen == WARMUP:
            self._started = self._now()
        if self._seen == WARMUP + WATCHED:
            self._decide((self._now() - self._started) / WATCHED * left)
        self._seen += 1

    def _decide(self, seconds: float) -> None:
        self._undecided = False
        ranks = self._compute.ranks
        mean = float(ranks.sum(torch.tensor(seconds, device=self._compute.device))) / ranks.count  # one answer for all
        if mean >= PAYS_FROM:
            log.info("fold %d: compiles the network, as %.0f minutes of training are left", self._fold, mean / 60)
            self.forward = self._compiled()

    def give_up(self) -> None:
        """Compute as the network is."""
        self.forward = self.eager

    def _now(self) -> float:
        if self._compute.device.type == "cuda":
            torch.cuda.synchronize(self._compute.device)
        return time.perf_counter()
