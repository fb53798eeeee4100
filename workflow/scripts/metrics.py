"""Score logits against known labels: metrics.json."""

from kfold_ens.config import METHODS, Choosing, Submission
from kfold_ens.data.manifest import read_manifest
from kfold_ens.ensemble.blend_score import with_blend
from kfold_ens.ensemble.cross_fitting import ScoredBy, with_cross_fitted
from kfold_ens.ensemble.known_labels import known_groups, known_labels
from kfold_ens.ensemble.metrics import read_scoring
from kfold_ens.ensemble.summary import summarize, with_members
from kfold_ens.files import read_json, write_json
from kfold_ens.jobs import job
from kfold_ens.logits import read_logits
from kfold_ens.members import by_number

if __name__ == "__main__":
    with job(snakemake.log[0]):
        files, params = snakemake.input, snakemake.params
        submission = Submission.model_validate_json(params.submission)
        manifest = read_manifest(*files.manifests)
        label_of = known_labels(manifest, files.get("test_labels"), submission, params.names)
        scoring, group_of, method = read_scoring(params), known_groups(manifest), params.get("method", "average")
        metrics = summarize(
            oof=by_number(files.oof, read_logits),
            test=by_number(files.test, read_logits),
            combined=dict(zip(METHODS, map(read_logits, files.methods), strict=True)),
            label_of=label_of,
            scoring=scoring,
            calibrates=submission.calibrate,
            group_of=group_of,
            over_repeats=method,
        )
        scored_by = ScoredBy(label_of, scoring, group_of, method)
        if blend := files.get("blend"):
            metrics = with_blend(metrics, read_json(blend), files.history, scored_by)
        else:
            choosing = Choosing.model_validate_json(params.choosing)
            metrics = with_cross_fitted(metrics, by_number(files.history, str), choosing, scored_by)
        write_json(snakemake.output[0], with_members(metrics, params.get("members", "folds")))
