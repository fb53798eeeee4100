"""Write the report's pages on all folds' training and on their models' errors."""

import pandas as pd

from kfold_ens.config import Recipe
from kfold_ens.data.manifest import read_manifest
from kfold_ens.data.pixels import PixelStore
from kfold_ens.jobs import job
from kfold_ens.logits import read_logits
from kfold_ens.report.mistakes import write_errors
from kfold_ens.report.training import write_curves

if __name__ == "__main__":
    with job(snakemake.log[0]):
        files, params, outputs = snakemake.input, snakemake.params, dict(snakemake.output.items())
        histories = dict(zip(params.folds, map(pd.read_csv, files.history), strict=True))
        write_curves(histories, Recipe.model_validate_json(params.recipe), params.num_folds, outputs["curves"])
        manifest = read_manifest(files.manifest)
        write_errors(
            oof=list(map(read_logits, files.oof)),
            label_of=dict(zip(manifest["image_id"], manifest["label"], strict=True)),
            num_folds=params.num_folds,
            store=PixelStore(files.pixels, files.index),
            outputs=outputs,
            over_repeats=params.get("method", "average"),
        )
