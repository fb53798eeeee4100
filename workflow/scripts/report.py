"""Snakemake's own report of the finished run, by the same configuration."""

from kfold_ens.jobs import job, snakemake_report

if __name__ == "__main__":
    with job(snakemake.log[0]):
        snakemake_report(snakemake.params.snakefile, snakemake.config, list(snakemake.input.pages), snakemake.output[0])
