"""Train a fold, from pixels to the selected weights."""

VERSION = 6  # raise it when the same inputs give another result: Snakemake then reruns the stage
