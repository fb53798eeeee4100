"""Call 3 of gpu.py: Fashion-MNIST, five folds of ResNeXt-101 64x4d at 32 pixels, with and without mixing."""

from __future__ import annotations

import argparse
import gzip
import os
import tempfile
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from PIL import Image
from throughput import write_decoded
from workload import FASHION, recipe, scaled, training_sections

from kfold_ens.compute.compute import Compute, configure_torch
from kfold_ens.config import METHODS, TrainingRecipe
from kfold_ens.data.folds import Fold, Images
from kfold_ens.data.pixels import PixelStore
from kfold_ens.ensemble.combine import combine
from kfold_ens.ensemble.metrics import correctness, paired_difference, score
from kfold_ens.ensemble.summary import summarize
from kfold_ens.errors import KfoldError
from kfold_ens.jobs import usable_threads
from kfold_ens.logits import Logits, concatenated, read_logits, write_logits
from kfold_ens.network.classifier import load_model
from kfold_ens.prediction.predict import on_device, predict
from kfold_ens.splits.assign import assign_folds
from kfold_ens.training.fold import TrainingOutputs
from kfold_ens.training.loop import train_fold

FILES = {"train": "train", "test": "t10k"}
CLASSES = tuple("0123456789")
FOLDS = 5
CHECKPOINT_MINUTES = 0.5
MIXING = {"mixed": FASHION["mixing"], "unmixed": {"kind": "none"}}


# --- images ----------------------------------------------------------------------------------------------


def read_idx(path: Path) -> np.ndarray:
    """Read a gzipped MNIST file into an array of bytes. Format: http://yann.lecun.com/exdb/mnist/."""
    with gzip.open(path) as file:
        content = file.read()
    dimensions = content[3]
    shape = np.frombuffer(content, ">i4", dimensions, offset=4)
    return np.frombuffer(content, np.uint8, offset=4 + 4 * dimensions).reshape(shape)


def read_labels(data: Path) -> pd.DataFrame:
    """Columns ``image_id, split, label`` of all images. Ids are positions, training images first."""
    labels = {split: read_idx(data / f"{name}-labels-idx1-ubyte.gz") for split, name in FILES.items()}
    rows = [pd.DataFrame({"split": split, "label": values.astype(str)}) for split, values in labels.items()]
    table = pd.concat(rows, ignore_index=True)
    return table.assign(image_id=table.index.astype(str))


def pixels(how: argparse.Namespace, size: int) -> PixelStore:
    """Pixel store of all images, enlarged once."""
    folder = how.state / f"pixels-{size}"
    if not folder.is_dir():
        grey = np.concatenate([read_idx(how.data / f"{name}-images-idx3-ubyte.gz") for name in FILES.values()])
        with tempfile.TemporaryDirectory(dir=how.state) as temporary:
            made = Path(temporary, "made")
            made.mkdir()
            write_decoded(np.stack([enlarged(image, size) for image in grey]), made)
            made.replace(folder)
    return PixelStore(folder / "pixels", folder / "index.npz")


def enlarged(grey: np.ndarray, size: int) -> np.ndarray:
    return np.asarray(Image.fromarray(grey).resize((size, size), Image.Resampling.BILINEAR).convert("RGB"))


def fold_of(number: int, labels: pd.DataFrame, store: PixelStore) -> Fold:
    train = labels[labels["split"] == "train"]
    images = assign_folds(train.assign(sha256=store.sha256(train["image_id"])), FOLDS, 0)
    held_out = images["fold"] == number
    parts = [images[part] for part in (~held_out, held_out)]
    return Fold(number, 0, *(Images(store, part["image_id"].to_numpy(), targets(part)) for part in parts), CLASSES)


def targets(images: pd.DataFrame) -> np.ndarray:
    return images["label"].to_numpy().astype(np.int64)


# --- folds and ensembles ---------------------------------------------------------------------------------


def logits_file(how: argparse.Namespace, mixing: str, number: int, split: str) -> Path:
    return how.records / f"{mixing}_fold{number}_{split}.npz"


