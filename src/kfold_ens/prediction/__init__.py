"""Logits of one model for one set of images."""

VERSION = 6  # raise it when the same inputs give another result: Snakemake then reruns the stage
