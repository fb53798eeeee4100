# The sources of images, and whether they still exist.


def tables_of(half):
    """The tables that list the images of a half (train or test). A changed table is read again."""
    return list(map(own_file, RUN.data.tables(half)))


def source_param(half):
    """The source of a half's images."""
    return canonical(RUN.data.of_half(half))


def images_param(half):
    """A hash of the names and sizes of a half's images. It changes if images are added, removed or replaced."""

    def images(wildcards):
        return images_fingerprint(RUN.data.folders(half))

    return images


def decoding_param():
    """How 16-bit images are decoded. Empty at the default, so images that are decoded already stay."""
    return RUN.data.model_dump(mode="json", include={"intensity_range"}, exclude_defaults=True)


def split_param():
    """What stays together in the split, and how rare classes are split. Empty at the default."""
    return RUN.model_dump(mode="json", include={"keep_together", "rare_classes"}, exclude_defaults=True)


def has_manifest(half):
    """Whether a half's manifest exists and was made from the source in config.yaml."""
    return is_source_of(Path(f"results/data/{half}.csv"), RUN.data, half, RUN.seed, data.VERSION)


def weights_files():
    """The user's files of pretrained weights that a run reads, by recipe and key. Converted files may be missing."""
    files = {name: sections.backbone for name, sections in RECIPES.items() if Path(sections.backbone.weights).suffix}
    return {
        f"{FILES[name]}: backbone.weights": backbone.weights
        for name, backbone in files.items()
        if os.path.lexists(backbone.weights) or not exists(f"resources/weights/{weights_name(backbone)}.safetensors")
    }


def single_files():
    """The user's files that jobs read, by their keys in the configuration, except tables of images."""
    data = {f"data.{key}": getattr(RUN.data, key) for key in ("test_labels", "folds")}
    own = {"submission.sample": RUN.submission.sample} | data
    return {key: file for key, file in own.items() if file} | weights_files()


def named_like_wildcards():
    """Findings about names of files and weights that Snakemake would read as wildcards."""
    published = {FILES[recipe]: weights_name(sections.backbone) or "" for recipe, sections in RECIPES.items()}
    faults = [
        f"{file}: backbone.weights: there are no weights {name}; correct the name"
        for file, name in published.items()
        if "{" in name
    ]
    tables = [(f"data.{half}", table) for half in HALVES for table in RUN.data.tables(half)]
    return faults + [
        f"{key}: {file}: rename it, or its folder: Snakemake reads a word in braces as a wildcard"
        for key, file in [*tables, *single_files().items()]
        if contains_wildcard(as_input(file))
    ]


def sources_gone():
    """Find the tables and folders that are missing, by half. The run then uses the manifest that was made from them.

    If there is no such manifest, or another file is missing, the run ends here, before Snakemake deletes results.
    """
    if not workflow.is_main_process or "--unlock" in sys.argv:
        return {half: [] for half in HALVES}
    gone = {half: missing(RUN.data, half) for half in HALVES}
    needed = [each for half in HALVES for each in gone[half] if not has_manifest(half)]
    needed += [f"{key}: {fault}" for key, file in single_files().items() if (fault := file_fault(file))]
    if needed:
        needed.append(f"Paths are relative to {Path.cwd()}. Correct the configuration, or mount the disk.")
    if needed := named_like_wildcards() + needed:
        refuse("\n".join(dict.fromkeys(needed)))
    for half in HALVES:
        for each in gone[half]:
            logger.warning(f"{each}; using results/data/{half}.csv, which an earlier run made from it")
    return gone


def log_classes():
    """Log the classes of a manifest that an earlier run made. The job that makes a manifest logs them itself."""
    if has_manifest("train"):
        from kfold_ens.data.classes import describe
        from kfold_ens.data.manifest import read_manifest

        logger.info(describe(dict(read_manifest(TRAIN)["label"].value_counts())))


def refuse_submission():
    """End if this run trains folds, and submission or metrics do not fit the images.

    If this run lists the training images, ``manifest`` checks this; if it trains nothing, ``write_submission`` does.
    Test images are listed here too: a failure of ``test_manifest`` would not stop training.
    """
    planned = {job.rule.name for job in workflow.dag.needrun_jobs()}
    trains = any(as_typed(rule_name("train", recipe, member)) in planned for recipe in RECIPES for member in MEMBERS)
    if not trains or as_typed("manifest") in planned or not has_manifest("train"):
        return
    from kfold_ens.data.manifest import read_manifest, with_test_images
    from kfold_ens.ensemble.submission import refuse_what_cannot_be_submitted

    is_listed = as_typed("test_manifest") not in planned and has_manifest("test")
    try:
        images = read_manifest(TRAIN, TEST) if is_listed else with_test_images(read_manifest(TRAIN), RUN)
        refuse_what_cannot_be_submitted(images, RUN, metrics_of_recipes())
    except KfoldError as error:
        refuse(error)


GONE = sources_gone()
