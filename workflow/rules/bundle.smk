# Measure what rounding the weights of the ensemble file costs: each fold predicts its held-out images again.
rule rounding:
    input:
        **models_of(FOLDS, RECIPE),
        **pixels_of(RECIPES[RECIPE], "train"),
        folds=SPLITS,
        manifest=TRAIN,
    output:
        f"results/{RECIPE}/rounding.json",
    log:
        f"logs/{RECIPE}/rounding.log",
    conda:
        ENVIRONMENT
    threads: THREADS_TO_PREDICT
    resources:
        **to_predict(len(FOLDS)),
    params:
        **scoring_param(),
        **repeats_param(),
        tta=literal(as_param(RECIPES[RECIPE].tta)),
        version=[bundle.VERSION, prediction.VERSION, ensemble.VERSION],
    script:
        "../scripts/rounding.py"


# Write all models of the recipe to one file, which kfold-predict reads, and its model card.
rule ensemble:
    input:
        **bundled(RECIPE),
        metrics=f"results/{RECIPE}/metrics.json",
        manifest=TRAIN,
    output:
        ensemble=ENSEMBLE_FILES[0],
        card=ENSEMBLE_FILES[1],
    log:
        f"logs/{RECIPE}/ensemble.log",
    conda:
        ENVIRONMENT
    resources:
        mem_mb=more_each_attempt(8000),
    params:
        **decoding_param(),
        recipe=literal(RECIPE),
        tta=literal(as_param(RECIPES[RECIPE].tta)),
        method=RUN.ensemble,
        version=[bundle.VERSION, ensemble.VERSION],
    script:
        "../scripts/ensemble.py"
