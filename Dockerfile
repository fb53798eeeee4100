# What pods of profiles/kubernetes run: docker build -t my-registry/kfold_ens:0.1.0 . && docker push my-registry/kfold_ens:0.1.0
# Only Python and the package; the workflow itself comes with each job.
FROM python:3.12-slim

# Snakemake asks git which files to send along, where it runs in a pod itself.
RUN apt-get update && apt-get install -y --no-install-recommends git && rm -rf /var/lib/apt/lists/*

# PyPI's torch brings CUDA along; the driver is the machine's.
WORKDIR /opt/kfold_ens
COPY pyproject.toml README.md ./
COPY src src
RUN pip install --no-cache-dir ".[kubernetes,timm]"

# Each pod installs the storage plugin anew, as its executor has it; so it needs no network for that.
RUN pip download --no-cache-dir --dest /opt/wheels snakemake-storage-plugin-s3
ENV PIP_NO_INDEX=1 PIP_FIND_LINKS=/opt/wheels

WORKDIR /workdir
