"""Certify that nothing that scores a fold has seen its labels: certificate.json, and an error if that fails."""

import json
from pathlib import Path

from pydantic import TypeAdapter

from kfold_ens.config import TrainingRecipe, Tta, load_config
from kfold_ens.jobs import job

if __name__ == "__main__":
    with job(snakemake.log[0]):
        from kfold_ens.certificate.certify import write_certificate
        from kfold_ens.certificate.rebuild import Bench
        from kfold_ens.compute.compute import leased_compute
        from kfold_ens.data.pixels import PixelStore

        Path(snakemake.params.certificate).unlink(missing_ok=True)  # an older one must not outlive an error
        files, params, run = snakemake.input, snakemake.params, load_config(snakemake.config)
        recipe = TrainingRecipe.model_validate_json(params.recipe)
        with leased_compute(run.model_copy(update={"deterministic": True}), snakemake.threads) as compute:
            bench = Bench(
                run=run,
                recipe=recipe.shortened(run.certify_epochs),
                epochs=recipe.epochs,
                tta=TypeAdapter(Tta).validate_json(params.tta),
                classes=files.classes,
                store=PixelStore(files.pixels, files.index),
                weights=Path(files.weights) if files.get("weights") else None,
                version=params.version,
                compute=compute,
                scratch=Path(params.scratch),
            )
            write_certificate(
                path=params.certificate,
                bench=bench,
                split_files=files.splits,
                manifests=files.manifests,
                look_alikes=files.look_alikes,
                about={
                    "recipe": params.name,
                    "configuration": json.loads(params.configuration),
                    "commit": params.commit,
                },
            )
