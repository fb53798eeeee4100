"""Heads: from feature vectors to logits."""

from __future__ import annotations

from collections.abc import Callable

from torch import nn

from kfold_ens import config


def linear(section: config.LinearHead, features: int, num_classes: int) -> nn.Module:
    layer = nn.Linear(features, num_classes)
    return nn.Sequential(nn.Dropout(section.dropout), layer) if section.dropout else layer


def mlp(section: config.MlpHead, features: int, num_classes: int) -> nn.Module:
    layers: list[nn.Module] = []
    for width, dropout in zip(section.hidden, section.dropout, strict=True):
        layers += [nn.Linear(features, width), nn.BatchNorm1d(width), nn.ReLU(), nn.Dropout(dropout)]
        features = width
    return nn.Sequential(*layers, nn.Linear(features, num_classes))


HEADS: dict[str, Callable[..., nn.Module]] = {"linear": linear, "mlp": mlp}


def build_head(section: config.Head, features: int, num_classes: int) -> nn.Module:
    """Build a head with random weights: (N, features) to (N, num_classes)."""
    return HEADS[section.kind](section, features, num_classes)
