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
        reported=REPORTED,
    script:
        "../scripts/report.py"
