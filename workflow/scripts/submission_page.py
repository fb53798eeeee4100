"""Write the report's page on the submission."""

from kfold_ens.config import Submission
from kfold_ens.data.manifest import read_manifest
from kfold_ens.ensemble.forms import resolved
from kfold_ens.ensemble.submission import as_written, check_submission, predicted_labels
from kfold_ens.files import read_json, read_table
from kfold_ens.jobs import job
from kfold_ens.report.ensemble import write_submission_page

if __name__ == "__main__":
    with job(snakemake.log[0]):
        files, params = snakemake.input, snakemake.params
        manifest, classes = read_manifest(*files.manifests), read_json(files.classes)
        submission = as_written(Submission.model_validate_json(params.submission), files.submission)
        form = resolved(submission, params.names, manifest[manifest["split"] == "test"], classes)
        table = read_table(files.submission)
        write_submission_page(
            submission=table,
            predicted=predicted_labels(table, form),
            train_labels=manifest.loc[manifest["split"] == "train", "label"],
            classes=classes,
            checks=check_submission(files.submission, form),
            path=snakemake.output[0],
        )
