"""Compute the gradient of a batch, with micro-batches, compilation, out-of-memory recovery and several ranks."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator

import torch
from torch import Tensor, nn
from torch._dynamo.exc import TorchDynamoException

from kfold_ens.compute.collectives import sum_over, wrap
from kfold_ens.compute.compute import Compute
from kfold_ens.errors import KfoldError
from kfold_ens.training.losses import Criterion

log = logging.getLogger(__name__)


class Backward:
    """Computes the gradient of a batch, into the parameters of a network.

    If memory runs out, it splits the batch into micro-batches of half the size, then of a quarter, and so on. Their
    gradients add up to that of the batch; only batch normalisation then sees fewer images at a time. Micro-batches are
    not compiled. A compiled step that fails or runs out of memory is first repeated uncompiled.
    """

    def __init__(self, network: nn.Module, criterion: Criterion, compute: Compute, batch_size: int, title: str) -> None:
        self.network = wrap(compute.ranks, network)
        self.compiled: Callable[..., Tensor] = (
            torch.compile(self.network, dynamic=False) if compute.compile else self.network
        )
        self.micro_batch_size = batch_size  # images per pass of the network, at most
        self.criterion, self._compute = criterion, compute
        self._batch_size, self._title = batch_size, title

    def __call__(self, inputs: Tensor, targets: Tensor, epoch: int) -> tuple[Tensor, Tensor]:
        """Loss of a batch and number of correct predictions, over all ranks. Each rank passes the whole batch.

        Raises:
            KfoldError: if not even two images fit in memory.
        """
        while True:
            sums = torch.zeros(2, device=inputs.device)
            try:
                for part, labels in self._micro_batches(inputs, targets):
                    self._loss(part, labels, len(inputs), epoch, sums).backward()
                return tuple(sum_over(self._compute.ranks, sums))
            except torch.OutOfMemoryError as error:
                self._handle_out_of_memory(len(inputs), error)
            except TorchDynamoException as error:
                log.warning(
                    "%s: cannot be compiled; continues uncompiled, only slower: %s", self._title, _summary(error)
                )
            self._clean_up()

    def _micro_batches(self, inputs: Tensor, targets: Tensor) -> Iterator[tuple[Tensor, Tensor]]:
        """This rank's part of a batch, split into micro-batches of almost equal size."""
        own = self._compute.ranks.own(len(inputs))
        inputs, targets = inputs[own], targets[own]
        parts = -(-len(inputs) // self.micro_batch_size)
        parts -= parts > len(inputs) // 2 > 0  # batch normalisation cannot train on a single image
        return zip(inputs.tensor_split(parts), targets.tensor_split(parts), strict=True)

    def _loss(self, inputs: Tensor, targets: Tensor, length: int, epoch: int, sums: Tensor) -> Tensor:
        """A micro-batch's share of the loss of a batch of ``length`` images.

        Adds that loss and the number of correct predictions to ``sums`` (2,), so that ``__call__`` holds no reference
        to the loss: after an error, it would keep the graph in memory.
        """
        ranks = self._compute.ranks
        share, own = ranks.share(length), ranks.sizes(length)[ranks.rank]
        with self._compute.autocast():
            logits = self._network_for(length)(inputs).float()
        loss = self.criterion(logits, targets, epoch) * (len(inputs) / own * share)
        correct = _correct(logits.detach(), targets) * (share * length / own)
        sums += torch.stack([loss.detach(), correct])
        return loss * ranks.count  # DistributedDataParallel averages gradients over ranks

    def _network_for(self, length: int) -> Callable[..., Tensor]:
        """Compiled network for a full batch in one pass; uncompiled for any other size."""
        return self.compiled if length == self._batch_size == self.micro_batch_size else self.network

    def _handle_out_of_memory(self, length: int, error: torch.OutOfMemoryError) -> None:
        if self._compute.ranks.count > 1:
            raise error  # the other ranks are in the middle of the same step
        if self._network_for(length) is not self.network:
            log.warning("%s: out of memory; continues uncompiled", self._title)
            return
        if self.micro_batch_size < 4:
            raise KfoldError(
                f"{self._title}: out of memory with micro-batches of {self.micro_batch_size} images; "
                f"lower image.size in the recipe or choose a smaller backbone.\n  {error}"
            ) from None
        self.micro_batch_size //= 2
        log.warning(
            "%s: out of memory; continues with micro-batches of %d images, still %d images per step",
            *(self._title, self.micro_batch_size, length),
        )

    def _clean_up(self) -> None:
        """Clean up after a failed attempt. Later steps run uncompiled, because micro-batches do too."""
        self.compiled = self.network
        self.network.zero_grad(set_to_none=True)
        if self._compute.device.type == "cuda":
            torch.cuda.empty_cache()


def _correct(logits: Tensor, targets: Tensor) -> Tensor:
    """Number of correct predictions; the label of a mixed image is its largest class."""
    labels = targets if targets.ndim == 1 else targets.argmax(dim=1)
    return (logits.argmax(dim=1) == labels).sum()


def _summary(error: Exception) -> str:
    return " ".join(str(error).split("\n\n")[0].split())
