"""The gradient of a batch: micro-batches, compiling, running out of memory, and several processes, behind one call."""

from __future__ import annotations

import logging
from collections.abc import Iterator

import torch
from torch import Tensor, nn
from torch._dynamo.exc import TorchDynamoException

from kfold_ens.compute.collectives import sum_over, wrap
from kfold_ens.compute.compute import Compute
from kfold_ens.errors import KfoldError
from kfold_ens.training.losses import Criterion

log = logging.getLogger(__name__)


class Backward:
    """Leaves the gradient of a batch in the parameters of a network.

    If memory does not suffice, the batch goes through the network in halves, quarters, ..., whose gradients add up to
    that of the whole; only batch normalisation then sees fewer images at a time. These are not compiled. If a network
    cannot be compiled, or memory does not suffice for a compiled step, it first continues uncompiled.
    """

    def __init__(self, network: nn.Module, criterion: Criterion, compute: Compute, batch_size: int, title: str) -> None:
        self.network = wrap(compute.ranks, network)
        self.compiled = torch.compile(self.network, dynamic=False) if compute.compile else self.network
        self.micro_batch_size = batch_size  # the most images in one pass of the network
        self.criterion, self._compute = criterion, compute
        self._batch_size, self._title = batch_size, title

    def __call__(self, inputs: Tensor, targets: Tensor, epoch: int) -> tuple[Tensor, Tensor]:
        """The loss of a batch and its number of right images, summed over all ranks. Each rank has the whole batch.

        Raises:
            KfoldError: if memory does not suffice for two images.
        """
        while True:
            sums = torch.zeros(2, device=inputs.device)
            try:
                for part, wanted in self._micro_batches(inputs, targets):
                    self._loss(part, wanted, len(inputs), epoch, sums).backward()
                return tuple(sum_over(self._compute.ranks, sums))
            except torch.OutOfMemoryError as error:
                self._need_less(len(inputs), error)
            except TorchDynamoException as error:
                log.warning("%s: not compiled, which costs speed only: %s", self._title, _summary(error))
            self._start_over()

    def _micro_batches(self, inputs: Tensor, targets: Tensor) -> Iterator[tuple[Tensor, Tensor]]:
        """This rank's part of a batch, in parts of almost the same size."""
        own = self._compute.ranks.own(len(inputs))
        inputs, targets = inputs[own], targets[own]
        parts = -(-len(inputs) // self.micro_batch_size)
        parts -= parts > len(inputs) // 2 > 0  # batch normalisation cannot train on a single image
        return zip(inputs.tensor_split(parts), targets.tensor_split(parts), strict=True)

    def _loss(self, inputs: Tensor, targets: Tensor, length: int, epoch: int, sums: Tensor) -> Tensor:
        """A micro-batch's part of the loss of a batch of so many images, and added to ``sums`` (2,): that, and how many
        are right. ``__call__`` keeps no reference to the loss: after an error it would keep the graph's memory."""
        ranks = self._compute.ranks
        share, own = ranks.share(length), ranks.sizes(length)[ranks.rank]
        with self._compute.autocast():
            logits = self._network_for(length)(inputs).float()
        loss = self.criterion(logits, targets, epoch) * (len(inputs) / own * share)
        correct = _correct(logits.detach(), targets) * (share * length / own)
        sums += torch.stack([loss.detach(), correct])
        return loss * ranks.count  # what each rank gets is the mean of all gradients

    def _network_for(self, length: int) -> nn.Module:
        """Compiled only for the one size that most batches have."""
        return self.compiled if length == self._batch_size == self.micro_batch_size else self.network

    def _need_less(self, length: int, error: torch.OutOfMemoryError) -> None:
        if self._compute.ranks.count > 1:
            raise error  # the other ranks are in the middle of this attempt
        if self._network_for(length) is not self.network:
            log.warning("%s: out of memory; continues without compiling", self._title)
            return
        if self.micro_batch_size < 4:
            raise KfoldError(
                f"{self._title}: out of memory with {self.micro_batch_size} images at a time; "
                f"lower image.size in the recipe, or take a smaller backbone.\n  {error}"
            ) from None
        self.micro_batch_size //= 2
        log.warning(
            "%s: out of memory; continues with micro-batches of %d images, and still %d per step",
            *(self._title, self.micro_batch_size, length),
        )

    def _start_over(self) -> None:
        """Forget what is left of a failed attempt. What follows is not compiled: neither are halves."""
        self.compiled = self.network
        self.network.zero_grad(set_to_none=True)
        if self._compute.device.type == "cuda":
            torch.cuda.empty_cache()


def _correct(logits: Tensor, targets: Tensor) -> Tensor:
    """How many of a batch are right; of a mixed image the class that is most of it counts."""
    labels = targets if targets.ndim == 1 else targets.argmax(dim=1)
    return (logits.argmax(dim=1) == labels).sum()


def _summary(error: Exception) -> str:
    return " ".join(str(error).split("\n\n")[0].split())
