"""Networks compiled by torch, where that pays."""

from __future__ import annotations

import logging
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn

log = logging.getLogger(__name__)

PAYS_FROM = 500_000  # training images on a GPU; of fewer, the minutes that compiling takes are not won back

Forward = Callable[[Tensor], Tensor]


def compiled(network: nn.Module, wanted: bool | str, device: torch.device, images: int) -> Forward:
    """The network's forward pass for batches of one size, compiled if it is wanted, or is auto and pays.

    Its parameters stay the network's own. What has been compiled is kept on disk, and shared by the folds of a machine.
    Where the compiler fails, the network computes as it is, and the log says so.
    """
    if wanted == "auto":
        wanted = device.type == "cuda" and images >= PAYS_FROM and not torch.are_deterministic_algorithms_enabled()
    return _Compiled(network) if wanted else network


class _Compiled:
    def __init__(self, network: nn.Module) -> None:
        self._network, self._forward = network, torch.compile(network, dynamic=False)

    def __call__(self, inputs: Tensor) -> Tensor:
        try:
            return self._forward(inputs)
        except torch._dynamo.exc.TorchDynamoException as error:
            log.warning("not compiled, which costs speed only: %s", _first_line(error))
            self._forward = self._network
            return self._network(inputs)


def _first_line(error: Any) -> str:
    return str(error).strip().split("\n")[0]
