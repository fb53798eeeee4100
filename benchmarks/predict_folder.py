"""Compare the speed of kfold-predict with a plain loop: PIL, float32, one batch and one model after the other.

Both read the same files of random pixels, with networks of random weights, in one process. They take turns.

    python benchmarks/predict_folder.py --images 64 --models 5 --backbone resnet18 --size 64
"""

from __future__ import annotations

import argparse
import json
import tempfile
import time
from pathlib import Path

import numpy as np
import torch
from PIL import Image
from torchvision.transforms.functional import pil_to_tensor
from workload import PLAIN

from kfold_ens.bundle.about import About, Member
from kfold_ens.bundle.ensemble_file import read_ensemble, write_ensemble
from kfold_ens.bundle.predictor import build_predictor
from kfold_ens.compute.compute import Compute, configure_torch
from kfold_ens.compute.devices import autocast_dtype
from kfold_ens.config import TrainingRecipe
from kfold_ens.jobs import usable_threads
from kfold_ens.network.classifier import Classifier, TrainedModel
from kfold_ens.versions import versions

CLASSES = tuple(map(str, range(100)))


def write_photos(folder: Path, count: int, width: int) -> list[str]:
    """Write smooth JPEGs of random pixels."""
    random, paths = np.random.default_rng(0), []
    for number in range(count):
        small = Image.fromarray(random.integers(0, 256, (24, 32, 3), dtype=np.uint8))
        paths.append(str(folder / f"{number:04d}.jpg"))
        small.resize((width, width * 3 // 4), Image.Resampling.BICUBIC).save(paths[-1], quality=90)
    return paths


def write_models(path: Path, count: int, backbone: str, size: int, batch_size: int) -> None:
    """Write an ensemble file of random weights."""
    own = {
        "image": {"kind": "squash", "size": size, "short_side": size * 8 // 7, "normalize": False},
        "augmentation": [{"kind": "resize"}],
        "backbone": {"kind": "torchvision", "name": backbone, "weights": "none"},
        "optimizer": {"kind": "adamw", "lr": 1e-3, "weight_decay": 0},
        "schedule": {"kind": "constant"},
        "epochs": 1,
        "batch_size": batch_size,
    }
    sections = {key: value for key, value in (PLAIN | own).items() if key in TrainingRecipe.model_fields}
    recipe = TrainingRecipe.model_validate(sections)
    models = [TrainedModel(recipe, CLASSES, "", Classifier(recipe, len(CLASSES)).state_dict()) for _ in range(count)]
    same = {"recipe_name": "random", "recipe": recipe, "tta": {"kind": "none"}, "fingerprint": "", "versions": {}}
    members = tuple(Member(name=f"fold{number}", **same) for number in range(count))
    words = {"method": "average", "scores": {}, "licences": {}, "versions": versions()}
    write_ensemble(path, About(classes=CLASSES, members=members, **words), models)


@torch.inference_mode()
def plain_loop(models: list[torch.nn.Module], paths: list[str], size: int, batch_size: int) -> np.ndarray:
    """Mean logits (N, K) over models. Each model reads all files."""
    logits = []
    for model in models:
        for start in range(0, len(paths), batch_size):
            images = [
                pil_to_tensor(Image.open(path).convert("RGB").resize((size, size)))
                for path in paths[start : start + batch_size]
            ]
            logits.append(model(torch.stack(images).float() / 255))
    return torch.cat(logits).view(len(models), len(paths), -1).mean(dim=0).numpy()


def main() -> None:
    """Print the images/s of both per round, and the ratio of the medians."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    numbers = {"images": 64, "models": 5, "size": 64, "width": 640, "batch": 16, "rounds": 3}
    for name, default in numbers.items():
        parser.add_argument(f"--{name}", type=int, default=default)
    parser.add_argument("--backbone", default="resnet18")
    options = parser.parse_args()
    threads, cpu = usable_threads(64), torch.device("cpu")
    configure_torch(threads, deterministic=False)
    compute, rates = Compute(cpu, autocast_dtype(cpu, "auto"), 0), {"plain loop": [], "kfold-predict": []}
    with tempfile.TemporaryDirectory() as folder:
        paths = write_photos(Path(folder), options.images, options.width)
        write_models(Path(folder, "e"), options.models, options.backbone, options.size, options.batch)
        ensemble = read_ensemble(Path(folder, "e"))
        plain = [model.network() for model in ensemble.models()]
        ours = build_predictor(ensemble, ensemble.about.members, compute, options.batch, threads)
        arms = {
            "plain loop": lambda: plain_loop(plain, paths, options.size, options.batch),
            "kfold-predict": lambda: list(ours.answers(paths)),
        }
        for round_number in range(options.rounds + 1):
            for name, arm in arms.items():
                began = time.perf_counter()
                arm()
                if round_number:  # round 0 warms up
                    rates[name].append(round(options.images / (time.perf_counter() - began), 2))
    ratio = np.median(rates["kfold-predict"]) / np.median(rates["plain loop"])
    print(json.dumps({"images/s": rates, "ratio": round(float(ratio), 2), "threads": threads, **vars(options)}))


if __name__ == "__main__":
    main()
