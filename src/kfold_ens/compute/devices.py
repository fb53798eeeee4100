"""Which device a job computes on, and how jobs on one machine keep out of each other's way."""

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

log = logging.getLogger(__name__)

LEASES = Path(tempfile.gettempdir(), "kfold_ens-leases")
POLL_SECONDS = 0.5
LOOK_SECONDS = 2
NO_DEVICE = ("-1", "NoDevFiles")  # what CUDA_VISIBLE_DEVICES holds for none; the second is Slurm's


@contextmanager
def leased_devices(
    preference: str, count: int = 1, slots: int = 1, leases: Path = LEASES
) -> Iterator[list[torch.device]]:
    """Yield ``count`` devices to compute on; CUDA devices are this job's alone until the end, or one of its ``slots``.

    ``preference`` is auto, cuda, mps or cpu; auto takes the first of these that there is. CUDA_VISIBLE_DEVICES is
    honoured. On a CPU the same device is yielded ``count`` times.

    Raises:
        KfoldError: where the wanted devices are not there, or CUDA_VISIBLE_DEVICES names one that is not.
    """
    if preference in ("auto", "cuda"):
        _check_visible_devices(torch.cuda.device_count())
    kind = _kind(preference)
    if kind != "cuda":
        _check_count(count, {"cpu": count, "mps": 1}[kind], kind)
        log.info("computing on %s of %s%s", kind, platform.node(), _visible_devices())
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
            log.info("computing on cuda:%d, %s, of %s%s", index, name, platform.node(), _visible_devices())
        yield [torch.device("cuda", index) for index in indices]


def _check_count(wanted: int, available: int, kind: str) -> None:
    if wanted > available:
        raise KfoldError(
            f"gpus_per_fold: {wanted}, but there are {available} devices for this job ({kind}); lower it in config.yaml"
        )


def device_name(device: torch.device) -> str:
    """What people call a device: the card's name, or how many threads of the CPU are used."""
    names = {"cuda": torch.cuda.get_device_name, "cpu": lambda _: f"CPU, {torch.get_num_threads()} threads"}
    return names.get(device.type, str)(device)


class Utilization:
    """The share of time in which a GPU computes, as its driver has it, from a look every few seconds."""

    def __init__(self, device: torch.device) -> None:
        self._device = device
        self._looked_at = -float("inf")
        self._seen: list[int] = []

    def look(self) -> None:
        """Ask the driver, if it is time."""
        if self._device.type == "cuda" and time.monotonic() - self._looked_at >= LOOK_SECONDS:
            self._looked_at = time.monotonic()
            with suppress(Exception):  # a driver that does not say, or a machine without its library
                self._seen.append(torch.cuda.utilization(self._device))

    def mean(self) -> float | None:
        """Of the looks since the last time, as a share; None where there were none."""
        seen, self._seen = self._seen, []
        return round(sum(seen) / len(seen) / 100, 2) if seen else None


def _kind(preference: str) -> str:
    available = {"cuda": torch.cuda.is_available(), "mps": torch.backends.mps.is_available(), "cpu": True}
    if preference == "auto":
        return next(kind for kind, there in available.items() if there)
    if not available[preference]:
        raise KfoldError(f"device: there is no {preference} device here; choose auto or cpu")
    return preference


def _visible_devices() -> str:
    """What a cluster, or the user, gave this job, as a clause."""
    visible = os.environ.get("CUDA_VISIBLE_DEVICES")
    return f", with CUDA_VISIBLE_DEVICES={visible}" if visible else ""


def _check_visible_devices(count: int) -> None:
    wanted = [name for name in os.environ.get("CUDA_VISIBLE_DEVICES", "").split(",") if name.strip()]
    if wanted and wanted[0].strip() not in NO_DEVICE and count < len(wanted):
        raise KfoldError(
            f"CUDA_VISIBLE_DEVICES={','.join(wanted)} names {len(wanted)} devices, but {count} can be used here; "
            "correct or unset it"
        )


@contextmanager
def lease(names: Sequence[str], folder: Path, count: int = 1, slots: int = 1) -> Iterator[list[int]]:
    """Yield the indices of ``count`` free devices and hold them, all or none; wait where there are fewer.

    With ``slots`` up to as many jobs that say so too share a device; those that come first spread over all devices.
    A lease is a locked file, so a job that is killed frees its devices at once.
    """
    if not folder.is_dir():
        folder.mkdir(parents=True, exist_ok=True)
        folder.chmod(0o777)  # whatever the umask: all users of a machine share its devices
    waiting = False
    while True:
        with ExitStack() as held:
            indices = _hold_some(names, folder, count, slots, held)
            if indices:
                yield indices
                return
        if not waiting:
            log.info("all %d devices are in use by other jobs; waiting for %d", len(names), count)
            waiting = True
        # At random, or two jobs that want several devices might go on undoing each other.
        time.sleep(POLL_SECONDS * random.uniform(0.5, 1))


def _hold_some(names: Sequence[str], folder: Path, count: int, slots: int, held: ExitStack) -> list[int]:
    """As many devices as wanted; none where there are fewer."""
    attempts = [_hold_whole] if slots == 1 else [_hold_first_slot, _hold_slot]
    indices = []
    for attempt in attempts:
        for index, name in enumerate(names):
            if attempt(folder / name, slots, held):
                indices.append(index)
            if len(indices) == count:
                return indices
    return []


def _hold_whole(device: Path, slots: int, held: ExitStack) -> bool:
    """A device that nobody uses."""
    return _locked(device.with_suffix(".lock"), fcntl.LOCK_EX, held)


def _hold_first_slot(device: Path, slots: int, held: ExitStack) -> bool:
    """A slot of a device that nobody uses."""
    with ExitStack() as look:
        if not _hold_whole(device, slots, look):
            return False
    return _hold_slot(device, slots, held)


def _hold_slot(device: Path, slots: int, held: ExitStack) -> bool:
    """A slot of a device that no job has for itself."""
    with ExitStack() as mine:
        if not _locked(device.with_suffix(".lock"), fcntl.LOCK_SH, mine):
            return False
        if not any(_locked(device.with_suffix(f".slot{slot}.lock"), fcntl.LOCK_EX, mine) for slot in range(slots)):
            return False
        held.enter_context(mine.pop_all())
        return True


def _locked(path: Path, how: int, held: ExitStack) -> bool:
    """Whether a file could be locked; it is until ``held`` ends."""
    if not path.exists():
        path.touch()
        path.chmod(0o644)
    file = open(path, "rb")  # noqa: SIM115 (it stays open as long as the lease; another user's file can be read)
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
os.register_at_fork(after_in_child=_close_locked)  # a loader's worker that outlives its job must not keep the lease


def autocast_dtype(device: torch.device, precision: str) -> torch.dtype | None:
    """bfloat16 where it is wanted, or where the device computes in it natively; None for float32."""
    if precision == "auto":
        precision = "bf16" if _native_bf16(device) else "fp32"
    return torch.bfloat16 if precision == "bf16" else None


def _native_bf16(device: torch.device) -> bool:
    if device.type == "cuda":
        return torch.cuda.is_bf16_supported(including_emulation=False)
    return device.type == "cpu" and torch.cpu._is_avx512_bf16_supported()  # there is no public question yet
