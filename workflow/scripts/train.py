"""One fold's images and a recipe to its chosen weights."""

from functools import partial

from kfold_ens.config import TrainingRecipe, load_config
from kfold_ens.jobs import job

if __name__ == "__main__":
    with job(snakemake.log[0]):
        from kfold_ens.training.evaluation import leased_computes
        from kfold_ens.training.fold import train_fold_of_files
        from kfold_ens.training.ranks import train_together

        files, params = snakemake.input, snakemake.params
        run = load_config(snakemake.config)
        train = partial(
            train_fold_of_files,
            recipe=TrainingRecipe.model_validate_json(params.recipe),
            number=params.fold,
            seed=params.seed,
            manifest=files.manifest,
            folds=files.folds,
            classes=files.classes,
            pixels=files.pixels,
            index=files.index,
            weights=files.get("weights"),
            checkpoint_minutes=run.checkpoint_minutes,
            state_folder=params.state,
            history_file=snakemake.output.history,
            model_file=snakemake.output.model,
            version=params.version,
            tensorboard=params.tensorboard if run.tensorboard else None,
        )
        with leased_computes(run, snakemake.threads, run.gpus_per_fold) as computes:
            train_together(train, computes)
