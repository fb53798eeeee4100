# Where the images come from, and whether it is still there.


def tables_of(half):
    """The tables that list a half's images; a changed table is read again."""
    return list(map(own_file, RUN.data.tables(half)))


def source_param(half):
    """Where a half's images come from."""
    return canonical(RUN.data.of_half(half))


def images_param(half):
    """A hash of the names and sizes of a half's images: it changes if images are added, removed or replaced."""

    def images(wildcards):
        return images_fingerprint(RUN.data.folders(half))

    return images


def decoding_param():
    """How 16-bit images are decoded; nothing at the default, so images decoded earlier stay."""
    return RUN.data.model_dump(mode="json", include={"intensity_range"}, exclude_defaults=True)


def split_param():
    """What stays together in the split, and what becomes of rare classes; nothing at the default."""
    return RUN.model_dump(mode="json", include={"keep_together", "rare_classes"}, exclude_defaults=True)


def has_manifest(half):
    """Whether a half's manifest is there, and was made from what config.yaml names."""
    return is_source_of(Path(f"results/data/{half}.csv"), RUN.data, half, RUN.seed, data.VERSION)


def weights_files():
    """The files of pretrained weights that are to be read, by recipe and key: those that are converted may be gone."""
    files = {name: sections.backbone for name, sections in RECIPES.items() if Path(sections.backbone.weights).suffix}
    return {
        f"{FILES[name]}: backbone.weights": backbone.weights
        for name, backbone in files.items()
        if os.path.lexists(backbone.weights) or not exists(f"resources/weights/{weights_name(backbone)}.safetensors")
    }


def single_files():
    """The user's files that jobs read, by their keys in the configuration; tables of images are looked at apart."""
    data = {f"data.{key}": getattr(RUN.data, key) for key in ("test_labels", "folds")}
    own = {"submission.sample": RUN.submission.sample} | data
    return {key: file for key, file in own.items() if file} | weights_files()


def named_like_wildcards():
    """What Snakemake would take for wildcards in names of the user's files and of weights, in words."""
    published = {FILES[recipe]: weights_name(sections.backbone) or "" for recipe, sections in RECIPES.items()}
    faults = [f"{file}: backbone: no weights are called {name}" for file, name in published.items() if "{" in name]
    tables = [(f"data.{half}", table) for half in HALVES for table in RUN.data.tables(half)]
    return faults + [
        f"{key}: {file}: rename it, or its folder: a word in braces is a wildcard in Snakemake"
        for key, file in [*tables, *single_files().items()]
        if contains_wildcard(as_input(file))
    ]


def sources_gone():
    """The tables and folders that are gone, by half. A manifest that was made from them is then used as it is.

    If there is no such manifest, or another file is missing, the run ends here, before Snakemake deletes results.
    """
    if not workflow.is_main_process or "--unlock" in sys.argv:
        return {half: [] for half in HALVES}
    gone = {half: missing(RUN.data, half) for half in HALVES}
    needed = [each for half in HALVES for each in gone[half] if not has_manifest(half)]
    needed += [f"{key}: {fault}" for key, file in single_files().items() if (fault := file_fault(file))]
    if needed:
        needed.append(f"Looked in {Path.cwd()}; change the configuration, or mount the disk.")
    if needed := named_like_wildcards() + needed:
        refuse("\n".join(dict.fromkeys(needed)))
    for half in HALVES:
        for each in gone[half]:
            logger.warning(f"{each}; results/data/{half}.csv is taken as it is, its source is not looked at")
    return gone


def say_classes():
    """Log the classes of a manifest that an earlier run made; a run that makes it logs them then."""
    if has_manifest("train"):
        from kfold_ens.data.classes import describe
        from kfold_ens.data.manifest import read_manifest

        logger.info(describe(dict(read_manifest(TRAIN)["label"].value_counts())))


def refuse_submission():
    """End if submission or metrics do not fit the images, and folds are to be trained.

    If the training images are to be listed, that rule does the same; if nothing is to be trained, `write_submission` does.
    A failure of the rule that lists test images would not hold training back, so they are listed here too.
    """
    planned = {job.rule.name for job in workflow.dag.needrun_jobs()}
    trains = any(name.startswith("train_") for name in planned)
    if not trains or "manifest" in planned or not has_manifest("train"):
        return
    from kfold_ens.data.manifest import read_manifest, with_test_images
    from kfold_ens.ensemble.submission import refuse_what_cannot_be_submitted

    is_listed = "test_manifest" not in planned and has_manifest("test")
    try:
        images = read_manifest(TRAIN, TEST) if is_listed else with_test_images(read_manifest(TRAIN), RUN)
        refuse_what_cannot_be_submitted(images, RUN, metrics_of_recipes())
    except KfoldError as error:
        refuse(error)


GONE = sources_gone()
