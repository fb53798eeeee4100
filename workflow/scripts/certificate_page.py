"""Write the report's page on the certificate."""

from kfold_ens.files import read_json
from kfold_ens.jobs import job
from kfold_ens.report.certificate import write_certificate_page

if __name__ == "__main__":
    with job(snakemake.log[0]):
        files = snakemake.input
        write_certificate_page(read_json(files.certificate), files.splits, snakemake.output.certificate)
