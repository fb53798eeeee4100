"""Store all models of an ensemble in one file, and predict any images with it, without Snakemake."""

VERSION = 1  # raise it when equal inputs give another result: Snakemake then reruns the stage
