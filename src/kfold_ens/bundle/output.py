"""Check whether the file of ``--out`` can be written. Imports no torch."""

from __future__ import annotations

import os
from pathlib import Path

from kfold_ens.errors import KfoldError


def refuse_place(out: Path) -> None:
    """Refuse a folder, a device, or a file whose folder cannot be created or written.

    Raises:
        KfoldError: if ``out`` is such a path.
    """
    if out.is_dir():
        raise KfoldError(f"--out {out} is a folder; name a file in it")
    if out.exists() and not out.is_file():
        raise KfoldError(f"--out {out} is a device or a pipe; name a file")
    there = next(folder for folder in out.absolute().parents if folder.exists())
    if not there.is_dir():
        raise KfoldError(f"--out {out}: {there} is a file, not a folder")
    if not os.access(there, os.W_OK | os.X_OK):
        raise KfoldError(f"--out {out}: the folder {there} cannot be written to: permission denied")


def refuse_existing(out: Path, force: bool) -> None:
    """Refuse to replace a file without ``--force``.

    Raises:
        KfoldError: if the file exists.
    """
    if out.exists() and not force:
        raise KfoldError(f"--out {out} exists; --force replaces it")
