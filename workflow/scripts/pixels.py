"""Decode the images of a manifest once."""

from pathlib import Path

from kfold_ens.data.manifest import read_manifest
from kfold_ens.data.pixels import write_pixels
from kfold_ens.jobs import job, usable_threads

if __name__ == "__main__":
    with job(snakemake.log[0]):
        write_pixels(
            manifest=read_manifest(snakemake.input.manifest),
            short_side=int(snakemake.wildcards.short_side),
            pixels=Path(snakemake.output.pixels),
            index=Path(snakemake.output.index),
            threads=usable_threads(snakemake.threads),
            intensity_range=snakemake.params.get("intensity_range", "full"),
        )
