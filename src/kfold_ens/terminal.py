"""Keep a picture in place at the bottom of the terminal, and print all other output above it."""

from __future__ import annotations

import os
import select
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from contextlib import suppress

from rich.console import Console, ConsoleDimensions
from rich.control import Control
from rich.segment import ControlType
from rich.text import Text

from kfold_ens.jobs import HAS_PICTURE

EVERY = 1.0  # seconds between pictures
PAUSED = 3.0  # seconds between pictures after which the process must have been stopped, and the shell has written below
REDRAWN = 0.5  # seconds; each printed line moves the picture, but the files of folds need not be read again
SECONDS = 10  # to wait for the last output: a job that outlives Snakemake would keep the pipe open
# Jobs outlive a Snakemake that is killed. Without this process their pipe would break, and so would they.
RELAY = ["sh", "-c", "cat; cat >&2"]  # to Snakemake, then to the terminal
COLOURS = {
    r"^done .*": "green",
    r"^failed .*": "bold red",
    r"^next .*": "dim",
    r"━+": "green",
    r"epoch [\d./]+": "bold",
}


class Picture:
    """Draws lines every second, from ``draw(width)``, until ``end``, while this run is in the terminal's foreground.

    The terminal's file descriptors lead into a pipe meanwhile, for this process and its jobs. So nobody else writes to
    the terminal, and jobs see none, which silences their progress bars.
    """

    def __init__(self, draw: Callable[[int], list[str]], colours: bool = True) -> None:
        os.environ[HAS_PICTURE] = "yes"
        self._draw, self._last, self._drawn_at = draw, Text(), -REDRAWN
        self._height, self._printed_at, self._ends = 0, 0.0, False  # lines of the picture on the terminal
        self._terminals = {number: os.dup(number) for number in (1, 2) if os.isatty(number)}
        out = open(os.dup(max(self._terminals)), "w", encoding="utf-8", errors="replace")  # noqa: SIM115
        self._console = Console(file=out, highlight=False, no_color=True if not colours else None)
        self._printer = threading.Thread(target=self._print_from, args=(self._capture(),), daemon=True)

    def start(self) -> None:
        """Show the picture. If Ctrl-C interrupts this, ``end`` gives the terminal back."""
        self._printer.start()

    def end(self) -> None:
        """Print what is left, remove the picture, and give the terminal back."""
        os.environ.pop(HAS_PICTURE, None)
        self._ends = True
        _flush()
        for number, terminal in self._terminals.items():
            os.dup2(terminal, number)
            os.close(terminal)
        if self._printer.is_alive():
            self._printer.join(SECONDS)

    def is_in_front(self) -> bool:
        """Whether the terminal is this run's, and not that of a shell which runs it in the background."""
        try:
            return os.tcgetpgrp(self._console.file.fileno()) == os.getpgrp()
        except OSError:  # the terminal was closed, or is not this session's
            return False

    def _capture(self) -> subprocess.Popen[bytes]:
        _flush()
        relay = subprocess.Popen(
            RELAY,
            bufsize=0,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=self._console.file,
            start_new_session=True,  # Ctrl-C must not end it
        )
        assert relay.stdin
        for number in self._terminals:
            os.dup2(relay.stdin.fileno(), number)
        relay.stdin.close()
        return relay

    def _print_from(self, relay: subprocess.Popen[bytes]) -> None:
        """Print to the end of the output, even without a terminal: a full pipe would stop the jobs."""
        with relay:
            assert relay.stdout
            rest = b""
            self._print([])
            while (part := self._next(relay.stdout.fileno())) != b"":
                *lines, rest = (rest + (part or b"")).split(b"\n")
                self._print(lines)
            self._print([rest] if rest else [])

    def _next(self, pipe: int) -> bytes | None:
        """Return output; None if it is time for the next picture; nothing at the output's end."""
        return os.read(pipe, 65536) if select.select([pipe], [], [], EVERY)[0] else None

    def _print(self, lines: list[bytes]) -> None:
        """Print lines, and the picture below them."""
        with suppress(Exception), self._console:  # a picture must not end a run; the next one may succeed
            in_front = self.is_in_front()
            picture = self._picture() if in_front and not self._ends else None
            before, self._printed_at = self._printed_at, time.monotonic()
            if in_front and self._height and self._printed_at - before < PAUSED:
                self._console.control(
                    Control(*((ControlType.CURSOR_UP, 1), (ControlType.ERASE_IN_LINE, 2)) * self._height)
                )
            self._height = 0
            for line in lines:
                words = line.decode(errors="replace").rstrip("\r").rpartition("\r")[2]
                self._console.print(Text.from_ansi(words), soft_wrap=True)
            if picture is not None:
                self._console.print(picture)
                self._height = picture.plain.count("\n") + 1

    def _picture(self) -> Text:
        # rich would ask the descriptors 0 to 2 for the size, which may lead elsewhere
        columns, lines = os.get_terminal_size(self._console.file.fileno())
        self._console.size = ConsoleDimensions(columns or 80, lines or 24)  # 0 if the terminal does not know
        if time.monotonic() - self._drawn_at >= REDRAWN:
            self._drawn_at = time.monotonic()
            with suppress(Exception):
                self._last = self._drawn()
        return self._last

    def _drawn(self) -> Text:
        lines = self._draw(self._console.width)[: self._console.height - 1]  # the cursor is in the line below
        drawn = Text("\n".join(lines), no_wrap=True, overflow="ellipsis")
        for pattern, colour in COLOURS.items():
            drawn.highlight_regex(f"(?m){pattern}", colour)
        return drawn


def _flush() -> None:
    with suppress(OSError):
        sys.stdout.flush()
        sys.stderr.flush()
