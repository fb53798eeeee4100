"""Figures and tables for the report, and recipes side by side. Never imports torch."""

VERSION = 6  # raise it when the stage gives another result for the same inputs: Snakemake then runs it again
