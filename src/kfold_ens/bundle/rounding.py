"""Weights in bfloat16, which take half the bytes of float32."""

from __future__ import annotations

from dataclasses import replace

import torch
from torch import Tensor

from kfold_ens.network.classifier import TrainedModel


def rounded(model: TrainedModel) -> TrainedModel:
    """Round float32 tensors with two or more dimensions to the nearest bfloat16.

    Biases, norms and batch statistics stay in float32, since they are small.
    """
    return replace(model, weights={name: _rounded(tensor) for name, tensor in model.weights.items()})


def _rounded(tensor: Tensor) -> Tensor:
    return tensor.bfloat16() if tensor.dtype == torch.float32 and tensor.dim() > 1 else tensor


def as_float32(model: TrainedModel) -> TrainedModel:
    """Convert bfloat16 tensors to float32, which holds their values exactly."""
    weights = {name: t.float() if t.dtype == torch.bfloat16 else t for name, t in model.weights.items()}
    return replace(model, weights=weights)
