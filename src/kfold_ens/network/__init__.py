"""Backbones, heads, pretrained weights, and the file a trained network is kept in."""

VERSION = 3  # raise it when the stage gives another result for the same inputs: Snakemake then runs it again
