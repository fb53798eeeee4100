"""A table of every error message in the source: what it says, which stage raises it, and the kind of error."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from pathlib import Path

INTRODUCTION = """# Error messages

The messages that stop a run, by the package that raises them. `…` stands for a name, a number or a list of findings.
What can be checked before training is checked then. All findings are listed at once. `ValueError` is raised while a
configuration or recipe is read; the message then begins with the file and the key.

Not listed are findings that are put together from parts (a wrong key and its nearest, missing columns of a table), and
what the Snakefile itself refuses before the first job.

`python docs/reference` writes this page from the source.
"""
KINDS = ("KfoldError", "DataError", "ConfigError", "WeightsError", "EnsembleError", "ImageError", "ValueError")
SHORTEST = 3  # words; a shorter text is no message, but one that is put together elsewhere


def errors_page(source: Path) -> str:
    """The page, from the Python files below a folder."""
    found: dict[str, list[tuple[str, str]]] = {}
    for file in sorted(source.rglob("*.py")):
        place = file.relative_to(source).parts[0].removesuffix(".py")
        found.setdefault(place, []).extend(messages(file.read_text(encoding="utf-8")))
    tables = [f"\n## {place}\n\n{_table(rows)}" for place, rows in found.items() if rows]
    return INTRODUCTION + "".join(tables)


def _table(rows: list[tuple[str, str]]) -> str:
    lines = [f"| {_cell(message)} | `{kind}` |" for kind, message in dict.fromkeys(rows)]
    return "\n".join(["| message | error |", "|---|---|", *lines]) + "\n"


def _cell(message: str) -> str:
    escaped = message.replace("|", r"\|").replace("<", "&lt;").replace("*", r"\*")
    return " ".join(escaped.split())


def messages(code: str) -> Iterator[tuple[str, str]]:
    """The kind and the text of each error that some code makes, in its order."""
    for node in ast.walk(ast.parse(code)):
        if isinstance(node, ast.Call) and isinstance(node.func, ast.Name) and node.func.id in KINDS and node.args:
            message = _text(node.args[0])
            if len(message.split()) >= SHORTEST:
                yield node.func.id, message


def _text(node: ast.expr) -> str:
    """A text with ``…`` for what is filled in."""
    if isinstance(node, ast.Constant):
        return str(node.value)
    if isinstance(node, ast.JoinedStr):
        return "".join(map(_text, node.values))
    if isinstance(node, ast.BinOp):
        return _text(node.left) + _text(node.right)
    return "…"
