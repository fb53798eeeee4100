"""Count a machine's GPUs and memory, and plan how many folds it trains at once.

Snakemake imports this module with the Snakefile in every job, so it never imports torch.
"""

from __future__ import annotations

import csv
import math
import os
import platform
import sys
from collections.abc import Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from kfold_ens.config import TrainingRecipe
from kfold_ens.errors import counted
from kfold_ens.jobs import usable_threads
from kfold_ens.members import FOLDERS

THREADS_PER_GPU = 4  # to load its images
OTHER_GPUS = Path("/dev/kfd")  # AMD's driver; torch calls these GPUs CUDA too

# A fold on n threads trains n ** EXPONENT times as fast as on one thread, as measured in benchmarks/README.md, "Folds
# side by side on a CPU".
EXPONENT = 0.55


# --- GPUs ------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Gpus:
    """The number of GPUs for jobs, a name for them, and a warning about the count."""

    count: int
    name: str
    warning: str = ""


def count_gpus(preference: str, visible: str | None) -> Gpus:
    """Count the GPUs that jobs may use: NVIDIA's by NVML, and Apple's.

    ``preference`` is ``device`` of config.yaml; ``visible`` is CUDA_VISIBLE_DEVICES, or None if unset. If GPUs cannot
    be counted, one is assumed, with a warning.
    """
    gpus = _count_nvidia(visible) if preference in ("auto", "cuda") else Gpus(0, "no GPU")
    if not gpus.count and preference in ("auto", "mps") and (sys.platform, platform.machine()) == ("darwin", "arm64"):
        return Gpus(1, "Apple's GPU")
    return gpus if preference != "cpu" else Gpus(0, "device: cpu")


def _count_nvidia(visible: str | None) -> Gpus:
    import pynvml  # here, since not every job that reads the Snakefile needs it

    if visible is not None and not _is_listed(visible):
        return Gpus(0, "no GPU")
    try:
        pynvml.nvmlInit()
        try:
            handles = [pynvml.nvmlDeviceGetHandleByIndex(index) for index in range(pynvml.nvmlDeviceGetCount())]
            used = _visible([pynvml.nvmlDeviceGetUUID(handle) for handle in handles], visible)
            if used is None or any(_in_mig_mode(pynvml, handles[index]) for index in used):
                return _assumed("GPUs in MIG mode are not counted")
        finally:
            pynvml.nvmlShutdown()
    except (pynvml.NVMLError_LibraryNotFound, pynvml.NVMLError_DriverNotLoaded):
        return _assumed("the GPUs are not NVIDIA's") if OTHER_GPUS.exists() else Gpus(0, "no GPU")
    except pynvml.NVMLError as error:
        return _assumed(f"the driver cannot count the GPUs (NVML: {error})")
    return Gpus(len(used), counted(len(used), "GPU") if used else "no GPU")


def _is_listed(visible: str) -> bool:
    """Whether CUDA_VISIBLE_DEVICES starts with a possible GPU."""
    return visible.strip().startswith(("GPU-", "MIG-", *"0123456789"))


def _assumed(why: str) -> Gpus:
    return Gpus(1, "1 GPU", f"{why}; 1 is assumed. If there are more, add --resources gpu=N")


def _visible(uuids: Sequence[str], visible: str | None) -> list[int] | None:
    """Return the indices of the GPUs in CUDA_VISIBLE_DEVICES; None if it names parts of a GPU (MIG).

    Entries are indices, UUIDs, or unique prefixes of UUIDs. The list ends at its first invalid entry. If it names a GPU
    twice, jobs can use none, as in torch.cuda.
    https://docs.nvidia.com/cuda/cuda-c-programming-guide/index.html#cuda-environment-variables
    """
    if visible is None:
        return list(range(len(uuids)))
    used: list[int] = []
    for entry in map(str.strip, visible.split(",")):
        if entry.startswith("MIG-"):
            return None
        found = _named(entry, uuids)
        if len(found) != 1:
            break
        used += found
    return used if len(set(used)) == len(used) else []


