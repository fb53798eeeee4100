"""Describe the errors in a configuration: the key, its file, and what to write instead."""

from __future__ import annotations

import datetime
import re
import reprlib
from collections.abc import Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from difflib import get_close_matches
from pathlib import Path
from typing import Any, ClassVar, get_args

from pydantic import BaseModel


class Advised(BaseModel):
    """A model with advice about misplaced keys."""

    also: ClassVar[frozenset[str]] = frozenset()  # keys that are read before validation
    beside: ClassVar[tuple[str, type[BaseModel]] | None] = None  # another file that may hold them, and its model


SHORT = reprlib.Repr()  # shortens wrong values in messages
SHORT.maxstring = SHORT.maxother = 200
# The types that YAML reads instead of text.
MADE = {bool: "{value}", int: "a number", float: "a number", datetime.date: "a date", datetime.datetime: "a date"}


# --- places of keys --------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Written:
    """The sources of a configuration: files, the last one winning, then the values of --config."""

    files: tuple[Path, ...] = ()
    given: Mapping[str, Any] = field(default_factory=dict)

    def title(self, name: str) -> str:
        """Name the configuration by its first file and the sources merged into it."""
        first, *others = [*map(str, self.files), *(["--config"] if self.given else [])] or [name]
        return f"{first} with {' and '.join(others)} merged into it" if others else first

    def place_of(self, key: Sequence) -> str | None:
        """Return which of several sources a key's value comes from; None for a single source or an absent key."""
        if not key or len(self.files) + bool(self.given) < 2:
            return None
        if _holds(self.given, key):
            return "--config"
        return next((str(file) for file, _, _ in self._values(key)), None)

    def text_of(self, key: Sequence) -> str | None:
        """Return a value as written in its file, if it is on one line; None if no file has it."""
        if _holds(self.given, key):
            return None
        for _, text, node in self._values(key):
            raw = text[node.start_mark.index : node.end_mark.index]
            return raw if "\n" not in raw else None
        return None

    def _values(self, key: Sequence) -> Iterator[tuple[Path, str, Any]]:
        """Yield the files that have a key, the deciding one first, each with its text and the value's YAML node."""
        for file in reversed(self.files):
            text, node = _parsed(file)
            if (value := _inside(node, key)) is not None:
                yield file, text, value


UNKNOWN = Written()


def _holds(values: Any, key: Sequence) -> bool:
    try:
        for part in key:
            values = values[part]
    except (LookupError, TypeError):
        return False
    return bool(key)


def _parsed(file: Path) -> tuple[str, Any]:
    """Return a file's text and its YAML node."""
    import yaml  # here: benchmarks/gpu.py runs without PyYAML

    with suppress(OSError, ValueError, yaml.YAMLError):  # without the file, messages only lack the place
        text = file.read_text(encoding="utf-8")
        return text, yaml.compose(text, yaml.SafeLoader)
    return "", None


def _inside(node: Any, key: Sequence) -> Any:
    """Return the node at a key below a node; None if there is none."""
    for part in key:
        value = getattr(node, "value", None)
        if not isinstance(value, list):
            return None
        if isinstance(part, int) and node.id == "sequence":
            node = value[part] if part < len(value) else None
        else:
            found = [each[1] for each in value if node.id == "mapping" and each[0].value == str(part)]
            node = found[-1] if found else None
    return node


# --- messages --------------------------------------------------------------------------------------------


def refusal(items: list[Any], model: type[Advised], values: Any, where: str, written: Written) -> str:
    """Return the message about pydantic's findings, one per line."""
    return "\n  ".join(
        [f"{written.title(where)} has errors:", *(_line(item, model, values, written) for item in items)]
    )


def _line(item: dict, model: type[Advised], values: Any, written: Written) -> str:
    key = _key(item, model, values)
    place = written.place_of(key)
    finding = ": ".join(filter(None, (".".join(map(str, key)), _finding(item, key, model, written))))
    return f"{finding} (in {place})" if place else finding


def _key(item: dict, model: type[BaseModel], values: Any) -> list[Any]:
    """Return the key as the user wrote it, without the union tags in pydantic's location; empty for the top level."""
    key, models = [], [model]
    for part in item["loc"]:
        models, is_tag = _inside_models(models, part)
        with suppress(LookupError, TypeError):  # other parts may not be keys either
            if not is_tag:
                values = values[part]
                key.append(part)
    if item["type"] == "missing":
        key.append(item["loc"][-1])
    return key


def _finding(item: dict, key: list[Any], model: type[Advised], written: Written) -> str:
    if item["type"] == "extra_forbidden":
        return f"no such key{_meant(item['loc'], key, model)}"
    if item["type"] == "missing":
        return "is missing"
    if item["type"] in ("model_attributes_type", "model_type") and item["input"] is None:
        return "is empty; write its keys below it, or remove the # before them"
    if item["type"] == "union_tag_not_found":
        return f"{item['ctx']['discriminator']} is missing{_misspelled(item)}"
    if item["type"] == "union_tag_invalid":
        kind, kinds = item["ctx"]["discriminator"].strip("'"), item["ctx"]["expected_tags"]
        return (
            f"{kind} must be one of {kinds} (got {item['ctx']['tag']!r}){_nearest(item['ctx']['tag'], _quoted(kinds))}"
        )
    if item["type"] in ("string_type", "list_type") and (advice := _quotes(item["input"], key, written)):
        return advice
    if item["type"] == "int_type" and (whole := _whole(item["input"])):
        return f"must be a whole number, but YAML reads {item['input']} as text; write {whole}"
    message = item["msg"].removeprefix("Value error, ")
    if item["type"] == "literal_error" and isinstance(item["input"], bool):
        return f"{message} (YAML reads {_word(key, item['input'], written)} as {str(item['input']).lower()})"
    if item["type"] == "value_error":
        return message
    near = _nearest(str(item["input"]), _quoted(item["ctx"]["expected"])) if item["type"] == "literal_error" else ""
    return f"{message} (got {SHORT.repr(item['input'])}){near}"


