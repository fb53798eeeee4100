"""Errors that are messages to the user: what is wrong, where, and what to do."""

from __future__ import annotations

from collections.abc import Iterable


class KfoldError(Exception):
    """Something a user can put right; its text says how. Jobs print it without a traceback."""


class ConfigError(KfoldError):
    """The configuration or a recipe is wrong."""


class DataError(KfoldError):
    """The images, labels or tables are wrong."""


def listing(findings: Iterable[object], most: int = 20) -> str:
    """Findings on lines of their own, cut short where there are many."""
    lines = [f"  {finding}" for finding in findings]
    rest = len(lines) - most
    return "\n".join(lines[:most] + ([f"  ... and {rest} more"] if rest > 0 else []))
