"""Zip the submission."""

from kfold_ens.ensemble.submission import write_zip
from kfold_ens.jobs import job

if __name__ == "__main__":
    with job(snakemake.log[0]):
        write_zip(snakemake.output[0], snakemake.input[0], snakemake.params.member)
