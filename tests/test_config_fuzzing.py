"""Two thousand mutated configurations and recipes: each is valid, or refused in one message."""

from __future__ import annotations

import json
import random
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from contextlib import suppress
from copy import deepcopy
from functools import reduce
from operator import getitem
from pathlib import Path
from typing import Any

import pytest
import torch
import yaml
from conftest import REPOSITORY
from jsonschema import Draft202012Validator
from pydantic import ValidationError
from snakemake.common.configfile import load_configfile
from snakemake.exceptions import WorkflowError
from stages import make_stage, smallest_sibling

from kfold_ens.compute.compute import Compute
from kfold_ens.config import HALVES, Config, Recipe, find_recipe, load_config, load_recipe
from kfold_ens.data.folders import images_fingerprint, missing
from kfold_ens.data.sources import list_images
from kfold_ens.errors import ConfigError, DataError, KfoldError
from kfold_ens.files import canonical
from kfold_ens.loading.loader import training_views
from kfold_ens.loading.samplers import epoch_order
from kfold_ens.prediction.tta import build_views
from kfold_ens.training.trainer import Trainer

MUTANTS = 1_000  # of config.yaml, and as many recipes
JUNK = [None, True, False, 0, 1, -1, 2, 3, 5, 0.5, 1.5, -0.1, 1e-12, float("nan"), float("inf"), "", "3e-4", "none"]
JUNK += [
    "1e999",
    "nan",
    "\x00",
    "ä\n",
    "x" * 300,
    "\ud800",
    [],
    {},
    [1],
    ["layer1"],
    [None],
    {"kind": "none"},
    {1: 2},
    "2026-11-25",
    2**70,
]

CONFIGS = [
    yaml.safe_load((REPOSITORY / "config.yaml").read_text()),
    {
        "data": {
            "source": "imagefolder",
            "train": ["a", "b"],
            "test": "c",
            "limit_per_class": 5,
            "test_labels": "d.csv",
        },
        "ablation": ["digits", "kfold_mix"],
        "checkpoint_minutes": 0.5,
    },
    {"data": {"source": "csv", "train": "a", "test": "b", "images": "c", "id_column": "d", "label_column": "e"}},
    {"data": {"source": "torchvision", "name": "FashionMNIST", "root": "data", "download": False}, "device": "cpu"},
]
FOLDER = REPOSITORY / "recipes"
RECIPES = [smallest_sibling(load_recipe(path, FOLDER)) | {"epochs": 2} for path in sorted(FOLDER.glob("*.yaml"))]
KEPT = smallest_sibling(load_recipe(FOLDER / "digits.yaml", FOLDER))  # the base of overlays, never mutated
OVERLAYS = [{"base": "kept.yaml"} | {key: each[key] for key in ("head", "loss", "optimizer")} for each in RECIPES]


def places(values: Any, path: tuple = ()) -> Iterator[tuple]:
    """The paths of everything inside a tree of mappings and lists."""
    items = values.items() if isinstance(values, dict) else enumerate(values) if isinstance(values, list) else ()
    for key, value in items:
        yield (*path, key)
        yield from places(value, (*path, key))


def at(values: Any, path: Sequence) -> Any:
    """What stands at a path of a tree."""
    return reduce(getitem, path, values)


def mutated(values: dict, others: list[dict], chance: random.Random) -> dict:
    """One or two values replaced by junk, what stands elsewhere, or another number; removed; or renamed."""
    values = deepcopy(values)
    for _ in range(chance.randint(1, 2)):
        spots = list(places(values))
        if not spots:
            break
        *parents, last = chance.choice(spots)
        parent = at(values, parents)
        match chance.randrange(6):
            case 0 if isinstance(parent[last], int | float):
                parent[last] = type(parent[last])(parent[last] * chance.choice([0.3, 0.5, 2, 3, 10]))
            case 1:
                parent[last] = chance.choice(JUNK)
            case 2:
                other = chance.choice(others)
                parent[last] = deepcopy(at(other, chance.choice(list(places(other)))))
            case 3 | 5:
                del parent[last]
            case 4 if isinstance(parent, dict):
                parent[chance.choice(["kind", "name", "weights", "extra", 3])] = parent.pop(last)
    return values


def scrambled(text: str, chance: random.Random) -> bytes:
    """The same with one to five characters or lines wrong."""
    content = bytearray(text.encode())
    for _ in range(chance.randint(1, 5)):
        place = chance.randrange(len(content))
        match chance.randrange(4):
            case 0:
                content[place] = chance.randrange(256)
            case 1:
                del content[place : place + chance.randint(1, 40)]
            case 2:
                content[place:place] = chance.choice(
                    [b"\t", b": ", b"- ", b"{", b"&a ", b"*a", b"!!python/name:os.system ", b"\n"]
                )
            case 3:
                content[place:place] = content[place : place + chance.randint(1, 200)]
    return bytes(content)


