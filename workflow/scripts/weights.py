"""Save pretrained weights as safetensors."""

from pathlib import Path

from pydantic import TypeAdapter

from kfold_ens.config import Backbone
from kfold_ens.jobs import job

if __name__ == "__main__":
    with job(snakemake.log[0]):
        from kfold_ens.network.weights import prepare_weights

        backbone = TypeAdapter(Backbone).validate_json(snakemake.params.backbone)
        prepare_weights(backbone, Path(snakemake.output[0]))
