"""Pictures of the report show what the network sees in training."""

from __future__ import annotations

from itertools import islice

import numpy as np
import pytest
import torch
from stages import make_stage, training_recipe

from kfold_ens.compute.compute import Compute
from kfold_ens.loading.augmentation import build_augmentation
from kfold_ens.loading.loader import TrainingViews, training_batches
from kfold_ens.training.preview import as_pixels, first_steps
from kfold_ens.training.trainer import Trainer

MIXES = [
    {"kind": "none"},
    {"kind": "mixup", "alpha": 1.0},
    {"kind": "mixup_or_cutmix", "alpha": 1.0, "probability": 0.5},
]


@pytest.mark.parametrize("mixing", MIXES, ids=lambda mixing: mixing["kind"])
@pytest.mark.parametrize("normalize", [False, True])
def test_preview_shows_the_inputs_of_the_first_steps(mixing, normalize, tmp_path):
    fold = make_stage(tmp_path, {"dark": 14, "grey": 14, "light": 14}).fold()
    image = {"kind": "squash", "size": 16, "short_side": 16, "normalize": normalize}
    recipe = training_recipe(mixing=mixing, image=image)
    training = Trainer(recipe, fold, None, Compute(torch.device("cpu"), None, 0))
    inputs, targets = [], []
    training.network.register_forward_pre_hook(lambda _, arguments: inputs.append(arguments[0].clone()))
    criterion = training.backward.criterion
    training.backward.criterion = lambda logits, target, epoch: (
        targets.append(target) or criterion(logits, target, epoch)
    )
    views = TrainingViews(fold.train, build_augmentation(recipe.augmentation, 16), fold.seed, fold.number)
    for batch in islice(training_batches(views, training.order.remaining(0, 0, 1)), 3):
        training.step(*batch)
    shown = first_steps(recipe, fold, steps=3, most=8)
    for step, (seen, target) in zip(shown, zip(inputs, targets, strict=True), strict=True):
        assert np.array_equal(step.pixels, as_pixels(seen, recipe.image))
        shares = target if target.ndim == 2 else torch.nn.functional.one_hot(target, 3)
        assert step.shares == pytest.approx(shares.numpy())
    mixed = [bool((step.shares.max(axis=1) < 1).any()) for step in shown]
    assert mixed == {"none": [False] * 3, "mixup": [True] * 3}.get(mixing["kind"], mixed)
