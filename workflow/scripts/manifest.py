"""Images of a source to manifest.csv and classes.json."""

from pathlib import Path

from kfold_ens.config import load_config
from kfold_ens.data.manifest import write_manifest
from kfold_ens.ensemble.metrics import known_labels
from kfold_ens.ensemble.submission import ids_in_order
from kfold_ens.jobs import job, usable_threads

if __name__ == "__main__":
    with job(snakemake.log[0]):
        run = load_config(snakemake.config)
        manifest = write_manifest(
            run=run,
            export=Path(snakemake.output.images),
            threads=usable_threads(snakemake.threads),
            manifest_file=snakemake.output.manifest,
            classes_file=snakemake.output.classes,
            look_alikes_file=snakemake.output.look_alikes,
        )
        # what the submission and its scores will want is refused before training
        known_labels(manifest, run.data.test_labels, run.submission, run.submission_names)
        ids_in_order(manifest[manifest["split"] == "test"], run.submission, run.submission_names)
