"""List the test images of a source in test.csv, and near-duplicates in look_alikes.csv."""

from pathlib import Path

from kfold_ens.config import load_config
from kfold_ens.data.folders import source_of
from kfold_ens.data.manifest import write_test_manifest
from kfold_ens.ensemble.submission import refuse_what_cannot_be_submitted
from kfold_ens.files import write_json
from kfold_ens.jobs import job, metrics_of_recipes, usable_threads

if __name__ == "__main__":
    with job(snakemake.log[0]):
        run, outputs = load_config(snakemake.config), snakemake.output
        images = write_test_manifest(
            run=run,
            export=Path(outputs.images),
            threads=usable_threads(snakemake.threads),
            train_file=snakemake.input.train,
            manifest_file=outputs.manifest,
            look_alikes_file=outputs.look_alikes,
        )
        refuse_what_cannot_be_submitted(images, run, metrics_of_recipes())
        write_json(outputs.source, source_of(run.data, "test", run.seed, snakemake.params.version))
