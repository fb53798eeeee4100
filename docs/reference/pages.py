"""The pages about config.yaml and recipes, from their schemas."""

from __future__ import annotations

import json
import re
from collections.abc import Collection
from typing import Any

from examples import EXAMPLES

from kfold_ens.config import Config, Recipe
from schemas import BASE, TAGS, plain_schema

PAPER = re.compile(r"([A-Z][\w .'-]* \d{4}), (https?://[^\s);,]+)")
# Headings of config.yaml's page, by the first key below each; a new key joins the heading before it.
GROUPS = {
    "data": "Images and labels",
    "recipe": "Recipes",
    "num_folds": "Split",
    "full_fit": "Models, ensemble and score",
    "device": "Device, memory and checkpoints",
}
GENERATED = "<!-- Written from src/kfold_ens/config.py by: python docs/reference -->"
EDITORS = """Editors with a YAML language server complete and check a file that begins with this line, in which
the path is relative to the file's folder:

```yaml
# yaml-language-server: $schema={path}
```"""
CONFIG_PAGE = f"""# Every option of config.yaml

Only `data` is required. Each key can also be given on the command line:
`snakemake --cores 4 submission --config num_folds=10`. The options of a recipe: [recipe-options.md](recipe-options.md).

{EDITORS.format(path="schemas/config.schema.json")}"""
RECIPE_PAGE = f"""# Every option of a recipe

A recipe is a YAML file that holds all required sections below, or an [overlay](recipes.md#overlays): a `base` and the
sections that differ. The options of `config.yaml`: [configuration.md](configuration.md).

{EDITORS.format(path="schemas/recipe.schema.json")}"""


def config_page() -> str:
    """docs/configuration.md."""
    page = Page(plain_schema(Config))
    return _text(CONFIG_PAGE, [line for title, keys in page.groups().items() for line in page.group(title, keys)])


def recipe_page() -> str:
    """docs/recipe-options.md."""
    page = Page(plain_schema(Recipe))
    overview = ["## All sections", *page.table({"base": BASE} | page.properties, page.required)]
    sections = [line for key in page.properties if _models(page.properties[key]) for line in page.section(key, 2)]
    return _text(RECIPE_PAGE, overview + sections)


def _text(intro: str, paragraphs: list[str]) -> str:
    return "\n\n".join([GENERATED, intro, *paragraphs]) + "\n"


class Page:
    """Headings, tables and examples from a schema; each is a paragraph of Markdown."""

    def __init__(self, schema: dict) -> None:
        self.schema, self.properties = schema, schema["properties"]
        self.required = schema.get("required", [])
        self.shown = {name for each in self.properties.values() for name in _models(each)}

    def groups(self) -> dict[str, list[str]]:
        """The keys below each heading of config.yaml."""
        title, groups = "", {}
        for key in self.properties:
            title = GROUPS.get(key, title)
            groups.setdefault(title, []).append(key)
        return groups

    def group(self, title: str, keys: list[str]) -> list[str]:
        """A heading, a table of keys, and those inside of them."""
        lines = [f"## {title}", *self.table({key: self.properties[key] for key in keys}, self.required)]
        lines += [line for key in keys if not _models(self.properties[key]) for line in _example(key)]
        return lines + [line for key in keys if _models(self.properties[key]) for line in self.section(key, 3)]

    def section(self, key: str, level: int) -> list[str]:
        """A key of the whole that holds keys of its own: what it is, an example, and these keys."""
        schema = self.properties[key]
        heading = [f"{'#' * level} {key}", _linked(schema["description"]), *_example(key)]
        return heading + self.inside(schema, level + 1)

    def inside(self, schema: dict, level: int) -> list[str]:
        """The models that a value may be, each with its keys, and then those inside of them."""
        models = {name: self.schema["$defs"][name] for name in _models(schema)}
        tag = _tag(list(models.values()))
        common = _common(list(models.values())) if tag else {}
        lines = (
            [f"Keys of every `{tag}`:", *self.table(common, models[next(iter(models))].get("required", []))]
            if common
            else []
        )
        for model in models.values():
            lines += self.model(model, tag, common, level)
        properties = {name: each for model in models.values() for name, each in model["properties"].items()}
        for name, each in properties.items():
            if new := set(_models(each)) - self.shown:
                self.shown |= new
                lines += [f"{'#' * level} Keys of `{name}`", *self.inside(each, level + 1)]
        return lines

    def model(self, model: dict, tag: str | None, common: dict, level: int) -> list[str]:
        """What a model does, the keys that it alone has, and an example."""
        own = {name: each for name, each in model["properties"].items() if name not in common and name != tag}
        choice = f"{tag}: {model['properties'][tag]['const']}" if tag else None
        heading = [f"{'#' * level} `{choice}`"] if choice else []
        return [*heading, _linked(model["description"]), *self.table(own, model.get("required", [])), *_example(choice)]

    def table(self, properties: dict, required: Collection[str]) -> list[str]:
        """A row per key; of keys with a section of their own, a link to it."""
        rows = [self.row(key, schema, key in required) for key, schema in properties.items()]
        head = "| key | values | default | what it does |\n|---|---|---|---|"
        return ["\n".join([head, *rows])] if rows else []

    def row(self, key: str, schema: dict, required: bool) -> str:
        has_section = _models(schema) and self.properties.get(key) == schema
        name = f"[`{key}`](#{key})" if has_section else f"`{key}`"
        default = "required" if required else _default(schema)
        return f"| {name} | {self.values(schema)} | {default} | {_linked(schema['description'])} |"

    def values(self, schema: dict) -> str:
        """The values that a key takes, in words."""
        others = (key for key, each in self.properties.items() if each is not schema and _models(each))
        same = (key for key in others if _models(self.properties[key]) == _models(schema))
        return next((f"as in [{key}](#{key})" for key in same), _values(schema))


