"""Recipes and images for the calls of gpu.py, made without files, PyYAML or Snakemake."""

from __future__ import annotations

import argparse
import os
import tempfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import torch
from throughput import fold_of, write_decoded

from kfold_ens.compute.devices import autocast_dtype, device_name
from kfold_ens.config import Recipe, TrainingRecipe
from kfold_ens.data.folds import Fold
from kfold_ens.data.pixels import PixelStore
from kfold_ens.versions import versions

PLAIN = {
    "mixing": {"kind": "none"},
    "head": {"kind": "linear"},
    "loss": {"kind": "cross_entropy"},
    "ema": {"kind": "none"},
    "sampler": {"kind": "shuffle"},
    "early_stopping": {"kind": "none"},
    "tta": {"kind": "none"},
    "select": "best_accuracy",
}
NETWORK = {"kind": "torchvision", "name": "resnext101_64x4d", "weights": "none"}
MIXING = {"kind": "mixup_or_cutmix", "alpha": 1.0}
KFOLD_MIX = PLAIN | {  # recipes/kfold_mix.yaml from random weights, at a constant rate
    "image": {"kind": "squash", "size": 224, "short_side": 256, "normalize": False},
    "augmentation": [
        {"kind": "horizontal_flip"},
        {"kind": "rotation", "degrees": 15},
        {"kind": "random_resized_crop"},
    ],
    "mixing": MIXING,
    "backbone": NETWORK,
    "optimizer": {"kind": "adamw", "lr": 1e-4, "weight_decay": 0.01},
    "schedule": {"kind": "constant"},
    "epochs": 80,
    "batch_size": 64,
}
DIGITS = PLAIN | {  # recipes/digits.yaml, for as many epochs as 200 steps need
    "image": {"kind": "squash", "size": 16, "short_side": 16, "normalize": False},
    "augmentation": [
        {"kind": "affine", "degrees": 8, "translate": 0.06, "interpolation": "bilinear"},
        {"kind": "resize"},
    ],
    "backbone": NETWORK | {"zero_init_residual": True},
    "optimizer": {"kind": "adamw", "lr": 1.5e-3, "betas": [0.9, 0.98], "weight_decay": 0.01},
    "schedule": {"kind": "one_cycle", "pct_start": 0.15},
    "epochs": 5,
    "batch_size": 32,
}
FASHION = PLAIN | {  # the augmentation and mixing of fashion_mnist/mixed_cpu.yaml
    "image": {"kind": "squash", "size": 32, "short_side": 32, "normalize": False},
    "augmentation": [
        {"kind": "horizontal_flip"},
        {"kind": "random_resized_crop", "scale": [0.7, 1.0], "ratio": [0.9, 1.1]},
    ],
    "mixing": MIXING | {"probability": 0.5},
    "backbone": NETWORK | {"zero_init_residual": True},
    "optimizer": {"kind": "adamw", "lr": 2e-3, "weight_decay": 0.05},
    "schedule": {"kind": "one_cycle"},
    "epochs": 12,
    "batch_size": 512,
}
FULL = {"warmup": 5, "steps": 30, "blocks": 3, "workers": 4, "images": 200, "stored": (256, 341), "epoch": 6400}
TINY = {"warmup": 1, "steps": 1, "blocks": 1, "workers": 1, "images": 8, "stored": (16, 20), "epoch": 16}


def machine() -> dict[str, Any]:
    """Describe the device and the versions of the packages."""
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    found = {"device": device_name(device), "cores": len(os.sched_getaffinity(0)), "versions": versions()}
    if device.type == "cuda":
        torch.ones(1, device=device)
        memory = torch.cuda.get_device_properties(device).total_memory
        found |= {"memory, GiB": memory / 2**30, "cuDNN": torch.backends.cudnn.version()}
    return found


def scaled(how: argparse.Namespace, **changes: Any) -> argparse.Namespace:
    """How much to measure, and on which device."""
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    scale = (TINY if how.tiny else FULL) | changes
    return argparse.Namespace(device=device, dtype=autocast_dtype(device, "auto"), compile=False, **scale)


def recipe(how: argparse.Namespace, values: Mapping[str, Any], tiny: str = "resnet18", **sections: Any) -> Recipe:
    """Build a recipe. In a rehearsal, with a small network and tiny images."""
    values = {**values, **sections}
    if how.tiny:
        image = values["image"] | {"size": 16, "short_side": 16}
        values |= {"image": image, "backbone": values["backbone"] | {"name": tiny}, "batch_size": 8, "epochs": 1}
    return Recipe.model_validate(values)


def training_sections(chosen: Recipe) -> TrainingRecipe:
    """The sections of a recipe that a trained model's file keeps."""
    return TrainingRecipe.model_validate(chosen.model_dump(exclude={"tta"}))


def kfold_mix(how: argparse.Namespace, tiny: str = "resnet18", **sections: Any) -> Recipe:
    return recipe(how, KFOLD_MIX, tiny, **sections)


@contextmanager
def noise(scale: argparse.Namespace, train: int) -> Iterator[Fold]:
    """Yield a fold of random images, shaped like stored photographs. A fifth is held out."""
    with tempfile.TemporaryDirectory() as folder:
        shape = (scale.images, *scale.stored, 3)
        write_decoded(np.random.default_rng(0).integers(256, size=shape, dtype=np.uint8), Path(folder))
        yield fold_of(PixelStore(Path(folder, "pixels"), Path(folder, "index.npz")), train, train // 4)
