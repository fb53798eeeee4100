# Figures and tables of one recipe.
rule figures:
    input:
        manifest=MANIFEST,
        folds=SPLIT,
        classes=CLASSES,
        history=collect("results/{{recipe}}/fold{fold}/history.csv", fold=FOLDS),
        oof=collect("results/{{recipe}}/fold{fold}/oof_logits.npz", fold=FOLDS),
    output:
        counts=report(
            "results/{recipe}/report/class_counts.svg",
            caption="../report/counts.rst",
            category="Data",
            labels={"recipe": "{recipe}", "what": "training images a class"},
        ),
        curves=report(
            "results/{recipe}/report/training_curves.svg",
            caption="../report/curves.rst",
            category="Training",
            labels={"recipe": "{recipe}", "what": "curves"},
        ),
        confusion=report(
            "results/{recipe}/report/confusion.svg",
            caption="../report/confusion.rst",
            category="Errors",
            labels={"recipe": "{recipe}", "what": "confusion matrix"},
        ),
        reliability=report(
            "results/{recipe}/report/reliability.svg",
            caption="../report/reliability.rst",
            category="Errors",
            labels={"recipe": "{recipe}", "what": "reliability"},
        ),
        classes=report(
            "results/{recipe}/report/classes.csv",
            caption="../report/classes.rst",
            category="Errors",
            labels={"recipe": "{recipe}", "what": "recall and precision"},
        ),
        pairs=report(
            "results/{recipe}/report/confused_pairs.csv",
            caption="../report/pairs.rst",
            category="Errors",
            labels={"recipe": "{recipe}", "what": "confused pairs"},
        ),
    log:
        "logs/{recipe}/figures.log",
    conda:
        "../../environment.yml"
    params:
        version=report_stage.VERSION,
    script:
        "../scripts/figures.py"


# What happened, in one HTML file.
rule report:
    input:
        REPORTED,
    output:
        "results/report.html",
    log:
        "logs/report.log",
    conda:
        "../../environment.yml"
    params:
        snakefile=workflow.main_snakefile,
    script:
        "../scripts/report.py"