def _whole(text: Any) -> str | None:
    """Return the whole number that text such as 1e3 means; None if it means none."""
    with suppress(ValueError, OverflowError):
        number = float(text) if isinstance(text, str) else 0.5
        return str(int(number)) if number.is_integer() else None
    return None


def _quotes(value: Any, key: list[Any], written: Written) -> str | None:
    """Return what to write if YAML read text as another type; None if it did not."""
    text = written.text_of(key)
    if value is None:
        if not text:
            return "has no value; write one, or delete the line"
        made = "no value"
    elif isinstance(value, dict):
        if not text or not text.startswith("{"):
            return None
        made = "keys and values"
    elif type(value) in MADE:
        made = MADE[type(value)].format(value=str(value).lower())
    else:
        return None
    text = _word(key, value, written)
    name = next((f"{part}: " for part in reversed(key) if isinstance(part, str)), "") if _is_named(key) else "- "
    quoted = text.replace("'", "''")
    return f"must be text, but YAML reads {text} as {made}; write quotes: {name}'{quoted}'"


def _word(key: list[Any], value: Any, written: Written) -> str:
    """Return a value as written in its file, or as YAML would write it."""
    return written.text_of(key) or (str(value).lower() if isinstance(value, bool) else str(value))


def _is_named(key: list[Any]) -> bool:
    """Whether the value belongs to a key, not to a list."""
    return bool(key) and isinstance(key[-1], str)


# --- suggestions -----------------------------------------------------------------------------------------


def _meant(location: Sequence, key: list[Any], model: type[Advised]) -> str:
    """Suggest the key that an unknown one likely means: the same key elsewhere, or a similar one in its section."""
    name, written = str(key[-1]), ".".join(part for part in key if isinstance(part, str))
    if same := _elsewhere(name, model, written):
        return f"; did you mean {' or '.join(each if '.' in each else f'{each} at the top level' for each in same)}?"
    if model.beside and (same := _elsewhere(name, model.beside[1], written="")):
        return f"; it belongs in {model.beside[0]}{f', as {same[0]}' if same[0] != name else ''}"
    return _nearest(name, _fields(model, location[:-1]) | (model.also if len(location) == 1 else set()))


def _elsewhere(name: str, model: type[BaseModel], written: str) -> list[str]:
    """The one or two places nearest to the top at which a key is known; none if it is where it was written."""
    paths = {".".join(path): len(path) for path in _paths(model) if path[-1] == name}
    shortest = [path for path, length in paths.items() if length == min(paths.values())]
    return sorted(shortest) if written not in paths and len(shortest) <= 2 else []


def _paths(model: type[BaseModel], parents: tuple[str, ...] = ()) -> Iterator[tuple[str, ...]]:
    """Yield the keys of a model and of all models inside it, each with its parent keys."""
    for name, known in model.model_fields.items():
        yield (*parents, name)
        for each in _models(known.annotation):
            yield from _paths(each, (*parents, name))


def _misspelled(item: dict) -> str:
    """Find a misspelled ``kind`` or ``source`` among the keys of a section."""
    near = get_close_matches(item["ctx"]["discriminator"].strip("'"), map(str, item["input"]), 1)
    return f"; is {near[0]} a misspelling of it?" if near else ""


def _quoted(choices: str) -> set[str]:
    """Return the words in pydantic's list of choices."""
    return set(re.findall(r"'([^']*)'", choices))


def _nearest(word: str, words: set[str]) -> str:
    near = get_close_matches(word.lower().replace("-", "_"), sorted(words), 1)
    return f"; did you mean {near[0]}?" if near else ""


def _fields(model: type[BaseModel], location: Sequence) -> set[str]:
    """Return the keys that a model allows at a location; ``location`` is pydantic's, with union tags."""
    models = [model]
    for part in location:
        models, _ = _inside_models(models, part)
    return {name for each in models for name in each.model_fields}


def _inside_models(models: list[type[BaseModel]], part: Any) -> tuple[list[type[BaseModel]], bool]:
    """Return the models to which a part of a location leads, and whether the part is a union tag."""
    if tagged := [each for each in models if part in _tags(each)] if len(models) > 1 else []:
        return tagged, True
    inside = [each.model_fields[part].annotation for each in models if part in each.model_fields]
    return [each for annotation in inside for each in _models(annotation)] if inside else models, False


def _models(annotation: Any) -> Iterator[type[BaseModel]]:
    """Yield the models inside a type."""
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        yield annotation
    for part in get_args(annotation):
        yield from _models(part)


def _tags(model: type[BaseModel]) -> set[Any]:
    """Return the tags that distinguish a model from the others of its union."""
    tagged = [model.model_fields[name].annotation for name in ("kind", "source") if name in model.model_fields]
    return {tag for annotation in tagged for tag in get_args(annotation)}
