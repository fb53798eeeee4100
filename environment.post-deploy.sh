# With `snakemake --sdm conda`, Snakemake runs this in the environment that it makes from environment.yml.
set -eu
pip install --no-deps --editable .
