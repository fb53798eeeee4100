# Pretrained weights, fetched once, hash checked.
rule weights:
    input:
        unpack(local_weights),
    output:
        "resources/weights/{weights}.safetensors",
    log:
        "logs/weights/{weights}.log",
    conda:
        ENVIRONMENT
    params:
        backbone=weights_param,
        version=network.VERSION,
    script:
        "../scripts/weights.py"


# A rule of its own for each fold, so that one can be asked for, or run again, by its name.
for recipe, sections in RECIPES.items():
    for fold in FOLDS:

        # Fine-tune a fold, unless it was trained before; resumes after an interruption.
        rule:
            name:
                rule_name("train", recipe, fold)
            input:
                unpack(tell_jobs_what_was_asked_for),
                **training_files(sections),
                **trained_first(recipe, fold),
            output:
                model=f"results/{recipe}/fold{fold}/model.safetensors",
                history=f"results/{recipe}/fold{fold}/history.csv",
            log:
                f"logs/{recipe}/fold{fold}/train.log",
            benchmark:
                f"logs/{recipe}/fold{fold}/train.benchmark.tsv"
            conda:
                ENVIRONMENT
            threads: threads_to_train
            resources:
                gpu=RUN.gpus_per_fold,
                mem_mb=more_each_attempt(16000 * RUN.gpus_per_fold),
                runtime=more_each_attempt(1440),
            params:
                recipe=literal(training_param(sections)),
                fold=fold,
                seed=RUN.seed,
                version=TRAINING_VERSION,
                state=f"state/{recipe}/fold{fold}",
                kept=KEPT,
                tensorboard=f"logs/{recipe}/fold{fold}/tensorboard",
            script:
                "../scripts/train.py"

        # A fold model's logits for its held-out images.
        rule:
            name:
                rule_name("predict_oof", recipe, fold)
            input:
                **pixels_of(sections, "train"),
                **model_of(recipe, fold),
                images=SPLIT,
            output:
                f"results/{recipe}/fold{fold}/oof_logits.npz",
            log:
                f"logs/{recipe}/fold{fold}/predict_oof.log",
            conda:
                ENVIRONMENT
            threads: THREADS_TO_PREDICT
            resources:
                **to_predict(),
            params:
                tta=literal(as_param(sections.tta)),
                fold=fold,
                version=prediction.VERSION,
            script:
                "../scripts/predict.py"

        # The same for the test images.
        rule:
            name:
                rule_name("predict_test", recipe, fold)
            input:
                **pixels_of(sections, "test"),
                **model_of(recipe, fold),
                images=TEST,
            output:
                f"results/{recipe}/fold{fold}/test_logits.npz",
            log:
                f"logs/{recipe}/fold{fold}/predict_test.log",
            conda:
                ENVIRONMENT
            threads: THREADS_TO_PREDICT
            resources:
                **to_predict(),
            params:
                tta=literal(as_param(sections.tta)),
                version=prediction.VERSION,
            script:
                "../scripts/predict.py"


# Lists the folds that are kept, and removes those that neither results nor this configuration use.
rule clean_models:
    log:
        "logs/clean_models.log",
    localrule: True
    conda:
        ENVIRONMENT
    params:
        kept=KEPT,
        folds=literal([files_to_train(recipe, fold) for recipe in RECIPES for fold in FOLDS]),
    script:
        "../scripts/clean_models.py"
