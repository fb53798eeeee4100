# The images: how many, of what size, what they look like.
rule data_pages:
    input:
        unpack(pixels_of_both_halves),
        manifests=[TRAIN, TEST],
        look_alikes=LOOK_ALIKES,
        folds=SPLIT,
        classes=CLASSES,
    output:
        data=report(
            "results/{recipe}/report/data.html",
            caption="../report/data.rst",
            category="2. Images",
            labels={"page": "the images", "recipe": "{recipe}"},
        ),
        examples=report(
            "results/{recipe}/report/examples.html",
            caption="../report/examples.rst",
            category="2. Images",
            labels={"page": "examples of every class", "recipe": "{recipe}"},
        ),
    log:
        "logs/{recipe}/report/data.log",
    conda:
        "../../environment.yml"
    params:
        version=report_stage.VERSION,
    script:
        "../scripts/data_pages.py"


# Training images as the network sees them.
rule views_page:
    input:
        unpack(pixels_of_recipe("train")),
        folds=SPLIT,
        classes=CLASSES,
    output:
        views=report(
            "results/{recipe}/report/views.html",
            caption="../report/views.rst",
            category="2. Images",
            labels={"page": "as the network sees them", "recipe": "{recipe}"},
        ),
    log:
        "logs/{recipe}/report/views.log",
    conda:
        "../../environment.yml"
    params:
        recipe=recipe_param,
        fold=first_finished_fold,
        seed=RUN.seed,
        version=[data.VERSION, training.VERSION, report_stage.VERSION],
    script:
        "../scripts/views_page.py"


# One fold's curves and epochs.
rule fold_page:
    input:
        history="results/{recipe}/fold{fold}/history.csv",
    output:
        fold=report(
            "results/{recipe}/report/fold{fold}.html",
            caption="../report/fold.rst",
            category="3. Training",
            labels={"page": "one fold", "recipe": "{recipe}", "fold": "{fold}"},
        ),
    log:
        "logs/{recipe}/report/fold{fold}.log",
    conda:
        "../../environment.yml"
    params:
        recipe=recipe_param,
        version=report_stage.VERSION,
    script:
        "../scripts/fold_page.py"


# All folds' curves, and what their models get wrong.
rule training_and_error_pages:
    input:
        unpack(pixels_of_recipe("train")),
        manifest=TRAIN,
        history=of_finished_folds("history.csv"),
        oof=of_finished_folds("oof_logits.npz"),
    output:
        curves=report(
            "results/{recipe}/report/curves.html",
            caption="../report/curves.rst",
            category="3. Training",
            labels={"page": "all folds", "recipe": "{recipe}"},
        ),
        confusion=report(
            "results/{recipe}/report/confusion.html",
            caption="../report/confusion.rst",
            category="4. Errors",
            labels={"page": "confusion matrix", "recipe": "{recipe}"},
        ),
        classes=report(
            "results/{recipe}/report/classes.html",
            caption="../report/classes.rst",
            category="4. Errors",
            labels={"page": "recall and precision", "recipe": "{recipe}"},
        ),
        pairs=report(
            "results/{recipe}/report/pairs.html",
            caption="../report/pairs.rst",
            category="4. Errors",
            labels={"page": "confused pairs", "recipe": "{recipe}"},
        ),
        mistakes=report(
            "results/{recipe}/report/mistakes.html",
            caption="../report/mistakes.rst",
            category="4. Errors",
            labels={"page": "confident mistakes", "recipe": "{recipe}"},
        ),
        labels=report(
            "results/{recipe}/report/labels.html",
            caption="../report/labels.rst",
            category="4. Errors",
            labels={"page": "likely label errors", "recipe": "{recipe}"},
        ),
    log:
        "logs/{recipe}/report/errors.log",
    conda:
        "../../environment.yml"
    params:
        recipe=recipe_param,
        folds=folds_param,
        num_folds=RUN.num_folds,
        version=report_stage.VERSION,
    script:
        "../scripts/training_and_error_pages.py"


