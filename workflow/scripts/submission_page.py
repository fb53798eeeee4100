"""The report's page of the submission."""

from kfold_ens.config import Submission
from kfold_ens.data.manifest import read_manifest
from kfold_ens.ensemble.submission import check_submission
from kfold_ens.files import read_json, read_table
from kfold_ens.jobs import job
from kfold_ens.report.ensemble import write_submission_page

if __name__ == "__main__":
    with job(snakemake.log[0]):
        files, params = snakemake.input, snakemake.params
        manifest, classes = read_manifest(*files.manifests), read_json(files.classes)
        test = manifest[manifest["split"] == "test"]
        columns = Submission.model_validate_json(params.submission)
        write_submission_page(
            submission=read_table(files.submission),
            train_labels=manifest.loc[manifest["split"] == "train", "label"],
            classes=classes,
            checks=check_submission(files.submission, test, classes, columns, params.names),
            path=snakemake.output[0],
        )
