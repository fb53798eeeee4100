from snakemake.utils import min_version

min_version("9.14")


# Checks config.yaml before Snakemake reads it: Snakemake's error about invalid YAML names no line.
include: "workflow/rules/start.smk"


configfile: "config.yaml"


report: "workflow/report/workflow.rst"


# The configuration, and functions.
include: "workflow/rules/common.smk"
include: "workflow/rules/storage.smk"
include: "workflow/rules/sources.smk"
include: "workflow/rules/machine.smk"
include: "workflow/rules/pages.smk"
# The rules.
include: "workflow/rules/data.smk"
include: "workflow/rules/training.smk"
include: "workflow/rules/ensemble.smk"
include: "workflow/rules/bundle.smk"
include: "workflow/rules/certificate.smk"
include: "workflow/rules/report.smk"


localrules:
    submission,
    check,
    all_images,
    weights,
    combine,
    write_submission,
    zip_submission,
    metrics,
    ablation,
    compare_recipes,
    data_pages,
    halves_page,
    views_page,
    fold_page,
    training_and_error_pages,
    ensemble_pages,
    risk_coverage_page,
    submission_page,
    overview,
    provenance,
    certificate_page,
    ablation_page,
    report,
    write_report,


# The default target: a submission and its scores.
rule submission:
    default_target: True
    input:
        "results/submission.csv",
        intermediate_files(RECIPE),
        ["results/submission.zip"] if RUN.submission.zip_member else [],
        ENSEMBLE_FILES if RUN.bundle else [],
        REPORTED if MAKES_REPORT else [],


onstart:
    log_classes()
    refuse_submission()


onsuccess:
    fetch(*COPIED_AT_THE_END)
    show_metrics("results/submission.csv", f"results/{RECIPE}/metrics.json")
