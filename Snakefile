from snakemake.utils import min_version

min_version("9.14")


# Checks config.yaml before Snakemake reads it: Snakemake's error about invalid YAML names no line.
include: "workflow/rules/start.smk"
include: "workflow/rules/place.smk"


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
include: "workflow/rules/report.smk"


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
