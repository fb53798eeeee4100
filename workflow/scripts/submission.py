"""Write the submission's CSV from combined logits."""

from kfold_ens.config import Submission
from kfold_ens.data.manifest import read_manifest
from kfold_ens.ensemble.forms import resolved
from kfold_ens.ensemble.out_of_fold import combined_over_repeats
from kfold_ens.ensemble.submission import build_submission, check_submission
from kfold_ens.ensemble.temperature import calibrate
from kfold_ens.files import write_table
from kfold_ens.jobs import job, log
from kfold_ens.logits import at_temperature, read_logits

if __name__ == "__main__":
    with job(snakemake.log[0]):
        files, params = snakemake.input, snakemake.params
        test, logits = read_manifest(files.manifest), read_logits(files.logits)
        form = resolved(Submission.model_validate_json(params.submission), params.names, test, logits.classes)
        if oof := files.get("oof"):
            train = read_manifest(files.train)
            folds = combined_over_repeats(list(map(read_logits, oof)), params.get("method", "average"))
            calibration = calibrate(folds, dict(zip(train["image_id"], train["label"], strict=True)))
            log.info("submission.calibrate: %s", calibration)
            logits = at_temperature(logits, calibration.temperature)
        write_table(snakemake.output[0], build_submission(logits, form))
        check_submission(snakemake.output[0], form)
