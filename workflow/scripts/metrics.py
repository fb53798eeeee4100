"""Score logits against known labels: metrics.json."""

from kfold_ens.config import METHODS, Submission
from kfold_ens.data.manifest import read_manifest
from kfold_ens.ensemble.known_labels import known_groups, known_labels
from kfold_ens.ensemble.metrics import read_scoring
from kfold_ens.ensemble.summary import summarize, with_members
from kfold_ens.files import write_json
from kfold_ens.jobs import job
from kfold_ens.logits import read_logits
from kfold_ens.members import by_number

if __name__ == "__main__":
    with job(snakemake.log[0]):
        files, params = snakemake.input, snakemake.params
        submission = Submission.model_validate_json(params.submission)
        manifest = read_manifest(*files.manifests)
        metrics = summarize(
            oof=by_number(files.oof, read_logits),
            test=by_number(files.test, read_logits),
            combined=dict(zip(METHODS, map(read_logits, files.methods), strict=True)),
            label_of=known_labels(
                manifest,
                files.get("test_labels"),
                submission,
                params.names,
            ),
            scoring=read_scoring(params),
            calibrates=submission.calibrate,
            group_of=known_groups(manifest),
            over_repeats=params.get("method", "average"),
        )
        write_json(snakemake.output[0], with_members(metrics, params.get("members", "folds")))
