"""kfold-predict, in its own process, on ten thousand files, some of them damaged."""

import csv
import io
import os
import struct
import sys
import zlib
from collections import Counter
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
from bundles import CLASSES, NORMALIZED, about_of, tiny_models
from PIL import Image

from kfold_ens.bundle.ensemble_file import write_ensemble

BATCH = 128
STORED = NORMALIZED | {"short_side": 96}  # 27 KB an image: 240 MB, if 9,000 of them were kept
MOST_MORE_MIB = 120  # two runs of the same files differ by half of that


def content(number, form="PNG"):
    """An image of 96 x 96 pixels, as bytes."""
    shade = number % 200 + np.random.default_rng(number).integers(0, 30, (96, 96, 3))
    file = io.BytesIO()
    Image.fromarray(shade.astype(np.uint8)).save(file, form)
    return file.getvalue()


def flipped(image, at):
    """The same bytes with 20 of them changed."""
    return image[:at] + bytes(byte ^ 0xA5 for byte in image[at : at + 20]) + image[at + 20 :]


def too_large(image):
    """An intact PNG whose header declares 3.6 billion pixels."""
    header = b"IHDR" + struct.pack(">II", 60_000, 60_000) + image[24:29]
    return image[:12] + header + struct.pack(">I", zlib.crc32(header)) + image[33:]


PNG, JPEG = content(1), content(2, "JPEG")
DAMAGES = [  # content, and what is said of it
    (PNG[: len(PNG) // 2], "broken: "),
    (JPEG[: len(JPEG) // 2], "broken: "),
    (b"", "the file is empty"),
    (b"Not found\n", "not an image of a known format"),
    (flipped(PNG, 60), "broken: "),
    (flipped(JPEG, 2), "not an image of a known format"),
    (flipped(PNG, 0), "not an image of a known format"),
    (too_large(PNG), "more than 100,000,000 pixels"),
    (b"version https://git-lfs.github.com/spec/v1\noid sha256:0\n", "a Git LFS pointer"),
    (None, "a link to "),
]


def make(folder, count):
    """Write files and damage one in a hundred, each in another way; return the reasons by name."""
    sources = {suffix: [folder / f"{number}{suffix}" for number in range(100)] for suffix in (".png", ".jpg")}
    for suffix, paths in sources.items():
        for number, path in enumerate(paths):
            path.write_bytes(content(number, "PNG" if suffix == ".png" or number % 2 else "JPEG"))
    reasons = {}
    for number in range(count):
        path = folder / f"images/{number % 7}/{number * 7919 % count}{'.jpg' if number % 3 else '.png'}"
        path.parent.mkdir(parents=True, exist_ok=True)
        if number % 100 == 50:
            reasons[str(path)] = damage(path, *DAMAGES[number // 100 % len(DAMAGES)])
        else:
            os.link(sources[path.suffix][number % 100], path)
    return reasons


def damage(path, content, reason):
    path.symlink_to("/nowhere/image.png") if content is None else path.write_bytes(content)
    return reason


def predicted(folder):
    """Run the command; return its exit code, output, rows and peak memory in MiB."""
    command = [sys.executable, "-m", "kfold_ens.bundle.command", "ensemble", folder / "images", "--out", "out.csv"]
    log = os.open(folder / "log", os.O_WRONLY | os.O_CREAT)
    streams = [(os.POSIX_SPAWN_DUP2, log, stream) for stream in (1, 2)]
    options = ["--device", "cpu", "--batch-size", str(BATCH), "--threads", "2"]
    child = os.posix_spawn(sys.executable, [*command, *options], os.environ, file_actions=streams)
    _, status, usage = os.wait4(child, 0)
    os.close(log)
    with open("out.csv", encoding="utf-8", newline="") as file:
        rows = list(csv.DictReader(file))
    Path("out.csv").unlink()
    code, told = os.waitstatus_to_exitcode(status), (folder / "log").read_text()
    return SimpleNamespace(code=code, told=told, rows=rows, mib=usage.ru_maxrss / 1024)


@pytest.mark.slow
def test_100_damaged_files_of_10_000_are_listed_and_memory_stays_flat(in_folder):
    models = tiny_models(3, image=STORED)
    write_ensemble("ensemble", about_of(models), models)
    few, many = in_folder / "few", in_folder / "many"
    few.mkdir(), many.mkdir()
    make(few, 1000)
    reasons = make(many, 10_000)
    small, large = predicted(few), predicted(many)
    assert (small.code, large.code, len(small.rows), len(large.rows)) == (3, 3, 990, 9900)
    files = [path.relative_to(many / "images").as_posix() for path in (many / "images").rglob("*.*")]
    listed = [str(many / "images" / name) for name in sorted(files)]
    assert [row["image"] for row in large.rows] == [name for name in listed if name not in reasons]
    assert {row["label"] for row in large.rows} <= set(CLASSES)
    _, _, named = large.told.partition("100 files cannot be read and have no prediction:\n")
    lines = dict(line.strip().split(": ", 1) for line in named.splitlines())
    assert list(lines) == [name for name in listed if name in reasons]
    assert [name for name, reason in reasons.items() if not lines[name].startswith(reason)] == []
    assert Counter(reasons.values()).total() == 100
    assert large.mib < small.mib + MOST_MORE_MIB
