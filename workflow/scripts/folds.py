"""Split the training images into folds: train.csv to folds.csv."""

from kfold_ens.config import load_config
from kfold_ens.data.manifest import read_manifest
from kfold_ens.files import write_table
from kfold_ens.jobs import job, metrics_of_recipes
from kfold_ens.splits.make import make_split

if __name__ == "__main__":
    with job(snakemake.log[0]):
        train, run = read_manifest(snakemake.input.manifest), load_config(snakemake.config)
        folds = make_split(train, run, snakemake.params.seed, metrics_of_recipes())
        write_table(snakemake.output.folds, folds)
