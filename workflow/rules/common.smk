import os
import re
import signal
import subprocess
import sys
import time
from functools import cache
from pathlib import Path

from snakemake.logging import logger


def refuse(message):
    """End with a message to the user, and without the lines of this file that Snakemake would put below it."""
    sys.exit(f"ERROR: {message}")


try:
    from kfold_ens import data, ensemble, network, prediction, training
    from kfold_ens import report as report_stage
    from kfold_ens.data.folders import images_fingerprint, is_source_of, missing
    from kfold_ens.config import HALVES, METHODS, find_recipe, load_config, load_recipe
    from kfold_ens.errors import ConfigError
    from kfold_ens.files import canonical, fingerprint, read_json
    from kfold_ens.machine import THREADS_PER_GPU, fold_memory, plan_folds, this_machine
    from kfold_ens.report.contents import PAGES, menu_entry, page_file, page_files
except ModuleNotFoundError as error:
    refuse(f"{error}. Install the project first: pip install -e {workflow.basedir}")


def checked(read, items, *arguments):
    """Call a reader of the configuration on each item; all that it finds wrong with any is all that the user sees."""
    results, wrong = [], []
    for item in items:
        try:
            results.append(read(item, *arguments))
        except ConfigError as error:
            wrong.append(str(error))
    return results if not wrong else refuse("\n".join(dict.fromkeys(wrong)))


def as_param(model, **selection):
    """A part of the configuration as a param: one text for equal values, so that only a change runs a job again.

    What is at its default is left out, so that a new option with a default runs nothing again.
    """
    return canonical(model.model_dump(mode="json", exclude_defaults=True, **selection))


def tables_of(half):
    """The tables that a half's images are listed in; a changed one is read again."""
    return list(map(local, RUN.data.tables(half)))


def source_param(half):
    """Where a half's images come from."""
    return canonical(RUN.data.of_half(half))


def images_param(half):
    """The names and sizes of a half's images, as a hash: it changes when images come, go or are replaced."""

    def images(wildcards):
        return images_fingerprint(RUN.data.folders(half))

    return images


def sources_gone():
    """For each half the tables and folders that are gone. The manifest made from them is then taken as it is.

    If there is no such manifest, the run ends here: later Snakemake would first remove results.
    """
    if not workflow.is_main_process or "--unlock" in sys.argv:
        return {half: [] for half in HALVES}
    gone = {half: missing(RUN.data.tables(half), RUN.data.folders(half)) for half in HALVES}
    needed = [f"data.{half}: {each}" for half in HALVES for each in gone[half] if not has_manifest(half)]
    if needed:
        refuse("\n".join([*dict.fromkeys(needed), f"Looked in {Path.cwd()}; change config.yaml, or mount the disk."]))
    for half in HALVES:
        for each in gone[half]:
            logger.warning(
                f"data.{half}: {each}; its source is not looked at, results/data/{half}.csv is taken as it is"
            )
    return gone


def has_manifest(half):
    """Whether a half's manifest is there, made from what config.yaml names."""
    return is_source_of(Path(f"results/data/{half}.csv"), RUN.data, half, RUN.seed, data.VERSION)


def optional(**files):
    """The inputs among these that the user has, which lie where Snakemake runs."""
    return {name: local(file) for name, file in files.items() if file}


def read_recipes(files):
    """Recipes by their names as they stand in paths."""
    of_stem = {}
    for file in files:
        if of_stem.setdefault(file.stem, file) != file:
            refuse(f"{of_stem[file.stem]} and {file} would share results/{file.stem}; rename one")
    return dict(zip(of_stem, checked(load_recipe, of_stem.values(), RECIPE_FOLDER)))


def more_each_attempt(amount):
    """A resource of which a job that is tried again, as one over its memory is on a cluster, gets as much more."""

    def resource(wildcards, attempt):
        return amount * attempt

    return resource


def pixels_of(slots, half):
    """The decoded images of a recipe's size. Their index stands for them: it is small enough for a checksum."""
    file = f"results/data/pixels-{slots.image.short_side}/{half}"
    return {"pixels": ancient(f"{file}.u8"), "index": f"{file}.npz"}


def outputs_of(recipe, fold):
    """A fold's model and history."""
    return [f"results/{recipe}/fold{fold}/{file}" for file in ("model.safetensors", "history.csv")]


