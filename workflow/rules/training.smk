TRAINING_INPUTS = {
    "manifest": MANIFEST,
    "classes": CLASSES,
    "folds": "results/data/folds.csv",
    "pixels": PIXELS,
    "index": INDEX,
    **pretrained_weights(SLOTS.backbone),
}


# Pretrained weights, fetched once, hash checked.
rule weights:
    input:
        **local_weights(SLOTS.backbone),
    output:
        "resources/weights/{weights}.safetensors",
    log:
        "logs/weights/{weights}.log",
    conda:
        "../../environment.yml"
    params:
        backbone=as_param(SLOTS.backbone),
        version=network.VERSION,
    script:
        "../scripts/weights.py"


# A rule of its own for each fold, so that one can be asked for, or run again, by its name.
for fold in FOLDS:

    # Fine-tune a fold; goes on where it was after an interruption.
    rule:
        name:
            f"train_fold{fold}"
        input:
            **TRAINING_INPUTS,
        output:
            model=f"results/{RECIPE}/fold{fold}/model.safetensors",
            history=report(
                f"results/{RECIPE}/fold{fold}/history.csv",
                caption="../report/history.rst",
                category="Training",
                labels={"recipe": RECIPE, "fold": str(fold)},
            ),
        log:
            f"logs/{RECIPE}/fold{fold}/train.log",
        benchmark:
            f"logs/{RECIPE}/fold{fold}/train.benchmark.tsv"
        conda:
            "../../environment.yml"
        threads: 4
        resources:
            gpu=1,
            mem_mb=16000,
            runtime=1440,
        params:
            recipe=as_param(SLOTS, exclude={"tta"}),
            fold=fold,
            seed=RUN.seed,
            version=[network.VERSION, training.VERSION],
            state=f"state/{RECIPE}/fold{fold}",
        script:
            "../scripts/train.py"

    # A fold model's logits for its held-out images and for the test images.
    rule:
        name:
            f"predict_fold{fold}"
        input:
            model=f"results/{RECIPE}/fold{fold}/model.safetensors",
            manifest=MANIFEST,
            folds="results/data/folds.csv",
            pixels=PIXELS,
            index=INDEX,
        output:
            oof=f"results/{RECIPE}/fold{fold}/oof_logits.npz",
            test=f"results/{RECIPE}/fold{fold}/test_logits.npz",
        log:
            f"logs/{RECIPE}/fold{fold}/predict.log",
        conda:
            "../../environment.yml"
        threads: 4
        resources:
            gpu=1,
            mem_mb=8000,
            runtime=120,
        params:
            tta=as_param(SLOTS.tta),
            fold=fold,
            version=prediction.VERSION,
        script:
            "../scripts/predict.py"
