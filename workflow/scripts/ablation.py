"""Compare recipes in one table."""

from kfold_ens.data.manifest import read_manifest
from kfold_ens.ensemble.metrics import read_scoring
from kfold_ens.files import read_json, write_table
from kfold_ens.jobs import job, log
from kfold_ens.report.comparison import as_text, compare, read_recipes

if __name__ == "__main__":
    with job(snakemake.log[0]):
        files = snakemake.input
        method = snakemake.params.get("method", "average")
        recipes = read_recipes(snakemake.params.recipes, files.metrics, files.oof, files.history, files.model, method)
        race = read_json(files.race) if files.get("race") else None
        scoring = read_scoring(snakemake.params)
        table = compare(recipes, read_manifest(files.manifest), scoring, race)
        write_table(snakemake.output[0], table)
        log.info("%s", as_text(table, scoring.metric))
