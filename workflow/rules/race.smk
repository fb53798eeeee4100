# The folds of the recipes listed at `ablation:`: all of them, or in a race those before a recipe was stopped.
RACE_ENDS = len(FOLDS) - 1  # folds; after the last one, nothing is left to stop


def race_file(folds):
    """The race after so many folds: which recipes train the next one. It is never in the storage."""
    return local(f"results/race/after_{folds}_folds.json")


def raced(folds):
    """Read the race after so many folds. Snakemake finishes these folds before it asks again."""
    return read_json(checkpoints.race.get(folds=folds).output[0])


def files_to_judge(wildcards):
    """What decides which recipes train the next fold: the race so far, and the logits of recipes that have a rival."""
    folds = int(wildcards.folds)
    before = raced(folds - 1) if folds > FIRST_LOOK else {"racing": ABLATION}
    racing = before["racing"] if len(before["racing"]) > 1 else []
    oof = [file for recipe in racing for file in files_of(FOLDS[:folds], recipe, "oof_logits.npz")]
    return {"oof": oof} | ({"before": race_file(folds - 1)} if folds > FIRST_LOOK else {})


def folds_of_ablation():
    """The folds of each recipe that are compared: all, or in a race those before the recipe was stopped."""
    stopped = raced(RACE_ENDS)["stopped"] if RACES else {}
    return {recipe: FOLDS[: stopped[recipe]["folds"]] if recipe in stopped else FOLDS for recipe in ABLATION}


def files_to_compare(wildcards):
    """The results of the recipes, of their folds recipe by recipe. A recipe that was stopped has no scores."""
    folds_of = folds_of_ablation()
    of_folds = {
        name: [file for recipe, folds in folds_of.items() for file in files_of(folds, recipe, path)]
        for name, path in {"oof": "oof_logits.npz", "history": "history.csv", "model": "model.safetensors"}.items()
    }
    metrics = [f"results/{recipe}/metrics.json" for recipe, folds in folds_of.items() if folds == FOLDS]
    race = {"race": race_file(RACE_ENDS)} if RACES else {}
    return {"metrics": metrics, **of_folds, "model": ancient(of_folds["model"]), **race}


def files_of_ablation(wildcards):
    """The small files of each recipe, as in ``intermediate_files``, or in a race those of its folds."""
    return [
        file
        for recipe, folds in folds_of_ablation().items()
        for file in (intermediate_files(recipe) if folds == FOLDS else small_files_of(recipe, folds))
    ]


def race_sentence():
    """What a race may train. Empty if there is none."""
    if not RACES:
        return ""
    trained = sum(all(map(exists, outputs_of(recipe, fold))) for recipe in ABLATION for fold in FOLDS)
    return (
        f"The ablation is a race of {len(ABLATION)} recipes: at most {len(ABLATION) * len(FOLDS)} folds, {trained} of them "
        f"trained already. A recipe that is clearly worse than the leader is stopped after {FIRST_LOOK} folds or more."
    )


def threads_to_judge(wildcards):
    """One thread. Also logs the race: Snakemake calls this only if a look is still to come."""
    log_race()
    return 1


@cache
def log_race():
    """Log once that the ablation is a race."""
    if workflow.is_main_process:
        logger.info(race_sentence())
