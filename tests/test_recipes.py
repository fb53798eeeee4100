"""The recipes: complete or overlays, and what they say they are."""

from __future__ import annotations

import itertools
import math
import re
from pathlib import Path

import numpy as np
import pytest
import torch
import yaml
from conftest import REPOSITORY
from stages import make_stage, smallest_sibling

from kfold_ens.compute.compute import Compute
from kfold_ens.config import Recipe, find_recipe, load_recipe
from kfold_ens.network.classifier import Classifier
from kfold_ens.training.optimizers import build_optimizer
from kfold_ens.training.schedules import build_schedule
from kfold_ens.training.trainer import Trainer

FOLDER = REPOSITORY / "recipes"
PATHS = sorted(FOLDER.rglob("*.yaml"))
FIVE = ["kfold_mix", "focal_onecycle", "ema_tta", "resnext50_sgd", "cbam_mixup"]


def recipe_of(name: str) -> Recipe:
    return load_recipe(find_recipe(name, FOLDER), FOLDER)


@pytest.mark.parametrize("path", PATHS, ids=lambda path: path.stem)
def test_a_recipe_says_whose_it_is_and_what_it_scored(path: Path):
    text = path.read_text(encoding="utf-8")
    _, *lines = text.splitlines()  # the first is for editors
    assert lines[0].startswith("# Whose: ")
    assert "\n# Scored: " in text
    assert len(text.splitlines()) < 60


@pytest.mark.parametrize("path", sorted(FOLDER.glob("*.yaml")), ids=lambda path: path.stem)
def test_a_main_recipe_is_complete_and_flat(path: Path):
    required = {name for name, field in Recipe.model_fields.items() if field.is_required()}
    assert set(yaml.safe_load(path.read_text(encoding="utf-8"))) == required
    load_recipe(path, FOLDER)


@pytest.mark.parametrize("path", sorted(FOLDER.glob("ablation/*.yaml")), ids=lambda path: path.stem)
def test_an_arm_of_an_ablation_is_complete_or_holds_only_what_differs_from_its_base(path: Path):
    written, own = yaml.safe_load(path.read_text(encoding="utf-8")), load_recipe(path, FOLDER).model_dump()
    base = recipe_of(written.pop("base")).model_dump() if "base" in written else {}
    assert set(written) == {section for section in own if section not in base or own[section] != base[section]}


def test_the_overlay_in_the_documentation_is_right(tmp_path):
    (example,) = re.findall(r"```yaml\n(.*?)```", (REPOSITORY / "docs/recipes.md").read_text(), re.DOTALL)
    (tmp_path / "my_overlay.yaml").write_text(example)
    own, base = load_recipe(tmp_path / "my_overlay.yaml", FOLDER).model_dump(), recipe_of("kfold_mix").model_dump()
    assert {section for section in own if own[section] != base[section]} == {"optimizer", "epochs"}


def test_no_recipes_name_appears_in_the_library():
    library = "".join(path.read_text() for path in (REPOSITORY / "src").rglob("*.py"))
    assert not [name for name in FIVE if name in library]


@pytest.mark.parametrize(
    ("name", "millions"),
    [("kfold_mix", 81.6), ("focal_onecycle", 83.6), ("ema_tta", 94.2), ("resnext50_sgd", 23.2), ("kfold_mix_70", 81.6)],
)
def test_it_has_the_published_number_of_parameters(name, millions):
    with torch.device("meta"):
        network = Classifier(recipe_of(name), 100)
    assert round(sum(each.numel() for each in network.parameters()) / 1e6, 1) == millions


def test_cbam_and_dropout_are_all_that_is_new_in_cbam_mixup():
    with torch.device("meta"):
        network = Classifier(recipe_of("cbam_mixup"), 100)
    cbam = 2 * 2048 * 2048 // 16 + 2 * 7 * 7
    resnext101_32x8d = 88_791_336 - 1000 * 2049  # torchvision's, without its classifier
    assert sum(each.numel() for each in network.parameters()) == resnext101_32x8d + cbam + 100 * 2049


