"""The reference of every option: complete, current, and right about what the loaders accept."""

from __future__ import annotations

import json
import re
import runpy
import subprocess
import sys
from collections.abc import Iterator
from typing import Any

import pytest
import yaml
from conftest import REPOSITORY, TINY_RECIPE, write_yaml
from jsonschema import Draft202012Validator

from kfold_ens.config import Config, Recipe, Section, load_config, load_recipe
from kfold_ens.yaml_files import read_yaml

GENERATED = [
    "docs/configuration.md",
    "docs/recipe-options.md",
    "schemas/config.schema.json",
    "schemas/recipe.schema.json",
    "docs/errors.md",
]
MODELS = {"config": Config, "recipe": Recipe}
TAGS = ("kind", "source")
FOLDER = REPOSITORY / "recipes"
CONFIGS = [
    REPOSITORY / "config.yaml",
    *REPOSITORY.glob("ablations/*.yaml"),
    *REPOSITORY.glob("benchmarks/*/config.yaml"),
]
RECIPES = [*FOLDER.rglob("*.yaml"), *REPOSITORY.glob("benchmarks/*/*_cpu.yaml")]
FILES = sorted([*((path, "config") for path in CONFIGS), *((path, "recipe") for path in RECIPES)])
RUN = {"data": {"source": "digits"}}


def findings(values: Any, name: str) -> list[str]:
    """What the schema finds in a file's content, as editors show it: the key, and the finding."""
    schema = json.loads((REPOSITORY / f"schemas/{name}.schema.json").read_text(encoding="utf-8"))
    Draft202012Validator.check_schema(schema)
    return [f"{error.json_path}: {error.message}" for error in Draft202012Validator(schema).iter_errors(values)]


def blocks() -> Iterator[tuple[str, str]]:
    """The blocks of YAML of README and docs that hold options, by file and line."""
    for path in [REPOSITORY / "README.md", *sorted(REPOSITORY.glob("docs/*.md"))]:
        text = path.read_text(encoding="utf-8")
        for block in re.finditer(r"```yaml\n(.*?)```", text, re.DOTALL):
            keys = (yaml.safe_load(block[1]) or {}).keys()
            if any(key in model.model_fields for model in MODELS.values() for key in keys) or "base" in keys:
                yield f"{path.name}:{text[: block.start()].count(chr(10)) + 1}", block[1]


BLOCKS = dict(blocks())


def of_recipe(values: dict) -> bool:
    return bool(values.keys() & {"base", *Recipe.model_fields})


def test_the_reference_is_current(tmp_path):
    subprocess.run([sys.executable, REPOSITORY / "docs/reference", tmp_path], check=True)
    for name in GENERATED:
        current = (REPOSITORY / name).read_text(encoding="utf-8")
        assert current == (tmp_path / name).read_text(encoding="utf-8"), "run: python docs/reference"


@pytest.mark.parametrize(("path", "name"), FILES, ids=lambda each: str(each)[-40:])
def test_a_file_names_its_schema_and_follows_it(path, name):
    comment, schema = path.read_text(encoding="utf-8").splitlines()[0].split("=")
    assert comment == "# yaml-language-server: $schema"
    assert (path.parent / schema).resolve() == REPOSITORY / f"schemas/{name}.schema.json"
    assert findings(read_yaml(path), name) == []


@pytest.mark.parametrize("place", BLOCKS)
def test_an_example_of_the_documentation_follows_its_schema_and_loads(place, tmp_path):
    values = yaml.safe_load(BLOCKS[place])
    if of_recipe(values):
        overlay = {"base": "kfold_mix"} | values
        assert findings(overlay, "recipe") == []
        load_recipe(write_yaml(tmp_path / "mine.yaml", overlay), FOLDER)
    else:
        assert findings(values, "config") == []
        load_config(RUN | values)


@pytest.mark.parametrize("page", GENERATED[:2])
def test_every_heading_of_the_reference_has_an_example(page):
    text = (REPOSITORY / page).read_text(encoding="utf-8")
    sections = re.split(r"\n(?=## )", text)[1:]
    assert [each.splitlines()[0] for each in sections if "```yaml" not in each] in ([], ["## All sections"])


