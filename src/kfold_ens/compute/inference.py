"""What a network says about images it is not training on."""

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
    """How many images memory suffices for at a time; what is learned of it with one batch holds for the next."""

    def __init__(self) -> None:
        self.images = sys.maxsize


@torch.inference_mode()
def predict_logits(
    network: nn.Module, batches: Iterable[Tensor], image: config.Image, compute: Compute, most: Most | None = None
) -> np.ndarray:
    """Logits of every image of the batches, in their order: (N, K) float32. Leaves the network in evaluation mode.

    ``most`` carries over to other calls what is learned of the memory.

    Raises:
        KfoldError: if memory does not suffice for a single image.
    """
    network.eval()

    def forward(views: Tensor) -> Tensor:
        with compute.autocast():
            return network(compute.input(views, image)).float()

    most = most or Most()
    logits = [_in_parts(forward, views, most) for views in batches]
    return torch.cat(logits).cpu().numpy()


def _in_parts(forward: Callable[[Tensor], Tensor], views: Tensor, most: Most) -> Tensor:
    """A batch's logits, at most so many images at a time, and half as many while memory does not suffice."""
    while True:
        try:
            return torch.cat([forward(part) for part in views.split(most.images)])
        except torch.OutOfMemoryError as error:
            most.images = min(most.images, len(views)) // 2
            if not most.images:
                raise KfoldError(f"out of memory with a single image; use a GPU with more of it.\n  {error}") from None
        torch.cuda.empty_cache()  # the error held what did not fit
        log.warning("out of memory: predicts %d images at a time", most.images)
