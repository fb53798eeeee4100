"""Predict one model's logits for its held-out images or for the test images."""

from pydantic import TypeAdapter

from kfold_ens.config import Tta, load_config
from kfold_ens.jobs import job

if __name__ == "__main__":
    with job(snakemake.log[0]):
        from kfold_ens.compute.compute import leased_compute
        from kfold_ens.data.folds import listed_images
        from kfold_ens.data.pixels import PixelStore
        from kfold_ens.prediction.predict import predict_images

        files, params, run = snakemake.input, snakemake.params, load_config(snakemake.config)
        with leased_compute(run, snakemake.threads) as compute:
            predict_images(
                image_ids=listed_images(files.images, params.get("fold")),
                tta=TypeAdapter(Tta).validate_json(params.tta),
                model_file=files.model,
                store=PixelStore(files.pixels, files.index),
                compute=compute,
                batch_size=run.prediction_batch_size,
                logits_file=snakemake.output[0],
            )
