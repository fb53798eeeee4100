"""Networks without their classifier: from a batch of images to one feature vector per image."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable
from pathlib import Path
from typing import Any

from torch import nn
from torchvision import models

from kfold_ens import config
from kfold_ens.errors import KfoldError
from kfold_ens.network.attention import Cbam
from kfold_ens.network.convolution import multiply_matrices
from kfold_ens.network.timm_models import create_timm_model
from kfold_ens.network.weights import load_backbone


def torchvision_backbone(section: config.TorchvisionBackbone, weights: Path | None) -> tuple[nn.Module, int]:
    network = models.get_model(section.name, weights=None, zero_init_residual=section.zero_init_residual)
    features, network.fc = network.fc.in_features, nn.Flatten()
    if weights:
        load_backbone(network, weights)
    stages = OrderedDict(network.named_children())  # a ResNet runs its children in sequence
    stages["flatten"] = stages.pop("fc")
    for part in section.inserted:
        stages = _inserted(stages, part)
    return nn.Sequential(stages), features


def _inserted(stages: OrderedDict[str, nn.Module], part: config.StageDropout | config.Cbam) -> OrderedDict:
    """Insert a part after one of the stages."""
    channels = [layer.out_channels for layer in stages[part.after].modules() if isinstance(layer, nn.Conv2d)][-1]
    names = list(stages)
    place = names.index(part.after) + 1
    new = (f"{part.after}_{part.kind}", INSERTS[part.kind](part, channels))
    return OrderedDict([*list(stages.items())[:place], new, *list(stages.items())[place:]])


def _dropout(part: config.StageDropout, channels: int) -> nn.Module:
    return nn.Dropout(part.probability)


def _cbam(part: config.Cbam, channels: int) -> nn.Module:
    return Cbam(channels, part.ratio, part.kernel_size)


INSERTS: dict[str, Callable[..., nn.Module]] = {"dropout": _dropout, "cbam": _cbam}


def timm_backbone(section: config.TimmBackbone, weights: Path | None) -> tuple[nn.Module, int]:
    network: Any = create_timm_model(section.name)  # nn.Module declares none of timm's attributes
    if weights:
        load_backbone(network, weights, classifier=f"{network.default_cfg['classifier']}.")
    return network, network.head_hidden_size


BACKBONES: dict[str, Callable[..., tuple[nn.Module, int]]] = {
    "torchvision": torchvision_backbone,
    "timm": timm_backbone,
}


def build_backbone(section: config.Backbone, weights: Path | None = None) -> tuple[nn.Module, int]:
    """Build a backbone with random or pretrained weights; return it with its number of features per image.

    Raises:
        KfoldError: if the pretrained weights do not fit, or a name in ``frozen`` is not a module of the backbone.
    """
    backbone, features = BACKBONES[section.kind](section, weights)
    unknown = sorted(set(section.frozen) - set(dict(backbone.named_modules())))
    if unknown:
        raise KfoldError(f"backbone.frozen: {section.name} has no modules {unknown}")
    multiply_matrices(backbone)
    return backbone, features
