MANIFEST = "results/data/manifest.csv"
CLASSES = "results/data/classes.json"
LOOK_ALIKES = "results/data/look_alikes.csv"
SPLIT = "results/data/folds.csv"


# Every image with its label, hash and size; refuses what cannot be trained on.
rule manifest:
    input:
        tables=source_tables,
    output:
        manifest=MANIFEST,
        classes=CLASSES,
        look_alikes=LOOK_ALIKES,
        images=local(directory("results/data/images")),
    log:
        "logs/data/manifest.log",
    localrule: HAS_STORAGE
    conda:
        "../../environment.yml"
    threads: 4
    params:
        data=as_param(RUN.data, exclude={"test_labels"}),
        folders=source_folders,
        seed=RUN.seed,
        version=data.VERSION,
    script:
        "../scripts/manifest.py"


# The one split that every recipe uses.
rule folds:
    input:
        manifest=MANIFEST,
    output:
        folds=SPLIT,
    log:
        "logs/data/folds.log",
    conda:
        "../../environment.yml"
    params:
        num_folds=RUN.num_folds,
        seed=RUN.seed,
        version=data.VERSION,
    script:
        "../scripts/folds.py"


# All images decoded once.
rule pixels:
    input:
        manifest=MANIFEST,
    output:
        pixels="results/data/pixels-{short_side}/pixels.u8",
        index="results/data/pixels-{short_side}/index.npz",
    log:
        "logs/data/pixels-{short_side}.log",
    benchmark:
        "logs/data/pixels-{short_side}.benchmark.tsv"
    localrule: HAS_STORAGE
    conda:
        "../../environment.yml"
    threads: 4
    resources:
        mem_mb=more_each_attempt(4000),
    params:
        version=data.VERSION,
    script:
        "../scripts/pixels.py"
