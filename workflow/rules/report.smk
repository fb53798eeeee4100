# What happened, in one HTML file.
rule report:
    input:
        "results/submission.csv",
        f"results/{RECIPE}/metrics.json",
    output:
        "results/report.html",
    log:
        "logs/report.log",
    conda:
        "../../environment.yml"
    script:
        "../scripts/report.py"
