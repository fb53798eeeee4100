"""Weigh the recipes of a blend, and blend their logits."""

import json

from kfold_ens.data.manifest import read_manifest
from kfold_ens.ensemble.blend import describe, fit, missing_members, read_members, write_blended
from kfold_ens.ensemble.cross_fitting import ScoredBy
from kfold_ens.ensemble.known_labels import known_groups
from kfold_ens.ensemble.metrics import read_scoring
from kfold_ens.files import write_json
from kfold_ens.jobs import job

if __name__ == "__main__":
    with job(snakemake.log[0]):
        files, params, outputs = snakemake.input, snakemake.params, snakemake.output
        manifest = read_manifest(files.manifest)
        label_of = dict(zip(manifest["image_id"], manifest["label"], strict=True))
        scored_by = ScoredBy(label_of, read_scoring(params), known_groups(manifest), params.get("method", "average"))
        oof, test, choosing = read_members(files.oof), read_members(files.test), json.loads(params.choosing)
        blend = fit(oof, scored_by, params.weighing, params.of)
        write_blended(blend, oof, test, outputs.oof, outputs.test)
        about = {
            "missing": missing_members(test, choosing, outputs.test),
            "choosing": {recipe: choosing[recipe] for recipe in oof},
        }
        write_json(outputs.blend, describe(blend, oof, scored_by) | about)
