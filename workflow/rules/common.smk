# The configuration, then functions that several stages use.


def read_recipes(files):
    """Read recipes, by their names in paths."""
    of_stem = {}
    for file in files:
        if set(file.stem) & set("{}"):
            refuse(f"{file}: rename this recipe: Snakemake reads the brace in results/{file.stem} as a wildcard")
        if of_stem.setdefault(file.stem, file) != file:
            refuse(f"{of_stem[file.stem]} and {file} would share results/{file.stem}; rename one")
    recipes = checked(load_recipe, of_stem.values(), RECIPE_FOLDER, RUN.full_fit)
    return {name: recipe.of_run(RUN.scoring, RUN.data.class_order) for name, recipe in zip(of_stem, recipes)}


def merged_from():
    """The files and options that Snakemake merged: --configfile overrides config.yaml, --config overrides both."""
    given = workflow.config_settings
    first = [] if given.replace_workflow_config else set(workflow.configfiles) - set(given.configfiles)
    files = dict.fromkeys(os.path.relpath(file) for file in [*first, *given.configfiles])
    return Written(tuple(map(Path, files)), given.config)


# --- the configuration -----------------------------------------------------------------------------------

STARTED = time.time()
MERGED = merged_from()
if workflow.is_main_process:
    refuse_bad_yaml([file for file in MERGED.files if file != CONFIG_FILE])
(RUN,) = checked(load_config, [config], MERGED)
config.update(RUN.model_dump(mode="json"))  # with defaults, for captions
RECIPE_FOLDER = PLACE / "recipes"
# Sorted, so that the order of a blend changes nothing.
CONFIGURED, *OTHERS = checked(find_recipe, [RUN.recipe, *RUN.ablation, *sorted(RUN.blend)], RECIPE_FOLDER)
COMPARED, OF_BLEND = OTHERS[: len(RUN.ablation)], OTHERS[len(RUN.ablation) :]
RECIPES = read_recipes([CONFIGURED, *OTHERS])
FILES = {file.stem: file for file in [CONFIGURED, *OTHERS]}
RECIPE = CONFIGURED.stem
ENSEMBLE_FILES = [f"results/{RECIPE}/ensemble.{ending}" for ending in ("safetensors", "md")]
ABLATION = list(dict.fromkeys(file.stem for file in COMPARED))
BLENDED = sorted({file.stem for file in OF_BLEND})
SUBMITTED = "blend" if BLENDED else RECIPE  # the folder of the submission's logits and scores
RACES = RUN.ablation_race and len(ABLATION) > 1
FOLDS = folds_of(RUN.repeats, RUN.num_folds)
FULL_FIT = [Member()] if RUN.full_fit else []
MEMBERS = [*FOLDS, *FULL_FIT]  # every model of a recipe
COMBINED = {"folds": FOLDS, "full": FULL_FIT, "both": MEMBERS}[RUN.members]
TRAINING_VERSION = [data.VERSION, network.VERSION, training.VERSION]


def environment():
    """The conda environment, relative to the rules. Snakemake formats the whole path, so braces in it are doubled.

    None in a module: environment.post-deploy.sh installs the library from the folder in which Snakemake runs.
    """
    if IN_A_MODULE:
        return None
    file = "../../environment.yml"
    path = workflow.current_basedir.join(file).get_path_or_uri(secret_free=False)
    return re.sub("[{}]", r"\g<0>\g<0>", path) if set(path) & set("{}") else file


ENVIRONMENT = environment()


wildcard_constraints:
    short_side=r"\d+",
    method="|".join(METHODS),
    recipe="|".join(map(re.escape, dict.fromkeys([*RECIPES, SUBMITTED]))),
    member="|".join(member.folder for member in MEMBERS),


# --- params, inputs and resources ------------------------------------------------------------------------


def as_param(model, **selection):
    """A part of the configuration as a param: equal values give equal text, so only a change reruns a job.

    The text contains no defaults, so a new option reruns nothing.
    """
    return canonical(model.model_dump(mode="json", exclude_defaults=True, **selection))


def scoring_param():
    """The metric of the scores. Empty at the default, so earlier scores stay."""
    return {} if RUN.scoring == Scoring() else {"scoring": literal(as_param(RUN.scoring))}


def choosing_param(wildcards):
    """What a recipe chooses by held-out scores. Empty for a blend."""
    return as_param(RECIPES[wildcards.recipe].choosing if wildcards.recipe in RECIPES else Choosing())


