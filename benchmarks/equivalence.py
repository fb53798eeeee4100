"""Compare the results of fast training and prediction with plain float32.

    python benchmarks/equivalence.py training --recipe digits
    python benchmarks/equivalence.py prediction results/digits/fold*/model.safetensors

training: losses of 200 steps of ``train_fold`` (bf16, channels_last, compiled with --compile) on scikit-learn's digits,
compared with plain float32 of the same and of other seeds, step by step.
prediction: logits of the test images by ``predict_images`` and finished models, compared with plain float32.
Run it in the folder of a finished run of the digits.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch
from torch import nn

from kfold_ens.compute.compute import Compute
from kfold_ens.compute.devices import autocast_dtype, device_name
from kfold_ens.config import Half, NoTta, Recipe, find_recipe, load_recipe
from kfold_ens.data.folds import Fold, listed_images, read_fold
from kfold_ens.data.manifest import read_manifest
from kfold_ens.data.pixels import PixelStore, write_pixels
from kfold_ens.loading.loader import training_batches, training_views
from kfold_ens.loading.samplers import epoch_order
from kfold_ens.network.classifier import TrainedModel, load_model
from kfold_ens.prediction.predict import on_device, predict
from kfold_ens.training.trainer import Trainer

RECIPES = Path(__file__).resolve().parents[1] / "recipes"
DATA = Path("results/data")
WINDOW = 10  # steps to average before comparing curves: the loss of one batch is mostly noise


def losses(recipe: Recipe, fold: Fold, compute: Compute, steps: int) -> np.ndarray:
    """The loss of each step: (steps,)."""
    training = Trainer(recipe, fold, None, compute)
    training.network.train()
    views, order = training_views(recipe, fold), epoch_order(recipe, fold)
    curve, before = [], 0.0
    for images, labels in training_batches(views, order.remaining(0, 0, recipe.epochs)):
        training.step(images, labels)
        total = float(training.position.loss)
        curve.append((total - before) / len(labels))
        before = total
        if training.position.step == order.steps_per_epoch:
            training.position.epoch, training.position.step = training.position.epoch + 1, 0
        if len(curve) == steps:
            break
    return np.array(curve)


def smoothed(curve_n: np.ndarray) -> np.ndarray:
    return np.convolve(curve_n, np.ones(WINDOW) / WINDOW, mode="valid")


def compare_training(how: argparse.Namespace) -> dict:
    """Distances of smoothed curves: ours to float32 with the same seed, and float32 between seeds."""
    recipe = load_recipe(find_recipe(how.recipe, RECIPES), RECIPES)
    epochs = -(-how.steps // (1000 // recipe.batch_size))
    backbone = recipe.backbone.model_copy(update={"weights": "none", "name": how.backbone or recipe.backbone.name})
    recipe = recipe.model_copy(update={"epochs": max(epochs, recipe.epochs), "backbone": backbone})
    folds = [read_fold(0, seed, *files("folds.csv", "classes.json"), store(recipe, "train")) for seed in how.seeds]
    plain, fast = Compute(how.device, None, 0), Compute(how.device, autocast_dtype(how.device, "bf16"), 0, how.compile)
    curves = [losses(recipe, fold, plain, how.steps) for fold in folds]
    return distances(curves, [losses(recipe, fold, fast, how.steps) for fold in folds])


def distances(curves_sn: Sequence[np.ndarray], ours_sn: Sequence[np.ndarray]) -> dict:
    """Distances between losses of ours and of float32, each one curve (steps,) per seed, after smoothing."""
    curves, ours = [smoothed(curve) for curve in curves_sn], [smoothed(curve) for curve in ours_sn]
    low, high = np.min(curves, axis=0), np.max(curves, axis=0)
    return {
        "float32, first and last": [[float(curve[0]), float(curve[-1])] for curve in curves],
        "ours, first and last": [[float(curve[0]), float(curve[-1])] for curve in ours],
        "ours to float32, same seed, mean distance": [
            float(np.abs(a - b).mean()) for a, b in zip(ours, curves, strict=True)
        ],
        "float32 among seeds, mean distance": [float(np.abs(a - curves[0]).mean()) for a in curves[1:]],
        "share of our steps inside the float32 seeds' band": [
            float(((curve >= low) & (curve <= high)).mean()) for curve in ours
        ],
    }


def files(*names: str) -> list[str]:
    return [str(DATA / name) for name in names]


def store(recipe: Recipe, half: Half) -> PixelStore:
    folder = DATA / f"pixels-{recipe.image.short_side}"
    pixels, index = folder / f"{half}.u8", folder / f"{half}.npz"
    if not index.is_file():
        write_pixels(read_manifest(*files(f"{half}.csv")), recipe.image.short_side, pixels, index, 2)
    return PixelStore(pixels, index)


def compare_prediction(how: argparse.Namespace) -> dict:
    """Per model: the largest difference of a logit, relative to their spread, and how many predictions differ."""
    test = listed_images(*files("test.csv"))
    plain, fast = Compute(how.device, None, 0), Compute(how.device, autocast_dtype(how.device, "bf16"), 0)
    rows = {}
    for path in how.models:
        model = load_model(path)
        alone, folded = model.network().to(how.device), on_device(model, fast)
        arms = {"folded, float32": (folded, plain), "bf16": (alone, fast), "folded, bf16": (folded, fast)}
        expected = logits(model, alone, test, plain)
        rows[path] = {
            name: distance(logits(model, network, test, compute), expected) for name, (network, compute) in arms.items()
        }
    return rows


def logits(model: TrainedModel, network: nn.Module, test: np.ndarray, compute: Compute) -> np.ndarray:
    images, size = store(model.recipe, "test"), model.recipe.batch_size
    return predict(model, network, NoTta(kind="none"), images, test, compute, size).values


def distance(found_nk: np.ndarray, expected_nk: np.ndarray) -> dict[str, float]:
    return {
        "largest difference, of the logits' standard deviation": float(
            abs(found_nk - expected_nk).max() / expected_nk.std()
        ),
        "classes that differ": int((found_nk.argmax(1) != expected_nk.argmax(1)).sum()),
        "images": len(expected_nk),
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument(
        "--device", type=torch.device, default=torch.device("cuda" if torch.cuda.is_available() else "cpu")
    )
    parts = parser.add_subparsers(required=True)
    training = parts.add_parser("training")
    training.add_argument("--recipe", default="digits")
    training.add_argument("--backbone", help="of the same family; default: the recipe's")
    training.add_argument("--steps", type=int, default=200)
    training.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2])
    training.add_argument("--compile", action="store_true")
    training.set_defaults(run=compare_training)
    prediction = parts.add_parser("prediction")
    prediction.add_argument("models", nargs="+")
    prediction.set_defaults(run=compare_prediction)
    how = parser.parse_args()
    print(json.dumps({"device": device_name(how.device)} | how.run(how), indent=2))


if __name__ == "__main__":
    main()
