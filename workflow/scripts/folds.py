"""manifest.csv to folds.csv."""

from kfold_ens.data.folds import assign_folds
from kfold_ens.data.manifest import read_manifest
from kfold_ens.files import write_table
from kfold_ens.jobs import job

if __name__ == "__main__":
    with job(snakemake.log[0]):
        train = read_manifest(snakemake.input.manifest)
        folds = assign_folds(train, snakemake.params.num_folds, snakemake.params.seed)
        write_table(snakemake.output.folds, folds)
