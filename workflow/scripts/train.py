"""Train one member, unless it was trained before."""

from functools import partial
from pathlib import Path

from kfold_ens.config import TrainingRecipe, load_config
from kfold_ens.files import touch
from kfold_ens.jobs import is_asked_for, job
from kfold_ens.training.fold import FoldFiles, TrainingOutputs
from kfold_ens.training.kept import KeptFolds, restore_fold

if __name__ == "__main__":
    with job(snakemake.log[0]):
        files, params, run = snakemake.input, snakemake.params, load_config(snakemake.config)
        fold = FoldFiles(
            recipe=TrainingRecipe.model_validate_json(params.recipe),
            number=params.fold,
            seed=params.seed,
            version=params.version,
            folds=files.folds,
            classes=files.classes,
            pixels=files.pixels,
            index=files.index,
            weights=files.get("weights"),
            histories=files.get("histories", ()),
        )
        outputs = TrainingOutputs(
            history=Path(snakemake.output.history),
            model=Path(snakemake.output.model),
            state=Path(params.state),
            checkpoint_minutes=run.checkpoint_minutes,
            tensorboard=Path(params.tensorboard) if run.tensorboard else None,
            scoring=run.scoring,
            epoch_logits_mb=run.epoch_logits_mb,
        )
        kept = KeptFolds(Path(params.kept))
        if not restore_fold(fold, outputs, kept, again=is_asked_for(snakemake.rule)):
            from kfold_ens.compute.compute import leased_computes
            from kfold_ens.compute.processes import train_together
            from kfold_ens.training.loop import train_fold_of_files

            train = partial(train_fold_of_files, files=fold, outputs=outputs, kept=kept)
            with leased_computes(run, snakemake.threads, run.gpus_per_fold) as computes:
                train_together(train, computes)
        touch(snakemake.output.epochs)  # in a storage, an output: empty if the logits of epochs are not kept