OPTIMIZERS = {
    "kfold_mix": ("AdamW", {"rest": 1e-4}, {"weight_decay": 0.01, "betas": (0.9, 0.999)}),
    "kfold_mix_70": ("AdamW", {"rest": 1e-4}, {"weight_decay": 0.01, "betas": (0.9, 0.999)}),
    "focal_onecycle": (
        "AdamW",
        {"layer2": 2e-4, "layer3": 3e-4, "layer4": 5e-4, "rest": 1e-3},
        {"weight_decay": 5e-4, "betas": (0.9, 0.999)},
    ),
    "ema_tta": ("AdamW", {"rest": 5e-5}, {"weight_decay": 3e-3, "betas": (0.9, 0.999)}),
    "resnext50_sgd": ("SGD", {"rest": 1e-3}, {"weight_decay": 0, "momentum": 0.9, "nesterov": False}),
    "cbam_mixup": ("AdamW", {"rest": 1e-4}, {"weight_decay": 0.045, "betas": (0.9, 0.96)}),
}


@pytest.mark.parametrize("name", OPTIMIZERS)
def test_its_optimizer_has_the_stated_groups_and_rates(name):
    kind, rates, rest = OPTIMIZERS[name]
    network = Classifier(Recipe.model_validate(smallest_sibling(recipe_of(name))), 100)
    optimizer = build_optimizer(recipe_of(name).optimizer, network)
    assert type(optimizer).__name__ == kind
    assert {group["name"]: group["lr"] for group in optimizer.param_groups} == rates
    for group, (key, value) in itertools.product(optimizer.param_groups, rest.items()):
        assert group[key] == value
    held = [each for group in optimizer.param_groups for each in group["params"]]
    assert len(held) == len(set(held))
    assert set(held) == {each for each in network.parameters() if each.requires_grad}
    for group in optimizer.param_groups[:-1]:
        assert set(group["params"]) == set(network.backbone.get_submodule(group["name"]).parameters())


def cosine(start: float, end: float, progress: float) -> float:
    return end + (start - end) * (1 + math.cos(math.pi * progress)) / 2


def restarted(lr: float, epoch: int) -> float:
    start, length = max(cycle for cycle in [(0, 10), (10, 20), (30, 40), (70, 80)] if cycle[0] <= epoch)
    return cosine(lr, 0, (epoch - start) / length)


def one_cycle(lr: float, step: int, steps: int) -> float:
    top = 0.2 * steps - 1
    if step <= top:
        return cosine(lr / 25, lr, step / top)
    return cosine(lr, lr / 25 / 1e4, (step - top) / (steps - 1 - top))


CURVES = {
    "kfold_mix": lambda lr, epoch, step, steps: restarted(lr, epoch),
    "kfold_mix_70": lambda lr, epoch, step, steps: restarted(lr, epoch),
    "focal_onecycle": lambda lr, epoch, step, steps: one_cycle(lr, step, steps),
    "ema_tta": lambda lr, epoch, step, steps: cosine(lr, 1e-5, epoch / 50),
    "resnext50_sgd": lambda lr, epoch, step, steps: lr,
    "cbam_mixup": lambda lr, epoch, step, steps: lr * (1 if epoch < 8 else 0.1 if epoch < 12 else 0.01),
}
LOSSES = [1.0, 0.9, 0.8, 0.7] + [
    0.7
] * 46  # the best is epoch 3's: a tenth after four epochs more, and after four again


