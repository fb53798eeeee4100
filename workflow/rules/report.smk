# Pages about the images: counts, sizes, examples.
rule data_pages:
    input:
        unpack(pixels_of_both_halves),
        manifests=[TRAIN, TEST],
        look_alikes=LOOK_ALIKES,
        folds=SPLIT,
        classes=CLASSES,
    output:
        **pages("data", "examples"),
    log:
        "logs/{recipe}/report/data.log",
    localrule: True
    conda:
        ENVIRONMENT
    params:
        **split_param(),
        version=report_stage.VERSION,
    script:
        "../scripts/data_pages.py"


# Page: do test images look like training images?
rule halves_page:
    input:
        unpack(pixels_of_both_halves),
        manifests=[TRAIN, TEST],
        look_alikes=LOOK_ALIKES,
    output:
        **pages("halves"),
    log:
        "logs/{recipe}/report/halves.log",
    localrule: True
    conda:
        ENVIRONMENT
    params:
        version=report_stage.VERSION,
    script:
        "../scripts/halves_page.py"


# Page: training images as the network sees them.
rule views_page:
    input:
        unpack(pixels_of_recipe("train")),
        folds=split_of_first_finished,
        classes=CLASSES,
    output:
        **pages("views"),
    log:
        "logs/{recipe}/report/views.log",
    localrule: True
    conda:
        ENVIRONMENT
    params:
        recipe=recipe_param,
        fold=first_finished_fold,
        seed=seed_of_first_finished,
        version=[data.VERSION, training.VERSION, report_stage.VERSION],
    script:
        "../scripts/views_page.py"


# Page: curves and epochs of one member.
rule fold_page:
    input:
        history="results/{recipe}/{member}/history.csv",
    output:
        **pages("fold"),
    log:
        "logs/{recipe}/report/{member}.log",
    localrule: True
    conda:
        ENVIRONMENT
    params:
        recipe=recipe_param,
        version=report_stage.VERSION,
    script:
        "../scripts/fold_page.py"


# Pages: curves of all folds, and the errors of their models.
rule training_and_error_pages:
    input:
        unpack(pixels_of_recipe("train")),
        manifest=TRAIN,
        history=of_finished_folds("history.csv"),
        oof=of_finished_folds("oof_logits.npz"),
    output:
        **pages("curves", "confusion", "classes", "pairs", "mistakes", "labels"),
    log:
        "logs/{recipe}/report/errors.log",
    localrule: True
    conda:
        ENVIRONMENT
    params:
        **repeats_param(),
        recipe=recipe_param,
        folds=folds_param,
        num_folds=RUN.folds_in_all,
        version=report_stage.VERSION,
    script:
        "../scripts/training_and_error_pages.py"


# Pages: what ensembling gained, and where the folds differ.
rule ensemble_pages:
    input:
        unpack(pixels_of_recipe("test")),
        **optional(test_labels=RUN.data.test_labels),
        metrics="results/{recipe}/metrics.json",
        oof=files_of(FOLDS, "{recipe}", "oof_logits.npz"),
        test=files_of(FOLDS, "{recipe}", "test_logits.npz"),
        methods=collect("results/{{recipe}}/{method}/test_logits.npz", method=METHODS),
        manifests=[TRAIN, TEST],
    output:
        **pages("combinations", "agreement", "calibration"),
    log:
        "logs/{recipe}/report/ensemble.log",
    localrule: True
    conda:
        ENVIRONMENT
    params:
        **repeats_param(),
        submission=literal(as_param(RUN.submission)),
        names=RUN.submission_names,
        version=[ensemble.VERSION, report_stage.VERSION],
    script:
        "../scripts/ensemble_pages.py"


# Page: accuracy out of fold if only images above a probability are predicted.
rule risk_coverage_page:
    input:
        **optional(test_labels=RUN.data.test_labels),
        oof=files_of(FOLDS, "{recipe}", "oof_logits.npz"),
        methods=collect("results/{{recipe}}/{method}/test_logits.npz", method=METHODS),
        manifests=[TRAIN, TEST],
    output:
        **pages("risk_coverage"),
    log:
        "logs/{recipe}/report/risk_coverage.log",
    localrule: True
    conda:
        ENVIRONMENT
    params:
        method=RUN.ensemble,
        submission=literal(as_param(RUN.submission)),
        names=RUN.submission_names,
        version=[ensemble.VERSION, report_stage.VERSION],
    script:
        "../scripts/risk_coverage_page.py"


