"""Combined logits to the submission's CSV."""

from kfold_ens.config import Submission
from kfold_ens.data.manifest import read_manifest
from kfold_ens.ensemble.submission import build_submission, check_submission, in_order_of, sample_ids
from kfold_ens.exchange import read_logits
from kfold_ens.files import write_table
from kfold_ens.jobs import job

if __name__ == "__main__":
    with job(snakemake.log[0]):
        logits = read_logits(snakemake.input.logits)
        test = read_manifest(snakemake.input.manifest, "test")
        columns, names = Submission.model_validate_json(snakemake.params.submission), snakemake.params.names
        table = build_submission(logits, test, columns, names)
        if columns.sample:
            table = in_order_of(table, sample_ids(columns.sample, table[columns.id_column], columns))
        write_table(snakemake.output[0], table)
        check_submission(snakemake.output[0], test, logits.classes, columns, names)
