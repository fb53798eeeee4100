"""Measure training, loading and prediction, compared with common alternatives and the limits of the device.

    python benchmarks/throughput.py --out benchmarks/results     # on a GPU if there is one, else smaller on the CPU

The arms of a part take turns, on the same images and from the same weights. Prints tables, and writes the numbers to a
JSON file. On a shared CPU only the ratios are meaningful.

B0: float32 (TF32 convolutions on a GPU), NCHW, AdamW, reads the loss at every step: the loop of the original reports.
B1: B0 in bf16 autocast. B2: B1 with channels_last, cudnn.benchmark and a fused optimizer.
B3: B2 compiled, as timm's ``train.py --amp --amp-dtype bfloat16 --channels-last --torchcompile``.
ours: a step of ``train_fold``, with mixing and checks for non-finite values.
All arms keep freed memory and wait as jobs do (kfold_ens.jobs). All but B0 use the type that `precision: auto` picks
for the device: on a CPU without bf16, B1 equals B0.
"""

from __future__ import annotations

import argparse
import json
import multiprocessing
import statistics
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ProcessPoolExecutor
from contextlib import contextmanager
from dataclasses import asdict
from datetime import datetime
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from kfold_ens.jobs import keep_freed_memory, wait_briefly

wait_briefly()  # before torch loads

import torch
from PIL import Image
from pydantic import TypeAdapter
from torch import Tensor, nn
from torch.utils.data import DataLoader, Dataset, default_collate
from torchvision.transforms import v2

from kfold_ens.compute.compute import Compute
from kfold_ens.compute.devices import autocast_dtype, device_name
from kfold_ens.compute.inference import predict_logits
from kfold_ens.config import Augmentation, Recipe, find_recipe, load_recipe
from kfold_ens.data.folds import Fold, Images
from kfold_ens.data.images import inspect, read_rgb
from kfold_ens.data.manifest import for_each_image
from kfold_ens.data.pixels import PixelStore, stored_shape, write_pixels
from kfold_ens.files import sha256_of
from kfold_ens.loading.augmentation import build_augmentation, by_pillow
from kfold_ens.loading.loader import TrainingViews, as_tensor, stacked
from kfold_ens.network.classifier import Classifier, TrainedModel, memory_format
from kfold_ens.network.convolution import MatrixConv2d
from kfold_ens.prediction.predict import on_device
from kfold_ens.training.fold import TrainingOutputs
from kfold_ens.training.loop import train_fold
from kfold_ens.training.mixing import build_mixing
from kfold_ens.training.trainer import Trainer
from kfold_ens.versions import versions

RECIPES = Path(__file__).resolve().parents[1] / "recipes"
CLASSES = 100

Arm = Callable[[], Any]


# --- timing ----------------------------------------------------------------------------------------------


def wait_for(device: torch.device) -> None:
    if device.type == "cuda":
        torch.cuda.synchronize(device)


def seconds(work: Arm, times: int, device: torch.device) -> float:
    wait_for(device)
    started = time.perf_counter()
    for _ in range(times):
        work()
    wait_for(device)
    return time.perf_counter() - started


def rates(arms: Mapping[str, Arm], images: int, how: argparse.Namespace) -> dict[str, list[float]]:
    """Images per second of each arm, one value per block. The arms take turns."""
    for arm in arms.values():
        seconds(arm, how.warmup, how.device)
    measured: dict[str, list[float]] = {name: [] for name in arms}
    for _ in range(how.blocks):
        for name, arm in arms.items():
            measured[name].append(how.steps * images / seconds(arm, how.steps, how.device))
    return measured


# --- what is compared ------------------------------------------------------------------------------------


