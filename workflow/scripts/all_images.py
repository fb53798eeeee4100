"""Join both manifests in one table."""

from kfold_ens.data.manifest import read_manifest
from kfold_ens.files import write_table
from kfold_ens.jobs import job

if __name__ == "__main__":
    with job(snakemake.log[0]):
        write_table(snakemake.output[0], read_manifest(*snakemake.input))
