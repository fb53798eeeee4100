"""Atomic writing of files, and hashes of their contents."""

from __future__ import annotations

import csv
import glob
import hashlib
import json
import os
import shutil
import tempfile
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

from kfold_ens.errors import DataError, KfoldError

if TYPE_CHECKING:  # Snakemake imports this module with the Snakefile, which needs no pandas
    import pandas as pd


@contextmanager
def atomic(path: str | Path) -> Iterator[Path]:
    """Yield a temporary path beside ``path``; rename it to ``path`` at the end, or delete it after an error.

    Snakemake lets only one process write a file at a time, so existing temporary files are left by killed processes.
    They are deleted.
    """
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    for left in path.parent.glob(f".{glob.escape(path.name)}.*.tmp"):
        left.unlink(missing_ok=True)
    handle, name = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.", suffix=".tmp")
    os.close(handle)
    temporary = Path(name)
    try:
        yield temporary
        sync(temporary)
        temporary.chmod(0o666 & ~umask())
        temporary.replace(path)
        sync(path.parent)
    finally:
        temporary.unlink(missing_ok=True)


def link(source: str | Path, target: str | Path) -> None:
    """Give a file a second name: by a hard link, or by a copy if linking fails or another user owns the file."""
    with atomic(target) as temporary:
        temporary.unlink()
        if not _try_to_link(source, temporary):
            shutil.copyfile(source, temporary)


def _try_to_link(source: str | Path, target: Path) -> bool:
    """Hard-link a file that this user owns and touch it, since Snakemake needs outputs newer than inputs."""
    try:
        if os.stat(source).st_uid != os.geteuid():
            return False
        os.link(source, target)
        os.utime(target)
        return True
    except OSError:
        target.unlink(missing_ok=True)
        return False


def sync(path: Path) -> None:
    """Flush a file, or the entries of a folder, to the disk."""
    handle = os.open(path, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


def umask() -> int:
    """Return the mask of permissions that new files do not get."""
    mask = os.umask(0)
    os.umask(mask)
    return mask


def require_space(folder: Path, needed: int, doing: str) -> None:
    """Check that a folder's disk has ``needed`` bytes free.

    Raises:
        KfoldError: if it has less; it names the folder, the space needed and the free space.
    """
    folder.mkdir(parents=True, exist_ok=True)
    free = shutil.disk_usage(folder).free
    if free < needed:
        raise KfoldError(
            f"{doing} needs {needed / 1e9:.2f} GB below {folder.absolute()}, but only {free / 1e9:.2f} GB are free; "
            "free disk space, or move the project to a larger disk"
        )


def sha256_of(path: str | Path) -> str:
    """Return the hexadecimal SHA-256 of a file's bytes."""
    with open(path, "rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def touch(files: Iterable[str | Path]) -> None:
    """Create empty files where there are none."""
    for file in files:
        Path(file).touch()


def hashes_of_tables(files: Iterable[str | Path]) -> dict[str, str]:
    """Return a hash of each table by its name, wherever it and the images that it names lie."""
    tables = {Path(file).name: read_table(file).drop(columns="path", errors="ignore") for file in files}
    return {name: hashlib.sha256(table.to_csv(index=False).encode()).hexdigest() for name, table in tables.items()}


def canonical(value: Any) -> str:
    """Serialise a value as JSON with sorted keys, so that equal values give equal text."""
    return json.dumps(value, sort_keys=True, separators=(",", ":"), ensure_ascii=False)


def fingerprint(value: Any) -> str:
    """Return the hexadecimal SHA-256 of a JSON-like value."""
    return hashlib.sha256(canonical(value).encode()).hexdigest()


def write_json(path: str | Path, value: Any) -> None:
    """Write a JSON-like value, indented for people."""
    with atomic(path) as temporary:
        temporary.write_text(json.dumps(value, indent=2, ensure_ascii=False) + "\n", encoding="utf-8")


def read_json(path: str | Path) -> Any:
    """Read a JSON file."""
    return json.loads(Path(path).read_text(encoding="utf-8"))


def write_table(path: str | Path, table: pd.DataFrame) -> None:
    """Write a table as CSV, without its index. ``read_table`` returns the same strings."""
    with atomic(path) as temporary, open(temporary, "w", encoding="utf-8", newline="") as file:
        table.to_csv(file, index=False, lineterminator="\n", quoting=_quoting(table))


def _quoting(table: pd.DataFrame) -> int:
    """Quote cells only if needed; quote all text if a carriage return or a blank line would be lost otherwise."""
    texts = [table.columns, *(column for _, column in table.select_dtypes(exclude="number").items())]
    lost = any("\r" in cell or cell.isspace() for text in texts for cell in map(str, text))
    return csv.QUOTE_NONNUMERIC if lost else csv.QUOTE_MINIMAL


def read_table(path: str | Path) -> pd.DataFrame:
    """Read a CSV with all cells as text: "007", "NA" and "1e3" stay unchanged.

    Raises:
        DataError: if the file cannot be read as such a table.
    """
    import pandas as pd

    try:
        table = pd.read_csv(path, dtype=str, keep_default_na=False, encoding="utf-8-sig")
    except (OSError, ValueError) as error:  # pandas' parser errors are ValueErrors
        raise DataError(f"{path} cannot be read as a CSV table: {error}") from None
    if not isinstance(table.index, pd.RangeIndex):  # pandas has taken the first cells for row names
        raise DataError(f"{path} cannot be read as a CSV table: its rows have more cells than its header")
    return table
