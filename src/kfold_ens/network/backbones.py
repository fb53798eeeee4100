"""Networks without their classifier: an image batch in, a feature vector an image out."""

from __future__ import annotations

from collections.abc import Callable

from torch import nn
from torchvision import models

from kfold_ens import config


def torchvision_backbone(slot: config.TorchvisionBackbone) -> tuple[nn.Module, int]:
    network = models.get_model(slot.name, weights=None, zero_init_residual=slot.zero_init_residual)
    features = network.fc.in_features
    network.fc = nn.Identity()
    return network, features


BACKBONES: dict[str, Callable[..., tuple[nn.Module, int]]] = {"torchvision": torchvision_backbone}


def build_backbone(slot: config.Backbone) -> tuple[nn.Module, int]:
    """A backbone with random weights, and the number of features it gives an image."""
    return BACKBONES[slot.kind](slot)
