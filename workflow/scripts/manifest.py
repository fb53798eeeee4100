"""List the training images of a source in train.csv and classes.json."""

from pathlib import Path

from kfold_ens.config import load_config
from kfold_ens.data.folders import source_of
from kfold_ens.data.manifest import write_train_manifest
from kfold_ens.ensemble.submission import refuse_what_cannot_be_submitted
from kfold_ens.files import write_json
from kfold_ens.jobs import job, metrics_of_recipes, usable_threads

if __name__ == "__main__":
    with job(snakemake.log[0]):
        run, outputs = load_config(snakemake.config), snakemake.output
        images = write_train_manifest(
            run=run,
            export=Path(outputs.images),
            threads=usable_threads(snakemake.threads),
            manifest_file=outputs.manifest,
            classes_file=outputs.classes,
        )
        refuse_what_cannot_be_submitted(images, run, metrics_of_recipes())
        write_json(outputs.source, source_of(run.data, "train", run.seed, snakemake.params.version))
