"""Stop the recipes of an ablation that are clearly worse than the leader."""

from kfold_ens.data.manifest import read_manifest
from kfold_ens.ensemble.metrics import read_scoring
from kfold_ens.ensemble.out_of_fold import read_held_out
from kfold_ens.ensemble.race import after_fold, as_text, start
from kfold_ens.files import read_json, write_json
from kfold_ens.jobs import job, log

if __name__ == "__main__":
    with job(snakemake.log[0]):
        files, params = snakemake.input, snakemake.params
        before = files.get("before")
        race = read_json(before) if before else start(params.recipes, params.folds)
        oof = read_held_out(files.oof, params.get("method", "average"))
        race = after_fold(race, oof, read_manifest(files.manifest), read_scoring(params))
        write_json(snakemake.output[0], race)
        log.info("%s", as_text(race))
