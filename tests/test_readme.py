"""What the README tells people to write and to type is right."""

from __future__ import annotations

import re

import pytest
import yaml
from conftest import REPOSITORY

from kfold_ens.config import find_recipe, load_config, load_recipe

README = (REPOSITORY / "README.md").read_text(encoding="utf-8")


@pytest.mark.parametrize("block", re.findall(r"```yaml\n(.*?)```", README, re.DOTALL))
def test_its_configuration_loads(block):
    run = load_config(yaml.safe_load((REPOSITORY / "config.yaml").read_text()) | yaml.safe_load(block))
    load_recipe(find_recipe(run.recipe, REPOSITORY / "recipes"), REPOSITORY / "recipes")


def test_it_names_every_recipe():
    named = set(re.findall(r"^\| `(\w+)` \|", README, re.MULTILINE))
    assert {path.stem for path in (REPOSITORY / "recipes").glob("*.yaml")} <= named


def competitions() -> dict[str, dict]:
    """What the table of competitions tells to write, by what they say."""
    table = README.split("| your competition says |")[1].split("\n\n")[0]
    rows = [line.strip("| ").split(" | ") for line in table.splitlines()[2:]]
    return {says: _merged(re.findall(r"`((?:metric|submission): [^`]+)`", write)) for says, write in rows}


def _merged(fragments: list[str]) -> dict:
    return {key: value for text in fragments for key, value in yaml.safe_load(text).items()}


def test_its_table_of_competitions_has_ten_rows_that_load():
    config = yaml.safe_load((REPOSITORY / "config.yaml").read_text())
    assert len(competitions()) == 10
    for written in competitions().values():
        assert written
        load_config(config | written)


@pytest.mark.parametrize("link", sorted(set(re.findall(r"\]\(((?!http)[^)#]+)\)", README))))
def test_its_links_lead_somewhere(link):
    assert (REPOSITORY / link).exists()
