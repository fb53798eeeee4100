"""Compute logits without training."""

from __future__ import annotations

import logging
import sys
from collections.abc import Callable, Iterable

import numpy as np
import torch
from torch import Tensor, nn

from kfold_ens import config
from kfold_ens.compute.compute import Compute
from kfold_ens.errors import KfoldError

log = logging.getLogger(__name__)


class Most:
    """Largest number of images that fits in memory in one pass; shared between batches and calls."""

    def __init__(self) -> None:
        self.images = sys.maxsize


@torch.inference_mode()
def predict_logits(
    network: nn.Module, batches: Iterable[Tensor], image: config.Image, compute: Compute, most: Most | None = None
) -> np.ndarray:
    """Logits (N, K) float32 of all images of the batches, in order. Leaves the network in evaluation mode.

    Pass the same ``most`` to several calls to find the number of images that fits in memory only once.

    Raises:
        KfoldError: if not even a single image fits in memory.
    """
    network.eval()

    def forward(views: Tensor) -> Tensor:
        with compute.autocast():
            return network(compute.input(views, image)).float()

    most = most or Most()
    logits = [_in_parts(forward, views, most) for views in batches]
    return torch.cat(logits).cpu().numpy()


def _in_parts(forward: Callable[[Tensor], Tensor], views: Tensor, most: Most) -> Tensor:
    """Logits of a batch in parts that fit in memory; halves the parts on each out-of-memory error."""
    while True:
        try:
            return torch.cat([forward(part) for part in views.split(most.images)])
        except torch.OutOfMemoryError as error:
            most.images = min(most.images, len(views)) // 2
            if not most.images:
                raise KfoldError(f"out of memory with a single image; use a GPU with more memory.\n  {error}") from None
        torch.cuda.empty_cache()  # outside the except block: the error holds references to tensors
        log.warning("out of memory; predicting %d images at a time", most.images)
