# The image of profiles/kubernetes: docker build -t my-registry/kfold_ens:0.2.0 . && docker push my-registry/kfold_ens:0.2.0
# It holds Python and the package, with the workflow for projects of kfold-init; a clone's jobs bring their own.
FROM python:3.12-slim

# If you call Snakemake in a pod, it asks git which files to send to jobs.
RUN apt-get update && apt-get install -y --no-install-recommends git && rm -rf /var/lib/apt/lists/*

# PyPI's torch includes CUDA; the driver comes from the machine.
WORKDIR /opt/kfold_ens
COPY pyproject.toml README.md hatch_build.py Snakefile config.yaml environment.yml environment.post-deploy.sh ./
COPY src src
COPY workflow workflow
COPY recipes recipes
COPY ablations ablations
COPY profiles profiles
COPY schemas schemas
RUN pip install --no-cache-dir ".[kubernetes,timm]"

# The executor plugin makes each pod install the storage plugin; with these wheels it does so offline.
RUN pip download --no-cache-dir --dest /opt/wheels snakemake-storage-plugin-s3
ENV PIP_NO_INDEX=1 PIP_FIND_LINKS=/opt/wheels

WORKDIR /workdir
