"""Let Snakemake write its report of the finished run, with the same configuration."""

from kfold_ens.jobs import job, snakemake_report

if __name__ == "__main__":
    with job(snakemake.log[0]):
        params, section = snakemake.params, snakemake.params.get("section")
        config = {section: snakemake.config} if section else snakemake.config
        snakemake_report(
            params.snakefile, config, params.pages, snakemake.output[0], params.style, options=params.options
        )
