"""The metric out of fold before and after weights are rounded; an error if it gets worse."""

from pydantic import TypeAdapter

from kfold_ens.config import Tta, load_config
from kfold_ens.data.manifest import read_manifest
from kfold_ens.ensemble.metrics import read_scoring
from kfold_ens.files import write_json
from kfold_ens.jobs import job
from kfold_ens.logits import read_logits

if __name__ == "__main__":
    with job(snakemake.log[0]):
        from kfold_ens.bundle.rounding_cost import compare, predict_rounded
        from kfold_ens.compute.compute import leased_compute
        from kfold_ens.data.pixels import PixelStore

        files, params, run = snakemake.input, snakemake.params, load_config(snakemake.config)
        with leased_compute(run, snakemake.threads) as compute:
            after = predict_rounded(
                models=files.model,
                splits=files.folds,
                tta=TypeAdapter(Tta).validate_json(params.tta),
                store=PixelStore(files.pixels, files.index),
                compute=compute,
                batch_size=run.prediction_batch_size,
            )
        train = read_manifest(files.manifest)
        rounding = compare(
            before=list(map(read_logits, files.oof)),
            after=after,
            label_of=dict(zip(train["image_id"], train["label"], strict=True)),
            scoring=read_scoring(params),
            over_repeats=params.get("method", "average"),
        )
        write_json(snakemake.output[0], rounding.model_dump())
