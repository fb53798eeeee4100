"""A CSV that is written in parts under a temporary name, and that an interrupted run can resume. Imports no torch."""

from __future__ import annotations

import csv
import fcntl
import io
import os
from collections.abc import Iterable, Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from kfold_ens.bundle.output import refuse_existing, refuse_place
from kfold_ens.data.folders import file_size
from kfold_ens.errors import KfoldError
from kfold_ens.files import read_json, sync, write_json


@dataclass(frozen=True)
class Done:
    """The number of finished images, the bytes of their rows, and the images among them without a prediction.

    ``failed`` holds pairs of name and reason; the reason is empty if the rows do not hold it.
    """

    images: int = 0
    size: int = 0
    failed: tuple[tuple[str, str], ...] = ()


class PartialCsv:
    """``predictions.csv.partial``, and a JSON file beside it that identifies its run."""

    def __init__(self, out: Path) -> None:
        self._out = out
        self._partial = Path(f"{out}.partial")
        self._about = Path(f"{out}.partial.json")

    def refuse_what_is_there(self, resume: bool, force: bool) -> None:
        """Refuse to replace a finished or interrupted file without ``--resume`` or ``--force``.

        Raises:
            KfoldError: if there is such a file, or ``--out`` cannot be written.
        """
        refuse_place(self._out)
        refuse_existing(self._out, force)
        if self._partial.exists() and not (resume or force):
            raise KfoldError(
                f"{self._partial} belongs to an interrupted prediction; --resume continues it, --force starts over"
            )

    def begin(
        self, identity: dict[str, Any], header: list[str], names: Sequence[str], batch_size: int, resume: bool
    ) -> Done:
        """Open the file and write its header. With ``resume``, keep all batches but the last, which may be incomplete.

        Raises:
            KfoldError: if another process writes it, or it belongs to another ensemble, options or images.
        """
        done = Done()
        if resume and file_size(self._partial) > 0:
            self._refuse_another(identity)
            done = done_so_far(self._partial, header, names, batch_size)
        self._open()
        self._file.truncate(done.size)  # before the JSON file: it must never describe the rows of another run
        write_json(self._about, identity)
        if not done.size:
            self.append([header])
        return done

    def _refuse_another(self, identity: dict[str, Any]) -> None:
        try:
            then = read_json(self._about)
            differing = sorted(key for key in {*then, *identity} if then.get(key) != identity.get(key))
        except (OSError, ValueError, TypeError, AttributeError):
            raise KfoldError(
                f"{self._about} is missing or damaged, so --resume cannot identify the run of {self._partial}; "
                "use --force without --resume to start over"
            ) from None
        if differing:
            raise KfoldError(
                f"{self._partial} was started with another {', '.join(differing)}; use the same, or start over with "
                "--force and without --resume"
            )

    def _open(self) -> None:
        self._out.parent.mkdir(parents=True, exist_ok=True)
        self._file = open(self._partial, "ab")  # noqa: SIM115 (closed by finish)
        try:
            fcntl.flock(self._file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise KfoldError(f"another process is writing {self._partial}") from None
        if not self._is_in_place():
            raise KfoldError(f"another process has just written {self._out}; --force replaces it")

    def _is_in_place(self) -> bool:
        """Whether the opened file still has its name: another process may finish it between opening and locking."""
        try:
            return os.path.samestat(os.fstat(self._file.fileno()), self._partial.stat())
        except FileNotFoundError:
            return False

    def append(self, rows: Iterable[Sequence[str]]) -> None:
        """Write rows and flush them, so that they survive if the process is killed."""
        text = io.StringIO()
        csv.writer(text, lineterminator="\n").writerows(rows)
        self._file.write(text.getvalue().encode())
        self._file.flush()

    def finish(self) -> None:
        """Rename the file to its final name. The lock is held until then."""
        sync(self._partial)
        self._partial.replace(self._out)
        sync(self._out.parent)
        self._about.unlink(missing_ok=True)
        self._file.close()


def done_so_far(partial: Path, header: list[str], names: Sequence[str], batch_size: int) -> Done:
    """Find the finished part of an interrupted file: all batches before the last one that has rows."""
    rows, places, reasons = whole_rows(partial), iter(enumerate(names)), {}
    _, size, first = next(rows, (0, 0, None))
    if first != header:
        return Done()
    images = 0
    for start, _, row in rows:
        place = next((place for place, name in places if name == row[0]), None) if len(row) == len(header) else None
        if place is None:
            break
        reasons[place] = (row[-1] if header[-1] == "error" else "") or None
        if place - place % batch_size > images:
            images, size = place - place % batch_size, start
    failed = ((names[place], reasons.get(place, "")) for place in range(images))
    return Done(images, size, tuple((name, reason) for name, reason in failed if reason is not None))


def whole_rows(path: Path) -> Iterator[tuple[int, int, list[str]]]:
    """Yield the rows of a CSV up to the first incomplete one: the bytes where each starts and ends, and its cells."""
    end = 0

    def lines() -> Iterator[str]:
        nonlocal end
        with open(path, "rb") as file:
            for line in file:
                if not line.endswith(b"\n"):
                    return
                end += len(line)
                yield line.decode()

    with suppress(csv.Error, UnicodeDecodeError):  # a power cut may leave bytes that are not text
        start = 0
        for row in csv.reader(lines(), strict=True):
            yield start, end, row
            start = end