def choices_of(wildcards):
    """What was chosen by held-out scores: the epochs of folds, and the weights of a blend."""
    if wildcards.recipe in RECIPES:
        epochs = stored_epochs(wildcards.recipe, FOLDS)
        return {"history": files_of(FOLDS, wildcards.recipe, "history.csv"), "epochs": epochs}
    epochs = [each for recipe, own in BLENDED_MEMBERS.items() for each in stored_epochs(recipe, own)]
    own = {"oof_of_recipes": blended_files("oof_logits.npz", FOLDS), "history": blended_files("history.csv", FOLDS)}
    return own | {"blend": WEIGHTS_OF_BLEND, "epochs": epochs}


def repeats_param():
    """How an image's out-of-fold predictions are combined over repeats. Empty without repeats."""
    return {"method": RUN.over_repeats} if RUN.repeats > 1 else {}


def members_param():
    """The members whose predictions are combined. Empty at the default, the folds."""
    return {"members": RUN.members} if RUN.members != "folds" else {}


def literal(value):
    """A param with text of the user. As a function, since Snakemake reads braces in plain text as wildcards."""
    return lambda wildcards: value


def as_input(file):
    """A path that Snakemake does not read as a pattern: a relative one if the whole path contains a word in braces."""
    return os.path.relpath(file) if contains_wildcard(file) else file


def own_file(file):
    """A file of the user as an input: it is never in the storage."""
    return local(as_input(file))


def optional(**files):
    """Files of the user as inputs, by name; None is skipped."""
    return {name: own_file(file) for name, file in files.items() if file}


def more_each_attempt(amount):
    """A resource that grows by this amount per attempt: a cluster reruns a job that ran out of memory or time."""

    def resource(wildcards, attempt):
        return amount * attempt

    return resource


def to_predict(models=1):
    """The resources of a prediction, by one model after the other."""
    return {"gpu": 1, "mem_mb": more_each_attempt(8000), "runtime": more_each_attempt(120 * models)}


# --- the files of a recipe and of its members -----------------------------------------------------------


def pixels_of(sections, half):
    """The decoded images of a recipe. Only changes of their index rerun jobs: it is small enough for a checksum."""
    file = f"results/data/pixels-{sections.image.short_side}/{half}"
    return {"pixels": ancient(f"{file}.u8"), "index": f"{file}.npz"}


def files_of(members, recipe, file):
    """This file of each member. The recipe may be a wildcard."""
    return [f"results/{recipe}/{member.folder}/{file}" for member in members]


def outputs_of(recipe, member):
    """A member's model and history."""
    return [f"results/{recipe}/{member.folder}/{file}" for file in ("model.safetensors", "history.csv")]


def logits_of(recipe, member):
    """A member's logits for its held-out images, if any, and for the test images."""
    files = ["oof_logits.npz", "test_logits.npz"] if member.holds_out else ["test_logits.npz"]
    return [f"results/{recipe}/{member.folder}/{file}" for file in files]


def small_files_of(recipe, members):
    """All files of members but their models."""
    return [file for member in members for file in [outputs_of(recipe, member)[1], *logits_of(recipe, member)]]


def model_of(recipe, member):
    """A member's model. Only changes of its history rerun jobs: it is small enough for a checksum."""
    model, history = outputs_of(recipe, member)
    return {"model": ancient(model), "history": history}


def models_of(members, recipe):
    """Members' models, their histories (as in ``model_of``), and the out-of-fold logits of all folds."""
    models, histories = zip(*(outputs_of(recipe, member) for member in members))
    return {"model": ancient(models), "history": histories, "oof": files_of(FOLDS, recipe, "oof_logits.npz")}


def bundled(recipe):
    """The inputs of an ensemble file. With rounded weights, also what rounding costs."""
    cost = {"rounding": f"results/{recipe}/rounding.json"} if RUN.bundle_dtype != "fp32" else {}
    return models_of(COMBINED, recipe) | cost


def calibration_files():
    """The files that a temperature is fitted on. Empty without ``submission.calibrate``."""
    return {"oof": files_of(FOLDS, SUBMITTED, "oof_logits.npz"), "train": TRAIN} if RUN.submission.calibrate else {}


def intermediate_files(recipe):
    """The small files of every stage. Each target requests all of them.

    Otherwise Snakemake would not restore the outputs that it deleted after a failed job, as long as later files exist.
    Pixels and models are missing here, so that users may delete them to free disk space. If a recipe is only listed at
    ``ablation:``, its full fit trains only if scores depend on it.
    """
    members = MEMBERS if recipe == RECIPE else dict.fromkeys([*FOLDS, *COMBINED])
    return [TRAIN, TEST, CLASSES, *SPLITS, *small_files_of(recipe, members), f"results/{recipe}/metrics.json"]


