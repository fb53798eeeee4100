TRAIN = "results/data/train.csv"
TEST = "results/data/test.csv"
CLASSES = "results/data/classes.json"
LOOK_ALIKES = "results/data/look_alikes.csv"
# The split of each repeat, which every recipe uses.
SPLITS = ["results/data/folds.csv", *(f"results/data/folds_repeat{repeat}.csv" for repeat in range(1, RUN.repeats))]
SPLIT = SPLITS[0]


# Describe the data, list what is doubtful or wrong, and say what a run would do. Trains nothing.
rule check:
    log:
        "logs/check.log",
    localrule: True
    conda:
        ENVIRONMENT
    threads: 4
    params:
        manifests=lambda wildcards: {half: f"results/data/{half}.csv" if has_manifest(half) else "" for half in HALVES},
        plan=describe_plan,
        start=as_typed("submission"),
    script:
        "../scripts/check.py"


if not GONE["train"]:

    # List every training image with label, hash and size. Refuses unusable images, of the test images too.
    rule manifest:
        input:
            unpack(once_targets_are_known),
            tables=tables_of("train"),
        output:
            manifest=TRAIN,
            classes=CLASSES,
            source="results/data/train.source.json",
            images=local(directory("results/data/images/train")),
        log:
            "logs/data/manifest.log",
        localrule: HAS_STORAGE
        conda:
            ENVIRONMENT
        threads: 4
        params:
            source=literal(source_param("train")),
            images=images_param("train"),
            seed=RUN.seed,
            version=data.VERSION,
        script:
            "../scripts/manifest.py"


if not GONE["test"]:

    # List every test image, and the near-duplicates among all images.
    rule test_manifest:
        input:
            tables=tables_of("test"),
            train=TRAIN,
        output:
            manifest=TEST,
            look_alikes=LOOK_ALIKES,
            source="results/data/test.source.json",
            images=local(directory("results/data/images/test")),
        log:
            "logs/data/test_manifest.log",
        priority: 1  # before anything is trained
        localrule: HAS_STORAGE
        conda:
            ENVIRONMENT
        threads: 4
        params:
            source=literal(source_param("test")),
            images=images_param("test"),
            seed=RUN.seed,
            version=data.VERSION,
        script:
            "../scripts/test_manifest.py"


# Join both manifests in one table for users. No rule reads it.
rule all_images:
    input:
        TRAIN,
        TEST,
    output:
        "results/data/manifest.csv",
    log:
        "logs/data/all_images.log",
    localrule: True
    conda:
        ENVIRONMENT
    params:
        version=data.VERSION,
    script:
        "../scripts/all_images.py"


for repeat, split in enumerate(SPLITS):

    # Assign each image to the fold that holds it out: folds, folds_repeat1, ...
    rule:
        name:
            Path(split).stem
        input:
            **optional(given=RUN.data.folds),
            manifest=TRAIN,
        output:
            folds=split,
        log:
            f"logs/data/{Path(split).stem}.log",
        priority: 1  # before anything is trained
        localrule: True
        conda:
            ENVIRONMENT
        params:
            **split_param(),
            num_folds=RUN.num_folds,
            seed=seed_of(repeat),
            version=data.VERSION,
        script:
            "../scripts/folds.py"


# One rule per half, so that plans and the rule graph tell them apart.
for half, name in (("train", "pixels"), ("test", "test_pixels")):

    # Decode all images of a half once.
    rule:
        name:
            name
        input:
            manifest=f"results/data/{half}.csv",
        output:
            pixels=f"results/data/pixels-{{short_side}}/{half}.u8",
            index=f"results/data/pixels-{{short_side}}/{half}.npz",
        log:
            f"logs/data/pixels-{{short_side}}-{half}.log",
        benchmark:
            f"logs/data/pixels-{{short_side}}-{half}.benchmark.tsv"
        localrule: HAS_STORAGE
        conda:
            ENVIRONMENT
        threads: 4
        resources:
            mem_mb=more_each_attempt(4000),
        params:
            **decoding_param(),
            version=data.VERSION,
        script:
            "../scripts/pixels.py"
