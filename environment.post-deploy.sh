# What Snakemake runs in the environment it makes of environment.yml, for `snakemake --sdm conda`.
set -eu
pip install --no-deps --editable .
