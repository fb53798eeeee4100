# What .ci/run checks first. Needs the extra dev: pip install -e '.[dev]'

# Check everything that takes no test
check: style installed

# Check the files themselves; needs neither torch nor this package
style: format schemas

# Check what needs the package and its libraries
installed: types reference lint

# Check formatting and style of Python and Snakemake files
format:
    ruff format --check
    ruff check
    snakefmt --check Snakefile workflow

# Check the recipes and configurations against the JSON schemas
schemas:
    check-jsonschema --schemafile schemas/recipe.schema.json recipes/*.yaml recipes/ablation/*.yaml
    check-jsonschema --schemafile schemas/config.schema.json config.yaml ablations/*.yaml

# Check the types in src/
types:
    mypy

# Check that docs/reference was run after the last change of options and messages
reference:
    python -m pytest -n 0 tests/test_reference.py -k "current or listed"

# Check the workflow by Snakemake's rules
lint:
    snakemake --lint
