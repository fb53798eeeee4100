"""One file of all models of an ensemble, and what predicts any folder with it, without Snakemake."""

VERSION = 1  # raise it when the stage gives another result for the same inputs: Snakemake then runs it again