def logits_of(recipe, fold):
    """What a fold's model says about its held-out images, and about the test images."""
    return [f"results/{recipe}/fold{fold}/{file}" for file in ("oof_logits.npz", "test_logits.npz")]


def model_of(recipe, fold):
    """A fold's model. Its history stands for it, for the same reason."""
    model, history = outputs_of(recipe, fold)
    return {"model": ancient(model), "history": history}


def trained_first(recipe, fold):
    """The same fold of an earlier recipe that trains alike, as one with other test-time views: this one waits for it."""
    twins = [name for name in RECIPES if training_param(RECIPES[name]) == training_param(RECIPES[recipe])]
    return {"same": outputs_of(twins[0], fold)[1]} if twins[0] != recipe else {}


def files_to_train(recipe, fold):
    """All that the weights of a fold follow from."""
    slots = RECIPES[recipe]
    values = {"recipe": training_param(slots), "number": fold, "seed": RUN.seed, "version": TRAINING_VERSION}
    return values | {"weights": None} | {name: str(file) for name, file in training_files(slots).items()}


def training_files(slots):
    """The files that all folds of a recipe are trained from."""
    return {"folds": SPLIT, "classes": CLASSES, **weights_of(slots), **pixels_of(slots, "train")}


def training_param(slots):
    """A recipe's slots that weights follow from."""
    return as_param(slots, exclude={"tta"})


def made_on_the_way(recipe):
    """The small files that every stage leaves. A target asks for them all.

    Snakemake removes the outputs of a job that fails, and does not miss them as long as what was made from them before is
    there. Large files are not among these: whoever needs room may delete pixels and models.
    """
    of_folds = [[outputs_of(recipe, fold)[1], *logits_of(recipe, fold)] for fold in FOLDS]
    return [TRAIN, TEST, CLASSES, SPLIT, *of_folds, f"results/{recipe}/metrics.json"]


def to_predict():
    """The resources of a prediction."""
    return {"gpu": 1, "mem_mb": more_each_attempt(8000), "runtime": more_each_attempt(120)}


def weights_name(backbone):
    """What the weights a backbone starts from are called here; None for random ones."""
    if backbone.weights == "none":
        return None
    is_file = Path(backbone.weights).suffix
    return f"{backbone.name}.{fingerprint(backbone.weights)[:8] if is_file else backbone.weights}"


def weights_of(slots):
    """The file of the weights a recipe starts from."""
    name = weights_name(slots.backbone)
    return {"weights": f"resources/weights/{name}.safetensors"} if name else {}


def local_weights(wildcards):
    """The user's own weights, where the recipe names a file."""
    weights = WEIGHTS[wildcards.weights].weights
    return {"file": local(weights)} if Path(weights).suffix else {}


def weights_param(wildcards):
    """Where weights come from."""
    return as_param(WEIGHTS[wildcards.weights], include={"kind", "name", "weights"})


def rule_name(stage, recipe, fold):
    """train_fold3; for a recipe that is not the configured one train_plain_fold3."""
    return f"{stage}_fold{fold}" if recipe == RECIPE else f"{stage}_{recipe}_fold{fold}"


def is_finished(recipe, fold):
    """Whether a fold has come to its end."""
    return all(map(exists, [*outputs_of(recipe, fold), *logits_of(recipe, fold)]))


def finished_folds(recipe):
    """The folds that a report shows: those that are finished, or all of them, trained first, where none is."""
    return FINISHED[recipe] or list(FOLDS)


def folds_param(wildcards):
    """The numbers of these folds."""
    return finished_folds(wildcards.recipe)


def first_finished_fold(wildcards):
    """The first of them."""
    return finished_folds(wildcards.recipe)[0]


def of_finished_folds(file):
    """That file of every finished fold of a recipe."""

    def files(wildcards):
        return [f"results/{wildcards.recipe}/fold{fold}/{file}" for fold in finished_folds(wildcards.recipe)]

    return files


def methods_if_finished(wildcards):
    """The combinations, where every fold is finished."""
    methods = METHODS if finished_folds(wildcards.recipe) == list(FOLDS) else ()
    return [f"results/{wildcards.recipe}/{method}/test_logits.npz" for method in methods]


def pixels_of_recipe(half):
    """The decoded images of a recipe's size."""

    def pixels(wildcards):
        return pixels_of(RECIPES[wildcards.recipe], half)

    return pixels


