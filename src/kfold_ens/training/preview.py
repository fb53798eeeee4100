"""Reproduce the batches of the first training steps as pictures for the report."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch

from kfold_ens.config import Image, TrainingRecipe
from kfold_ens.data.folds import Fold
from kfold_ens.loading.augmentation import IMAGENET_MEAN, IMAGENET_STD, to_input
from kfold_ens.loading.loader import training_views
from kfold_ens.loading.samplers import epoch_order
from kfold_ens.training.mixing import build_mixing, seed_step


@dataclass(frozen=True)
class Shown:
    """Images of one step, after augmentation and mixing."""

    pixels: np.ndarray  # (N, size, size, 3) uint8, before normalisation
    shares: np.ndarray  # (N, K): share of each class in the target


def first_steps(recipe: TrainingRecipe, fold: Fold, steps: int, most: int) -> list[Shown]:
    """First steps of the first epoch, at most ``most`` images each, drawn with the seeds of training."""
    order, views = epoch_order(recipe, fold), training_views(recipe, fold)
    mixing = build_mixing(recipe.mixing, len(fold.classes))
    shown = []
    for step, positions in enumerate(order.batches(0)[:steps]):
        images, labels = zip(*(views[0, int(position)] for position in positions), strict=True)
        seed_step(fold, 0, step)
        inputs = to_input(torch.stack(images), recipe.image, torch.device("cpu"), torch.contiguous_format)
        mixed, targets = mixing(inputs, torch.tensor(labels))
        if targets.ndim == 1:
            targets = torch.nn.functional.one_hot(targets, len(fold.classes))
        shown.append(Shown(as_pixels(mixed[:most], recipe.image), targets[:most].numpy().astype(float)))
    return shown


def as_pixels(inputs_nchw: torch.Tensor, image: Image) -> np.ndarray:
    """Convert the network's input back to pixels (N, size, size, 3) uint8."""
    pixels = inputs_nchw.permute(0, 2, 3, 1)
    if image.normalize:
        pixels = pixels * torch.tensor(IMAGENET_STD) + torch.tensor(IMAGENET_MEAN)
    return pixels.mul(255).round().clamp(0, 255).to(torch.uint8).numpy()