def written(values: list[dict], folder: Path, seed: int) -> Iterator[Path]:
    chance, path = random.Random(seed), folder / "mutant.yaml"
    for number in range(MUTANTS):
        original = values[number % len(values)]
        if chance.random() < 0.5:
            path.write_bytes(scrambled(yaml.safe_dump(original, allow_unicode=True), chance))
        else:
            path.write_text(yaml.safe_dump(mutated(original, values, chance)))
        yield path


def refusal(read: Callable, values: object) -> str:
    """Return the message of a refusal, which must be short enough to read; empty if there is none."""
    try:
        read(values)
    except ConfigError as error:
        assert len(str(error)) < 5000  # noqa: PT017 (it is the result)
        return str(error)
    return ""


def test_a_mutated_configuration_is_clean_or_refused(tmp_path):
    outcomes: Counter[str] = Counter()
    for path in written(CONFIGS, tmp_path, seed=0):
        try:
            values = load_configfile(str(path))
        except (WorkflowError, UnicodeDecodeError):
            outcomes["refused by Snakemake"] += 1
            continue
        if not refusal(load_config, values):
            use(load_config(values), tmp_path)
            outcomes["accepted"] += 1
        else:
            outcomes["refused"] += 1
    assert min(outcomes[each] for each in ("refused by Snakemake", "refused", "accepted")) > MUTANTS / 50, outcomes


@pytest.mark.parametrize(("name", "model", "originals"), [("config", Config, CONFIGS), ("recipe", Recipe, RECIPES)])
def test_the_schemas_accept_what_the_loaders_accept(name, model, originals):
    """Only true and false are booleans to a schema; the loaders also take 1 and 0."""
    validator = Draft202012Validator(json.loads((REPOSITORY / f"schemas/{name}.schema.json").read_text()))
    chance, accepted = random.Random(2), 0
    for number in range(MUTANTS):
        values = mutated(originals[number % len(originals)], originals, chance)
        with suppress(ValidationError):
            model.model_validate(values)
            accepted += 1
            found = [error.message for error in validator.iter_errors(values)]
            assert [message for message in found if "is not of type 'boolean'" not in message] == [], values
    assert accepted > MUTANTS / 50


def use(run: Config, folder: Path) -> None:
    """What reading the Snakefile, and listing the images, do with it; neither has an error of another kind."""
    for name in (run.recipe, *run.ablation):
        with suppress(ConfigError):
            find_recipe(name, FOLDER)
    for half in HALVES:
        canonical(run.data.of_half(half)).encode()
        images_fingerprint(run.data.folders(half))
        "".join(missing(run.data, half)).encode()
        if run.data.source in ("imagefolder", "csv"):
            with pytest.raises(DataError) as refused:
                list_images(run.data, half, run.seed, folder)
            str(refused.value).encode()


def read(path: Path) -> Recipe:
    return load_recipe(path, FOLDER)


@pytest.mark.slow
def test_a_mutated_recipe_trains_and_predicts_or_is_refused(tmp_path):
    fold = make_stage(tmp_path, {"cat": 9, "dog": 9}).fold()
    outcomes: Counter[str] = Counter()
    (tmp_path / "kept.yaml").write_text(yaml.safe_dump(KEPT))
    for path in written(RECIPES + OVERLAYS, tmp_path, seed=1):
        if message := refusal(read, path):
            assert str(path) in message
            outcomes["refused"] += 1
            continue
        recipe = read(path)
        if recipe.image.size > 64 or recipe.batch_size > 64:
            continue  # right, and too large for a test
        try:
            train_and_view(recipe, fold)
        except KfoldError:
            outcomes["refused later"] += 1
        else:
            outcomes["trained"] += 1
    assert min(outcomes["refused"], outcomes["trained"]) > MUTANTS / 50, outcomes


def train_and_view(recipe: Recipe, fold) -> None:
    """One step of training, the end of an epoch, and every view of an image."""
    training = Trainer(recipe, fold, None, Compute(torch.device("cpu"), None, 0))
    views, order = training_views(recipe, fold), epoch_order(recipe, fold)
    images, labels = zip(*(views[0, int(position)] for position in order.batches(0)[0]), strict=True)
    training.step(torch.stack(images), torch.tensor(labels))
    training.position.seconds = 1
    training.finish_epoch({"val_loss": 1.0, "val_accuracy": 0.5}, 1.0)
    for view in build_views(recipe.tta, recipe.image).values():
        assert view(images[0]).shape == (3, recipe.image.size, recipe.image.size)
