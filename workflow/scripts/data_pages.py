"""Write the report's pages about the images."""

from kfold_ens.data.manifest import read_manifest
from kfold_ens.data.pixels import PixelStores
from kfold_ens.files import read_json, read_table
from kfold_ens.jobs import job
from kfold_ens.report.data import write_data

if __name__ == "__main__":
    with job(snakemake.log[0]):
        files = snakemake.input
        write_data(
            manifest=read_manifest(*files.manifests),
            alike=read_table(files.look_alikes),
            folds=read_table(files.folds),
            classes=read_json(files.classes),
            store=PixelStores(files.pixels, files.index),
            outputs=dict(snakemake.output.items()),
            keep_together=snakemake.params.get("keep_together", "none"),
        )
