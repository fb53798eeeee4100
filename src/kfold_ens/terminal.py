"""Keep a picture in place at the bottom of the terminal, and print all other output above it."""

from __future__ import annotations

import os
import sys
import threading
import time
from collections.abc import Callable
from contextlib import suppress

from rich.console import Console, ConsoleDimensions
from rich.live import Live
from rich.text import Text

from kfold_ens.jobs import HAS_PICTURE

MARGIN = 4  # columns for the ^C that terminals print
REDRAWN = 0.5  # seconds; each printed line moves the picture, but the files of folds need not be read again
SECONDS = 10  # to wait for the last output: a job that outlives Snakemake would keep the pipe open
COLOURS = {
    r"^done .*": "green",
    r"^failed .*": "bold red",
    r"^next .*": "dim",
    r"━+": "green",
    r"epoch [\d./]+": "bold",
}


class Picture:
    """Draws lines every second, from ``draw(width)``, until ``end``.

    The terminal's file descriptors lead into a pipe meanwhile, for this process and its jobs. So nobody else writes to
    the terminal, and jobs see none, which silences their progress bars.
    """

    def __init__(self, draw: Callable[[int], list[str]], colours: bool = True) -> None:
        os.environ[HAS_PICTURE] = "yes"
        self._draw, self._last, self._drawn_at = draw, Text(), -REDRAWN
        self._terminals = {number: os.dup(number) for number in (1, 2) if os.isatty(number)}
        out = open(os.dup(max(self._terminals)), "w", encoding="utf-8", errors="replace")  # noqa: SIM115
        self._console = Console(file=out, highlight=False, no_color=True if not colours else None)
        self._live = Live(
            get_renderable=self._text,
            console=self._console,
            transient=True,
            refresh_per_second=1,
            redirect_stdout=False,
            redirect_stderr=False,
        )
        self._reader = threading.Thread(target=self._print, args=(self._capture(),), daemon=True)

    def start(self) -> None:
        """Show the picture. If Ctrl-C interrupts this, ``end`` gives the terminal back."""
        self._reader.start()
        self._live.start(refresh=True)

    def end(self) -> None:
        """Print what is left, remove the picture, and give the terminal back."""
        os.environ.pop(HAS_PICTURE, None)
        _flush()
        for number, terminal in self._terminals.items():
            os.dup2(terminal, number)
            os.close(terminal)
        if self._reader.is_alive():
            self._reader.join(SECONDS)
        with suppress(OSError):  # the terminal was closed
            self._live.stop()

    def _capture(self) -> int:
        _flush()
        read, write = os.pipe()
        for number in self._terminals:
            os.dup2(write, number)
        os.close(write)
        return read

    def _print(self, pipe: int) -> None:
        with open(pipe, encoding="utf-8", errors="replace", newline="\n") as output:
            for line in output:  # to the end, even without a terminal: a full pipe would stop the jobs
                words = line.rstrip("\r\n").rpartition("\r")[2]
                with suppress(Exception):
                    self._console.print(Text.from_ansi(words), soft_wrap=True)

    def _text(self) -> Text:
        if time.monotonic() - self._drawn_at < REDRAWN:
            return self._last
        self._drawn_at = time.monotonic()
        with suppress(Exception):  # a picture must not end a run; the next one may succeed
            # rich would ask the descriptors 0 to 2 for the size, which may lead elsewhere
            self._console.size = ConsoleDimensions(*os.get_terminal_size(self._console.file.fileno()))
            drawn = Text("\n".join(self._draw(self._console.width - MARGIN)), no_wrap=True, overflow="ellipsis")
            for pattern, colour in COLOURS.items():
                drawn.highlight_regex(f"(?m){pattern}", colour)
            self._last = drawn
        return self._last


def _flush() -> None:
    with suppress(OSError):
        sys.stdout.flush()
        sys.stderr.flush()