# What combining gained, and where the folds differ.
rule ensemble_pages:
    input:
        unpack(pixels_of_recipe("test")),
        **optional(test_labels=RUN.data.test_labels),
        metrics="results/{recipe}/metrics.json",
        oof=collect("results/{{recipe}}/fold{fold}/oof_logits.npz", fold=FOLDS),
        test=collect("results/{{recipe}}/fold{fold}/test_logits.npz", fold=FOLDS),
        methods=collect("results/{{recipe}}/{method}/test_logits.npz", method=METHODS),
        manifests=[TRAIN, TEST],
    output:
        combinations=report(
            "results/{recipe}/report/combinations.html",
            caption="../report/combinations.rst",
            category="5. Ensemble",
            labels={"page": "folds and combinations", "recipe": "{recipe}"},
        ),
        agreement=report(
            "results/{recipe}/report/agreement.html",
            caption="../report/agreement.rst",
            category="5. Ensemble",
            labels={"page": "agreement", "recipe": "{recipe}"},
        ),
        calibration=report(
            "results/{recipe}/report/calibration.html",
            caption="../report/calibration.rst",
            category="5. Ensemble",
            labels={"page": "calibration", "recipe": "{recipe}"},
        ),
    log:
        "logs/{recipe}/report/ensemble.log",
    conda:
        "../../environment.yml"
    params:
        submission=as_param(RUN.submission),
        names=RUN.submission_names,
        version=[ensemble.VERSION, report_stage.VERSION],
    script:
        "../scripts/ensemble_pages.py"


# What is handed in.
rule submission_page:
    input:
        submission="results/submission.csv",
        manifests=[TRAIN, TEST],
        classes=CLASSES,
    output:
        submission=report(
            f"results/{RECIPE}/report/submission.html",
            caption="../report/submission.rst",
            category="6. Submission",
            labels={"page": "the submission", "recipe": RECIPE, "method": RUN.ensemble},
        ),
    log:
        f"logs/{RECIPE}/report/submission.log",
    conda:
        "../../environment.yml"
    params:
        submission=as_param(RUN.submission),
        names=RUN.submission_names,
        version=[ensemble.VERSION, report_stage.VERSION],
    script:
        "../scripts/submission_page.py"


# The score, and what it came from.
rule overview:
    input:
        **optional(test_labels=RUN.data.test_labels),
        data=[TRAIN, TEST, CLASSES, SPLIT],
        history=of_finished_folds("history.csv"),
        oof=of_finished_folds("oof_logits.npz"),
        test=of_finished_folds("test_logits.npz"),
        methods=methods_if_finished,
    output:
        overview=report(
            "results/{recipe}/report/overview.html",
            caption="../report/overview.rst",
            category="1. Overview",
            labels={"page": "overview", "recipe": "{recipe}"},
        ),
        score="results/{recipe}/report/score.html",
    log:
        "logs/{recipe}/report/overview.log",
    conda:
        "../../environment.yml"
    params:
        run=as_param(RUN),
        recipe=recipe_param,
        folds=folds_param,
        version=[ensemble.VERSION, report_stage.VERSION],
    script:
        "../scripts/overview.py"


# All that the results follow from, and how to make them again.
rule provenance:
    input:
        data=[TRAIN, TEST, CLASSES, SPLIT],
        model=ancient(of_finished_folds("model.safetensors")),
        history=of_finished_folds("history.csv"),
    output:
        report(
            "results/{recipe}/report/provenance.html",
            caption="../report/provenance.rst",
            category="7. Provenance",
            labels={"page": "provenance", "recipe": "{recipe}"},
        ),
    log:
        "logs/{recipe}/report/provenance.log",
    conda:
        "../../environment.yml"
    params:
        run=as_param(RUN),
        recipe=recipe_param,
        recipe_file=recipe_path,
        commit=commit,
        version=report_stage.VERSION,
    script:
        "../scripts/provenance.py"


# The recipes of `ablation:` side by side.
rule ablation_page:
    input:
        "results/ablation.csv",
    output:
        report(
            "results/ablation.html",
            caption="../report/ablation.rst",
            category="8. Ablation",
            labels={"page": "recipes side by side"},
        ),
    log:
        "logs/report/ablation.log",
    conda:
        "../../environment.yml"
    params:
        version=[ensemble.VERSION, report_stage.VERSION],
    script:
        "../scripts/ablation_page.py"


# What happened, in one HTML file.
rule report:
    input:
        "results/report.html",
        [TRAIN, TEST, CLASSES, SPLIT],


# That file.
rule write_report:
    input:
        pages=REPORTED,
        scores=[f"results/{recipe}/report/score.html" for recipe in reported_recipes()],
        captions=[local(str(file)) for file in sorted(Path(workflow.basedir, "workflow/report").iterdir())],
    output:
        "results/report.html",
    log:
        "logs/report.log",
    conda:
        "../../environment.yml"
    params:
        snakefile=workflow.main_snakefile,
        pages=REPORTED,
        options=storage_options(),
    script:
        "../scripts/report.py"
