"""Write the report's pages on what ensembling gained and where folds differ."""

from kfold_ens.config import METHODS, Submission
from kfold_ens.data.manifest import read_manifest
from kfold_ens.data.pixels import PixelStore
from kfold_ens.ensemble.combine import sure_by
from kfold_ens.ensemble.known_labels import known_labels
from kfold_ens.ensemble.out_of_fold import combined_over_repeats
from kfold_ens.files import read_json
from kfold_ens.jobs import job
from kfold_ens.logits import read_logits
from kfold_ens.members import by_number
from kfold_ens.report.ensemble import write_ensemble

if __name__ == "__main__":
    with job(snakemake.log[0]):
        files = snakemake.input
        submission, names = Submission.model_validate_json(snakemake.params.submission), snakemake.params.names
        method = sure_by(snakemake.params.get("method", "average"))
        write_ensemble(
            metrics=read_json(files.metrics),
            oof=combined_over_repeats(list(map(read_logits, files.oof)), method),
            test=by_number(files.test, read_logits),
            combined=dict(zip(METHODS, map(read_logits, files.methods), strict=True)),
            label_of=known_labels(
                read_manifest(*files.manifests),
                files.get("test_labels"),
                submission,
                names,
            ),
            store=PixelStore(files.pixels, files.index),
            outputs=dict(snakemake.output.items()),
            calibrated=submission.calibrate,
        )
