"""Criteria: logits (N, K) and labels (N,) or soft targets (N, K) to the batch's mean loss."""

from __future__ import annotations

from collections.abc import Callable

from torch import Tensor, nn

from kfold_ens import config

Criterion = Callable[[Tensor, Tensor], Tensor]


def _cross_entropy(slot: config.CrossEntropy) -> Criterion:
    return nn.CrossEntropyLoss(label_smoothing=slot.label_smoothing)


LOSSES: dict[str, Callable[..., Criterion]] = {"cross_entropy": _cross_entropy}


def build_loss(slot: config.Loss) -> Criterion:
    """The criterion of a recipe."""
    return LOSSES[slot.kind](slot)
