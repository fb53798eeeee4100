"""Write the report's page on what the results depend on."""

from kfold_ens.config import Config, Recipe
from kfold_ens.jobs import job
from kfold_ens.report.overview import write_provenance

if __name__ == "__main__":
    with job(snakemake.log[0]):
        files, params = snakemake.input, snakemake.params
        write_provenance(
            run=Config.model_validate_json(params.run),
            recipe=Recipe.model_validate_json(params.recipe),
            recipe_file=params.recipe_file,
            commit=params.commit,
            data_files=files.data,
            models=files.model,
            path=snakemake.output[0],
        )
