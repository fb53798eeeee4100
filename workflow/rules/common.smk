import os
import time
from pathlib import Path

from snakemake.exceptions import WorkflowError

try:
    from kfold_ens import data, ensemble, network, prediction, training
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


def source_inputs(wildcards):
    """What a data source is read from: tables, or every folder, whose times tell of files that came or went."""
    source = RUN.data
    if source.source == "csv":
        return {"tables": [source.train, source.test]}
    if source.source == "imagefolder":
        roots = [*source.train, source.test]
        return {"folders": sorted({folder for root in roots for folder, *_ in os.walk(Path(root))})}
    return {}


def test_labels(source):
    """The labels that test images are scored against, where the user has them."""
    return {"test_labels": source.test_labels} if source.test_labels else {}


def pretrained_weights(backbone):
    """The file a backbone starts from: none, one of torchvision's, or the user's own."""
    if backbone.weights == "none":
        return {}
    origin = fingerprint(backbone.weights)[:8] if local_weights(backbone) else backbone.weights
    return {"weights": f"resources/weights/{backbone.name}.{origin}.safetensors"}


def local_weights(backbone):
    """The user's own weights, where the recipe names a file."""
    return {"file": backbone.weights} if Path(backbone.weights).suffix else {}


def cap_gpus():
    """Snakemake drops the profile's cap when other --resources are given, and would start all folds at once."""
    if "gpu" not in workflow.global_resources:
        workflow.register_resource("gpu", 1)


def show_metrics(submission, metrics):
    """Print the scores at the end of a run that made a submission."""
    if Path(submission).is_file() and os.path.getmtime(submission) >= STARTED:
        from kfold_ens.ensemble.metrics import as_text

        print(f"\n{metrics}\n{as_text(read_json(metrics), RUN.ensemble)}\n\n{submission} is ready: {RUN.ensemble}")


STARTED = time.time()
RUN = checked(load_config, config)
RECIPE_FILE = checked(find_recipe, RUN.recipe, Path(workflow.basedir, "recipes"))
RECIPE = RECIPE_FILE.stem
SLOTS = checked(load_recipe, RECIPE_FILE)
FOLDS = range(RUN.num_folds)
config.update(RUN.model_dump(mode="json"))  # captions read it, defaults included

if workflow.is_main_process:
    cap_gpus()


wildcard_constraints:
    short_side=r"\d+",
    method="|".join(METHODS),
