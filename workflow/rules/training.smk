# Pretrained weights, fetched once, hash checked.
rule weights:
    input:
        unpack(local_weights),
    output:
        "resources/weights/{weights}.safetensors",
    log:
        "logs/weights/{weights}.log",
    conda:
        "../../environment.yml"
    params:
        backbone=weights_param,
        version=network.VERSION,
    script:
        "../scripts/weights.py"


# A rule of its own for each fold, so that one can be asked for, or run again, by its name.
for recipe, slots in RECIPES.items():
    for fold in FOLDS:

        # Fine-tune a fold; goes on where it was after an interruption.
        rule:
            name:
                rule_name("train", recipe, fold)
            input:
                **pixels_of(slots),
                **weights_of(slots),
                manifest=MANIFEST,
                classes=CLASSES,
                folds=SPLIT,
            output:
                model=f"results/{recipe}/fold{fold}/model.safetensors",
                history=f"results/{recipe}/fold{fold}/history.csv",
            log:
                f"logs/{recipe}/fold{fold}/train.log",
            benchmark:
                f"logs/{recipe}/fold{fold}/train.benchmark.tsv"
            conda:
                "../../environment.yml"
            threads: threads_to_train
            resources:
                gpu=RUN.gpus_per_fold,
                mem_mb=more_each_attempt(16000 * RUN.gpus_per_fold),
                runtime=more_each_attempt(1440),
            params:
                recipe=as_param(slots, exclude={"tta"}),
                fold=fold,
                seed=RUN.seed,
                version=[data.VERSION, network.VERSION, training.VERSION],
                state=f"state/{recipe}/fold{fold}",
                tensorboard=f"logs/{recipe}/fold{fold}/tensorboard",
            script:
                "../scripts/train.py"

        # A fold model's logits for its held-out images and for the test images.
        rule:
            name:
                rule_name("predict", recipe, fold)
            input:
                **pixels_of(slots),
                model=f"results/{recipe}/fold{fold}/model.safetensors",
                manifest=MANIFEST,
                folds=SPLIT,
            output:
                oof=f"results/{recipe}/fold{fold}/oof_logits.npz",
                test=f"results/{recipe}/fold{fold}/test_logits.npz",
            log:
                f"logs/{recipe}/fold{fold}/predict.log",
            conda:
                "../../environment.yml"
            threads: max(1, THREADS // RUN.gpus_per_fold)
            resources:
                gpu=1,
                mem_mb=more_each_attempt(8000),
                runtime=more_each_attempt(120),
            params:
                tta=as_param(slots.tta),
                fold=fold,
                version=prediction.VERSION,
            script:
                "../scripts/predict.py"
