"""Snakemake's own report of the finished run."""

import subprocess
import sys

from kfold_ens.jobs import job

if __name__ == "__main__":
    with job(snakemake.log[0]):
        subprocess.run([sys.executable, "-m", "snakemake", "--report", snakemake.output[0]], check=True)
