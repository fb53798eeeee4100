"""Backbones, heads, pretrained weights, and the file of a trained network."""

VERSION = 3  # increase it when the stage's results change for the same inputs: Snakemake then reruns it
