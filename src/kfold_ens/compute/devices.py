"""Choose a job's device, and lease GPUs so that jobs on one machine do not use the same one."""

from __future__ import annotations

import fcntl
import logging
import os
import platform
import random
import tempfile
import time
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path
from typing import IO

import torch

from kfold_ens.errors import KfoldError
from kfold_ens.jobs import ROUTINE

log = logging.getLogger(__name__)

LEASES = Path(tempfile.gettempdir(), "kfold_ens-leases")
POLL_SECONDS = 0.5
LOOK_SECONDS = 2
NO_DEVICE = ("-1", "NoDevFiles")  # values of CUDA_VISIBLE_DEVICES that mean none; Slurm sets the second


@contextmanager
def leased_devices(
    preference: str, count: int = 1, slots: int = 1, leases: Path = LEASES
) -> Iterator[list[torch.device]]:
    """Yield ``count`` devices. CUDA devices are held exclusively until exit, or one of ``slots`` GPU shares of each.

    ``preference`` is auto, cuda, mps or cpu; auto means the first of cuda, mps and cpu that is available. Respects
    CUDA_VISIBLE_DEVICES. A CPU is yielded ``count`` times.

    Raises:
        KfoldError: if there are too few such devices, or CUDA_VISIBLE_DEVICES names one that cannot be used.
    """
    if preference in ("auto", "cuda"):
        _check_visible_devices(torch.cuda.device_count())
    kind = _kind(preference)
    if kind != "cuda":
        _check_count(count, {"cpu": count, "mps": 1}[kind], kind)
        log.info("computing on %s on %s%s", kind, platform.node(), _visible_devices(), extra=ROUTINE)
        yield [torch.device(kind)] * count
        return
    names = [str(torch.cuda.get_device_properties(index).uuid) for index in range(torch.cuda.device_count())]
    _check_count(count, len(names), kind)
    with lease(names, leases, count, slots) as indices:
        torch.cuda.set_device(indices[0])
        if slots > 1:
            torch.cuda.set_per_process_memory_fraction(1 / slots, indices[0])
        for index in indices:
            name = torch.cuda.get_device_name(index)
            log.info(
                "computing on cuda:%d (%s) on %s%s", index, name, platform.node(), _visible_devices(), extra=ROUTINE
            )
        yield [torch.device("cuda", index) for index in indices]


def _check_count(wanted: int, available: int, kind: str) -> None:
    if wanted > available:
        raise KfoldError(
            f"config.yaml: gpus_per_fold is {wanted}, but only {available} can be used by this job (device: {kind}); "
            "lower it"
        )


def device_name(device: torch.device) -> str:
    """Name of a device for people: the GPU's model, or the CPU with its number of threads in use."""
    names = {"cuda": torch.cuda.get_device_name, "cpu": lambda _: f"CPU, {torch.get_num_threads()} threads"}
    return names.get(device.type, str)(device)


class Utilization:
    """Mean GPU utilization, sampled from the driver every few seconds."""

    def __init__(self, device: torch.device) -> None:
        self._device = device
        self._sampled_at = -float("inf")
        self._samples: list[int] = []

    def look(self) -> None:
        """Take a sample if it is time."""
        if self._device.type == "cuda" and time.monotonic() - self._sampled_at >= LOOK_SECONDS:
            self._sampled_at = time.monotonic()
            with suppress(Exception):  # the driver may not report it, or its library may be missing
                self._samples.append(torch.cuda.utilization(self._device))

    def mean(self) -> float | None:
        """Mean of the samples since the last call, from 0 to 1; None if there are none."""
        samples, self._samples = self._samples, []
        return round(sum(samples) / len(samples) / 100, 2) if samples else None


def _kind(preference: str) -> str:
    available = {"cuda": torch.cuda.is_available(), "mps": torch.backends.mps.is_available(), "cpu": True}
    if preference == "auto":
        return next(kind for kind, there in available.items() if there)
    if not available[preference]:
        raise KfoldError(
            f"config.yaml: device is {preference}, but this machine has no {preference} device; set auto or cpu"
        )
    return preference


def _visible_devices() -> str:
    """CUDA_VISIBLE_DEVICES as a clause of a log line; empty if it is not set."""
    visible = os.environ.get("CUDA_VISIBLE_DEVICES")
    return f", with CUDA_VISIBLE_DEVICES={visible}" if visible else ""


