"""List the kept folds, and remove those that nothing uses."""

from pathlib import Path

from kfold_ens.config import TrainingRecipe
from kfold_ens.jobs import job
from kfold_ens.members import FOLDERS
from kfold_ens.training.fold import FoldFiles
from kfold_ens.training.kept import KeptFolds, clean

if __name__ == "__main__":
    with job(snakemake.log[0]):
        clean(
            kept=KeptFolds(Path(snakemake.params.kept)),
            models=[file for place in FOLDERS for file in sorted(Path("results").glob(f"*/{place}/model.safetensors"))],
            configured=[
                FoldFiles(**fold | {"recipe": TrainingRecipe.model_validate_json(fold["recipe"])})
                for fold in snakemake.params.folds
            ],
        )
