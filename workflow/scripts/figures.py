"""The report's figures and tables of one recipe."""

from kfold_ens.data.manifest import read_manifest
from kfold_ens.files import read_json
from kfold_ens.jobs import job
from kfold_ens.report.write import write_data, write_errors, write_training

if __name__ == "__main__":
    with job(snakemake.log[0]):
        files, outputs = snakemake.input, dict(snakemake.output.items())
        manifest = read_manifest(files.manifest)
        write_data(manifest, files.folds, read_json(files.classes), outputs["counts"])
        write_training(files.history, outputs["curves"])
        write_errors(files.oof, manifest, outputs)
