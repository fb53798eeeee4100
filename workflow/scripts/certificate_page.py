"""Write the report's page on the certificate."""

import json

from kfold_ens.files import read_json
from kfold_ens.jobs import job
from kfold_ens.report.certificate import Now, write_certificate_page

if __name__ == "__main__":
    with job(snakemake.log[0]):
        files, params = snakemake.input, snakemake.params
        now = Now(files.files, json.loads(params.configuration), params.commit)
        write_certificate_page(read_json(files.certificate), now, snakemake.output.certificate)
