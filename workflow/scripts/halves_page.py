"""Write the report's page that compares training and test images."""

from kfold_ens.data.manifest import read_manifest
from kfold_ens.data.pixels import PixelStores
from kfold_ens.files import read_table
from kfold_ens.jobs import job
from kfold_ens.report.halves import write_halves

if __name__ == "__main__":
    with job(snakemake.log[0]):
        files = snakemake.input
        write_halves(
            manifest=read_manifest(*files.manifests),
            alike=read_table(files.look_alikes),
            store=PixelStores(files.pixels, files.index),
            path=snakemake.output.halves,
        )
