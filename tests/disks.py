"""A small disk that is really full: Linux lets a process mount one that it alone sees."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

ON_A_DISK = 'mount -t tmpfs -o size="$2" none "$1" || exit 77; cd "$1" && exec "$3" -c "$4"'


def run_on_a_disk(folder: Path, size: str, code: str, **environment: str) -> subprocess.CompletedProcess[str]:
    """Run some Python in a folder that is a disk of this size (tmpfs: 16k, 4m); its files are gone at the end."""
    if not shutil.which("unshare"):
        pytest.skip("needs Linux, to mount a small disk")
    folder.mkdir(exist_ok=True)
    command = ["unshare", "-rm", "sh", "-c", ON_A_DISK, "sh", str(folder), size, sys.executable, code]
    done = subprocess.run(command, capture_output=True, text=True, env=os.environ | environment)
    if done.returncode == 77 or done.stderr.startswith("unshare"):
        pytest.skip(f"cannot mount a small disk: {done.stderr}")
    return done
