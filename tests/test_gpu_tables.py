"""GPU tables of the documentation show the records of benchmarks/gpu.py, and nothing else."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from conftest import REPOSITORY

sys.path.append(str(REPOSITORY / "benchmarks"))

import tables  # noqa: E402

HEAD = {"call": 1, "tiny": False, "date": "2026-12-01T10:00", "device": "NVIDIA H100 80GB HBM3", "seconds": 41.0}
STEPS = {
    "images/s": {"B0": [400.0, 390.0, 410.0], "B1": [800.0], "B2": [1000.0], "ours": [1200.0]},
    "first step, s": {"B0": 3.0, "B1": 2.0, "B2": 2.0, "ours": 2.5},
    "peak memory, GiB": {"B0": 20.0, "B1": 13.0, "B2": 12.0, "ours": 12.0},
}


def plant(folder: Path, part: str, result: dict, **changes) -> None:
    record = HEAD | {"part": part, "command": f"python benchmarks/gpu.py {HEAD['call']}", "result": result} | changes
    folder.mkdir(exist_ok=True)
    (folder / f"{part}.json").write_text(json.dumps(record))


@pytest.fixture
def pages(tmp_path):
    for name in tables.FILES:
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(REPOSITORY / name, tmp_path / name)
    return tmp_path


def fill(pages: Path) -> dict[str, str]:
    command = [sys.executable, str(REPOSITORY / "benchmarks/tables.py"), "--records", "records", "--root", "."]
    subprocess.run(command, cwd=pages, check=True)
    return {name: (pages / name).read_text() for name in tables.FILES}


@pytest.mark.parametrize("name", tables.FILES)
def test_a_page_shows_its_records(name):
    text = (REPOSITORY / name).read_text(encoding="utf-8")
    assert tables.TABLE.search(text)
    assert tables.filled(text, tables.read_records(tables.RECORDS)) == text


def test_every_table_is_in_a_page():
    texts = [(REPOSITORY / name).read_text(encoding="utf-8") for name in tables.FILES]
    assert {found[2] for text in texts for found in tables.TABLE.finditer(text)} == tables.TABLES.keys()


def test_filling_the_tables_twice_changes_nothing(pages):
    plant(pages / "records", "steps", STEPS)
    assert fill(pages) == fill(pages)


def test_a_record_fills_its_cells_and_names_date_card_and_command(pages):
    before = {name: (pages / name).read_text() for name in tables.FILES}
    plant(pages / "records", "steps", STEPS)
    said = "2026-12-01, NVIDIA H100 80GB HBM3, `python benchmarks/gpu.py 1`"
    after = fill(pages)
    lines = after["benchmarks/README.md"].splitlines()
    assert f"| speed of ours relative to B0 | 5 | 3.00 | | {said} |" in lines
    assert f"| peak memory | no more than B2 | 12.0 GiB; B2 12.0 GiB | | {said} |" in lines
    assert f"| steps: B0 | 400 | 390 to 410 | 1.00 | 3.0 | 20.0 | {said} |" in lines
    changed = set(lines) - set(before["benchmarks/README.md"].splitlines())
    assert len(changed) == 9  # four aims, four arms, and the seconds of the part
    assert all(after[name] == before[name] for name in tables.FILES[1:])


def test_without_records_all_measured_cells_are_empty(tmp_path):
    for name, make in tables.TABLES.items():
        fixed = {"aims": 2, "reckoning": 4, "kernels": 1}.get(name, 1)  # columns that are not measured
        for line in make(tables.read_records(tmp_path)).splitlines()[2:]:
            cells = [cell.strip() for cell in line.strip("|").split("|")]
            assert not any(cells[fixed:]), (name, line)


def test_a_rehearsal_fills_nothing(tmp_path):
    plant(tmp_path, "steps", STEPS, tiny=True)
    assert not tables.read_records(tmp_path)


def test_results_of_two_cards_are_not_compared(tmp_path):
    plant(tmp_path, "steps", STEPS)
    plant(tmp_path, "compiled", {"images/s": {"ours, compiled": [2000.0]}}, device="NVIDIA H200")
    records = tables.read_records(tmp_path)
    assert tables.cell(records, tables.times("ours, compiled", "B0"), "steps", "compiled") == ""
