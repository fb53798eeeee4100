"""Measure the peak memory of kfold-predict by number of files, one process per number.

The files are hard links to 200 small JPEGs; one in a hundred is truncated. The networks are small, with random weights.

    python benchmarks/predict_memory.py --files 1000 10000 100000
"""

from __future__ import annotations

import argparse
import json
import os
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

from predict_folder import write_models, write_photos

KINDS, DAMAGED_EVERY = 200, 100


def link_files(folder: Path, photos: list[str], cut: str, count: int) -> None:
    """Make ``count`` hard links to a few files, a thousand per folder."""
    for number in range(count):
        place = folder / f"{number // 1000:03d}"
        place.mkdir(parents=True, exist_ok=True)
        source = cut if number % DAMAGED_EVERY == DAMAGED_EVERY - 1 else photos[number % len(photos)]
        os.link(source, place / f"photograph_{number:07d}.jpg")


def measured(ensemble: Path, folder: Path, out: Path) -> dict[str, Any]:
    """Predict a folder in one process, and return its exit code, peak memory in MiB, seconds and rows written."""
    command = [sys.executable, "-m", "kfold_ens.bundle.command", ensemble, folder, "--out", out, "--device", "cpu"]
    began = time.perf_counter()
    with open(out.with_suffix(".log"), "wb") as log:
        streams = [(os.POSIX_SPAWN_DUP2, log.fileno(), stream) for stream in (1, 2)]
        child = os.posix_spawn(sys.executable, command, os.environ, file_actions=streams)
        _, status, usage = os.wait4(child, 0)
    return {
        "exit code": os.waitstatus_to_exitcode(status),
        "peak MiB": round(usage.ru_maxrss / 1024, 1),  # Linux gives KiB
        "seconds": round(time.perf_counter() - began, 1),
        "rows": sum(1 for _ in open(out, "rb")) - 1 if out.exists() else None,
    }


def main() -> None:
    """Print one record per number of files."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--files", type=int, nargs="+", default=[1000, 10_000, 100_000])
    for name, default in {"models": 3, "size": 16, "batch": 64}.items():
        parser.add_argument(f"--{name}", type=int, default=default)
    parser.add_argument("--backbone", default="resnet18")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as scratch:
        folder = Path(scratch)
        photos = write_photos(folder, KINDS, 64)
        cut = folder / "cut.jpg"
        cut.write_bytes(Path(photos[0]).read_bytes()[:600])
        write_models(folder / "e", options.models, options.backbone, options.size, options.batch)
        for count in options.files:
            link_files(folder / str(count), photos, str(cut), count)
            record = measured(folder / "e", folder / str(count), folder / f"{count}.csv")
            print(json.dumps({"files": count} | record), flush=True)


if __name__ == "__main__":
    main()