@pytest.mark.filterwarnings("ignore:Detected call of `lr_scheduler.step")
@pytest.mark.parametrize("name", CURVES)
def test_its_schedule_equals_the_formula_at_every_step(name):
    recipe, steps_per_epoch = recipe_of(name), 7
    steps = recipe.epochs * steps_per_epoch
    network = Classifier(Recipe.model_validate(smallest_sibling(recipe)), 3)
    optimizer = build_optimizer(recipe.optimizer, network)
    peaks = [group["lr"] for group in optimizer.param_groups]
    schedule = build_schedule(recipe.schedule, optimizer, steps)
    seen, expected = [], []
    for step in range(steps):
        epoch = step // steps_per_epoch
        seen.append([group["lr"] for group in optimizer.param_groups])
        expected.append([CURVES[name](lr, epoch, step, steps) for lr in peaks])
        schedule.after_step()
        if (step + 1) % steps_per_epoch == 0:
            schedule.after_epoch({"val_loss": LOSSES[epoch % 50], "val_accuracy": 0.5})
    np.testing.assert_allclose(seen, expected, rtol=1e-6, atol=1e-15)


@pytest.fixture(scope="module")
def fold(tmp_path_factory):
    return make_stage(tmp_path_factory.mktemp("stage"), {"dark": 6, "grey": 6, "light": 6}).fold()


@pytest.mark.parametrize("path", PATHS, ids=lambda path: path.stem)
def test_every_recipe_takes_a_step(path, fold):
    recipe = Recipe.model_validate(smallest_sibling(load_recipe(path, FOLDER)))
    training = Trainer(recipe, fold, None, Compute(torch.device("cpu"), None, 0))
    before = {name: value.clone() for name, value in training.network.state_dict().items()}
    training.network.train()
    training.step(torch.randint(0, 256, (8, 3, 32, 32), dtype=torch.uint8), torch.arange(8) % 3)
    changed = {
        name.split(".")[1] for name, value in training.network.state_dict().items() if (value != before[name]).any()
    }
    assert "layer4" in changed
    assert changed.isdisjoint(recipe.backbone.frozen)
    assert math.isfinite(float(training.position.loss))


ARMS = {
    "plain": ("kfold_mix", {"mixing"}),
    "plain_focal": ("plain", {"loss"}),
    "plain_normalized": ("plain", {"image"}),
    "plain_randaugment": ("plain", {"augmentation"}),
    "plain_trivialaugment": ("plain", {"augmentation"}),
    "plain_resnet152": ("plain", {"backbone"}),
    "plain_resnest101": ("plain", {"backbone"}),
    "focal_onecycle_ce": ("focal_onecycle", {"loss"}),
    "focal_onecycle_focal": ("focal_onecycle", {"loss"}),
    "ema_tta_neither": ("ema_tta", {"ema", "loss"}),
    "ema_tta_ema": ("ema_tta", {"loss"}),
    "ema_tta_focal": ("ema_tta", {"ema"}),
    "cbam_mixup_unmixed": ("cbam_mixup", {"mixing"}),
    "cbam_mixup_every_batch": ("cbam_mixup", {"mixing"}),
    "cbam_mixup_no_cbam": ("cbam_mixup", {"backbone"}),
    "cbam_mixup_no_dropout": ("cbam_mixup", {"backbone"}),
}


def sections_of(stem: str) -> dict:
    path = next(path for path in PATHS if path.stem == stem)
    return load_recipe(path, FOLDER).model_dump()


def test_every_arm_of_an_ablation_is_known():
    assert {path.stem for path in FOLDER.glob("ablation/*.yaml")} == set(ARMS)


@pytest.mark.parametrize("arm", ARMS)
def test_an_arm_differs_from_its_recipe_in_one_thing(arm):
    parent, differing = ARMS[arm]
    own, others = sections_of(arm), sections_of(parent)
    assert {section for section in own if own[section] != others[section]} == differing


def test_kfold_mix_70_differs_in_its_epochs():
    own, others = sections_of("kfold_mix_70"), sections_of("kfold_mix")
    assert {section: own[section] for section in own if own[section] != others[section]} == {"epochs": 70}


@pytest.mark.parametrize("path", sorted((REPOSITORY / "ablations").glob("*.yaml")), ids=lambda path: path.stem)
def test_a_provided_ablation_names_recipes_there_are(path):
    for name in yaml.safe_load(path.read_text())["ablation"]:
        recipe_of(name)
