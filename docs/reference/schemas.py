"""The JSON schemas of config.yaml and of recipes, from their models."""

from __future__ import annotations

from typing import Any

from kfold_ens.config import Config, Recipe, Section

BOUNDS = {"ge": "minimum", "gt": "exclusiveMinimum", "le": "maximum", "lt": "exclusiveMaximum"}
NUMBER = r"^[-+]?([0-9]+\.?[0-9]*|\.[0-9]+)([eE][-+]?[0-9]+)?$"
TAGS = ("kind", "source")  # the keys that choose between models
BASE = {
    "type": "string",
    "format": "path",
    "minLength": 1,
    "description": "Makes this file an overlay: takes the missing sections from this recipe.",
}


def plain_schema(model: type[Section]) -> dict[str, Any]:
    """pydantic's schema without titles, with bounds, texts and null in one form."""
    schema = _plain(model.model_json_schema())
    for each in schema["$defs"].values():
        for tag in set(TAGS) & each["properties"].keys():
            each["properties"][tag].setdefault("description", each["description"])
    return schema


def _plain(value: Any) -> Any:
    if isinstance(value, list):
        return [_plain(each) for each in value]
    if not isinstance(value, dict):
        return value
    texts = {"description": _text} if isinstance(value.get("description"), str) else {}
    items = {
        BOUNDS.get(key, key): texts.get(key, _plain)(each) for key, each in value.items() if not _is_noise(value, key)
    }
    return _nullable(_in_order(_narrowest(items)))


def _is_noise(schema: dict, key: str) -> bool:
    """Titles repeat keys; a const says more than an enum of one value, which old versions of pydantic add."""
    return key == "title" and isinstance(schema[key], str) or key == "enum" and "const" in schema


def _text(description: str) -> str:
    return " ".join(description.split()).replace("``", "`")


def _narrowest(schema: dict) -> dict:
    """A schema without the wider of two bounds, as of a fraction that must be above 0."""
    wider = {each for each in ("minimum", "maximum") if f"exclusive{each.capitalize()}" in schema}
    return {key: value for key, value in schema.items() if key not in wider}


def _in_order(schema: dict) -> dict:
    """A choice between models, with the kinds in the order of the models."""
    if not isinstance(schema.get("discriminator"), dict):
        return schema
    kinds = {reference: kind for kind, reference in schema["discriminator"]["mapping"].items()}
    mapping = {kinds[model["$ref"]]: model["$ref"] for model in schema["oneOf"]}
    return schema | {"discriminator": schema["discriminator"] | {"mapping": mapping}}


def _nullable(schema: dict) -> dict:
    """One type with null, where validators would say of two branches only that neither is right."""
    one, *null = schema.get("anyOf", [None])
    if null != [{"type": "null"}] or not isinstance(one.get("type"), str):
        return schema
    rest = {key: value for key, value in schema.items() if key != "anyOf"}
    choices = {"enum": [*one["enum"], None]} if "enum" in one else {}
    return one | choices | {"type": [one["type"], "null"]} | rest


def editor_schema(schema: Any) -> Any:
    """The schema with a condition per kind instead of alternatives, so that messages are about the kind as written."""
    if isinstance(schema, list):
        return [editor_schema(each) for each in schema]
    if not isinstance(schema, dict):
        return schema
    if not isinstance(schema.get("discriminator"), dict):
        return _with_number_text({key: editor_schema(value) for key, value in schema.items()})
    rest = {key: value for key, value in schema.items() if key not in ("discriminator", "oneOf")}
    return rest | _conditions(schema["discriminator"])


def _with_number_text(schema: dict) -> dict:
    """Numbers as text too, which YAML 1.1 makes of 1.0e4, and YAML 1.2 does not."""
    types = schema.get("type")
    types = types if isinstance(types, list) else [types]
    return schema | {"type": [*types, "string"], "pattern": NUMBER} if "number" in types else schema


def _conditions(discriminator: dict) -> dict:
    tag, models = discriminator["propertyName"], discriminator["mapping"]
    conditions = [
        {"if": {"properties": {tag: {"const": kind}}, "required": [tag]}, "then": {"$ref": reference}}
        for kind, reference in models.items()
    ]
    return {"type": "object", "properties": {tag: {"enum": list(models)}}, "required": [tag], "allOf": conditions}


def config_schema() -> dict:
    """That of config.yaml, and of files merged into it: none needs to be complete."""
    return _titled("config.yaml of kfold_ens", editor_schema(plain_schema(Config)), required=[])


def recipe_schema() -> dict:
    """That of recipes: a file without a base needs every section."""
    schema = editor_schema(plain_schema(Recipe))
    complete = {"if": {"not": {"required": ["base"]}}, "then": {"required": schema["required"]}}
    properties = {"base": BASE} | schema["properties"]
    return _titled("A recipe of kfold_ens", schema, required=[], properties=properties, **complete)


def _titled(title: str, schema: dict, **changes: Any) -> dict:
    dialect = {"$schema": "https://json-schema.org/draft/2020-12/schema", "title": title}
    return dialect | {key: value for key, value in (schema | changes).items() if value != []}
