"""Which device a job computes on, and how jobs on one machine keep out of each other's way."""

from __future__ import annotations

import fcntl
import logging
import os
import tempfile
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
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
def leased_device(preference: str, leases: Path = LEASES) -> Iterator[torch.device]:
    """Yield the device to compute on; a CUDA device is this job's alone until the end.

    ``preference`` is auto, cuda, mps or cpu; auto takes the first of these that there is. CUDA_VISIBLE_DEVICES is
    honoured.

    Raises:
        KfoldError: where the wanted device is not there, or CUDA_VISIBLE_DEVICES names one that is not.
    """
    if preference in ("auto", "cuda"):
        _check_visible_devices(torch.cuda.device_count())
    kind = _kind(preference)
    if kind != "cuda":
        log.info("computing on %s", kind)
        yield torch.device(kind)
        return
    names = [str(torch.cuda.get_device_properties(index).uuid) for index in range(torch.cuda.device_count())]
    with lease(names, leases) as index:
        torch.cuda.set_device(index)
        log.info("computing on cuda:%d, %s", index, torch.cuda.get_device_name(index))
        yield torch.device("cuda", index)


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
        raise KfoldError(f"device: there is no {preference} device here; write auto or cpu into config.yaml")
    return preference


def _check_visible_devices(count: int) -> None:
    wanted = [name for name in os.environ.get("CUDA_VISIBLE_DEVICES", "").split(",") if name.strip()]
    if wanted and wanted[0].strip() not in NO_DEVICE and count < len(wanted):
        raise KfoldError(
            f"CUDA_VISIBLE_DEVICES={','.join(wanted)} names {len(wanted)} devices, but {count} can be used here; "
            "correct or unset it"
        )


@contextmanager
def lease(names: Sequence[str], folder: Path) -> Iterator[int]:
    """Yield the index of a free device and hold it; wait where all are taken.

    A lease is a locked file, so a job that is killed frees its device at once.
    """
    if not folder.is_dir():
        folder.mkdir(parents=True, exist_ok=True)
        folder.chmod(0o777)  # whatever the umask: all users of a machine share its devices
    waiting = False
    while True:
        for index, name in enumerate(names):
            file = _locked(folder / f"{name}.lock")
            if file:
                with file:
                    yield index
                return
        if not waiting:
            log.info("all %d devices are in use by other jobs; waiting for one", len(names))
            waiting = True
        time.sleep(POLL_SECONDS)


def _locked(path: Path) -> IO[bytes] | None:
    if not path.exists():
        path.touch()
        path.chmod(0o644)
    file = open(path, "rb")  # noqa: SIM115 (it stays open as long as the lease; another user's file can be read)
    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        file.close()
        return None
    os.register_at_fork(after_in_child=file.close)  # a loader's worker that outlives its job must not keep the lease
    return file


def autocast_dtype(device: torch.device, precision: str) -> torch.dtype | None:
    """bfloat16 where it is wanted, or where the device computes in it natively; None for float32."""
    if precision == "auto":
        precision = "bf16" if _native_bf16(device) else "fp32"
    return torch.bfloat16 if precision == "bf16" else None


def _native_bf16(device: torch.device) -> bool:
    if device.type == "cuda":
        return torch.cuda.is_bf16_supported(including_emulation=False)
    return device.type == "cpu" and torch.cpu._is_avx512_bf16_supported()  # there is no public question yet
