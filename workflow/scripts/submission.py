"""Combined logits to the submission's CSV."""

from kfold_ens.config import Submission
from kfold_ens.data.manifest import read_manifest
from kfold_ens.ensemble.submission import build_submission, check_submission
from kfold_ens.files import write_table
from kfold_ens.jobs import job
from kfold_ens.logits import read_logits

if __name__ == "__main__":
    with job(snakemake.log[0]):
        logits = read_logits(snakemake.input.logits)
        test = read_manifest(snakemake.input.manifest)
        columns, names = Submission.model_validate_json(snakemake.params.submission), snakemake.params.names
        write_table(snakemake.output[0], build_submission(logits, test, columns, names))
        check_submission(snakemake.output[0], test, logits.classes, columns, names)
