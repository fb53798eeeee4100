"""A fold's saved state: from which its training resumes after an interruption."""

from __future__ import annotations

import logging
import shutil
import signal
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch

from kfold_ens.files import atomic
from kfold_ens.jobs import ASKING_TO_END, Preempted

log = logging.getLogger(__name__)


class StateFile:
    """The newest state and the one before it, in a folder of their own, good for one fingerprint only."""

    def __init__(self, folder: Path, fingerprint: str) -> None:
        self._newest, self._previous = folder / "state.pt", folder / "previous.pt"
        self._folder = folder
        self._fingerprint = fingerprint

    def load(self) -> dict[str, Any] | None:
        """The newest usable state, or None for a fresh start; the reason is logged."""
        for path in (self._newest, self._previous):
            if path.is_file():
                state = self._read(path)
                if state is not None:
                    return state
        return None

    def _read(self, path: Path) -> dict[str, Any] | None:
        try:
            state = torch.load(path, map_location="cpu", weights_only=True)
            owner = state["fingerprint"]
        except Exception as error:  # a damaged pickle raises whatever its bytes lead to
            log.warning("%s is damaged (%s) and left aside", path, type(error).__name__)
            return None
        if owner != self._fingerprint:
            log.warning("%s belongs to another recipe, split, data or weights and is left aside", path)
            return None
        return state

    def save(self, state: dict[str, Any]) -> None:
        """Put a new state in place and keep the one before it."""
        with atomic(self._newest) as temporary:
            torch.save({**state, "fingerprint": self._fingerprint}, temporary)
            if self._newest.is_file():
                self._newest.replace(self._previous)

    @property
    def size(self) -> int:
        """What the states take on disk, and what a killed job had begun to write of one, in bytes."""
        return sum(path.stat().st_size for path in self._folder.glob("*.pt*"))

    def remove(self) -> None:
        """The fold is done."""
        shutil.rmtree(self._folder, ignore_errors=True)


class Checkpoints:
    """Saves the state every few minutes, and at the next step when the job is asked to end."""

    def __init__(self, file: StateFile, minutes: float) -> None:
        self._file = file
        self._seconds = 60 * minutes
        self._saved_at = time.monotonic()
        self._asked_to_end = False
        for name in ASKING_TO_END:
            if name != signal.SIGHUP or signal.getsignal(name) != signal.SIG_IGN:  # nohup: continue without a terminal
                signal.signal(name, self._ask_to_end)

    def _ask_to_end(self, number: int, frame: Any) -> None:
        self._asked_to_end = True

    def after_step(self, state: Callable[[], dict[str, Any]]) -> None:
        """Save if it is time.

        Raises:
            Preempted: after saving, where a signal asked the job to end.
        """
        if self._asked_to_end or time.monotonic() - self._saved_at >= self._seconds:
            self._file.save(state())
            self._saved_at = time.monotonic()
        if self._asked_to_end:
            raise Preempted("asked to end: the state is saved, and the next run resumes from here")
