"""Write the report's page on one member's training."""

import pandas as pd

from kfold_ens.config import Recipe
from kfold_ens.jobs import job
from kfold_ens.members import member_in
from kfold_ens.report.training import write_fold

if __name__ == "__main__":
    with job(snakemake.log[0]):
        write_fold(
            fold=member_in(snakemake.wildcards.member).number,
            history=pd.read_csv(snakemake.input.history),
            recipe=Recipe.model_validate_json(snakemake.params.recipe),
            path=snakemake.output[0],
        )
