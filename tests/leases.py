"""Fake GPUs with real leases, and checks of the log of leases.

A job that imports this module before it leases a device computes on the CPU, but holds a lease of one of four GPUs.
"""

from __future__ import annotations

import os
import time
from collections.abc import Iterator
from contextlib import contextmanager
from itertools import pairwise
from pathlib import Path

import torch

from kfold_ens.compute import compute, devices

GPUS = [f"gpu{number}" for number in range(4)]


@contextmanager
def logged_lease(folder: Path, count: int = 1, slots: int = 1) -> Iterator[list[int]]:
    """Lease some of the four GPUs; log when the job starts to wait, gets each GPU and gives it back."""
    write_line(folder, "waits")
    with devices.lease(GPUS, folder, count, slots) as indices:
        for index in indices:
            write_line(folder, f"has {index}")
        try:
            yield indices
        finally:
            for index in indices:
                write_line(folder, f"gives {index}")


def write_line(folder: Path, what: str) -> None:
    folder.mkdir(exist_ok=True)
    with open(folder / "log", "a") as file:
        file.write(f"{os.getpid()} {what} {time.monotonic()}\n")


def read_log(folder: Path) -> list[list[str]]:
    log = folder / "log"
    return [line.split() for line in log.read_text().splitlines()] if log.is_file() else []


def assert_never_shared_never_idle(log: list[list[str]], killed: dict[str, float], idle: float) -> None:
    """Assert that no device has two jobs at once, or is free for over ``idle`` seconds while a job waits."""
    waits = {line[0]: float(line[-1]) for line in log if line[1] == "waits"}
    has = {line[0]: float(line[-1]) for line in log if line[1] == "has"}
    ends = killed | {line[0]: float(line[-1]) for line in log if line[1] == "gives"}
    until = ends | has  # a job waits until it gets a device or is killed
    for device in "0123":
        spans = sorted((has[line[0]], ends[line[0]]) for line in log if line[1:3] == ["has", device])
        assert len(spans) >= 2
        for (_, free), (taken, _) in pairwise(spans):
            assert free <= taken
            assert all(min(until[job], taken) - max(since, free) <= idle for job, since in waits.items())


@contextmanager
def _faked(preference: str, count: int = 1, slots: int = 1, leases: Path | None = None) -> Iterator[list[torch.device]]:
    with logged_lease(Path(os.environ["KFOLD_FAKED_GPUS"]), count, slots):
        yield [torch.device("cpu")] * count


if "KFOLD_FAKED_GPUS" in os.environ:
    compute.leased_devices = _faked
    devices.POLL_SECONDS = 0.05
