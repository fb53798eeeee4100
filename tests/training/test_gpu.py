"""Tests that need a GPU; skipped without one."""

from __future__ import annotations

import logging

import pytest
import torch
from stages import make_stage, training_recipe
from test_fold import RECIPE, train

from kfold_ens.compute.compute import Compute, leased_compute
from kfold_ens.config import load_config

pytestmark = pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")


@pytest.fixture(scope="module")
def stage(tmp_path_factory):
    return make_stage(tmp_path_factory.mktemp("stage"), {"dark": 13, "grey": 12, "light": 12})


@pytest.mark.parametrize("precision", ["bf16", "fp32"])
def test_the_same_seed_gives_the_same_bits_twice(stage, tmp_path, precision):
    values = {"data": {"source": "digits"}, "device": "cuda", "precision": precision, "deterministic": True}
    recipe = training_recipe(**{name: getattr(RECIPE, name) for name in ("augmentation", "mixing", "schedule")})
    with leased_compute(load_config(values), threads=2) as compute:
        assert train(stage, tmp_path, recipe, compute=compute) == train(stage, tmp_path, recipe, compute=compute)


def test_out_of_memory_continues_with_micro_batches(stage, tmp_path, caplog):
    """A batch of 24 images of 512 x 512 pixels needs more than the 3 GB that this test allows."""
    image = {"kind": "squash", "size": 512, "short_side": 512, "normalize": True}
    backbone = {"kind": "torchvision", "name": "resnet50", "weights": "none"}
    recipe = training_recipe(image=image, backbone=backbone, augmentation=[{"kind": "resize"}], epochs=1, batch_size=24)
    total = torch.cuda.get_device_properties(0).total_memory
    torch.cuda.set_per_process_memory_fraction(3e9 / total)
    try:
        with caplog.at_level(logging.WARNING, logger="kfold_ens"):
            train(stage, tmp_path, recipe, compute=Compute(torch.device("cuda", 0), torch.bfloat16, 0))
    finally:
        torch.cuda.set_per_process_memory_fraction(1.0)
    assert "still 24 images per step" in caplog.text