# Page: the submission.
rule submission_page:
    input:
        submission="results/submission.csv",
        manifests=[TRAIN, TEST],
        classes=CLASSES,
    output:
        submission=page("submission", recipe=SUBMITTED, method=RUN.ensemble),
    log:
        f"logs/{SUBMITTED}/report/submission.log",
    localrule: True
    conda:
        ENVIRONMENT
    params:
        submission=literal(as_param(RUN.submission)),
        names=RUN.submission_names,
        version=[ensemble.VERSION, report_stage.VERSION],
    script:
        "../scripts/submission_page.py"


# Page: the score, and what was trained.
rule overview:
    input:
        unpack(scores_of_finished_folds),
        **optional(test_labels=RUN.data.test_labels),
        data=[TRAIN, TEST, CLASSES, SPLIT],
        history=of_shown_members("history.csv"),
    output:
        **pages("overview"),
        score="results/{recipe}/report/score.html",
    log:
        "logs/{recipe}/report/overview.log",
    wildcard_constraints:
        recipe="|".join(map(re.escape, RECIPES)),  # a blend's score is of its own page
    localrule: True
    conda:
        ENVIRONMENT
    params:
        run=literal(as_param(RUN)),
        recipe=recipe_param,
        folds=folds_param,
        version=[ensemble.VERSION, report_stage.VERSION],
    script:
        "../scripts/overview.py"


if BLENDED:

    # Page: the blend's score, its recipes and their weights.
    rule blend_page:
        input:
            metrics="results/blend/metrics.json",
            model=ancient(blended_files("model.safetensors", OF_A_BLEND)),
        output:
            page=page("blend", recipe=SUBMITTED),
            score="results/blend/report/score.html",
        log:
            "logs/blend/report/blend.log",
        localrule: True
        conda:
            ENVIRONMENT
        params:
            run=literal(as_param(RUN)),
            version=report_stage.VERSION,
        script:
            "../scripts/blend_page.py"


# Page: what the results depend on, and how to reproduce them.
rule provenance:
    input:
        data=[TRAIN, TEST, CLASSES, SPLIT],
        model=ancient(of_shown_members("model.safetensors")),
        history=of_shown_members("history.csv"),
    output:
        page("provenance"),
    log:
        "logs/{recipe}/report/provenance.log",
    localrule: True
    conda:
        ENVIRONMENT
    params:
        run=literal(as_param(RUN)),
        recipe=recipe_param,
        recipe_file=recipe_path,
        commit=commit,
        version=report_stage.VERSION,
    script:
        "../scripts/provenance.py"


# Page: the certificate that nothing that scores a fold has seen its labels.
rule certificate_page:
    input:
        certificate=own_certificate,
        files=[*SPLITS, TRAIN, TEST, LOOK_ALIKES],
    output:
        **pages("certificate"),
    log:
        "logs/{recipe}/report/certificate.log",
    localrule: True
    conda:
        ENVIRONMENT
    params:
        configuration=certificate_param,
        commit=commit,
        version=report_stage.VERSION,
    script:
        "../scripts/certificate_page.py"


# Page: the recipes listed at `ablation:` compared.
rule ablation_page:
    input:
        "results/ablation.csv",
    output:
        page("ablation"),
    log:
        "logs/report/ablation.log",
    localrule: True
    conda:
        ENVIRONMENT
    params:
        **scoring_param(),
        version=[ensemble.VERSION, report_stage.VERSION],
    script:
        "../scripts/ablation_page.py"


# The report: one HTML file.
rule report:
    input:
        "results/report.html",
        [TRAIN, TEST, CLASSES, *SPLITS],


# Write that file.
rule write_report:
    input:
        pages=REPORTED,
        scores=SCORES,
    output:
        "results/report.html",
    log:
        "logs/report.log",
    localrule: True
    conda:
        ENVIRONMENT
    params:
        **section_param(),
        snakefile=literal(workflow.main_snakefile),
        pages=REPORTED,
        captions=fingerprint(texts_of_captions()),
        style=literal(Path(PLACE, "workflow/report/style.css").read_text()),
        options=literal(storage_options()),
    script:
        "../scripts/report.py"
