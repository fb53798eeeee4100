"""Measure a fold's speed beside other work, by how OpenMP threads wait for each other.

    python benchmarks/contention.py --out benchmarks/results

Each cell is one process that trains or predicts for some seconds, on two threads or one: alone, beside busy processes,
or beside another like itself. A share is fair if each thread on the machine gets the same time. Images are random and
in memory.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager
from datetime import datetime
from pathlib import Path

WAITING = {
    "as torch has it": {},
    "OMP_WAIT_POLICY=passive": {"OMP_WAIT_POLICY": "passive"},
    "GOMP_SPINCOUNT=1000, as jobs have it": {"GOMP_SPINCOUNT": "1000"},
    "one thread": {"OMP_NUM_THREADS": "1"},
}
BESIDE = {"alone": (1, 0), "one busy process": (1, 1), "two busy processes": (1, 2), "another of its kind": (2, 0)}
WORKS = {
    "training, ResNet-18": ("resnet18", "train"),
    "training, ResNeXt-101 64x4d": ("resnext101_64x4d", "train"),
    "prediction, ResNeXt-101 64x4d": ("resnext101_64x4d", "predict"),
}


def images_per_second(backbone: str, work: str, seconds: float) -> float:
    """Images per second of training or prediction, at the size and batch of the default recipe, after three steps."""
    import torch

    from kfold_ens.compute.compute import Compute
    from kfold_ens.compute.devices import autocast_dtype
    from kfold_ens.compute.inference import predict_logits
    from kfold_ens.config import find_recipe, load_recipe
    from kfold_ens.jobs import keep_freed_memory
    from kfold_ens.network.classifier import Classifier, TrainedModel, memory_format
    from kfold_ens.prediction.predict import on_device
    from kfold_ens.training.optimizers import build_optimizer

    keep_freed_memory()
    recipes = Path(__file__).resolve().parents[1] / "recipes"
    recipe = load_recipe(find_recipe("digits", recipes), recipes)
    recipe = recipe.model_copy(update={"backbone": recipe.backbone.model_copy(update={"name": backbone})})
    device = torch.device("cpu")
    compute = Compute(device, autocast_dtype(device, "auto"), 0)
    network = Classifier(recipe, 10).to(memory_format=memory_format(device))
    optimizer = build_optimizer(recipe.optimizer, network)
    predictor = on_device(TrainedModel(recipe, tuple("0123456789"), "", network.state_dict()), compute)
    views = torch.randint(256, (recipe.batch_size, 3, recipe.image.size, recipe.image.size), dtype=torch.uint8)
    labels = torch.arange(recipe.batch_size) % 10

    def train() -> None:
        with compute.autocast():
            logits = network(compute.input(views, recipe.image))
        torch.nn.functional.cross_entropy(logits.float(), labels).backward()
        optimizer.step()
        optimizer.zero_grad()

    step = {"train": train, "predict": lambda: predict_logits(predictor, [views], recipe.image, compute)}[work]
    for _ in range(3):
        step()
    started, steps = time.perf_counter(), 0
    while time.perf_counter() - started < seconds:
        step()
        steps += 1
    return steps * recipe.batch_size / (time.perf_counter() - started)


@contextmanager
def busy_processes(count: int) -> Iterator[None]:
    busy = [subprocess.Popen([sys.executable, "-c", "while True: pass"]) for _ in range(count)]
    try:
        yield
    finally:
        for process in busy:
            process.kill()
            process.wait()


def measure(work: tuple[str, str], environment: Mapping[str, str], beside: tuple[int, int], seconds: float) -> float:
    """Images per second of one process; the mean if two run."""
    folds, busy = beside
    command = [sys.executable, __file__, "--work", *work, "--seconds", str(seconds)]
    with ExitStack() as stack:
        stack.enter_context(busy_processes(busy))
        options = {"env": os.environ | environment, "stdout": subprocess.PIPE, "text": True}
        processes = [subprocess.Popen(command, **options) for _ in range(folds)]
        printed = [process.communicate()[0] for process in processes]
    return sum(map(float, printed)) / folds


def fair_share(threads: int, beside: tuple[int, int], cores: int) -> float:
    """Share of its speed alone that a process keeps if each thread on the machine gets the same time."""
    folds, busy = beside
    return min(1, cores / (threads * folds + busy))


def as_table(results: Mapping[str, Mapping[str, float]], cores: int) -> str:
    lines = [f"| | {' | '.join(BESIDE)} |", "|---|" + "---|" * len(BESIDE)]
    for waiting, rates in results.items():
        threads = 1 if waiting == "one thread" else cores
        cells = [f"{rates['alone']:.0f}"]
        for name in list(BESIDE)[1:]:
            share = rates[name] / rates["alone"] / fair_share(threads, BESIDE[name], cores)
            cells.append(f"{rates[name]:.0f}: {share:.0%} of its share")
        lines.append(f"| {waiting} | {' | '.join(cells)} |")
    return "\n".join(lines)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--work", nargs=2, help="BACKBONE train|predict: print this images/s only")
    parser.add_argument("--seconds", type=float, default=6, help="time per cell")
    parser.add_argument("--out", type=Path, help="folder for the JSON file")
    how = parser.parse_args()
    if how.work:
        print(images_per_second(*how.work, how.seconds))
        return
    cores, results = len(os.sched_getaffinity(0)), {}
    for name, work in WORKS.items():
        results[name] = {
            waiting: {beside: measure(work, environment, BESIDE[beside], how.seconds) for beside in BESIDE}
            for waiting, environment in WAITING.items()
        }
        print(f"\n### {name}, images per second\n\n{as_table(results[name], cores)}", flush=True)
    if how.out:
        how.out.mkdir(parents=True, exist_ok=True)
        now = datetime.now().isoformat(timespec="minutes")
        record = {"command": " ".join(sys.argv), "date": now, "cores": cores, "results": results}
        (how.out / f"contention-{now.replace(':', '')}.json").write_text(json.dumps(record, indent=2) + "\n")


if __name__ == "__main__":
    main()
