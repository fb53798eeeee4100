"""Strict reading of YAML files: repeated keys and numbers such as 010, which YAML reads in another base, are errors."""

from __future__ import annotations

from pathlib import Path
from typing import Any, TypeVar

import yaml

from kfold_ens.errors import ConfigError

Real = TypeVar("Real", int, float)

ADVICE = {  # by PyYAML's words; the first match is used
    "'\\t'": "Replace the tab by spaces.",
    "escape": "Put text with backslashes in single quotes.",
    "could not find expected ':'": "Write a colon and a space between key and value.",
    "cannot start any token": "Put text that starts with this character in quotes.",
    "mapping values are not allowed": "Indent all keys of a section equally; put text with a colon in quotes.",
}


class _Refused(yaml.constructor.ConstructorError):
    """Valid YAML that is hardly intended."""


class _Strict(yaml.SafeLoader):
    """Refuse repeated keys (YAML takes the last one), 010 (YAML reads 8) and 1:30 (YAML reads 90)."""

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict:
        keys = [self.construct_object(key) for key, _ in node.value]
        repeated = [key for place, key in enumerate(keys) if key in keys[:place]]
        if repeated:
            raise _Refused(None, None, f"{repeated[0]} occurs twice; delete one", node.start_mark)
        return super().construct_mapping(node, deep)

    def construct_yaml_int(self, node: yaml.ScalarNode) -> int:
        value, digits = super().construct_yaml_int(node), node.value.lstrip("+-").replace("_", "")
        octal = digits.startswith("0") and digits.isdigit() and int(digits) != abs(value)
        return _as_written(node, value, octal or ":" in digits)

    def construct_yaml_float(self, node: yaml.ScalarNode) -> float:
        return _as_written(node, super().construct_yaml_float(node), ":" in node.value)


def _as_written(node: yaml.ScalarNode, value: Real, in_another_base: bool) -> Real:
    if in_another_base:
        advice = f"write {value} for this number, or '{node.value}' for text"
        raise _Refused(None, None, f"YAML reads {node.value} as {value}; {advice}", node.start_mark)
    return value


_Strict.add_constructor("tag:yaml.org,2002:int", _Strict.construct_yaml_int)
_Strict.add_constructor("tag:yaml.org,2002:float", _Strict.construct_yaml_float)


def read_yaml(path: Path) -> Any:
    """Read a YAML file.

    Raises:
        ConfigError: if the file cannot be read, is not YAML, repeats a key, or holds a number such as 010.
    """
    try:
        return _loaded(path.read_text(encoding="utf-8"), str(path))
    except OSError as error:
        raise ConfigError(f"{path} cannot be read: {error.strerror}") from None
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        problem = getattr(error, "problem", None) or ""
        advice = next((f"\n{advice}" for words, advice in ADVICE.items() if words in problem), "")
        fault = "has an error" if isinstance(error, _Refused) else "is not YAML"
        raise ConfigError(f"{path} {fault}: {error}{advice}") from None


def _loaded(text: str, name: str) -> Any:
    loader = _Strict(text)
    loader.name = name  # for its error messages
    try:
        return loader.get_single_data()
    finally:
        loader.dispose()
