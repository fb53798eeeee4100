import os
import re
import time
from pathlib import Path

from snakemake.exceptions import WorkflowError

try:
    from kfold_ens import data, ensemble, network, prediction, training
    from kfold_ens import report as report_stage
    from kfold_ens.data.folders import images_fingerprint
    from kfold_ens.config import METHODS, find_recipe, load_config, load_recipe
    from kfold_ens.errors import ConfigError
    from kfold_ens.files import canonical, fingerprint, read_json
except ModuleNotFoundError as error:
    raise WorkflowError(f"{error}. Install the project first: pip install -e {workflow.basedir}")


def checked(read, *arguments):
    """Call a reader of the configuration; what it finds wrong is all that the user sees."""
    try:
        return read(*arguments)
    except ConfigError as error:
        raise WorkflowError(str(error))


def as_param(model, **selection):
    """A part of the configuration as a param: one text for equal values, so that only a change runs a job again."""
    return canonical(model.model_dump(mode="json", **selection))


def source_tables(wildcards):
    """The tables a data source is read from; a changed one is read again."""
    return [RUN.data.train, RUN.data.test] if RUN.data.source == "csv" else []


def source_folders(wildcards):
    """What tells that images came, went or changed in the folders of a data source: their names and sizes."""
    source = RUN.data
    return images_fingerprint([*source.train, source.test]) if source.source == "imagefolder" else ""


def test_labels(source):
    """The labels that test images are scored against, where the user has them."""
    return {"test_labels": source.test_labels} if source.test_labels else {}


def recipe_file(name):
    """The file of a recipe; its stem is what stands in paths."""
    return checked(find_recipe, name, Path(workflow.basedir, "recipes"))


def read_recipes(files):
    """Recipes by their names as they stand in paths."""
    of_stem = {}
    for file in files:
        if of_stem.setdefault(file.stem, file) != file:
            raise WorkflowError(f"{of_stem[file.stem]} and {file} would share results/{file.stem}; rename one")
    return {stem: checked(load_recipe, file) for stem, file in of_stem.items()}


def pixels_of(slots):
    """The decoded images of a recipe's size."""
    folder = f"results/data/pixels-{slots.image.short_side}"
    return {"pixels": f"{folder}/pixels.u8", "index": f"{folder}/index.npz"}


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
    return {"file": weights} if Path(weights).suffix else {}


def weights_param(wildcards):
    """Where weights come from."""
    return as_param(WEIGHTS[wildcards.weights], include={"kind", "name", "weights"})


def rule_name(stage, recipe, fold):
    """train_fold3; for a recipe that is not the configured one train_plain_fold3."""
    return f"{stage}_fold{fold}" if recipe == RECIPE else f"{stage}_{recipe}_fold{fold}"


def cap_gpus():
    """Snakemake drops the profile's cap when other --resources are given, and would start all folds at once."""
    if "gpu" not in workflow.global_resources:
        workflow.register_resource("gpu", 1)


def made_now(path):
    """Whether this run made a file."""
    return Path(path).is_file() and os.path.getmtime(path) >= STARTED


def show_metrics(submission, metrics):
    """Print the scores at the end of a run that made a submission."""
    if made_now(submission) or (made_now(metrics) and Path(submission).is_file()):
        from kfold_ens.ensemble.metrics import as_text

        print(f"\n{metrics}\n{as_text(read_json(metrics), RUN.ensemble)}\n\n{submission} is ready: {RUN.ensemble}")


STARTED = time.time()
RUN = checked(load_config, config)
RECIPES = read_recipes(map(recipe_file, [RUN.recipe, *RUN.ablation]))
RECIPE = recipe_file(RUN.recipe).stem
ABLATION = list(dict.fromkeys(recipe_file(name).stem for name in RUN.ablation))
WEIGHTS = {weights_name(slots.backbone): slots.backbone for slots in RECIPES.values()}
FOLDS = range(RUN.num_folds)
REPORTED = [
    "results/submission.csv",
    f"results/{RECIPE}/metrics.json",
    f"results/{RECIPE}/report/confusion.svg",
    *["results/ablation.csv"] * bool(ABLATION),
]
config.update(RUN.model_dump(mode="json"))  # captions read it, defaults included

if workflow.is_main_process:
    cap_gpus()


wildcard_constraints:
    short_side=r"\d+",
    method="|".join(METHODS),
    recipe="|".join(map(re.escape, RECIPES)),
