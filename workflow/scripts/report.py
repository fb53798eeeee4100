"""Let Snakemake write its report of the finished run, with the same configuration."""

from kfold_ens.jobs import job, snakemake_report

if __name__ == "__main__":
    with job(snakemake.log[0]):
        params = snakemake.params
        snakemake_report(params.snakefile, snakemake.config, params.pages, snakemake.output[0], params.options)
