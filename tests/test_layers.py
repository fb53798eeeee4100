"""Imports run one way, files stay small, and what must start quickly never imports torch."""

from __future__ import annotations

import ast
import subprocess
import sys
from collections.abc import Iterator
from graphlib import CycleError, TopologicalSorter
from pathlib import Path

import pytest
from conftest import REPOSITORY

SOURCE = REPOSITORY / "src"
PACKAGE = SOURCE / "kfold_ens"
FILES = sorted(path for path in PACKAGE.rglob("*.py") if path.name != "__init__.py")
SINGLE_FILES = {path.stem for path in PACKAGE.glob("*.py")} - {"__init__"}
MAY_IMPORT = {
    "data": set(),
    "network": set(),
    "ensemble": set(),
    "splits": {"data"},
    "loading": {"data"},
    "compute": {"loading", "network"},
    "training": {"data", "network", "loading", "compute"},
    "prediction": {"data", "network", "loading", "compute"},
    "report": {"data", "splits", "ensemble"},
    "init": {"data", "ensemble"},
    "bundle": {"data", "network", "loading", "compute", "prediction", "ensemble"},
}
WITHOUT_TORCH = [
    "config",
    "files",
    "history",
    "logits",
    "model_header",
    "errors",
    "naming",
    "randomness",
    "jobs",
    "machine",
    "data",
    "splits",
    "ensemble",
    "report",
    "findings",
    "yaml_files",
    "progress",
    "picture",
    "run_log",
    "terminal",
    "user_tables",
    "text_files",
    "nearest",
    "workflow",
    "init",
    "compute.ranks",
    "training.fold",
    "bundle.about",
    "bundle.listing",
    "bundle.answers",
    "bundle.partial",
    "bundle.decoding",
    "bundle.command",
    "bundle.run",
    "bundle.onnx_file",
    "bundle.exportable",
    "bundle.output",
    "bundle.onnx_predictor",
    "bundle.export_command",
    "training.kept",  # a fold that was trained before is found without it
]


def module_of(path: Path) -> str:
    return ".".join(path.relative_to(SOURCE).with_suffix("").parts)


MODULES = {module_of(path) for path in FILES}


def imports_of(path: Path) -> Iterator[str]:
    """Modules of ours that a file imports, wherever in it that stands."""
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.ImportFrom):
            names = [node.module, *(f"{node.module}.{alias.name}" for alias in node.names)]
        elif isinstance(node, ast.Import):
            names = [alias.name for alias in node.names]
        else:
            continue
        yield from MODULES.intersection(names)


def package_of(module: str) -> str | None:
    """None for a single file."""
    parts = module.split(".")
    return parts[1] if len(parts) > 2 else None


def test_every_package_is_known():
    assert {path.parent.name for path in PACKAGE.glob("*/__init__.py")} == set(MAY_IMPORT)


@pytest.mark.parametrize("package", MAY_IMPORT)
def test_imports_between_packages_run_one_way(package):
    found = {package_of(module) for path in (PACKAGE / package).rglob("*.py") for module in imports_of(path)}
    assert found - {None, package} <= MAY_IMPORT[package]


@pytest.mark.parametrize("file", sorted(SINGLE_FILES))
def test_single_files_import_no_package(file):
    assert {package_of(module) for module in imports_of(PACKAGE / f"{file}.py")} <= {None}


def circle(graph: dict[str, set[str]]) -> list[str]:
    try:
        TopologicalSorter(graph).prepare()
    except CycleError as error:
        return error.args[1]
    return []


def test_no_files_import_each_other_in_a_circle():
    assert circle({module_of(path): set(imports_of(path)) for path in FILES}) == []
    assert circle({"a": {"b"}, "b": {"c"}, "c": {"a"}}) != []


@pytest.mark.parametrize("package", WITHOUT_TORCH)
def test_no_torch(package):
    code = (
        "import importlib, pkgutil, sys\n"
        f"package = importlib.import_module('kfold_ens.{package}')\n"
        "for module in pkgutil.iter_modules(getattr(package, '__path__', [])):\n"
        "    importlib.import_module(f'{package.__name__}.{module.name}')\n"
        "sys.exit('torch' in sys.modules)"
    )
    assert subprocess.run([sys.executable, "-c", code]).returncode == 0


def test_scripts_hold_no_logic():
    for path in sorted((REPOSITORY / "workflow" / "scripts").glob("*.py")):
        tree = ast.parse(path.read_text())
        assert not [node for node in ast.walk(tree) if isinstance(node, ast.FunctionDef | ast.For | ast.While)], path


# --- sizes -----------------------------------------------------------------------------------------------


def lines_of(path: Path) -> int:
    return len(path.read_text(encoding="utf-8").splitlines())


def functions(path: Path) -> Iterator[ast.FunctionDef]:
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.FunctionDef):
            yield node


def parameters(function: ast.FunctionDef) -> list[ast.arg]:
    arguments = function.args
    every = [*arguments.posonlyargs, *arguments.args, *arguments.kwonlyargs]
    return [each for each in every if each.arg not in ("self", "cls")]


@pytest.mark.parametrize("path", FILES, ids=module_of)
def test_a_file_can_be_read_in_one_sitting(path):
    assert lines_of(path) <= 300 or path.name == "config.py"
    for function in functions(path):
        name = f"{function.name}, line {function.lineno}"
        assert function.end_lineno - function.lineno < 40, name
        assert len(parameters(function)) <= 8, name


def test_no_package_is_most_of_the_code():
    lines = {name: sum(map(lines_of, (PACKAGE / name).rglob("*.py"))) for name in MAY_IMPORT}
    whole = sum(map(lines_of, PACKAGE.rglob("*.py")))
    assert max(lines.values()) <= whole / 5, {name: f"{each / whole:.0%}" for name, each in lines.items()}
