"""Write the report's page of training images as the network sees them."""

from kfold_ens.config import Recipe
from kfold_ens.jobs import job

if __name__ == "__main__":
    with job(snakemake.log[0]):
        from kfold_ens.data.folds import read_fold
        from kfold_ens.data.pixels import PixelStore
        from kfold_ens.report.data import write_views
        from kfold_ens.training.preview import first_steps

        files, params = snakemake.input, snakemake.params
        store = PixelStore(files.pixels, files.index)
        fold = read_fold(params.fold, params.seed, files.folds, files.classes, store)
        steps = first_steps(Recipe.model_validate_json(params.recipe), fold, steps=6, most=8)
        write_views(steps, fold.number, fold.classes, snakemake.output[0])
