"""Images on disk become a manifest, folds and pixels. Never imports torch at module level."""

VERSION = 4  # raise it when the stage gives another result for the same inputs: Snakemake then runs it again
