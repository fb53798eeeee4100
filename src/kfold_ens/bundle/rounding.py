"""Weights in bfloat16, which take half the bytes of float32."""

from __future__ import annotations

from dataclasses import replace

import torch
from torch import Tensor

from kfold_ens.network.classifier import TrainedModel


def rounded(model: TrainedModel) -> TrainedModel:
    """The model with its float32 tensors of two and more dimensions in bfloat16, rounded to the nearest value.

    Biases, norms and batch statistics stay as they are: they take hardly any room.
    """
    return replace(model, weights={name: _rounded(tensor) for name, tensor in model.weights.items()})


def _rounded(tensor: Tensor) -> Tensor:
    return tensor.bfloat16() if tensor.dtype == torch.float32 and tensor.dim() > 1 else tensor


def as_float32(model: TrainedModel) -> TrainedModel:
    """The model with bfloat16 tensors in float32, which holds their values exactly."""
    weights = {name: t.float() if t.dtype == torch.bfloat16 else t for name, t in model.weights.items()}
    return replace(model, weights=weights)
