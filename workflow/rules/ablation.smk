# Compare the recipes listed at `ablation:` over the same folds.
rule ablation:
    input:
        "results/ablation.csv",
        files_of_ablation,


if RACES:

    # Stop the recipes that are clearly worse than the leader. The next fold of the others is trained afterwards.
    checkpoint race:
        input:
            unpack(files_to_judge),
            manifest=TRAIN,
        output:
            race_file("{folds}"),
        log:
            "logs/race/after_{folds}_folds.log",
        wildcard_constraints:
            folds=r"\d+",
        localrule: True
        conda:
            ENVIRONMENT
        threads: threads_to_judge
        params:
            **scoring_param(),
            **repeats_param(),
            recipes=ABLATION,
            folds=len(FOLDS),
            version=ensemble.VERSION,
        script:
            "../scripts/race.py"


# Write the table of that comparison.
rule compare_recipes:
    input:
        unpack(files_to_compare),
        manifest=TRAIN,
    output:
        "results/ablation.csv",
    log:
        "logs/ablation.log",
    localrule: True
    conda:
        ENVIRONMENT
    params:
        **scoring_param(),
        **repeats_param(),
        recipes=ABLATION,
        version=ensemble.VERSION,  # raise it if report/comparison.py changes results too
    script:
        "../scripts/ablation.py"
