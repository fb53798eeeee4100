"""Tiny ensembles: three networks with random weights in one file."""

from __future__ import annotations

from pathlib import Path

import torch
from stages import training_recipe

from kfold_ens.bundle.about import About, Member
from kfold_ens.bundle.ensemble_file import write_ensemble
from kfold_ens.network.classifier import Classifier, TrainedModel
from kfold_ens.versions import versions

CLASSES = ("dark", "grey", 'l,ight "x"')
NORMALIZED = {"kind": "squash", "size": 16, "short_side": 16, "normalize": True}


def tiny_models(count: int = 3, **sections: object) -> list[TrainedModel]:
    recipe = training_recipe(**{"image": NORMALIZED} | sections)
    models = []
    for number in range(count):
        torch.manual_seed(number)
        models.append(TrainedModel(recipe, CLASSES, f"print{number}", Classifier(recipe, len(CLASSES)).state_dict()))
    return models


def about_of(models: list[TrainedModel], tta: dict | None = None, **values: object) -> About:
    members = [
        Member(
            name=f"fold{number}",
            recipe_name="tiny",
            recipe=model.recipe,
            tta=tta or {"kind": "none"},
            fingerprint=model.fingerprint,
            versions={},
        )
        for number, model in enumerate(models)
    ]
    defaults = {"classes": CLASSES, "method": "average", "scores": {}, "licences": {}, "versions": versions()}
    return About(members=tuple(members), **defaults | values)


def tiny_ensemble(path: Path, count: int = 3, tta: dict | None = None, **values: object) -> Path:
    models = tiny_models(count)
    write_ensemble(path, about_of(models, tta, **values), models)
    return path
