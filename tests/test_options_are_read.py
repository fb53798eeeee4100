"""Whatever a recipe says is read by what is built from it: no option is without effect by oversight."""

from __future__ import annotations

import re
from collections.abc import Iterator

import numpy as np
import pytest
import torch
from conftest import REPOSITORY
from test_every_option import WRITTEN, changed, options

from kfold_ens.config import Recipe, Scoring, Section
from kfold_ens.loading.augmentation import build_augmentation, build_evaluation_view, to_input
from kfold_ens.loading.samplers import build_sampler
from kfold_ens.network.classifier import Classifier
from kfold_ens.prediction.tta import average_views, build_views
from kfold_ens.training.ema import build_ema
from kfold_ens.training.losses import build_loss
from kfold_ens.training.mixing import build_mixing
from kfold_ens.training.optimizers import build_optimizer
from kfold_ens.training.schedules import build_schedule
from kfold_ens.training.stopping import stops

# Read where a fold is trained: the workflow prepares the weights and the pixels, the loop counts epochs.
ELSEWHERE = {
    *("Recipe.epochs", "Recipe.batch_size", "Recipe.select"),
    *("Squash.short_side", "CenterCrop.short_side", "TorchvisionBackbone.weights", "TimmBackbone.weights"),
}
SCORING = Scoring(metric="f1_macro")
RECIPES = [Recipe.model_validate(values).of_run(SCORING, None) for name, _, values in WRITTEN if name == "recipe"]


def build(recipe: Recipe) -> None:
    """Everything that one recipe chooses, used once."""
    image = torch.zeros(3, 16, 16, dtype=torch.uint8)
    view = build_evaluation_view(recipe.image)(image)
    to_input(view[None], recipe.image, torch.device("cpu"), torch.contiguous_format)
    build_augmentation(recipe.augmentation, recipe.image.size)(image)
    build_mixing(recipe.mixing, 2)(torch.zeros(4, 3, 8, 8), torch.tensor([0, 1, 0, 1]))
    with torch.device("meta"):
        network = Classifier(recipe, 2)
    optimizer = build_optimizer(recipe.optimizer, network)
    build_schedule(recipe.schedule, optimizer, 100)
    build_ema(recipe.ema, network).after_step(network, 0)
    loss = build_loss(recipe.loss, np.array([3, 5]))
    for epoch in range(4):
        loss(torch.zeros(2, 2), torch.tensor([0, 1]), epoch)
    build_sampler(recipe.sampler, np.array([0, 1]))
    stops(recipe.early_stopping, [{"val_f1_macro": 0.5}])
    views = [view(image) for view in build_views(recipe.tta, recipe.image).values()]
    average_views(recipe.tta, np.zeros((len(views), 3, 2)))


@pytest.fixture
def read(monkeypatch: pytest.MonkeyPatch) -> Iterator[set[str]]:
    """The options that are read while the test runs, by model and key."""
    found: set[str] = set()

    def recording(section: Section, name: str) -> object:
        found.add(f"{type(section).__name__}.{name}")
        return object.__getattribute__(section, name)

    monkeypatch.setattr(Section, "__getattribute__", recording)
    return found


def test_every_option_of_a_recipe_is_read(read):
    for recipe in RECIPES:
        build(recipe)
    read = set(read)
    of_recipes = {option for recipe in RECIPES for option in changed(recipe)}
    assert {each for each in of_recipes - read if not each.endswith(".kind")} == ELSEWHERE


def test_every_option_of_config_yaml_is_named_where_it_may_be_read():
    """A weaker test: these are read by rules and scripts, which run in Snakemake."""
    files = [path for path in (REPOSITORY / "src").rglob("*.py") if path.name != "config.py"]
    files += [path for path in (REPOSITORY / "workflow").rglob("*.*") if path.suffix in (".py", ".smk")]
    text = "".join(path.read_text(encoding="utf-8") for path in files)
    keys = {option.partition(".")[2] for option in options("config")} - {"kind", "source"}
    assert {key for key in keys if not re.search(rf"\.{key}\b", text)} <= {"test_images"}  # Csv itself reads it
