"""From pixels to a fold's chosen weights."""

VERSION = 6  # raise it when the stage gives another result for the same inputs: Snakemake then runs it again
