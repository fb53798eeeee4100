"""Several recipes side by side."""

import numpy as np

from kfold_ens.data.manifest import read_manifest
from kfold_ens.ensemble.ablation import as_text, compare, read_recipe
from kfold_ens.files import write_table
from kfold_ens.jobs import job, log

if __name__ == "__main__":
    with job(snakemake.log[0]):
        files, recipes = snakemake.input, snakemake.params.recipes
        by_fold = [np.reshape(kind, (len(recipes), -1)).tolist() for kind in (files.oof, files.history, files.model)]
        table = compare(list(map(read_recipe, recipes, files.metrics, *by_fold)), read_manifest(files.manifest))
        write_table(snakemake.output[0], table)
        log.info("%s", as_text(table))
