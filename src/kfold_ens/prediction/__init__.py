"""One model's logits for one set of images."""

VERSION = 6  # raise it when the stage gives another result for the same inputs: Snakemake then runs it again