@pytest.mark.parametrize("page", GENERATED[:2])
def test_its_links_lead_to_a_heading_or_a_file(page):
    path = REPOSITORY / page
    text = path.read_text(encoding="utf-8")
    headings = {title.lower().replace(" ", "-") for title in re.findall(r"^#+ (.*)$", text, re.MULTILINE)}
    for file, _, heading in re.findall(r"\]\((?!http)([^)#]*)(#([^)]*))?\)", text):
        assert (path.parent / file).exists()
        assert file or heading in headings


# --- typos -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("name", "changes", "finding"),
    [
        ("config", {"num_fold": 3}, "$: Additional properties are not allowed ('num_fold' was unexpected)"),
        ("config", {"device": "gpu"}, "$.device: 'gpu' is not one of ['auto', 'cuda', 'mps', 'cpu']"),
        ("config", {"num_folds": 1}, "$.num_folds: 1 is less than the minimum of 2"),
        (
            "config",
            {"data": {"source": "csv", "train": "a", "test": "b", "images": "c", "idcolumn": "d"}},
            "$.data: Additional properties are not allowed ('idcolumn' was unexpected)",
        ),
        (
            "recipe",
            {"augmentation": [{"kind": "resize", "sise": 8}]},
            "$.augmentation[0]: Additional properties are not allowed ('sise' was unexpected)",
        ),
        ("recipe", {"head": {"kind": "liner"}}, "$.head.kind: 'liner' is not one of ['linear', 'mlp']"),
        (
            "recipe",
            {"head": {"kind": "linear", "dropout": 1.5}},
            "$.head.dropout: 1.5 is greater than or equal to the maximum of 1",
        ),
        ("recipe", {"ema": {"kind": "ema"}}, "$.ema: 'decay' is a required property"),
    ],
)
def test_an_editor_names_the_key_that_is_wrong_and_nothing_else(name, changes, finding):
    base = {"config": RUN, "recipe": TINY_RECIPE}[name]
    assert findings(base | changes, name) == [finding]


def test_an_overlay_holds_what_it_likes_and_a_complete_recipe_every_section():
    assert findings({"base": "kfold_mix", "epochs": 3}, "recipe") == []
    del (without := dict(TINY_RECIPE))["loss"]
    assert findings(without, "recipe") == ["$: 'loss' is a required property"]


def test_a_file_that_is_merged_into_another_needs_no_data():
    assert findings({"ablation": ["kfold_mix"]}, "config") == []


# --- every option ----------------------------------------------------------------------------------------


def models(section: type[Section] = Section) -> Iterator[type[Section]]:
    for model in section.__subclasses__():
        if model.__module__ == Section.__module__:
            yield model
            yield from models(model)


@pytest.mark.parametrize("model", sorted(set(models()), key=lambda model: model.__name__))
def test_every_option_says_what_it_does(model):
    silent = {key for key, field in model.model_fields.items() if not field.description} - set(TAGS)
    assert silent == set()
    assert model.__doc__ != Section.__doc__


@pytest.mark.parametrize("name", MODELS)
def test_every_key_of_a_schema_says_what_it_does(name):
    schema = json.loads((REPOSITORY / f"schemas/{name}.schema.json").read_text(encoding="utf-8"))
    for model in [schema, *schema["$defs"].values()]:
        assert [key for key, each in model["properties"].items() if not each.get("description")] == []


PLANTED = """
def refuse(name, folds):
    if folds:
        raise DataError(f"num_folds is {folds}, but {name} <b> has fewer | images:\\n{folds}")
    raise KeyError("not for users")
"""


def test_a_new_error_message_is_listed(tmp_path):
    (tmp_path / "package").mkdir()
    (tmp_path / "package/file.py").write_text(PLANTED, encoding="utf-8")
    page = runpy.run_path(str(REPOSITORY / "docs/reference/errors.py"))["errors_page"](tmp_path)
    assert page.endswith(
        "\n## package\n\n| message | error |\n|---|---|\n"
        "| num_folds is …, but … &lt;b> has fewer \\| images: … | `DataError` |\n"
    )