# --- inputs of training -----------------------------------------------------------------------------------


def rule_name(stage, recipe, member):
    """train_fold3; train_plain_fold3 for a recipe that is only listed at ``ablation:``."""
    return f"{stage}_{member.name}" if recipe == RECIPE else f"{stage}_{recipe}_{member.name}"


def refuse_shared_rule_names():
    """End if two rules get one name: train_repeat1_fold0 is fold 0 of recipe repeat1, and also of a repeat."""
    names = Counter(rule_name("train", recipe, member) for recipe in RECIPES for member in MEMBERS)
    shared = [name for name, count in names.items() if count > 1]
    if shared:
        refuse(
            f"ablation: two recipes would share the rule {shared[0]}; rename the one that ends in repeat and a number"
        )


def training_param(sections):
    """The sections of a recipe on which weights depend."""
    return as_param(sections, exclude={"tta"})


def trained_first(recipe, member):
    """The same member of an earlier recipe that differs in ``tta`` only: wait for it instead of training twice."""
    twins = [name for name in RECIPES if training_param(RECIPES[name]) == training_param(RECIPES[recipe])]
    return {"same": outputs_of(twins[0], member)[1]} if twins[0] != recipe else {}


def seed_of(repeat):
    """The seed of a repeat. A run with this seed makes the same split and trains the same models."""
    return RUN.seed + repeat


def choosing_histories(recipe, member):
    """The folds' histories, which choose the number of epochs of a full fit. Empty for a fold."""
    return {} if member.holds_out else {"histories": files_of(FOLDS, recipe, "history.csv")}


def training_files(sections, member):
    """The files from which a member is trained."""
    return {"folds": SPLITS[member.repeat], "classes": CLASSES, **weights_of(sections), **pixels_of(sections, "train")}


def files_to_train(recipe, member):
    """All values and files on which the weights of a member depend."""
    sections = RECIPES[recipe]
    values = {
        "recipe": training_param(sections),
        "number": member.trained_as,
        "seed": seed_of(member.repeat),
        "version": TRAINING_VERSION,
    }
    files = {name: str(file) for name, file in training_files(sections, member).items()}
    return values | {"weights": None} | files | choosing_histories(recipe, member)


def metrics_of_recipes():
    """The metrics by which recipes select, stop or step, with the order of classes, by recipe and key."""
    return {
        f"{FILES[recipe]}: {key}": Scoring(metric=metric, class_order=sections.class_order)
        for recipe, sections in RECIPES.items()
        for key, metric in sections.metric_of_key.items()
    }


# --- pretrained weights ----------------------------------------------------------------------------------


def weights_name(backbone):
    """The name of the weights that a backbone starts from. None for random weights."""
    if backbone.weights == "none":
        return None
    is_file = Path(backbone.weights).suffix
    return f"{backbone.name}.{fingerprint(backbone.weights)[:8] if is_file else backbone.weights}"


def weights_of(sections):
    """The file of the weights that a recipe starts from. Empty for random weights."""
    name = weights_name(sections.backbone)
    return {"weights": f"resources/weights/{name}.safetensors"} if name else {}


def local_weights(wildcards):
    """The user's weights, if the recipe names a file."""
    weights = WEIGHTS[wildcards.weights].weights
    return {"file": own_file(weights)} if Path(weights).suffix else {}


def weights_param(wildcards):
    """The keys of a backbone that decide which weights it starts from."""
    return as_param(WEIGHTS[wildcards.weights], include={"kind", "name", "weights"})


WEIGHTS = {weights_name(sections.backbone): sections.backbone for sections in RECIPES.values()}


# --- the end of a run ------------------------------------------------------------------------------------


def made_now(path):
    """Whether this run wrote a file."""
    return Path(path).is_file() and os.path.getmtime(path) >= STARTED


def show_metrics(submission, metrics):
    """Print the scores if this run wrote a submission or scores. ``write_submission`` alone scores nothing."""
    both = Path(submission).is_file() and Path(metrics).is_file()
    if both and (made_now(submission) or made_now(metrics)):
        from kfold_ens.ensemble.score_table import as_text

        print(f"\n{metrics}\n{as_text(read_json(metrics), RUN.ensemble)}\n")
        print(f"{submission} is ready (ensembling method: {RUN.ensemble})")
