"""Two thousand mutated tables: each is read as a table of text, or refused in one message that names key and file."""

from __future__ import annotations

import codecs
import csv
import io
from collections import Counter
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from kfold_ens.config import HALVES, Submission, load_config
from kfold_ens.data.sources import list_images
from kfold_ens.ensemble.forms import resolved
from kfold_ens.errors import DataError
from kfold_ens.user_tables import read_user_table

COLUMNS = {"data.id_column": "id", "data.label_column": "label"}
CELLS = [
    "a.png",
    "b",
    "sub/c",
    "7",
    "007",
    "1e3",
    "NA",
    "",
    " a ",
    "é",
    "猫",
    "x,y",
    "x;y",
    "x\ty",
    'say "so"',
    "two\nlines",
]
STRAY = [
    b"\0",
    b'"',
    b"\n\n",
    b"\r",
    b",",
    b";",
    b"\t",
    b"|",
    b"\xe9",
    b"\xff\xfe",
    codecs.BOM_UTF8,
    b"sep=;\n",
    b"../",
    b"/",
    b"\xed\xa0\x80",
    b"\x1a",
    "\u2028".encode(),
]
ENCODINGS = ["utf-8", "utf-8", "utf-8", "utf-8-sig", "utf-16", "utf-16-le", "utf-32", "cp1252", "cp1250", "gb18030"]


def written(random: np.random.Generator) -> bytes:
    """A table by one of many programs, right or nearly so."""
    header = list(random.choice(["id", "label", "ID", " id", "x", ""], size=int(random.integers(1, 4))))
    header = ["id", "label", *header[1:]] if random.random() < 0.8 else header
    rows = [random.choice(CELLS, size=len(header)).tolist() for _ in range(random.integers(0, 6))]
    form = {
        "delimiter": random.choice([",", ";", "\t", "|", " "]),
        "quoting": int(random.choice([csv.QUOTE_MINIMAL, csv.QUOTE_ALL])),
        "lineterminator": random.choice(["\n", "\r\n", "\r"]),
    }
    file = io.StringIO(newline="")
    csv.writer(file, **form).writerows([header, *rows])
    return file.getvalue().encode(random.choice(ENCODINGS), "replace")


def mutated(content: bytes, random: np.random.Generator) -> bytes:
    """None to two changes."""
    changed = bytearray(content)
    for _ in range(random.integers(0, 3)):
        start, length = int(random.integers(0, len(changed) + 1)), int(random.integers(1, 9))
        match random.integers(6):
            case 0:
                changed[start : start + length] = random.bytes(length)
            case 1:
                del changed[start : start + length]
            case 2:
                changed[start:start] = changed[start : start + 4 * length]
            case 3:
                changed[start:start] = STRAY[random.integers(len(STRAY))]
            case 4:  # every separator of a part
                changed[start:] = changed[start:].replace(b",", b";")
            case 5:
                changed[:0] = STRAY[random.integers(len(STRAY))]
    return bytes(changed)


def refusal(read: Callable, *arguments: object) -> str:
    """What a user is told; nothing if all is right."""
    try:
        read(*arguments)
    except DataError as error:
        return str(error)
    return ""


def outcome(path: Path) -> str:
    """What the reader, and those who read by it, make of a table."""
    data = load_config({"data": {"source": "csv", "train": str(path), "test": str(path), "images": "images"}}).data
    for half in HALVES:
        words = refusal(list_images, data, half, 0, path.parent)
        assert words.startswith(f"data.{half}: {path}") or not words
    test = pd.DataFrame({"image_id": ["test/a.png"], "name": ["a.png"]})
    for columns in ({}, {"id_column": "id", "label_column": "label"}):
        words = refusal(resolved, Submission(sample=str(path), **columns), "path", test, ("cat", "dog"))
        assert words.startswith("submission.") or not words
    if words := refusal(read_user_table, path, COLUMNS, "data.train"):
        assert words.startswith(f"data.train: {path}")
        return "refused"
    table = read_user_table(path, COLUMNS, "data.train")
    assert len(table)
    assert all(table.columns.tolist().count(name) == 1 for name in COLUMNS.values())
    assert all(isinstance(cell, str) and "\0" not in cell for row in table.to_numpy().tolist() for cell in row)
    return "read"


@pytest.mark.parametrize("mutants", [200, pytest.param(2000, marks=pytest.mark.slow)])
def test_a_mutated_table_is_read_or_refused(in_folder, mutants):
    for name in ("a.png", "b.png", "b.jpg", "sub/c.png", "7.png", "1000.png"):
        (in_folder / "images" / name).parent.mkdir(parents=True, exist_ok=True)
        (in_folder / "images" / name).touch()
    random, outcomes = np.random.default_rng(0), Counter()
    for _ in range(mutants):
        Path("table.csv").write_bytes(mutated(written(random), random))
        outcomes[outcome(Path("table.csv"))] += 1
    assert min(outcomes["read"], outcomes["refused"]) > mutants / 20, outcomes