def pixels_of_both_halves(wildcards):
    """The same of training and test images, in lists."""
    halves = [pixels_of(RECIPES[wildcards.recipe], half) for half in HALVES]
    return {name: [pixels[name] for pixels in halves] for name in ("pixels", "index")}


def recipe_param(wildcards):
    """A recipe's slots."""
    return as_param(RECIPES[wildcards.recipe])


def recipe_path(wildcards):
    """The file of a recipe, as one would name it."""
    file = FILES[wildcards.recipe]
    folder = Path(workflow.basedir)
    return str(file.relative_to(folder) if file.is_relative_to(folder) else file)


def git(*arguments):
    """What git says of this workflow's folder; nothing where there is no git, or no repository."""
    try:
        command = ["git", "-C", workflow.basedir, *arguments]
        return subprocess.run(command, capture_output=True, text=True).stdout.strip()
    except OSError:
        return ""


def commit(wildcards):
    """The commit that is checked out, and whether files differ from it; None where that is unknown."""
    head, changes = git("rev-parse", "HEAD"), git("status", "--porcelain")
    return f"{head} and uncommitted changes" if head and changes else head or None


def reported_recipes():
    """The configured recipe, and those of the ablation of which a fold is finished."""
    return [recipe for recipe in RECIPES if recipe == RECIPE or FINISHED[recipe]]


def page(name, **fixed):
    """A page of the report as an output; ``fixed`` replaces wildcards in its path and its menu entry."""
    return report(
        page_file(name, **fixed),
        caption=f"../report/{name}.rst",
        category=PAGES[name].chapter,
        labels=menu_entry(name, **fixed),
    )


def pages(*names):
    """Pages as outputs, by name."""
    return {name: page(name) for name in names}


def reported():
    """Every page of the report; the ablation's too if all that it compares is finished."""
    files = [file for recipe in reported_recipes() for file in pages_of(recipe)]
    is_compared = ABLATION and all(FINISHED[recipe] == list(FOLDS) for recipe in ABLATION)
    return [*files, page_file("ablation")] if is_compared else files


def pages_of(recipe):
    """The files of a recipe's pages."""
    folds = finished_folds(recipe)
    shown = {"recipe", "fold"}
    if folds == list(FOLDS):
        shown |= {"ensemble", "submission"} if recipe == RECIPE else {"ensemble"}
    return page_files(shown, recipe, folds)


def plan_this_machine():
    """How many folds train at once on this machine, and the threads of each; --resources gpu=N comes first."""
    memory = max(fold_memory(slots, Path("results", recipe)) for recipe, slots in RECIPES.items())
    machine = this_machine(RUN.device, workflow.resource_settings.cores or 1)
    return plan_folds(machine, RUN.num_folds, memory, RUN.gpus_per_fold, RUN.gpu_slots, GIVEN_GPUS)


def cap_gpus():
    """Limit the folds that train at once, as Snakemake knows no limit, and tell jobs how many share the memory."""
    if RUN.gpu_slots > 1 and ON_CLUSTER:
        refuse("gpu_slots: a cluster gives every job a GPU of its own; write 1 into config.yaml")
    gpu = PLAN.gpu if PLAN else max(GIVEN_GPUS or 1, RUN.gpus_per_fold)
    workflow.register_resource("gpu", gpu)
    os.environ.update(KFOLD_PROCESSES_AT_ONCE=str(gpu if PLAN else 1))


def asked_for():
    """The rules that train a fold and that the user named to be run again; not those that run only as a result."""
    settings = workflow.dag_settings
    named = {os.path.normpath(each) for each in settings.forcerun}
    named |= {os.path.normpath(each) for each in settings.targets if settings.forcetargets}
    return [
        rule_name("train", recipe, fold)
        for recipe in RECIPES
        for fold in FOLDS
        if settings.forceall or not named.isdisjoint({rule_name("train", recipe, fold), *outputs_of(recipe, fold)})
    ]


def tell_jobs_what_was_asked_for(wildcards):
    """An input without files: Snakemake calls it when it knows what was asked for, and has no executor yet."""
    if workflow.is_main_process and "KFOLD_ASKED_FOR" not in workflow.envvars:
        os.environ.update(KFOLD_ASKED_FOR=" ".join(asked_for()))
        workflow.register_envvars("KFOLD_ASKED_FOR")
    return {}