def _example(key: str | None) -> list[str]:
    return [f"```yaml\n{EXAMPLES[key].strip()}\n```"] if key in EXAMPLES else []


def _tag(models: list[dict]) -> str | None:
    """The key that chooses between models; None if there is no choice."""
    return next((tag for tag in TAGS if len(models) > 1 and all(tag in each["properties"] for each in models)), None)


def _models(schema: dict) -> list[str]:
    """The models that a value may be, or hold as entries."""
    if "$ref" in schema:
        return [schema["$ref"].rpartition("/")[2]]
    inside = [*schema.get("oneOf", []), *schema.get("anyOf", []), *([schema["items"]] if "items" in schema else [])]
    return [name for each in inside for name in _models(each)]


def _common(models: list[dict]) -> dict:
    """The keys that all of these models have alike, with whether they are required."""

    def alike(model: dict) -> dict:
        return {key: (each, key in model.get("required", [])) for key, each in model["properties"].items()}

    first, *others = map(alike, models)
    return {
        key: each for key, (each, needed) in first.items() if all(other.get(key) == (each, needed) for other in others)
    }


def _default(schema: dict) -> str:
    value = schema.get("default")
    return "" if value is None or _models(schema) and isinstance(value, dict) else f"`{_written(value)}`"


def _written(value: Any) -> str:
    """A value as YAML has it."""
    if isinstance(value, list):
        return f"[{', '.join(map(_written, value))}]"
    return f"{value:g}" if isinstance(value, float) else str(value) if isinstance(value, str) else json.dumps(value)


def _values(schema: dict) -> str:
    """The values that a key takes, in words."""
    if "discriminator" in schema:
        kinds = ", ".join(f"`{kind}`" for kind in schema["discriminator"]["mapping"])
        return f"`{schema['discriminator']['propertyName']}`: {kinds}"
    if "$ref" in schema:
        return "nested keys"
    choices = schema.get("enum", schema.get("examples"))
    if choices:
        return ", ".join(f"`{choice}`" for choice in choices if choice is not None)
    if "anyOf" in schema:
        return " or ".join(map(_values, schema["anyOf"]))
    kind = schema["type"]
    return WORDS[kind if isinstance(kind, str) else kind[0]](schema)


def _text_of(schema: dict) -> str:
    return "path" if schema.get("format") == "path" else "text"


def _whole_number(schema: dict) -> str:
    above = {"minimum": schema["exclusiveMinimum"] + 1} if "exclusiveMinimum" in schema else {}
    return _number({key: each for key, each in schema.items() if key != "exclusiveMinimum"} | above, "whole number")


def _number(schema: dict, word: str = "number") -> str:
    words = {"minimum": "at least", "exclusiveMinimum": "above", "maximum": "at most", "exclusiveMaximum": "below"}
    bounds = [f"{words[key]} {_written(schema[key])}" for key in words if key in schema]
    return f"{word}, {' and '.join(bounds)}" if bounds else word


def _list(schema: dict) -> str:
    if "prefixItems" in schema:
        return f"list of two {_plural(_values(schema['prefixItems'][0]))}"
    inner = schema["items"]
    return f"list of {'sections with ' if _models(inner) else ''}{_plural(_values(inner))}"


def _plural(words: str) -> str:
    return re.sub(r"^(whole number|number|path|text)", r"\1s", words)


WORDS = {
    "string": _text_of,
    "boolean": lambda schema: "`true`, `false`",
    "integer": _whole_number,
    "number": _number,
    "array": _list,
    "object": lambda schema: f"names, each with a {_values(schema['additionalProperties'])}",
}


def _linked(text: str) -> str:
    return PAPER.sub(r"[\1](\2)", text)
