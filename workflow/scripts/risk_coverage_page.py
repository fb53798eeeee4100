"""The report's page of how accurate the predictions are that are sure."""

from kfold_ens.config import METHODS, Submission
from kfold_ens.data.manifest import read_manifest
from kfold_ens.ensemble.known_labels import known_groups, known_labels
from kfold_ens.jobs import job
from kfold_ens.logits import read_logits
from kfold_ens.report.risk_coverage import write_risk_coverage

if __name__ == "__main__":
    with job(snakemake.log[0]):
        files, params = snakemake.input, snakemake.params
        submission = Submission.model_validate_json(params.submission)
        manifest = read_manifest(*files.manifests)
        write_risk_coverage(
            oof=list(map(read_logits, files.oof)),
            combined=dict(zip(METHODS, map(read_logits, files.methods), strict=True)),
            method=params.method,
            label_of=known_labels(manifest, files.get("test_labels"), submission, params.names),
            path=snakemake.output.risk_coverage,
            calibrated=submission.calibrate,
            group_of=known_groups(manifest),
        )
