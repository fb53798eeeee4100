"""A backbone with a head, and the file of a trained one."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from itertools import chain
from pathlib import Path

import torch
from safetensors import SafetensorError, safe_open
from torch import Tensor, nn

from kfold_ens.config import TrainingRecipe
from kfold_ens.errors import KfoldError
from kfold_ens.files import atomic, canonical
from kfold_ens.network.backbones import build_backbone
from kfold_ens.network.heads import build_head
from kfold_ens.network.tensor_files import save_tensors
from kfold_ens.versions import versions


class Classifier(nn.Module):
    """Images (N, 3, size, size) to logits (N, K). Frozen stages keep their weights and batch statistics.

    Raises:
        KfoldError: if the pretrained ``weights`` do not fit.
    """

    def __init__(self, recipe: TrainingRecipe, num_classes: int, weights: Path | None = None) -> None:
        super().__init__()
        self.backbone, features = build_backbone(recipe.backbone, weights)
        self.head = build_head(recipe.head, features, num_classes)
        self.frozen = tuple(recipe.backbone.frozen)
        for name in self.frozen:
            self.backbone.get_submodule(name).requires_grad_(False)

    def train(self, mode: bool = True) -> Classifier:
        super().train(mode)
        for name in self.frozen:
            self.backbone.get_submodule(name).eval()
        return self

    def forward(self, images_nchw: Tensor) -> Tensor:
        return self.head(self.backbone(images_nchw))


@dataclass(frozen=True)
class TrainedModel:
    """A fold's selected weights, with their recipe, classes and fingerprint."""

    recipe: TrainingRecipe
    classes: tuple[str, ...]
    fingerprint: str
    weights: Mapping[str, Tensor]

    def network(self) -> Classifier:
        """The network in evaluation mode, with these weights themselves, not a copy."""
        with torch.device("meta"):  # drawing random weights would take longer than loading these
            network = Classifier(self.recipe, len(self.classes))
        if {*network.state_dict()} != {name for name, _ in chain(network.named_parameters(), network.named_buffers())}:
            network = Classifier(self.recipe, len(self.classes))  # it has unsaved buffers, which it computes when built
        network.load_state_dict(self.weights, assign=True)
        return network.eval()


def save_model(path: str | Path, model: TrainedModel) -> None:
    """Write a model atomically; class list, recipe, fingerprint and versions go into its header."""
    header = {
        "recipe": canonical(model.recipe.model_dump(mode="json")),
        "classes": canonical(list(model.classes)),
        "fingerprint": model.fingerprint,
        "versions": canonical(versions()),
    }
    with atomic(path) as temporary:
        save_tensors(temporary, model.weights, header)


def load_model(path: str | Path) -> TrainedModel:
    """Read a model back.

    Raises:
        KfoldError: naming the file, if it is not a model of this workflow.
    """
    try:
        with safe_open(path, framework="pt") as file:
            header = file.metadata() or {}
            weights = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118 (not a dictionary)
        recipe = TrainingRecipe.model_validate_json(header["recipe"])
    except (SafetensorError, KeyError, ValueError) as error:
        raise KfoldError(f"{path} is not a model of this workflow ({error}); remove it and rerun") from None
    return TrainedModel(recipe, tuple(json.loads(header["classes"])), header["fingerprint"], weights)


def memory_format(device: torch.device) -> torch.memory_format:
    """The memory layout of images and weights in which a device convolves fastest.

    On Apple's MPS the backward pass of channels_last convolutions is about ten times slower (pytorch#192551).
    """
    return torch.contiguous_format if device.type == "mps" else torch.channels_last
