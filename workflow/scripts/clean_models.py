"""What is kept of trained folds: lists it, and removes what no recipe uses."""

from pathlib import Path

from kfold_ens.jobs import job
from kfold_ens.training.kept import KeptFolds, clean

if __name__ == "__main__":
    with job(snakemake.log[0]):
        params = snakemake.params
        clean(KeptFolds(Path(params.kept)), [Path(model) for model in params.models])
