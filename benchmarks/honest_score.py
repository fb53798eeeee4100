"""Measure by how much the choice of the epoch flatters the out-of-fold score, against the truth on test images.

    python benchmarks/honest_score.py digits
    python benchmarks/honest_score.py FashionMNIST --root /usr/share/datasets/fashion-mnist --per-class 150
    python benchmarks/honest_score.py cost

A small network trains from random weights through the workflow, in a folder of its own. The truth is the mean accuracy
of the folds' models on labelled test images. ``cost`` measures what keeping the logits of an epoch takes, and BBC-CV.
"""

from __future__ import annotations

import argparse
import gzip
import json
import shutil
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import yaml

REPOSITORY = Path(__file__).resolve().parents[1]
RECIPE = {
    "image": {"kind": "squash", "size": 32, "short_side": 32, "normalize": False},
    "augmentation": [
        {"kind": "affine", "degrees": 8, "translate": 0.06, "interpolation": "bilinear"},
        {"kind": "resize"},
    ],
    "mixing": {"kind": "none"},
    "backbone": {"kind": "timm", "name": "test_resnet", "weights": "none"},
    "head": {"kind": "linear"},
    "loss": {"kind": "cross_entropy"},
    "optimizer": {"kind": "adamw", "lr": 4e-3, "weight_decay": 0.01},
    "schedule": {"kind": "constant"},
    "ema": {"kind": "none"},
    "sampler": {"kind": "shuffle"},
    "early_stopping": {"kind": "none"},
    "tta": {"kind": "none"},
    "batch_size": 32,
    "select": "best_accuracy",
}


def measured(data: dict[str, Any], epochs: int, patience: int | None, seed: int) -> dict[str, Any]:
    """Train five folds and return the three scores."""
    stops = {"kind": "patience", "patience": patience, "monitor": "accuracy"} if patience else {"kind": "none"}
    with tempfile.TemporaryDirectory() as folder:
        project = Path(folder)
        recipe = RECIPE | {"epochs": epochs, "early_stopping": stops}
        config = {"data": data, "recipe": "small.yaml", "seed": seed, "device": "cpu"}
        for name, values in (("small.yaml", recipe), ("config.yaml", config)):
            (project / name).write_text(yaml.safe_dump(values))
        snakefile = ["--snakefile", str(REPOSITORY / "Snakefile")]
        command = [sys.executable, "-m", "snakemake", *snakefile, "--cores", "2", "--quiet", "all", "--", "submission"]
        subprocess.run(command, cwd=project, check=True, stdout=sys.stderr)
        return scores(project / "results")


def scores(results: Path) -> dict[str, Any]:
    metrics = json.loads((results / "small/metrics.json").read_text())
    entry, folds = metrics["cross_fitted"], sorted((results / "small").glob("fold*"))
    by, seconds = entry["flattered_by"], [pd.read_csv(fold / "history.csv")["seconds"].mean() for fold in folds]
    return {
        "as chosen": _ends(entry["as_chosen"]),
        "cross-fitted": _ends(entry["out_of_fold"]),
        "flattered by": (by["difference"], by["low"], by["high"]),
        "by other folds": _ends(entry["by_other_folds"]),
        "truth": truth(results, folds),
        "epochs": entry["epochs"],
        "bytes": sum((fold / "oof_epochs.npz").stat().st_size for fold in folds),
        "seconds per epoch": float(np.mean(seconds)),
        "images": entry["out_of_fold"]["images"],
    }


def _ends(entry: dict[str, Any]) -> tuple[float, float, float]:
    return entry["accuracy"], entry["low"], entry["high"]


def truth(results: Path, folds: list[Path]) -> tuple[float, float, float]:
    """Return the mean test accuracy of the folds' models, with a normal 95% interval over test images."""
    from kfold_ens.logits import class_indices, read_logits

    table = pd.read_csv(results / "data/test.csv", dtype=str)
    label_of, right = dict(zip(table["image_id"], table["label"], strict=True)), []
    for fold in folds:
        logits = read_logits(fold / "test_logits.npz")
        right.append(logits.values.argmax(axis=1) == class_indices(logits, label_of))
    of_images = np.mean(right, axis=0)
    half = 1.96 * of_images.std(ddof=1) / np.sqrt(len(of_images))
    return float(of_images.mean()), float(of_images.mean() - half), float(of_images.mean() + half)


def cost() -> dict[str, Any]:
    """Return seconds and bytes of an epoch's logits, and seconds of BBC-CV over 20 recipes and 60,000 images."""
    from kfold_ens.ensemble.bbc_cv import choose
    from kfold_ens.metrics import find_metric
    from kfold_ens.training.epochs import KeptEpochs

    random, found = np.random.default_rng(0), {}
    for images, classes in ((12_000, 10), (4_000, 100), (10_000, 1000)):
        logits = random.normal(size=(images, classes)).astype(np.float32)
        with tempfile.TemporaryDirectory() as folder:
            started = time.perf_counter()
            for epoch in range(1, 6):
                KeptEpochs(Path(folder)).add(epoch, logits)
            seconds = (time.perf_counter() - started) / 5
        found[f"{images:,} images, {classes} classes"] = {"seconds": seconds, "bytes": logits.nbytes // 2}
    target = random.integers(0, 10, 60_000)
    probabilities = random.dirichlet(np.ones(10), (20, 60_000)).astype(np.float32)
    for metric in ("accuracy", "log_loss", "f1_macro"):
        started = time.perf_counter()
        choose(find_metric(metric), [(each, target) for each in probabilities])
        found[f"BBC-CV, {metric}"] = {"seconds": time.perf_counter() - started}
    return found


def unpacked(root: str, folder: str) -> dict[str, Any]:
    """Unpack Debian's dataset-fashion-mnist into the layout of torchvision."""
    raw = Path(folder) / "FashionMNIST/raw"
    raw.mkdir(parents=True)
    for packed in Path(root).glob("*.gz"):
        with gzip.open(packed) as source, open(raw / packed.stem, "wb") as target:
            shutil.copyfileobj(source, target)
    return {"source": "torchvision", "name": "FashionMNIST", "root": folder, "download": False}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("what", choices=["digits", "FashionMNIST", "cost"])
    parser.add_argument("--root", default="/usr/share/datasets/fashion-mnist", help="the packed files of Fashion-MNIST")
    parser.add_argument("--per-class", type=int, help="training images per class; all by default")
    parser.add_argument("--epochs", type=int, default=10)
    parser.add_argument("--patience", type=int, help="also stops early, by held-out accuracy")
    parser.add_argument("--seed", type=int, default=0)
    asked = parser.parse_args()
    if asked.what == "cost":
        found = cost()
    else:
        with tempfile.TemporaryDirectory() as folder:
            data = {"source": "digits"} if asked.what == "digits" else unpacked(asked.root, folder)
            limit = {"limit_per_class": asked.per_class} if asked.per_class else {}
            found = measured(data | limit, asked.epochs, asked.patience, asked.seed)
    print(json.dumps(found, indent=2))


if __name__ == "__main__":
    main()
