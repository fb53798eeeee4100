"""Write the report's page on the blend."""

from kfold_ens.config import Config
from kfold_ens.files import read_json
from kfold_ens.jobs import job
from kfold_ens.report.blend import write_blend

if __name__ == "__main__":
    with job(snakemake.log[0]):
        files, outputs, run = snakemake.input, snakemake.output, Config.model_validate_json(snakemake.params.run)
        write_blend(read_json(files.metrics), run, files.model, outputs.page, outputs.score)