def _named(entry: str, uuids: Sequence[str]) -> list[int]:
    """Return the indices of the GPUs that an entry may mean."""
    if entry.startswith("GPU-"):
        return [index for index, uuid in enumerate(uuids) if uuid.startswith(entry)]
    return [int(entry)] if entry.isdecimal() and int(entry) < len(uuids) else []


def _in_mig_mode(pynvml: Any, handle: Any) -> bool:
    try:
        return bool(pynvml.nvmlDeviceGetMigMode(handle)[0])
    except pynvml.NVMLError_NotSupported:  # most GPUs have no MIG
        return False


# --- memory ----------------------------------------------------------------------------------------------

GB = 10**9
SPARE_MEMORY = 1 * GB  # for the system and Snakemake
PROCESS_MEMORY = 0.85 * GB  # Python, torch and its libraries

# Millions of parameters, and millions of activations per image of 224 x 224 pixels, by torchvision's name. Source:
# https://github.com/huggingface/pytorch-image-models/tree/main/results
BACKBONES = {
    "resnet18": (11.7, 2.5),
    "resnet34": (21.8, 3.7),
    "resnet50": (25.6, 11.1),
    "resnet101": (44.5, 16.2),
    "resnet152": (60.2, 22.6),
    "resnext50_32x4d": (25.0, 14.4),
    "resnext101_32x8d": (88.8, 31.2),
    "resnext101_64x4d": (83.5, 31.2),
    "wide_resnet50_2": (68.9, 14.4),
    "wide_resnet101_2": (126.9, 21.2),
}


def fold_memory(recipe: TrainingRecipe, folder: Path) -> float:
    """Return the bytes that a process needs to train a fold on a CPU: the larger of an estimate and a measurement.

    ``folder`` is the recipe's folder of results. The result is infinite for a timm backbone that was never measured, so
    that one fold trains at a time.
    """
    measured = measured_memory(folder)
    if recipe.backbone.name not in BACKBONES:
        return measured or math.inf
    return max(measured, estimated_memory(recipe))


def estimated_memory(recipe: TrainingRecipe) -> float:
    """Estimate, on the high side, the bytes that a process needs to train a fold of a recipe on a CPU."""
    parameters, activations = BACKBONES[recipe.backbone.name]
    size = max([recipe.image.size, *(getattr(step, "size", None) or 0 for step in recipe.augmentation)])
    copies = 8  # weights, gradients, two of AdamW, best weights, state being written, and two spare ones
    per_image = activations * 1e6 * (size / 224) ** 2 * 4 * 2.5  # 2.5: gradients and workspaces of convolutions
    return PROCESS_MEMORY + parameters * 1e6 * 4 * copies + recipe.batch_size * per_image


def measured_memory(folder: Path) -> float:
    """Return the largest number of bytes that a process used to train a fold on a CPU, plus 10%; 0 if none did.

    ``folder`` is a recipe's folder of results.
    """
    peaks = [0.0]
    for history in (file for place in FOLDERS for file in folder.glob(f"{place}/history.csv")):
        with suppress(OSError, ValueError, KeyError, TypeError), open(history, encoding="utf-8", newline="") as file:
            rows = csv.DictReader(file)
            peaks += [float(row["peak_memory_mb"]) for row in rows if row["device"].startswith("CPU")]
    return 1.1 * max(peaks) * 2**20


def memory_for_folds() -> float:
    """Return the bytes for all folds together: the memory of the machine or control group, minus ``SPARE_MEMORY``."""
    machine = os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    return min([machine, *_group_limits()]) - SPARE_MEMORY


def _group_limits(groups: Path = Path("/proc/self/cgroup"), mounted: Path = Path("/sys/fs/cgroup")) -> Iterator[int]:
    """Yield the memory limits of this process's control groups (version 2 or 1), in bytes.

    https://docs.kernel.org/admin-guide/cgroup-v2.html#memory-interface-files
    """
    with suppress(OSError):
        for line in groups.read_text().splitlines():
            _, controllers, path = line.split(":", 2)
            if controllers in ("", "memory"):
                yield from _limits_above(mounted / controllers, path.strip("/"))


