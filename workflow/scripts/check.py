"""Describe the data and the plan, and list all findings."""

from functools import partial
from pathlib import Path

from kfold_ens.config import load_config
from kfold_ens.data.check import check_data
from kfold_ens.ensemble.submission import refuse_what_cannot_be_submitted
from kfold_ens.jobs import job, log, metrics_of_recipes, usable_threads
from kfold_ens.splits.make import check_splits

if __name__ == "__main__":
    with job(snakemake.log[0]):
        manifests = {half: Path(file) for half, file in snakemake.params.manifests.items()}
        check_data(
            run=load_config(snakemake.config),
            threads=usable_threads(snakemake.threads),
            manifests=manifests,
            split=partial(check_splits, of_recipes=metrics_of_recipes()),
            also=partial(refuse_what_cannot_be_submitted, of_recipes=metrics_of_recipes()),
        )
        log.info("%s", snakemake.params.plan)
        log.info("No error found. To start: snakemake --cores 4 %s", snakemake.params.start)
