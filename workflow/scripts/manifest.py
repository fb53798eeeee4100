"""Images of a source to manifest.csv and classes.json."""

from pathlib import Path

from kfold_ens.config import load_config
from kfold_ens.data.manifest import write_manifest
from kfold_ens.jobs import job, usable_threads

if __name__ == "__main__":
    with job(snakemake.log[0]):
        write_manifest(
            run=load_config(snakemake.config),
            export=Path(snakemake.output.images),
            threads=usable_threads(snakemake.threads),
            manifest_file=snakemake.output.manifest,
            classes_file=snakemake.output.classes,
        )
