"""Imports run one way, and what must start quickly never imports torch."""

from __future__ import annotations

import ast
import re
import subprocess
import sys

import pytest
from conftest import REPOSITORY

PACKAGE = REPOSITORY / "src" / "kfold_ens"
SINGLE_FILES = {path.stem for path in PACKAGE.glob("*.py")} - {"__init__"}
MAY_IMPORT = {
    "data": SINGLE_FILES,
    "network": SINGLE_FILES,
    "training": SINGLE_FILES | {"data", "network"},
    "prediction": SINGLE_FILES | {"data", "network", "training"},
    "ensemble": SINGLE_FILES,
    "report": SINGLE_FILES | {"data"},
}
WITHOUT_TORCH = [
    "config",
    "files",
    "exchange",
    "errors",
    "naming",
    "randomness",
    "jobs",
    "machine",
    "data",
    "ensemble",
    "report",
    "training.kept",  # a fold that was trained before is found without it
]


def rooms_imported(folder: str) -> set[str]:
    rooms = set()
    for path in (PACKAGE / folder).rglob("*.py"):
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if isinstance(node, ast.ImportFrom) and (node.module or "").split(".")[0] == "kfold_ens":
                parts = node.module.split(".")[1:]
                rooms |= {parts[0]} if parts else {alias.name for alias in node.names}
            elif isinstance(node, ast.Import):
                names = [alias.name.split(".") for alias in node.names]
                rooms |= {name[1] for name in names if name[0] == "kfold_ens" and len(name) > 1}
    return rooms - {folder}


def test_every_room_is_known():
    folders = {path.parent.name for path in PACKAGE.glob("*/__init__.py")}
    assert folders == set(MAY_IMPORT)


@pytest.mark.parametrize("folder", MAY_IMPORT)
def test_imports_run_one_way(folder):
    assert rooms_imported(folder) <= MAY_IMPORT[folder]


@pytest.mark.parametrize("file", sorted(SINGLE_FILES))
def test_single_files_import_no_room(file):
    assert not re.search(rf"from kfold_ens\.({'|'.join(MAY_IMPORT)})\b", (PACKAGE / f"{file}.py").read_text())


@pytest.mark.parametrize("room", WITHOUT_TORCH)
def test_no_torch(room):
    code = (
        "import importlib, pkgutil, sys\n"
        f"package = importlib.import_module('kfold_ens.{room}')\n"
        "for module in pkgutil.iter_modules(getattr(package, '__path__', [])):\n"
        "    importlib.import_module(f'{package.__name__}.{module.name}')\n"
        "sys.exit('torch' in sys.modules)"
    )
    assert subprocess.run([sys.executable, "-c", code]).returncode == 0


def test_scripts_hold_no_logic():
    for path in sorted((REPOSITORY / "workflow" / "scripts").glob("*.py")):
        tree = ast.parse(path.read_text())
        assert not [node for node in ast.walk(tree) if isinstance(node, ast.FunctionDef | ast.For | ast.While)], path
