"""Test-time augmentation: build several views of each image and average their logits."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
from torchvision.transforms import v2

from kfold_ens import config
from kfold_ens.loading.augmentation import build_augmentation, build_evaluation_view
from kfold_ens.logits import log_mean_softmax


def _one_view(section: config.NoTta, image: config.EvaluationImage) -> dict[str, v2.Transform]:
    return {"evaluation": build_evaluation_view(image)}


def _named_views(section: config.Views, image: config.EvaluationImage) -> dict[str, v2.Transform]:
    evaluation = build_evaluation_view(image)
    return {
        view.name: v2.Compose([evaluation, build_augmentation(view.steps, image.size)]) if view.steps else evaluation
        for view in section.views
    }


VIEWS: dict[str, Callable[..., dict[str, v2.Transform]]] = {"none": _one_view, "views": _named_views}


def build_views(section: config.Tta, image: config.EvaluationImage) -> dict[str, v2.Transform]:
    """Test-time views by name: transforms from a stored image to (3, size, size) uint8."""
    return VIEWS[section.kind](section, image)


def _mean(logits_vnk: np.ndarray) -> np.ndarray:
    return logits_vnk.mean(axis=0)


AVERAGES = {"logits": _mean, "softmax": log_mean_softmax}


def average_views(section: config.Tta, logits_vnk: np.ndarray) -> np.ndarray:
    """Average logits (V, N, K) over views to (N, K) float32; for softmax, the log of the mean probability."""
    if isinstance(section, config.NoTta) or len(logits_vnk) == 1:
        return logits_vnk[0]
    return AVERAGES[section.average](logits_vnk.astype(np.float64)).astype(np.float32)
