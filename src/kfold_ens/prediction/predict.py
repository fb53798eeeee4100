"""Predict the logits of one model for one set of images."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

import numpy as np
from torch import Tensor, nn

from kfold_ens.compute.compute import Compute
from kfold_ens.compute.inference import Most, predict_logits
from kfold_ens.config import EvaluationImage, Tta
from kfold_ens.data.pixels import PixelStore
from kfold_ens.loading.loader import EvaluationViews, evaluation_batches
from kfold_ens.logits import Logits, write_logits
from kfold_ens.network.classifier import TrainedModel, load_model, memory_format
from kfold_ens.network.folding import fold_batch_norms
from kfold_ens.prediction.tta import average_views, build_views


def on_device(model: TrainedModel, compute: Compute) -> nn.Module:
    """Load a model's network onto the device for inference only: batch normalisation is folded in."""
    network = fold_batch_norms(model.network())
    return network.to(compute.device).to(memory_format=memory_format(compute.device))


def predict(
    model: TrainedModel,
    network: nn.Module,
    tta: Tta,
    store: PixelStore,
    image_ids: Sequence[str] | np.ndarray,
    compute: Compute,
    batch_size: int,
) -> Logits:
    """Logits of these images, in order, averaged over the test-time views of ``tta``."""
    image = model.recipe.image
    loading = compute.loading(batch_size, image)
    views = [EvaluationViews(store, image_ids, view, name) for name, view in build_views(tta, image).items()]
    batches = [evaluation_batches(each, batch_size, loading) for each in views]
    logits = logits_of_views(network, tta, batches, image, compute)
    return Logits(np.asarray(image_ids, dtype=object), logits, model.classes)


def logits_of_views(
    network: nn.Module,
    tta: Tta,
    views: Sequence[Iterable[Tensor]],
    image: EvaluationImage,
    compute: Compute,
    most: Most | None = None,
) -> np.ndarray:
    """Logits (N, K) float32, averaged over test-time views, from each view's batches (B, 3, size, size) uint8."""
    logits_vnk = np.stack([predict_logits(network, batches, image, compute, most) for batches in views])
    return average_views(tta, logits_vnk)


def predict_images(
    image_ids: Sequence[str] | np.ndarray,
    tta: Tta,
    model_file: str,
    store: PixelStore,
    compute: Compute,
    batch_size: int | None,
    logits_file: str,
) -> None:
    """Write a model's logits for some images. ``batch_size`` defaults to the recipe's."""
    model = load_model(model_file)
    network = on_device(model, compute)
    size = batch_size or model.recipe.batch_size
    write_logits(logits_file, predict(model, network, tta, store, image_ids, compute, size))
