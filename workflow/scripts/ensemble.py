"""Write all models of a recipe to one file, and its model card."""

from pydantic import TypeAdapter

from kfold_ens.config import Tta
from kfold_ens.data.manifest import read_manifest
from kfold_ens.ensemble.out_of_fold import combined_over_repeats
from kfold_ens.files import read_json
from kfold_ens.jobs import job
from kfold_ens.logits import read_logits

if __name__ == "__main__":
    with job(snakemake.log[0]):
        from kfold_ens.bundle.card import write_card
        from kfold_ens.bundle.collect import collect_models
        from kfold_ens.bundle.rounding_cost import read_rounding

        files, params = snakemake.input, snakemake.params
        about = collect_models(
            models=files.model,
            recipe_name=params.recipe,
            tta=TypeAdapter(Tta).validate_json(params.tta),
            method=params.method,
            intensity_range=params.get("intensity_range", "full"),
            metrics=read_json(files.metrics),
            path=snakemake.output.ensemble,
            rounding=read_rounding(files.get("rounding")),
        )
        oof = combined_over_repeats(list(map(read_logits, files.oof)), params.method)
        write_card(snakemake.output.card, about, read_manifest(files.manifest), oof)
