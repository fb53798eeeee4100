"""From a feature vector to logits."""

from __future__ import annotations

from collections.abc import Callable

from torch import nn

from kfold_ens import config


def linear(slot: config.LinearHead, features: int, num_classes: int) -> nn.Module:
    return nn.Linear(features, num_classes)


HEADS: dict[str, Callable[..., nn.Module]] = {"linear": linear}


def build_head(slot: config.Head, features: int, num_classes: int) -> nn.Module:
    """A head with random weights: (N, features) to (N, num_classes)."""
    return HEADS[slot.kind](slot, features, num_classes)
