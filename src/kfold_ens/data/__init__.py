"""Turn images on disk into a manifest, folds and pixels. Never imports torch at module level."""

VERSION = 4  # increase it when the stage's results change for the same inputs: Snakemake then reruns it
