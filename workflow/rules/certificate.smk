# Rebuild each fold under other labels of its held-out images, and fail if anything that scores it changes.
rule certify:
    input:
        **weights_of(RECIPES[RECIPE]),
        **pixels_of(RECIPES[RECIPE], "train"),
        classes=CLASSES,
        splits=SPLITS,
        manifests=[TRAIN, TEST],
        look_alikes=LOOK_ALIKES,
    log:
        f"logs/{RECIPE}/certify.log",
    localrule: HAS_STORAGE
    conda:
        ENVIRONMENT
    threads: THREADS_TO_PREDICT
    resources:
        gpu=1,
        mem_mb=more_each_attempt(16000),
        runtime=more_each_attempt(1440),
    params:
        recipe=literal(training_param(RECIPES[RECIPE])),
        tta=literal(as_param(RECIPES[RECIPE].tta)),
        name=literal(RECIPE),
        certificate=certificate_of(RECIPE),
        configuration=literal(certified_as(RECIPE)),
        scratch=f"state/.certificate/{RECIPE}",
        commit=commit,
        version=TRAINING_VERSION,
    script:
        "../scripts/certify.py"