def _check_visible_devices(count: int) -> None:
    wanted = [name for name in os.environ.get("CUDA_VISIBLE_DEVICES", "").split(",") if name.strip()]
    if wanted and wanted[0].strip() not in NO_DEVICE and count < len(wanted):
        raise KfoldError(
            f"CUDA_VISIBLE_DEVICES={','.join(wanted)} names {len(wanted)} devices, but only {count} can be used "
            "on this machine; correct or unset it"
        )


@contextmanager
def lease(names: Sequence[str], folder: Path, count: int = 1, slots: int = 1) -> Iterator[list[int]]:
    """Yield the indices of ``count`` free devices and hold them until exit; wait until that many are free.

    With ``slots`` above 1, up to ``slots`` jobs share a device; jobs take unused devices first. A lease is a locked
    file, so a killed job frees its devices at once.
    """
    if not folder.is_dir():
        folder.mkdir(parents=True, exist_ok=True)
        folder.chmod(0o777)  # despite the umask: all users of a machine share its devices
    waiting = False
    while True:
        with ExitStack() as held:
            indices = _hold_some(names, folder, count, slots, held)
            if indices:
                yield indices
                return
        if not waiting:
            log.info("waiting until %d of %d GPUs are free", count, len(names))
            waiting = True
        # Random, so that two jobs that each need several devices do not block each other forever.
        time.sleep(POLL_SECONDS * random.uniform(0.5, 1))


def _hold_some(names: Sequence[str], folder: Path, count: int, slots: int, held: ExitStack) -> list[int]:
    """Hold ``count`` devices and return their indices; hold and return none if fewer are free."""
    attempts = [_hold_whole] if slots == 1 else [_hold_unused_share, _hold_share]
    indices = []
    for attempt in attempts:
        for index, name in enumerate(names):
            if attempt(folder / name, slots, held):
                indices.append(index)
            if len(indices) == count:
                return indices
    return []


def _hold_whole(device: Path, slots: int, held: ExitStack) -> bool:
    """Lock a device exclusively; False if another job uses it."""
    return _locked(device.with_suffix(".lock"), fcntl.LOCK_EX, held)


def _hold_unused_share(device: Path, slots: int, held: ExitStack) -> bool:
    """Lock a GPU share of a device that no other job uses."""
    with ExitStack() as look:
        if not _hold_whole(device, slots, look):
            return False
    return _hold_share(device, slots, held)


def _hold_share(device: Path, slots: int, held: ExitStack) -> bool:
    """Lock a GPU share of a device that no job holds exclusively."""
    with ExitStack() as mine:
        if not _locked(device.with_suffix(".lock"), fcntl.LOCK_SH, mine):
            return False
        if not any(_locked(device.with_suffix(f".slot{slot}.lock"), fcntl.LOCK_EX, mine) for slot in range(slots)):
            return False
        held.enter_context(mine.pop_all())
        return True


def _locked(path: Path, how: int, held: ExitStack) -> bool:
    """Lock a file until ``held`` exits; False if another job has locked it."""
    if not path.exists():
        path.touch()
        path.chmod(0o644)
    file = open(path, "rb")  # noqa: SIM115 (open while leased; read-only, as another user may own it)
    try:
        fcntl.flock(file, how | fcntl.LOCK_NB)
    except BlockingIOError:
        file.close()
        return False
    _LOCKED.add(file)
    held.callback(_LOCKED.discard, file)
    held.enter_context(file)
    return True


def _close_locked() -> None:
    for file in _LOCKED:
        file.close()


_LOCKED: set[IO[bytes]] = set()
os.register_at_fork(after_in_child=_close_locked)  # a loader worker that outlives its job must not keep the lease


def autocast_dtype(device: torch.device, precision: str) -> torch.dtype | None:
    """Autocast dtype: bfloat16 if configured, or with auto if the device has it natively; None for float32."""
    if precision == "auto":
        precision = "bf16" if _native_bf16(device) else "fp32"
    return torch.bfloat16 if precision == "bf16" else None


def _native_bf16(device: torch.device) -> bool:
    if device.type == "cuda":
        return torch.cuda.is_bf16_supported(including_emulation=False)
    return device.type == "cpu" and torch.cpu._is_avx512_bf16_supported()  # no public function yet
