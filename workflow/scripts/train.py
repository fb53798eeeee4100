"""One fold's images and a recipe to its chosen weights."""

from pathlib import Path

from kfold_ens.config import TrainingRecipe, load_config
from kfold_ens.jobs import job

if __name__ == "__main__":
    with job(snakemake.log[0]):
        from kfold_ens.data.pixels import PixelStore
        from kfold_ens.training.evaluation import leased_compute
        from kfold_ens.training.fold import read_fold, train_fold

        files, params = snakemake.input, snakemake.params
        run = load_config(snakemake.config)
        store = PixelStore(files.pixels, files.index)
        with leased_compute(run, snakemake.threads) as compute:
            train_fold(
                recipe=TrainingRecipe.model_validate_json(params.recipe),
                fold=read_fold(params.fold, params.seed, files.manifest, files.folds, files.classes, store),
                weights=Path(files.weights) if files.get("weights") else None,
                compute=compute,
                checkpoint_minutes=run.checkpoint_minutes,
                state_folder=Path(params.state),
                history_file=Path(snakemake.output.history),
                model_file=Path(snakemake.output.model),
                version=params.version,
                tensorboard=Path(params.tensorboard) if run.tensorboard else None,
            )
