"""Writes the reference from the source: pages of all options and all error messages, and two JSON schemas.

Run it after each change of src/kfold_ens/config.py or of a message: python docs/reference
"""

import json
import sys
from pathlib import Path

from errors import errors_page
from pages import config_page, recipe_page

from schemas import config_schema, recipe_schema

ROOT = Path(__file__).parents[2]


def json_of(schema: dict) -> str:
    return json.dumps(schema, indent=2, ensure_ascii=False) + "\n"


FILES = {
    "docs/configuration.md": config_page,
    "docs/recipe-options.md": recipe_page,
    "docs/errors.md": lambda: errors_page(ROOT / "src/kfold_ens"),
    "schemas/config.schema.json": lambda: json_of(config_schema()),
    "schemas/recipe.schema.json": lambda: json_of(recipe_schema()),
}


def write(root: Path) -> None:
    """Write all files of the reference below a folder."""
    for name, made in FILES.items():
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_text(made(), encoding="utf-8")


if __name__ == "__main__":
    write(Path(sys.argv[1]) if sys.argv[1:] else ROOT)
