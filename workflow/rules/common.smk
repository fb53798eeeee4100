# The configuration, then what several stages use.


def read_recipes(files):
    """Recipes by the names that they have in paths."""
    of_stem = {}
    for file in files:
        if set(file.stem) & set("{}"):
            refuse(f"{file}: rename this recipe: a brace in its name is a wildcard in Snakemake's results/{file.stem}")
        if of_stem.setdefault(file.stem, file) != file:
            refuse(f"{of_stem[file.stem]} and {file} would share results/{file.stem}; rename one")
    recipes = checked(load_recipe, of_stem.values(), RECIPE_FOLDER, RUN.full_fit)
    return {name: recipe.of_run(RUN.scoring, RUN.data.class_order) for name, recipe in zip(of_stem, recipes)}


def merged_from():
    """What Snakemake merged the configuration from: --configfile comes over config.yaml, --config over both."""
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
config.update(RUN.model_dump(mode="json"))  # captions read it, defaults included
RECIPE_FOLDER = Path(workflow.basedir, "recipes")
CONFIGURED, *COMPARED = checked(find_recipe, [RUN.recipe, *RUN.ablation], RECIPE_FOLDER)
RECIPES = read_recipes([CONFIGURED, *COMPARED])
FILES = {file.stem: file for file in [CONFIGURED, *COMPARED]}
RECIPE = CONFIGURED.stem
ENSEMBLE_FILES = [f"results/{RECIPE}/ensemble.{ending}" for ending in ("safetensors", "md")]
ABLATION = list(dict.fromkeys(file.stem for file in COMPARED))
FOLDS = folds_of(RUN.repeats, RUN.num_folds)
FULL_FIT = [Member()] if RUN.full_fit else []
MEMBERS = [*FOLDS, *FULL_FIT]  # every model of a recipe
COMBINED = {"folds": FOLDS, "full": FULL_FIT, "both": MEMBERS}[RUN.members]
TRAINING_VERSION = [data.VERSION, network.VERSION, training.VERSION]


def environment():
    """The conda environment, from the rules' folder. Snakemake formats the whole path: braces in it are doubled."""
    file = "../../environment.yml"
    path = workflow.current_basedir.join(file).get_path_or_uri(secret_free=False)
    return re.sub("[{}]", r"\g<0>\g<0>", path) if set(path) & set("{}") else file


ENVIRONMENT = environment()


wildcard_constraints:
    short_side=r"\d+",
    method="|".join(METHODS),
    recipe="|".join(map(re.escape, RECIPES)),
    member="|".join(member.folder for member in MEMBERS),


# --- params, inputs and resources ------------------------------------------------------------------------


def as_param(model, **selection):
    """A part of the configuration as a param: equal values give equal text, so only a change reruns a job.

    Defaults are left out, so a new option with a default reruns nothing.
    """
    return canonical(model.model_dump(mode="json", exclude_defaults=True, **selection))


def scoring_param():
    """What predictions are scored by; nothing at the default, so scores made earlier stay."""
    return {} if RUN.scoring == Scoring() else {"scoring": literal(as_param(RUN.scoring))}


def repeats_param():
    """How an image's out-of-fold predictions are combined over repeats; nothing without repeats."""
    return {"method": RUN.over_repeats} if RUN.repeats > 1 else {}


def members_param():
    """Whose predictions are combined; nothing if it is the folds' alone."""
    return {"members": RUN.members} if RUN.members != "folds" else {}


def literal(value):
    """A param of the user's words: Snakemake takes braces in a text for wildcards, but not in what a function returns."""
    return lambda wildcards: value


def as_input(file):
    """A path that Snakemake takes for no pattern; one from here if the whole path holds a word in braces."""
    return os.path.relpath(file) if contains_wildcard(file) else file


def own_file(file):
    """A file of the user's as an input: it lies where Snakemake runs."""
    return local(as_input(file))


def optional(**files):
    """The user's own files as inputs by name, without those that are None."""
    return {name: own_file(file) for name, file in files.items() if file}


def more_each_attempt(amount):
    """A resource that grows by this amount with each attempt: a cluster reruns a job that ran out of memory."""

    def resource(wildcards, attempt):
        return amount * attempt

    return resource


def to_predict(models=1):
    """The resources of a prediction, by one model after the other."""
    return {"gpu": 1, "mem_mb": more_each_attempt(8000), "runtime": more_each_attempt(120 * models)}


# --- the files of a recipe and of its members -----------------------------------------------------------


def pixels_of(sections, half):
    """The decoded images of a recipe's size. Their index stands for them, as it is small enough for a checksum."""
    file = f"results/data/pixels-{sections.image.short_side}/{half}"
    return {"pixels": ancient(f"{file}.u8"), "index": f"{file}.npz"}


def files_of(members, recipe, file):
    """This file of each of some members; the recipe may be a wildcard."""
    return [f"results/{recipe}/{member.folder}/{file}" for member in members]


def of_compared_folds(file):
    """This file of each fold of the recipes of ``ablation:``, recipe by recipe."""
    return [each for recipe in ABLATION for each in files_of(FOLDS, recipe, file)]


def outputs_of(recipe, member):
    """A member's model and history."""
    return [f"results/{recipe}/{member.folder}/{file}" for file in ("model.safetensors", "history.csv")]


def logits_of(recipe, member):
    """A member's logits for its held-out images, if it has some, and for the test images."""
    files = ["oof_logits.npz", "test_logits.npz"] if member.holds_out else ["test_logits.npz"]
    return [f"results/{recipe}/{member.folder}/{file}" for file in files]


