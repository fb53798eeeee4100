"""Call 2 of gpu.py: whole folds on four cores, prediction, equivalence, and two folds sharing a GPU."""

from __future__ import annotations

import argparse
import multiprocessing
import os
import tempfile
import time
from collections.abc import Callable
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import torch
from equivalence import distances, losses
from sklearn.datasets import load_digits
from throughput import Ours, end_to_end, prediction, rates, wait_for, workers_memory, write_decoded
from workload import DIGITS, kfold_mix, noise, recipe, scaled, training_sections

from kfold_ens.compute.compute import Compute, configure_torch, leased_compute
from kfold_ens.config import load_config
from kfold_ens.data.folds import Fold, Images
from kfold_ens.data.pixels import PixelStore
from kfold_ens.files import read_json
from kfold_ens.training.fold import TrainingOutputs
from kfold_ens.training.loop import train_fold
from kfold_ens.training.state import StateFile
from kfold_ens.training.trainer import Trainer

CORES = 4
STEPS = 200
SEEDS = (0, 1, 2)


def whole(how: argparse.Namespace, compile: bool = False) -> dict[str, Any]:
    """A fold of ``train_fold`` on four cores, compared with its step alone, and the seconds of saving its state."""
    os.sched_setaffinity(0, sorted(os.sched_getaffinity(0))[:CORES])
    configure_torch(len(os.sched_getaffinity(0)), False)
    scale, chosen = scaled(how), kfold_mix(how)
    scale.compile = compile
    with noise(scale, train=scale.epoch) as fold, tempfile.TemporaryDirectory() as folder:
        step = Ours(chosen, scale, fold, compile)
        alone = rates({"alone": step}, chosen.batch_size, scale)["alone"]
        saving = seconds_of_saving(step.training, Path(folder))
        del step
        found = end_to_end(chosen, fold, scale, Path(folder))
        sizes = {"training images": len(fold.train), "held-out images": len(fold.validation)}
    return {"cores": len(os.sched_getaffinity(0)), "alone, images/s": alone, "saving, s": saving} | sizes | found


def seconds_of_saving(training: Trainer, folder: Path) -> float:
    wait_for(training.compute.device)
    started = time.perf_counter()
    StateFile(folder / "saved", "benchmark").save(training.state())
    return time.perf_counter() - started


def loader_memory(how: argparse.Namespace) -> dict[str, float]:
    with noise(scaled(how), train=8) as fold:
        return workers_memory(kfold_mix(how), fold.train.store)


# --- the digits ------------------------------------------------------------------------------------------


def digits(folder: Path, seed: int, every: int = 1) -> Fold:
    """The digits of scikit-learn, with a fifth held out."""
    found = load_digits()
    pixels = (found.images[::every] * (255 / 16)).round().astype(np.uint8)
    write_decoded(np.repeat(pixels[..., None], 3, axis=3), folder)
    store, target = PixelStore(folder / "pixels", folder / "index.npz"), found.target[::every].astype(np.int64)
    held_out = np.arange(len(target)) % 5 == 0
    parts = [Images(store, store.image_id[part], target[part]) for part in (~held_out, held_out)]
    return Fold(0, seed, *parts, tuple("0123456789"))


def curves(how: argparse.Namespace, dtype: torch.dtype | None, compile: bool = False) -> list[list[float]]:
    """The loss of each step: one curve per seed."""
    scale = scaled(how)
    torch.backends.cudnn.allow_tf32 = dtype is not None
    compute, steps = Compute(scale.device, dtype, 0, compile), 10 if how.tiny else STEPS
    with tempfile.TemporaryDirectory() as folder:
        folds = [digits(Path(folder), seed, 20 if how.tiny else 1) for seed in (SEEDS[:2] if how.tiny else SEEDS)]
        return [losses(recipe(how, DIGITS), fold, compute, steps).round(6).tolist() for fold in folds]


def equivalence(how: argparse.Namespace) -> dict[str, Any]:
    plain, ours = curves(how, None), curves(how, torch.bfloat16)
    return distances(plain, ours) | {"float32": plain, "ours": ours}


def equivalence_compiled(how: argparse.Namespace) -> dict[str, Any]:
    """Compare with the float32 curves of the record of ``equivalence``, if it exists."""
    record = how.records / "equivalence.json"
    known = read_json(record).get("result", {}) if record.is_file() else {}
    plain, ours = known.get("float32") or curves(how, None), curves(how, torch.bfloat16, compile=True)
    return distances(plain, ours) | {"ours": ours}


# --- two folds on one GPU --------------------------------------------------------------------------------


def two_folds(how: argparse.Namespace) -> dict[str, float]:
    """Seconds for two small folds, one after the other and at once with ``gpu_slots: 2``."""
    fork = multiprocessing.get_context("fork")  # CUDA is not initialized in this process, and imports are done
    with ProcessPoolExecutor(2, mp_context=fork) as pool:
        list(pool.map(small_fold, [how] * 2, [0, 0]))  # warm up the driver and cuDNN's search
        after = [pool.submit(small_fold, how, 1).result() for _ in range(2)]
        at_once = list(pool.map(small_fold, [how] * 2, [1, 1]))
    one_after_the_other = sum(ended - started for started, ended in after)
    together = max(ended for _, ended in at_once) - min(started for started, _ in at_once)
    return {"one after the other, s": one_after_the_other, "at once, s": together}


def small_fold(how: argparse.Namespace, number: int) -> tuple[float, float]:
    """Train a fold of the digits, and return when it started and ended. Number 0 is a short one."""
    values = {"data": {"source": "digits"}, "gpu_slots": 2, "device": "auto" if torch.cuda.is_available() else "cpu"}
    chosen = training_sections(recipe(how, DIGITS)).model_copy(update={"epochs": 5 if number and not how.tiny else 1})
    with tempfile.TemporaryDirectory() as folder, leased_compute(load_config(values), CORES // 2) as compute:
        fold, files = digits(Path(folder), 0, 60 if how.tiny else 1), Path(folder)
        started = time.time()
        outputs = TrainingOutputs(files / "history.csv", files / "model.safetensors", files / "state", 1e9)
        train_fold(chosen, fold, None, "benchmark", compute, outputs)
        return started, time.time()


PARTS: dict[str, Callable[[argparse.Namespace], Any]] = {
    "whole": whole,
    "whole_compiled": lambda how: whole(how, compile=True),
    "prediction": lambda how: prediction(kfold_mix(how), scaled(how, **({} if how.tiny else {"steps": 10}))),
    "loader_memory": loader_memory,
    "equivalence": equivalence,
    "two_folds": two_folds,
    "equivalence_compiled": equivalence_compiled,
}
