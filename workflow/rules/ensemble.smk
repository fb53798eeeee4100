# Combine the members' test logits by one ensembling method.
rule combine:
    input:
        test=files_of(COMBINED, "{recipe}", "test_logits.npz"),
    output:
        "results/{recipe}/{method}/test_logits.npz",
    log:
        "logs/{recipe}/{method}/combine.log",
    localrule: True
    conda:
        ENVIRONMENT
    params:
        version=ensemble.VERSION,
    script:
        "../scripts/combine.py"


# Write the predictions of the configured recipe or blend and ensembling method, with the user's columns and image names.
rule write_submission:
    input:
        **optional(sample=RUN.submission.sample),
        **calibration_files(),
        logits=f"results/{SUBMITTED}/{RUN.ensemble}/test_logits.npz",
        manifest=TEST,
    output:
        "results/submission.csv",
    log:
        "logs/submission.log",
    localrule: True
    conda:
        ENVIRONMENT
    params:
        **(repeats_param() if RUN.submission.calibrate else {}),
        submission=literal(as_param(RUN.submission)),
        names=RUN.submission_names,
        version=ensemble.VERSION,
    script:
        "../scripts/submission.py"


# Zip the submission under the name that the competition requires.
rule zip_submission:
    input:
        "results/submission.csv",
    output:
        "results/submission.zip",
    log:
        "logs/submission_zip.log",
    localrule: True
    conda:
        ENVIRONMENT
    params:
        member=literal(RUN.submission.zip_member),
        version=ensemble.VERSION,
    script:
        "../scripts/zip_submission.py"


# Score out-of-fold predictions and, if labels are known, the test predictions of each fold and ensembling method.
rule metrics:
    input:
        unpack(choices_of),
        **optional(test_labels=RUN.data.test_labels),
        oof=files_of(FOLDS, "{recipe}", "oof_logits.npz"),
        test=files_of(FOLDS, "{recipe}", "test_logits.npz"),
        methods=collect("results/{{recipe}}/{method}/test_logits.npz", method=METHODS),
        manifests=[TRAIN, TEST],
    output:
        "results/{recipe}/metrics.json",
    log:
        "logs/{recipe}/metrics.log",
    localrule: True
    conda:
        ENVIRONMENT
    params:
        **scoring_param(),
        **repeats_param(),
        **members_param(),
        choosing=choosing_param,
        submission=literal(as_param(RUN.submission)),
        names=RUN.submission_names,
        version=ensemble.VERSION,
    script:
        "../scripts/metrics.py"
