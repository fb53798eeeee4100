"""One fold model's logits for its held-out images and for the test images."""

from pydantic import TypeAdapter

from kfold_ens.config import Tta, load_config
from kfold_ens.jobs import job

if __name__ == "__main__":
    with job(snakemake.log[0]):
        from kfold_ens.data.pixels import PixelStore
        from kfold_ens.prediction.predict import predict_fold
        from kfold_ens.training.evaluation import leased_compute

        files = snakemake.input
        with leased_compute(load_config(snakemake.config), snakemake.threads) as compute:
            predict_fold(
                fold=snakemake.params.fold,
                tta=TypeAdapter(Tta).validate_json(snakemake.params.tta),
                model_file=files.model,
                manifest_file=files.manifest,
                folds_file=files.folds,
                store=PixelStore(files.pixels, files.index),
                compute=compute,
                oof_file=snakemake.output.oof,
                test_file=snakemake.output.test,
            )