class Loop:
    """The training loop of the original reports (B0), and its faster variants."""

    def __init__(
        self, recipe: Recipe, how: argparse.Namespace, autocast=False, tuned=False, compile=False, layout=None
    ) -> None:
        torch.manual_seed(0)
        self.tuned, self.device = tuned, how.device
        self.dtype = how.dtype if autocast else None
        self.layout = layout or (memory_format(how.device) if tuned else torch.contiguous_format)
        network = Classifier(recipe, CLASSES).to(how.device, memory_format=self.layout)
        self.forward = torch.compile(network) if compile else network
        self.optimizer = torch.optim.AdamW(network.parameters(), lr=1e-4, fused=tuned or None)
        self.mixing = build_mixing(recipe.mixing, CLASSES)
        self.images = torch.rand(recipe.batch_size, 3, recipe.image.size, recipe.image.size, device=how.device)
        self.labels = torch.randint(CLASSES, (recipe.batch_size,), device=how.device)

    def __call__(self) -> None:
        torch.backends.cudnn.benchmark = self.tuned
        inputs, targets = self.mixing(self.images.to(memory_format=self.layout), self.labels)
        self.optimizer.zero_grad()
        with torch.autocast(self.device.type, self.dtype, enabled=self.dtype is not None):
            loss = nn.functional.cross_entropy(self.forward(inputs).float(), targets)
        loss.backward()
        self.optimizer.step()
        if not self.tuned:
            loss.item()


class Ours:
    """Our training step, on views already on the device."""

    def __init__(self, recipe: Recipe, how: argparse.Namespace, fold: Fold, compile: bool = False) -> None:
        self.training = Trainer(recipe, fold, None, Compute(how.device, how.dtype, 0, compile))
        shape = (recipe.batch_size, 3, recipe.image.size, recipe.image.size)
        self.views = torch.randint(256, shape, dtype=torch.uint8, device=how.device)
        self.labels = torch.randint(CLASSES, (recipe.batch_size,), device=how.device)

    def __call__(self) -> None:
        torch.backends.cudnn.benchmark = True
        self.step()

    def step(self) -> None:
        self.training.network.train()
        self.training.step(self.views, self.labels)


# --- images ----------------------------------------------------------------------------------------------


def make_photos(folder: Path, photos: int, size: tuple[int, int]) -> list[Path]:
    """Write JPEGs that take as long to decode as photographs: blots of colour with camera-like noise."""
    random, paths = np.random.default_rng(0), []
    for index in range(photos):
        blots = Image.fromarray(random.integers(0, 255, (9, 12, 3), dtype=np.uint8)).resize(size, Image.BICUBIC)
        noisy = np.asarray(blots) + random.normal(0, 8, (size[1], size[0], 3))
        paths.append(folder / f"{index:05d}.jpg")
        Image.fromarray(noisy.clip(0, 255).astype(np.uint8)).save(paths[-1], quality=90)
    return paths


def store_of(paths: list[Path], short_side: int, folder: Path) -> PixelStore:
    found = pd.DataFrame([asdict(inspect(path)) for path in paths])
    manifest = found.assign(path=list(map(str, paths)), image_id=[path.name for path in paths])
    write_pixels(manifest, short_side, folder / "p", folder / "i", 2)
    return PixelStore(folder / "p", folder / "i")


def fold_of(store: PixelStore, train: int, validation: int) -> Fold:
    """A fold of ``train`` and ``validation`` images: repeats of the stored ones, with all labels in turn."""
    sets = [
        Images(store, np.resize(store.image_id, count), np.arange(count) % CLASSES) for count in (train, validation)
    ]
    return Fold(0, 0, *sets, tuple(str(label) for label in range(CLASSES)))


# --- the parts -------------------------------------------------------------------------------------------


