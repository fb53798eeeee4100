"""Write the report's page that compares recipes."""

import pandas as pd

from kfold_ens.ensemble.metrics import read_scoring
from kfold_ens.jobs import job
from kfold_ens.report.ablation import write_ablation

if __name__ == "__main__":
    with job(snakemake.log[0]):
        text = {"dtype": {"recipe": str}, "keep_default_na": False, "na_values": [""]}
        write_ablation(
            pd.read_csv(snakemake.input[0], **text), snakemake.output[0], read_scoring(snakemake.params).metric
        )
