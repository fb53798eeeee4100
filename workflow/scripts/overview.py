"""Write the report's first page."""

import pandas as pd

from kfold_ens.config import Config, Recipe
from kfold_ens.data.manifest import read_manifest
from kfold_ens.ensemble.cross_fitting import ScoredBy, with_cross_fitted
from kfold_ens.ensemble.known_labels import known_groups, known_labels
from kfold_ens.ensemble.summary import summarize
from kfold_ens.files import read_json
from kfold_ens.jobs import job
from kfold_ens.logits import read_logits
from kfold_ens.members import by_number
from kfold_ens.report.overview import write_overview

if __name__ == "__main__":
    with job(snakemake.log[0]):
        files, params, outputs = snakemake.input, snakemake.params, dict(snakemake.output.items())
        run, recipe = Config.model_validate_json(params.run), Recipe.model_validate_json(params.recipe)
        manifest = read_manifest(*files.data[:2])
        if scores := files.get("metrics"):
            metrics = read_json(scores)
        else:
            label_of = known_labels(manifest, files.get("test_labels"), run.submission, run.submission_names)
            group_of, histories = known_groups(manifest), by_number(files.history, str)
            metrics = summarize(
                oof=dict(zip(params.folds, map(read_logits, files.oof), strict=True)),
                test=dict(zip(params.folds, map(read_logits, files.test), strict=True)),
                combined={},
                label_of=label_of,
                scoring=run.scoring,
                calibrates=run.submission.calibrate,
                group_of=group_of,
                over_repeats=run.over_repeats,
            )
            metrics = with_cross_fitted(
                metrics,
                histories={number: histories[number] for number in params.folds},
                choosing=recipe.choosing,
                scored_by=ScoredBy(label_of, run.scoring, group_of, run.over_repeats),
            )
        write_overview(
            run=run,
            recipe=recipe,
            name=snakemake.wildcards.recipe,
            metrics=metrics,
            manifest=manifest,
            classes=read_json(files.data[2]),
            histories=by_number(files.history, pd.read_csv),
            outputs=outputs,
        )
