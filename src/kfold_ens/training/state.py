"""Save a fold's resume state, and load it after an interruption."""

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
    """Folder of the newest state and the previous one, valid for one fingerprint only."""

    def __init__(self, folder: Path, fingerprint: str) -> None:
        self._newest, self._previous = folder / "state.pt", folder / "previous.pt"
        self._folder = folder
        self._fingerprint = fingerprint

    def load(self) -> dict[str, Any] | None:
        """Load the newest usable state; None if there is none. Logs why a state is not usable."""
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
        except Exception as error:  # a damaged pickle can raise anything
            log.warning("%s is damaged (%s); ignoring it", path, type(error).__name__)
            return None
        if owner != self._fingerprint:
            log.warning("%s belongs to another recipe, split, data or weights; ignoring it", path)
            return None
        return state

    def save(self, state: dict[str, Any]) -> None:
        """Write a new state atomically; the newest one becomes the previous one."""
        with atomic(self._newest) as temporary:
            torch.save({**state, "fingerprint": self._fingerprint}, temporary)
            if self._newest.is_file():
                self._newest.replace(self._previous)

    @property
    def size(self) -> int:
        """Bytes on disk, including a temporary file that a killed job left."""
        return sum(path.stat().st_size for path in self._folder.glob("*.pt*"))

    def remove(self) -> None:
        """Delete all states."""
        shutil.rmtree(self._folder, ignore_errors=True)


class Checkpoints:
    """Saves the state every few minutes, and after the current step if a signal stops the job."""

    def __init__(self, file: StateFile, minutes: float) -> None:
        self._file = file
        self._seconds = 60 * minutes
        self._saved_at = time.monotonic()
        self._stop_requested = False
        for name in ASKING_TO_END:
            if name != signal.SIGHUP or signal.getsignal(name) != signal.SIG_IGN:  # nohup: continue without a terminal
                signal.signal(name, self._request_stop)

    def _request_stop(self, number: int, frame: Any) -> None:
        self._stop_requested = True

    def after_step(self, state: Callable[[], dict[str, Any]]) -> None:
        """Save if it is time.

        Raises:
            Preempted: if a signal stopped the job; the state is saved.
        """
        if self._stop_requested or time.monotonic() - self._saved_at >= self._seconds:
            self._file.save(state())
            self._saved_at = time.monotonic()
        if self._stop_requested:
            raise Preempted("stopped by a signal: the state is saved, and the next run resumes from here")