def train(how: argparse.Namespace, mixing: str, number: int) -> dict[str, Any]:
    """Train or resume a fold, and write its logits next to the records."""
    began, labels = time.perf_counter(), read_labels(how.data)
    chosen = training_sections(recipe(how, FASHION, mixing=MIXING[mixing]))
    fold = fold_of(number, labels, pixels(how, chosen.image.size))
    compute = compute_of(how)
    folder = how.state / f"{mixing}_fold{number}"
    folder.mkdir(parents=True, exist_ok=True)
    history = trained(chosen, fold, compute, folder)
    scores = predicted(how, mixing, fold, folder / "model.safetensors", labels, compute)
    sizes = {"batch": chosen.batch_size, "epochs": chosen.epochs, "wall, s": time.perf_counter() - began}
    return scores | sizes | {"history": history.to_dict("records")}


def compute_of(how: argparse.Namespace) -> Compute:
    """Use all cores but two as loader workers on a GPU; none on a CPU, where the network needs them."""
    scale = scaled(how)
    workers = max(1, len(os.sched_getaffinity(0)) - 2) if scale.device.type == "cuda" else 0
    configure_torch(usable_threads(4), False)
    return Compute(scale.device, scale.dtype, workers)


def trained(chosen: TrainingRecipe, fold: Fold, compute: Compute, folder: Path) -> pd.DataFrame:
    """Train the fold unless its model exists, and return its history."""
    files = TrainingOutputs(folder / "history.csv", folder / "model.safetensors", folder / "state", CHECKPOINT_MINUTES)
    if not files.model.exists():  # exists if a call was cut off during prediction
        train_fold(chosen, fold, None, "benchmark", compute, files)
    return pd.read_csv(files.history).astype(object).where(lambda table: table.notna(), None)


def predicted(
    how: argparse.Namespace, mixing: str, fold: Fold, model_file: Path, labels: pd.DataFrame, compute: Compute
) -> dict[str, Any]:
    model = load_model(model_file)
    network, size, scores = on_device(model, compute), model.recipe.batch_size, {}
    test = labels.loc[labels["split"] == "test", "image_id"].to_numpy()
    for split, images in {"out_of_fold": fold.validation.image_id, "test": test}.items():
        logits = predict(model, network, recipe(how, FASHION).tta, fold.train.store, images, compute, size)
        write_logits(logits_file(how, mixing, fold.number, split), logits)
        scores[split] = score(logits, label_of(labels))
    model_file.unlink()
    return scores


def label_of(labels: pd.DataFrame) -> dict[str, str]:
    return dict(zip(labels["image_id"], labels["label"], strict=True))


def logits_of(how: argparse.Namespace, mixing: str, split: str) -> dict[int, Logits]:
    """The logits of all folds.

    Raises:
        KfoldError: if folds are not trained yet.
    """
    files = {number: logits_file(how, mixing, number, split) for number in range(FOLDS)}
    missing = [number for number, file in files.items() if not file.exists()]
    if missing:
        raise KfoldError(f"{mixing}: folds {missing} are not trained yet; repeat call 3")
    return {number: read_logits(file) for number, file in files.items()}


def ensembles(how: argparse.Namespace, mixing: str) -> dict[str, Any]:
    """Accuracy of each fold and ensembling method, with intervals and paired differences."""
    oof, test = (logits_of(how, mixing, split) for split in ("out_of_fold", "test"))
    combined = {method: combine({str(fold): each for fold, each in test.items()}, method) for method in METHODS}
    return summarize(oof, test, combined, label_of(read_labels(how.data)))


def mixed_to_unmixed(how: argparse.Namespace) -> dict[str, Any]:
    """Paired difference in accuracy of mixed to unmixed: out-of-fold, and averaged on the test images."""
    labels, outcomes = label_of(read_labels(how.data)), {}
    for mixing in MIXING:
        test = {str(fold): each for fold, each in logits_of(how, mixing, "test").items()}
        out_of_fold = concatenated(list(logits_of(how, mixing, "out_of_fold").values()))
        predictions = {"out of fold": out_of_fold, "average": combine(test, "average")}
        outcomes[mixing] = {name: correctness(logits, labels) for name, logits in predictions.items()}
    return {name: paired_difference(outcomes["mixed"][name], outcomes["unmixed"][name]) for name in outcomes["mixed"]}


PARTS: dict[str, Callable[[argparse.Namespace], Any]] = {
    **{
        f"{mixing}_fold{number}": partial(train, mixing=mixing, number=number)
        for mixing in MIXING
        for number in range(FOLDS)
    },
    **{f"{mixing}_ensembles": partial(ensembles, mixing=mixing) for mixing in MIXING},
    "mixed_to_unmixed": mixed_to_unmixed,
}