def model_of(recipe, member):
    """A member's model. Its history stands for it, as it is small enough for a checksum."""
    model, history = outputs_of(recipe, member)
    return {"model": ancient(model), "history": history}


def models_of(members, recipe):
    """Some members' models, with their histories as above, and what the folds say out of fold."""
    models, histories = zip(*(outputs_of(recipe, member) for member in members))
    return {"model": ancient(models), "history": histories, "oof": files_of(FOLDS, recipe, "oof_logits.npz")}


def bundled(recipe):
    """What an ensemble file is made from; if weights are rounded, also what that costs."""
    cost = {"rounding": f"results/{recipe}/rounding.json"} if RUN.bundle_dtype != "fp32" else {}
    return models_of(COMBINED, recipe) | cost


def what_calibrates():
    """What a temperature is fitted on, if one is asked for."""
    return {"oof": files_of(FOLDS, RECIPE, "oof_logits.npz"), "train": TRAIN} if RUN.submission.calibrate else {}


def made_on_the_way(recipe):
    """The small files of every stage. Targets ask for them all.

    Snakemake deletes a failed job's outputs, and does not make them again while the files made from them are there.
    Pixels and models are not listed, so that users may delete them to free disk space. A recipe that is only in
    ``ablation:`` trains a full fit only if scores follow from it.
    """
    members = MEMBERS if recipe == RECIPE else dict.fromkeys([*FOLDS, *COMBINED])
    of_members = [[outputs_of(recipe, member)[1], *logits_of(recipe, member)] for member in members]
    return [TRAIN, TEST, CLASSES, *SPLITS, *of_members, f"results/{recipe}/metrics.json"]


# --- what a member is trained from -----------------------------------------------------------------------


def rule_name(stage, recipe, member):
    """train_fold3; train_plain_fold3 for a recipe that is only in ``ablation:``."""
    return f"{stage}_{member.name}" if recipe == RECIPE else f"{stage}_{recipe}_{member.name}"


def refuse_shared_rule_names():
    """End if two recipes' members would share a name: recipe repeat1's train_repeat1_fold0, and that of a repeat."""
    names = Counter(rule_name("train", recipe, member) for recipe in RECIPES for member in MEMBERS)
    shared = [name for name, count in names.items() if count > 1]
    if shared:
        refuse(f"ablation: recipes whose names end in repeat and a number would share rules ({shared[0]}); rename them")


def training_param(sections):
    """A recipe's sections that weights depend on."""
    return as_param(sections, exclude={"tta"})


def trained_first(recipe, member):
    """This member of an earlier recipe that trains the same, as one that differs in ``tta`` only: wait for it."""
    twins = [name for name in RECIPES if training_param(RECIPES[name]) == training_param(RECIPES[recipe])]
    return {"same": outputs_of(twins[0], member)[1]} if twins[0] != recipe else {}


def seed_of(repeat):
    """The seed of a repeat: it is split and trained as a run with this seed would be."""
    return RUN.seed + repeat


def choosing_histories(recipe, member):
    """The folds' histories, which choose for how many epochs a full fit is trained; nothing for a fold."""
    return {} if member.holds_out else {"histories": files_of(FOLDS, recipe, "history.csv")}


def training_files(sections, member):
    """The files that a member is trained from."""
    return {"folds": SPLITS[member.repeat], "classes": CLASSES, **weights_of(sections), **pixels_of(sections, "train")}


def files_to_train(recipe, member):
    """Everything that the weights of a member depend on."""
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
    """The metrics that recipes select, stop or step by, with the order of classes, by recipe and key."""
    return {
        f"{FILES[recipe]}: {key}": Scoring(metric=metric, class_order=sections.class_order)
        for recipe, sections in RECIPES.items()
        for key, metric in sections.metric_of_key.items()
    }


# --- pretrained weights ----------------------------------------------------------------------------------


def weights_name(backbone):
    """The name of the weights that a backbone starts from; None for random ones."""
    if backbone.weights == "none":
        return None
    is_file = Path(backbone.weights).suffix
    return f"{backbone.name}.{fingerprint(backbone.weights)[:8] if is_file else backbone.weights}"


def weights_of(sections):
    """The file of the weights that a recipe starts from; none for random ones."""
    name = weights_name(sections.backbone)
    return {"weights": f"resources/weights/{name}.safetensors"} if name else {}


def local_weights(wildcards):
    """The user's own weights, if the recipe names a file."""
    weights = WEIGHTS[wildcards.weights].weights
    return {"file": own_file(weights)} if Path(weights).suffix else {}


def weights_param(wildcards):
    """The part of a backbone that decides where its weights come from."""
    return as_param(WEIGHTS[wildcards.weights], include={"kind", "name", "weights"})


WEIGHTS = {weights_name(sections.backbone): sections.backbone for sections in RECIPES.values()}


# --- the end of a run ------------------------------------------------------------------------------------


def made_now(path):
    """Whether this run wrote a file."""
    return Path(path).is_file() and os.path.getmtime(path) >= STARTED


def show_metrics(submission, metrics):
    """Print the scores if this run wrote a submission or scores; ``write_submission`` alone scores nothing."""
    both = Path(submission).is_file() and Path(metrics).is_file()
    if both and (made_now(submission) or made_now(metrics)):
        from kfold_ens.ensemble.score_table import as_text

        print(f"\n{metrics}\n{as_text(read_json(metrics), RUN.ensemble)}\n\n{submission} is ready: {RUN.ensemble}")
