"""Errors that are messages to the user: what is wrong, where, and what to do."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from contextlib import contextmanager


class KfoldError(Exception):
    """An error that the user can fix; its text says how. Jobs print it without a traceback."""


class ConfigError(KfoldError):
    """The configuration or a recipe is wrong."""


class DataError(KfoldError):
    """The images, labels or tables are wrong."""


class Together:
    """Collect errors of one class, to raise them together after all checks."""

    def __init__(self, kind: type[KfoldError]) -> None:
        self._kind = kind
        self._texts: list[str] = []

    @contextmanager
    def gather(self) -> Iterator[None]:
        """Collect an error of the block."""
        try:
            yield
        except self._kind as error:
            self._texts.append(str(error))

    def raise_all(self) -> None:
        """Raise one error with all collected texts, if there are any."""
        if self._texts:
            raise self._kind("\n".join(dict.fromkeys(self._texts)))


def listing(findings: Iterable[object], most: int = 20) -> str:
    """Put findings on separate lines, at most ``most`` of them."""
    lines = [f"  {finding}" for finding in findings]
    rest = len(lines) - most
    return "\n".join(lines[:most] + ([f"  ... and {rest} more"] if rest > 0 else []))


def counted(number: int, noun: str, several: str = "", form: str = "d") -> str:
    """Return a number and its noun: 1 file, 2 files. ``several`` is an irregular plural; ``form`` formats numbers."""
    return f"{number:{form}} {noun if number == 1 else several or noun + 's'}"