def _limits_above(root: Path, path: str) -> Iterator[int]:
    """Yield the limits of a group and its parents; a container may see only the one at the root."""
    for folder in [root / path, *(root / path).parents]:
        if not folder.is_relative_to(root):
            return
        for name in ("memory.max", "memory.limit_in_bytes"):
            with suppress(OSError, ValueError):  # no such file, or "max"
                yield int((folder / name).read_text())


# --- the plan --------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Machine:
    """The resources for folds.

    ``cores`` is Snakemake's --cores, ``processors`` the number that this process may use; ``memory`` is in bytes.
    """

    gpus: Gpus
    cores: int
    processors: int
    memory: float


def this_machine(preference: str, cores: int) -> Machine:
    """Describe this machine; ``preference`` is ``device`` of config.yaml, ``cores`` is Snakemake's --cores."""
    gpus = count_gpus(preference, os.environ.get("CUDA_VISIBLE_DEVICES"))
    return Machine(gpus, cores, usable_threads(cores), memory_for_folds())


@dataclass(frozen=True)
class Plan:
    """How many folds train at once, and with how many threads.

    ``gpu`` is the amount of Snakemake's resource ``gpu``, which limits folds on CPUs too. ``sentence`` describes the
    plan to the user.
    """

    gpu: int
    at_once: int
    threads: int
    sentence: str


def plan_folds(
    machine: Machine,
    folds: int,
    fold_memory: float,
    gpus_per_fold: int = 1,
    gpu_slots: int = 1,
    given: int | None = None,
) -> Plan:
    """Divide a machine among folds.

    ``fold_memory`` is the memory of one process of a fold on a CPU, in bytes. ``given`` is --resources gpu=N, which
    overrides the counted GPUs; None if not set. Finished folds do not matter, so a retrained fold gets the same number
    of threads, unless it used more memory than estimated.
    """
    if given is None and not machine.gpus.count:
        return _plan_processors(machine, folds, fold_memory, gpus_per_fold)
    slots = gpu_slots if machine.gpus.count else 1
    gpu = max((machine.gpus.count if given is None else given) * slots, gpus_per_fold)
    at_once = max(1, min(gpu // gpus_per_fold, machine.cores))
    most = THREADS_PER_GPU * gpus_per_fold * at_once if machine.gpus.count else machine.processors
    threads = max(1, min(machine.cores, most) // at_once)
    name = machine.gpus.name if given is None else f"--resources gpu={given}"
    if at_once < gpu // gpus_per_fold:
        name += f", --cores {machine.cores}"
    sentence = _sentence(f"{name}: up to", at_once, threads)
    warning = machine.gpus.warning if given is None else ""
    return Plan(gpu, at_once, threads, f"{sentence} ({warning})" if warning else sentence)


def _plan_processors(machine: Machine, folds: int, fold_memory: float, gpus_per_fold: int) -> Plan:
    """Plan without GPUs. A fold then still has ``gpus_per_fold`` processes, which share its threads."""
    cores = min(machine.cores, machine.processors)
    most = min(folds, cores // gpus_per_fold)
    room = int(machine.memory // (fold_memory * gpus_per_fold))
    at_once, without_limit = (_fastest(folds, cores, max(1, places)) for places in (min(most, room), most))
    name = machine.gpus.name
    if at_once < without_limit:
        needed = f"{fold_memory * gpus_per_fold / GB:.1f} GB" if math.isfinite(fold_memory) else "an unknown part"
        name += f", {machine.memory / GB:.1f} GB of memory, {needed} per fold"
    threads = max(1, cores // at_once)
    return Plan(at_once * gpus_per_fold, at_once, threads, _sentence(f"{name}:", at_once, threads))


def _fastest(folds: int, cores: int, most: int) -> int:
    """Return how many folds at once finish all folds first; the smallest such number."""

    def time(at_once: int) -> float:
        return math.ceil(folds / at_once) / (cores // at_once) ** EXPONENT

    return min(range(1, most + 1), key=time)


def _sentence(start: str, at_once: int, threads: int) -> str:
    each = " each" if at_once > 1 else ""
    return f"{start} {counted(at_once, 'fold')} at once, {counted(threads, 'thread')}{each}"
