# Fetch pretrained weights once, and check their hash.
rule weights:
    input:
        unpack(local_weights),
    output:
        "resources/weights/{weights}.safetensors",
    log:
        "logs/weights/{weights}.log",
    localrule: True
    conda:
        ENVIRONMENT
    params:
        backbone=weights_param,
        version=network.VERSION,
    script:
        "../scripts/weights.py"


refuse_shared_rule_names()


# One rule per member, so that users can run or rerun a member by name.
for recipe, sections in RECIPES.items():
    for member in MEMBERS:

        # Fine-tune a member, unless it was trained before; resumes after an interruption.
        rule:
            name:
                rule_name("train", recipe, member)
            input:
                unpack(once_targets_are_known),
                unpack(tell_jobs_forced_trainings),
                **training_files(sections, member),
                **trained_first(recipe, member),
                **choosing_histories(recipe, member),
            output:
                epochs=stored_epochs(recipe, [member]),
                model=f"results/{recipe}/{member.folder}/model.safetensors",
                history=f"results/{recipe}/{member.folder}/history.csv",
            log:
                f"logs/{recipe}/{member.folder}/train.log",
            benchmark:
                f"logs/{recipe}/{member.folder}/train.benchmark.tsv"
            conda:
                ENVIRONMENT
            threads: threads_to_train
            resources:
                gpu=RUN.gpus_per_fold,
                mem_mb=more_each_attempt(16000 * RUN.gpus_per_fold),
                runtime=more_each_attempt(1440),
            params:
                recipe=literal(training_param(sections)),
                fold=member.trained_as,
                seed=seed_of(member.repeat),
                version=TRAINING_VERSION,
                state=f"state/{recipe}/{member.folder}",
                kept=KEPT,
                tensorboard=f"logs/{recipe}/{member.folder}/tensorboard",
            script:
                "../scripts/train.py"

        if member.holds_out:

            # Predict logits of a fold's held-out images.
            rule:
                name:
                    rule_name("predict_oof", recipe, member)
                input:
                    **pixels_of(sections, "train"),
                    **model_of(recipe, member),
                    images=SPLITS[member.repeat],
                output:
                    f"results/{recipe}/{member.folder}/oof_logits.npz",
                log:
                    f"logs/{recipe}/{member.folder}/predict_oof.log",
                conda:
                    ENVIRONMENT
                threads: THREADS_TO_PREDICT
                resources:
                    **to_predict(),
                params:
                    tta=literal(as_param(sections.tta)),
                    fold=member.trained_as,
                    version=prediction.VERSION,
                script:
                    "../scripts/predict.py"

        # Predict logits of the test images.
        rule:
            name:
                rule_name("predict_test", recipe, member)
            input:
                **pixels_of(sections, "test"),
                **model_of(recipe, member),
                images=TEST,
            output:
                f"results/{recipe}/{member.folder}/test_logits.npz",
            log:
                f"logs/{recipe}/{member.folder}/predict_test.log",
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


# List the kept folds, and remove those that neither results nor this configuration use.
rule clean_models:
    log:
        "logs/clean_models.log",
    localrule: True
    conda:
        ENVIRONMENT
    params:
        kept=KEPT,
        folds=literal([files_to_train(recipe, member) for recipe in RECIPES for member in MEMBERS]),
    script:
        "../scripts/clean_models.py"
