"""Combine the members' test logits by one ensembling method."""

from kfold_ens.ensemble.combine import combine
from kfold_ens.jobs import job
from kfold_ens.logits import read_logits, write_logits

if __name__ == "__main__":
    with job(snakemake.log[0]):
        members = {path: read_logits(path) for path in snakemake.input.test}
        write_logits(snakemake.output[0], combine(members, snakemake.wildcards.method))