def end_with_the_terminal():
    """Take a closed terminal for Snakemake's SIGTERM, after which it waits for its jobs to save, and unlocks."""
    if signal.getsignal(signal.SIGHUP) == signal.SIG_DFL:
        signal.signal(signal.SIGHUP, lambda *_: os.kill(os.getpid(), signal.SIGTERM))


def threads_to_train(wildcards):
    """A fold's threads. Snakemake asks only if it trains one: then say what is planned."""
    say_plan()
    return THREADS


@cache
def say_plan():
    """Print it once."""
    if PLAN:
        logger.info(PLAN.sentence)


def storage_options():
    """The storage that results are in, as options of the Snakemake that makes the report; none where they are here."""
    settings = workflow.storage_settings
    provider = ["--default-storage-provider", settings.default_storage_provider]
    return [*provider, "--default-storage-prefix", settings.default_storage_prefix] if HAS_STORAGE else []


def fetch(*paths):
    """Copy results that are in a storage to where they would lie without one."""
    for path in paths if HAS_STORAGE else ():
        if exists(path):
            stored = workflow.modifier.path_modifier.apply_default_storage(path).flags["storage_object"]
            stored.set_local_path(Path(path))
            workflow.async_run(stored.managed_retrieve())
            os.utime(path, (stored.mtime(), stored.mtime()))


def made_now(path):
    """Whether this run made a file."""
    return Path(path).is_file() and os.path.getmtime(path) >= STARTED


def show_metrics(submission, metrics):
    """Print the scores at the end of a run that made a submission; `write_submission` alone computes none."""
    both = Path(submission).is_file() and Path(metrics).is_file()
    if both and (made_now(submission) or made_now(metrics)):
        from kfold_ens.ensemble.metrics import as_text

        print(f"\n{metrics}\n{as_text(read_json(metrics), RUN.ensemble)}\n\n{submission} is ready: {RUN.ensemble}")


STARTED = time.time()
HAS_STORAGE = workflow.storage_settings.default_storage_provider is not None
(RUN,) = checked(load_config, [config])
RECIPE_FOLDER = Path(workflow.basedir, "recipes")
CONFIGURED, *COMPARED = checked(find_recipe, [RUN.recipe, *RUN.ablation], RECIPE_FOLDER)
RECIPES = read_recipes([CONFIGURED, *COMPARED])
FILES = {file.stem: file for file in [CONFIGURED, *COMPARED]}
RECIPE = CONFIGURED.stem
ABLATION = list(dict.fromkeys(file.stem for file in COMPARED))
WEIGHTS = {weights_name(slots.backbone): slots.backbone for slots in RECIPES.values()}
FOLDS = range(RUN.num_folds)
TAKEN_HOME = [
    f"results/{RECIPE}/metrics.json",
    *(f"results/{name}" for name in ("submission.csv", "submission.zip", "ablation.csv", "report.html")),
]
FINISHED = {recipe: [fold for fold in FOLDS if is_finished(recipe, fold)] for recipe in RECIPES}
GONE = sources_gone()
REPORTED = reported()
MAKES_REPORT = any(each.split("=")[0] == "--report" for each in sys.argv)  # then `submission` means all of it
config.update(RUN.model_dump(mode="json"))  # captions read it, defaults included

GIVEN_GPUS = workflow.global_resources["gpu"].value if "gpu" in workflow.global_resources else None
# Snakemake knows its executor only after it has read this file; a cluster always has a number of jobs (--jobs).
ON_CLUSTER = workflow.resource_settings.nodes is not None
# Only the main process plans. A cluster's jobs read this file too, on other machines.
PLAN = plan_this_machine() if workflow.is_main_process and not ON_CLUSTER else None
THREADS = PLAN.threads if PLAN else THREADS_PER_GPU * RUN.gpus_per_fold
THREADS_TO_PREDICT = max(1, THREADS // RUN.gpus_per_fold)
TRAINING_VERSION = [data.VERSION, network.VERSION, training.VERSION]
# Trained folds. With results in a storage only the state's volume outlives a job.
KEPT = "state/trained" if HAS_STORAGE else "trained"

if workflow.is_main_process:
    cap_gpus()
    end_with_the_terminal()
    # where the Snakemake that makes the report looks for them
    os.environ.update(workflow.spawned_job_args_factory.get_storage_provider_envvars())


wildcard_constraints:
    short_side=r"\d+",
    method="|".join(METHODS),
    recipe="|".join(map(re.escape, RECIPES)),