def limits(how: argparse.Namespace, size: tuple[int, int] | None = None) -> dict[str, float]:
    """Limits of the device: bandwidth of a copy (read and write), and speed of a matrix product in the training type.

    ``size``: bytes of the copy and rows of the matrix.
    """
    big, side = size or ((2**30, 8192) if how.device.type == "cuda" else (2**27, 2048))
    source = torch.rand(big // 4, device=how.device)
    target = torch.empty_like(source)
    matrix = torch.rand(side, side, device=how.device, dtype=how.dtype or torch.float32)
    works = {"copy": lambda: target.copy_(source), "product": lambda: matrix @ matrix}
    fastest = {}
    for name, work in works.items():
        seconds(work, 3, how.device)
        fastest[name] = min(seconds(work, 10, how.device) / 10 for _ in range(5))
    return {
        "copied, GB/s": 2 * source.nbytes / fastest["copy"] / 1e9,
        "matrix product, TFLOP/s": 2 * side**3 / fastest["product"] / 1e12,
    }


def training_arms(recipe: Recipe, fold: Fold, how: argparse.Namespace) -> dict[str, Callable[[], Arm]]:
    arms = {
        "B0": lambda: Loop(recipe, how),
        "B1": lambda: Loop(recipe, how, autocast=True),
        "B2": lambda: Loop(recipe, how, autocast=True, tuned=True),
        "ours": lambda: Ours(recipe, how, fold),
    }
    if how.compile:
        arms["B3"] = lambda: Loop(recipe, how, autocast=True, tuned=True, compile=True)
        arms["ours, compiled"] = lambda: Ours(recipe, how, fold, compile=True)
    return arms


def model_alone(builders: Mapping[str, Callable[[], Arm]], images: int, how: argparse.Namespace) -> dict[str, Any]:
    """Measure training steps on device tensors: images/s, seconds of the first (which compiles), peak GPU memory."""
    arms, first, memory = {}, {}, {}
    for name, build in builders.items():
        with peak_memory(how.device) as peak:
            arms[name] = build()
            first[name] = seconds(arms[name], 1, how.device)
            seconds(arms[name], 2, how.device)
        memory.update({name: peak[0] / 2**30} if peak else {})
    return {"images/s": rates(arms, images, how), "first step, s": first, "peak memory, GiB": memory}


def convolutions(recipe: Recipe, how: argparse.Namespace) -> dict[str, list[float]]:
    """Steps of B2 with torch's convolutions in both memory layouts, and with matrix products."""
    arms = {
        "torch's, NCHW": Loop(recipe, how, autocast=True, tuned=True, layout=torch.contiguous_format),
        "torch's, channels_last": Loop(recipe, how, autocast=True, tuned=True, layout=torch.channels_last),
        "matrices, channels_last": Loop(recipe, how, autocast=True, tuned=True, layout=torch.channels_last),
    }
    for name in list(arms)[:2]:
        for module in arms[name].forward.modules():
            if type(module) is MatrixConv2d:
                module.__class__ = nn.Conv2d
    return rates(arms, recipe.batch_size, how)


def preparation(paths: list[Path], short_side: int, how: argparse.Namespace) -> dict[str, list[float]]:
    """Images/s on all cores of making the manifest and the decoded images, compared with decoding only."""

    def decode(path: Path) -> None:
        Image.open(path).convert("RGB")

    def all_by(work: Callable, *more: list) -> Arm:
        return lambda: for_each_image(work, map(str, paths), torch.get_num_threads(), "", *more)

    hashes = [sha256_of(path) for path in paths]
    shape = stored_shape(*how.photo[::-1], short_side)
    arms = {
        "decode alone": all_by(decode),
        "manifest": all_by(inspect),
        "pixels": all_by(lambda path, sha256: read_rgb(path, sha256, shape).tobytes(), hashes),
    }
    return rates(arms, len(paths), once(how))


def augmentations(store: PixelStore, how: argparse.Namespace) -> dict[str, Any]:
    """Images/s of one augmentation step on a stored image in one thread: on a tensor, and by Pillow."""
    steps = {
        "rotation, nearest": v2.RandomRotation(15),
        "rotation, bilinear": v2.RandomRotation(15, interpolation=v2.InterpolationMode.BILINEAR),
        "affine, nearest": v2.RandomAffine(10, (0.1, 0.1), (0.9, 1.1)),
        "auto_augment": v2.AutoAugment(),
        "rand_augment": v2.RandAugment(),
        "trivial_augment": v2.TrivialAugmentWide(),
        "color_jitter": v2.ColorJitter(0.2, 0.2, 0.2, 0.1),
        "gaussian_blur": v2.GaussianBlur(5, (0.1, 2)),
        "random_resized_crop": v2.RandomResizedCrop(224),
    }
    image = as_tensor(store, 0)
    with one_thread():
        return {name: rates(two_ways(step, image), 100, once(how)) for name, step in steps.items()}


def two_ways(step: v2.Transform, image: Tensor) -> dict[str, Arm]:
    pillow = by_pillow(step)
    return {
        "tensor": lambda: [step(image) for _ in range(100)],
        "Pillow": lambda: [pillow(image) for _ in range(100)],
    }


@contextmanager
def one_thread() -> Iterator[None]:
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


def once(how: argparse.Namespace) -> argparse.Namespace:
    """Options for blocks of one step on the CPU."""
    return argparse.Namespace(warmup=1, steps=1, blocks=how.blocks, device=torch.device("cpu"))


@contextmanager
def peak_memory(device: torch.device) -> Iterator[list[int]]:
    """Yield a list that holds, at the end, the peak of bytes allocated inside. Stays empty on a CPU."""
    peak: list[int] = []
    if device.type == "cuda":
        torch.cuda.reset_peak_memory_stats(device)
        before = torch.cuda.memory_allocated(device)
    yield peak
    if device.type == "cuda":
        peak.append(torch.cuda.max_memory_allocated(device) - before)


def loader_alone(recipe: Recipe, paths: list[Path], store: PixelStore, how: argparse.Namespace) -> dict[str, Any]:
    """Views per second of one process and one thread, in batches: from JPEGs by PIL, and from the decoded images."""
    size = recipe.image.size
    flip, rotation, crop = v2.RandomHorizontalFlip(), v2.RandomRotation(15), v2.RandomResizedCrop(size)
    lists = {"flip, crop": [flip, crop], "flip, rotation, crop": [flip, rotation, crop]}
    kinds = {"flip": {"kind": "horizontal_flip"}, "rotation": {"kind": "rotation", "degrees": 15}}
    kinds["crop"] = {"kind": "random_resized_crop"}
    batches, rows = (in_batches(each, recipe.batch_size) for each in (paths, range(len(paths))))
    with one_thread():
        return {
            name: rates(
                {
                    "PIL": by_pil(v2.Compose([*steps, v2.ToImage(), v2.ToDtype(torch.float32, scale=True)]), batches),
                    "ours": by_views([kinds[each] for each in name.split(", ")], size, store, rows),
                },
                len(paths),
                once(how),
            )
            for name, steps in lists.items()
        }


def in_batches(items: Sequence, size: int) -> list[Sequence]:
    return [items[start : start + size] for start in range(0, len(items), size)]


def by_pil(augmentation: v2.Transform, batches: list[list[Path]]) -> Arm:
    return lambda: [
        default_collate([augmentation(Image.open(path).convert("RGB")) for path in batch]) for batch in batches
    ]


def by_views(steps: list[dict], size: int, store: PixelStore, batches: list[range]) -> Arm:
    augmentation = build_augmentation(TypeAdapter(list[Augmentation]).validate_python(steps), size)
    views = TrainingViews(Images(store, store.image_id, np.zeros(len(store.image_id), int)), augmentation, 0, 0)
    return lambda: [stacked([views[0, row][0] for row in batch]) for batch in batches]


def end_to_end(recipe: Recipe, fold: Fold, how: argparse.Namespace, folder: Path) -> dict[str, float]:
    """Train a fold of two epochs by ``train_fold``, and return the numbers of its history."""
    compute = Compute(how.device, how.dtype, how.workers, how.compile)
    started = time.perf_counter()
    last = second_epoch(recipe, fold, compute, folder)
    wall = time.perf_counter() - started
    return {
        "training images/s": float(last["images_per_second"]),
        "share waiting for data": float(last["waiting_share"]),
        "seconds an epoch": float(last["seconds"]),
        "of which training": len(fold.train) / float(last["images_per_second"]),
        "wall seconds, two epochs": wall,
        "peak memory, MB": float(last["peak_memory_mb"]),
    }


def second_epoch(recipe: Recipe, fold: Fold, compute: Compute, folder: Path) -> pd.Series:
    """Train two epochs by ``train_fold``, and return the last row of the history: the first epoch compiles."""
    files = TrainingOutputs(folder / "history.csv", folder / "model.safetensors", folder / "state", 1e9)
    recipe = recipe.model_copy(update={"epochs": 2})
    train_fold(recipe, fold, None, "benchmark", compute, files)
    return pd.read_csv(files.history).iloc[-1]


def workers_memory(recipe: Recipe, store: PixelStore) -> dict[str, float]:
    """Memory of four loader workers that have each read every image: resident, proportional and private."""
    views = TrainingViews(Images(store, store.image_id, np.zeros(len(store.image_id), int)), v2.Identity(), 0, 0)
    rows = range(len(store.image_id))
    everything = [[(0, row) for row in rows]] * 40
    loader = iter(
        DataLoader(_Checksums(views), batch_sampler=everything, num_workers=4, multiprocessing_context="fork")
    )
    for _ in everything:
        next(loader)
    held = [_rollup(process.pid) for process in multiprocessing.active_children()]
    return {
        "decoded images, MB": sum(store[row].nbytes for row in rows) / 2**20,
        "resident, MB, sum of four": sum(each["Rss"] for each in held) / 2**10,
        "proportional, MB, sum of four": sum(each["Pss"] for each in held) / 2**10,
        "private, MB, sum of four": sum(each["Private_Dirty"] for each in held) / 2**10,
    }


class _Checksums(Dataset):
    """Reads whole images, but returns only their sums."""

    def __init__(self, views: TrainingViews) -> None:
        self._views = views

    def __getitem__(self, index: tuple[int, int]) -> int:
        return int(self._views[index][0].sum())


def _rollup(process: int) -> dict[str, int]:
    """Memory of a process by ``/proc``, in KiB."""
    lines = Path(f"/proc/{process}/smaps_rollup").read_text().splitlines()[1:]
    return {line.split(":")[0]: int(line.split()[1]) for line in lines}


def prediction(recipe: Recipe, how: argparse.Namespace) -> dict[str, list[float]]:
    """Images/s of five models on a batch, one after the other: plain float32, and as ``predict_images`` does it."""
    networks = [Classifier(recipe, CLASSES).eval() for _ in range(5)]
    labels = tuple(str(label) for label in range(CLASSES))
    models = [TrainedModel(recipe, labels, "", network.state_dict()) for network in networks]
    plain, computes = [each.to(how.device) for each in networks], Compute(how.device, how.dtype, 0)
    ours = [on_device(model, computes) for model in models]
    views = torch.randint(256, (recipe.batch_size, 3, recipe.image.size, recipe.image.size), dtype=torch.uint8)
    views = views.to(how.device)

    @torch.inference_mode()
    def in_float32() -> list[Tensor]:
        inputs = views.float() / 255
        return [network(inputs) for network in plain]

    return rates(
        {
            "float32, eager": in_float32,
            "ours": lambda: [predict_logits(network, [views], recipe.image, computes) for network in ours],
        },
        recipe.batch_size,
        how,
    )


def growth(recipe: Recipe, how: argparse.Namespace, folder: Path) -> dict[str, dict[str, float]]:
    """Train a small network on ever more images, each time in a new process."""
    backbone = recipe.backbone.model_copy(update={"name": "resnet18"})
    image = recipe.image.model_copy(update={"size": 16})
    small = recipe.model_copy(update={"backbone": backbone, "image": image, "batch_size": 64})
    compute = Compute(how.device, how.dtype, how.workers)
    spawn = multiprocessing.get_context("spawn")
    # not a Pool, whose processes cannot start loader workers
    with ProcessPoolExecutor(1, mp_context=spawn, max_tasks_per_child=1) as pool:
        runs = {count: pool.submit(epochs_over, count, small, compute, folder) for count in how.growth}
        return {f"{count:,} images": run.result() for count, run in runs.items()}


def epochs_over(count: int, recipe: Recipe, compute: Compute, folder: Path) -> dict[str, float]:
    """Seconds of the second of two epochs over distinct images, and memory of the process without the image file."""
    write_noise(count, folder)
    fold = fold_of(PixelStore(folder / "pixels", folder / "index.npz"), count, count // 4)
    with peak_of_own_memory() as peak:
        last = second_epoch(recipe, fold, compute, folder)
    return {"seconds an epoch": float(last["seconds"]), "memory, MB": max(peak), "pixels, MB": count * 768 / 2**20}


def write_noise(count: int, folder: Path) -> None:
    """Write decoded images of random bytes, and their index."""
    write_decoded(np.random.default_rng(0).integers(256, size=(count, 16, 16, 3), dtype=np.uint8), folder)


def write_decoded(images_nhwc: np.ndarray, folder: Path) -> None:
    """Write images (N, height, width, 3) uint8 as a pixel store. Ids are their positions."""
    count, height, width, _ = images_nhwc.shape
    sizes = {"height": np.full(count, height), "width": np.full(count, width)}
    names, offset = np.arange(count).astype(str), np.arange(count) * height * width * 3
    np.savez(folder / "index.npz", image_id=names, sha256=np.char.zfill(names, 64), offset=offset, **sizes)
    images_nhwc.tofile(folder / "pixels")


@contextmanager
def peak_of_own_memory() -> Iterator[list[float]]:
    """Yield samples of the memory of this process that no file backs, in MB."""
    samples, done = [], threading.Event()

    def watch() -> None:
        while not done.wait(0.1):
            status = Path("/proc/self/status").read_text()
            samples.append(int(status.split("RssAnon:")[1].split()[0]) / 2**10)

    thread = threading.Thread(target=watch)
    thread.start()
    try:
        yield samples
    finally:
        done.set()
        thread.join()


def largest_kernels(step: Arm, how: argparse.Namespace) -> dict[str, Any]:
    """Profile three steps: the ten kernels that take most time, and the share of time in which no kernel runs.

    On a CPU: the ten largest operations.
    """
    seconds(step, 3, how.device)
    with torch.profiler.profile() as profile:
        seconds(step, 3, how.device)
    if how.device.type == "cpu":
        return {"largest": largest({each.key: each.self_cpu_time_total for each in profile.key_averages()})}
    with tempfile.TemporaryDirectory() as folder:
        trace = Path(folder, "trace.json")
        profile.export_chrome_trace(str(trace))
        return of_trace(json.loads(trace.read_text())["traceEvents"])


def largest(times: Mapping[str, float]) -> list[dict[str, Any]]:
    names = sorted(times, key=times.get, reverse=True)[:10]
    return [{"what": name[:100], "share": times[name] / sum(times.values())} for name in names]


def of_trace(events: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """The largest kernels of a profiler trace, and the share of its span in which the device is idle."""
    on_device = [event for event in events if event.get("cat") in ("kernel", "gpu_memcpy", "gpu_memset")]
    times: dict[str, float] = {}
    for event in on_device:
        times[event["name"]] = times.get(event["name"], 0) + event["dur"]
    spans = [(event["ts"], event["ts"] + event["dur"]) for event in on_device]
    return {"largest": largest(times), "share of the time without a kernel": idle_share(spans), "kernels": len(spans)}


def idle_share(spans: Sequence[tuple[float, float]]) -> float:
    """Share of the time between the first start and the last end that no span covers."""
    start = end = min(start for start, _ in spans)
    idle = 0.0
    for begins, ends in sorted(spans):
        idle += max(0, begins - end)
        end = max(end, ends)
    return idle / (end - start)


# --- run -------------------------------------------------------------------------------------------------


def measure(recipe: Recipe, how: argparse.Namespace) -> dict[str, Any]:
    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(temporary)
        paths = make_photos(folder, how.photos, how.photo)
        store = store_of(paths, recipe.image.short_side, folder)
        fold = fold_of(store, how.steps * recipe.batch_size * 2, how.steps * recipe.batch_size // 2)
        parts: dict[str, Callable[[], Any]] = {
            "limits": lambda: limits(how),
            "loader alone, images/s a core": lambda: loader_alone(recipe, paths, store, how),
            "preparation, images/s on all cores": lambda: preparation(paths, recipe.image.short_side, how),
            "steps of augmentation, images/s a core": lambda: augmentations(store, how),
            "memory of loader workers": lambda: workers_memory(recipe, store),
            "convolutions": lambda: convolutions(recipe, how),
            "model alone": lambda: model_alone(training_arms(recipe, fold, how), recipe.batch_size, how),
            "prediction by five models, images/s": lambda: prediction(recipe, how),
            "end to end": lambda: end_to_end(recipe, fold, how, folder),
            "growth": lambda: growth(recipe, how, folder),
            "largest operations": lambda: largest_kernels(Ours(recipe, how, fold, how.compile), how),
        }
        results = {}
        for name, part in parts.items():
            if name.startswith(tuple(how.parts)) or not how.parts:
                print(f"{name} ...", file=sys.stderr, flush=True)
                results[name] = part()
    return results


def as_tables(results: Mapping[str, Any]) -> str:
    """Format results as Markdown: per arm the median of its blocks, their range, and the ratio to the first arm."""
    lines = []
    for part, result in results.items():
        lines += ["", f"### {part}", ""]
        if part == "model alone":
            lines += arms_table(result.pop("images/s"))
        elif part.startswith(("convolutions", "prediction", "preparation")):
            lines += arms_table(result)
            continue
        elif part.endswith("a core"):
            for name, arms in result.items():
                lines += ["", f"{name}:", "", *arms_table(arms)]
            continue
        elif part == "largest operations":
            lines += [
                "| operation | share |",
                "|---|---|",
                *(f"| {row['what']} | {row['share']:.1%} |" for row in result.pop("largest")),
                "",
            ]
        lines += [f"- {key}: {said(value)}" for key, value in result.items() if value != {}]
    return "\n".join(lines)


def arms_table(arms: Mapping[str, list[float]]) -> list[str]:
    medians = {name: statistics.median(blocks) for name, blocks in arms.items()}
    first = next(iter(medians.values()))
    rows = [
        f"| {name} | {medians[name]:.4g} | {min(blocks):.4g} to {max(blocks):.4g} | {medians[name] / first:.2f} |"
        for name, blocks in arms.items()
    ]
    return ["| | images/s | blocks | relative to the first |", "|---|---|---|---|", *rows]


def said(value: Any) -> str:
    return (
        ", ".join(f"{key} {said(each)}" for key, each in value.items()) if isinstance(value, dict) else f"{value:.4g}"
    )


def options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    gpu = torch.cuda.is_available()
    parser.add_argument("--device", type=torch.device, default=torch.device("cuda" if gpu else "cpu"))
    parser.add_argument("--recipe", default="kfold_mix", help="recipe, trained from random weights")
    parser.add_argument("--size", type=int, help="pixels; default: the recipe's")
    parser.add_argument("--batch", type=int, help="default: 64 on a GPU, 8 on a CPU")
    parser.add_argument("--steps", type=int, help="steps per timed block; default: 100, or 2 on a CPU")
    parser.add_argument("--warmup", type=int, help="steps before timing; default: 30, or 1 on a CPU")
    parser.add_argument("--blocks", type=int, default=3)
    parser.add_argument("--workers", type=int, help="loader workers; default: 4, or 0 on a CPU, as in train_fold")
    parser.add_argument("--photos", type=int, default=200, help="number of JPEGs")
    parser.add_argument("--photo", type=int, nargs=2, default=(500, 375), help="their width and height in pixels")
    parser.add_argument(
        "--growth",
        type=int,
        nargs="*",
        help="images of part growth; default: 8000 32000 128000, a quarter on a CPU",
    )
    parser.add_argument("--compile", action=argparse.BooleanOptionalAction, help="default: only on a GPU")
    parser.add_argument("--parts", nargs="*", default=[], help="parts whose names begin so; default: all")
    parser.add_argument("--out", type=Path, help="folder for the JSON file")
    parser.add_argument(
        "--keep-freed-memory", action=argparse.BooleanOptionalAction, default=True, help="on a CPU, as jobs do"
    )
    parser.add_argument("--precision", choices=["auto", "bf16", "fp32"], default="auto", help="all arms but B0")
    how = parser.parse_args()
    how.dtype = autocast_dtype(how.device, how.precision)
    defaults = {
        "batch": (64, 8),
        "steps": (100, 2),
        "warmup": (30, 1),
        "workers": (4, 0),
        "growth": ((8000, 32000, 128000), (2000, 8000, 32000)),
        "compile": (True, False),
    }
    for name, values in defaults.items():
        if getattr(how, name) is None:
            setattr(how, name, values[how.device.type != "cuda"])
    return how


def main() -> None:
    how = options()
    if how.device.type == "cpu" and how.keep_freed_memory:
        keep_freed_memory()
    recipe = load_recipe(find_recipe(how.recipe, RECIPES), RECIPES).model_dump(mode="json")
    recipe["backbone"]["weights"], recipe["batch_size"] = "none", how.batch
    recipe["schedule"] = {"kind": "constant"}  # a run has fewer steps than these
    recipe["image"]["size"] = how.size or recipe["image"]["size"]
    card = device_name(how.device)
    results = measure(Recipe.model_validate(recipe), how)
    now = datetime.now().isoformat(timespec="minutes")
    record = {"command": " ".join(sys.argv), "date": now, "device": card, "precision": str(how.dtype or torch.float32)}
    record |= {"versions": versions()}
    if how.out:
        how.out.mkdir(parents=True, exist_ok=True)
        file = how.out / f"throughput-{how.device.type}-{now.replace(':', '')}.json"
        file.write_text(json.dumps(record | {"results": results}, indent=2) + "\n")
    print(f"{card}, {now}, {how.recipe} at {recipe['image']['size']} pixels, batch {how.batch}: {sys.argv[1:]}")
    print(as_tables(results))


if __name__ == "__main__":
    main()
