"""One fold model's logits for one set of images."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from torch import nn

from kfold_ens.config import Tta
from kfold_ens.data.manifest import read_manifest
from kfold_ens.data.pixels import PixelStore
from kfold_ens.exchange import Logits, write_logits
from kfold_ens.files import read_table
from kfold_ens.network.classifier import TrainedModel, load_model, memory_format
from kfold_ens.network.folding import fold_batch_norms
from kfold_ens.prediction.tta import average_views, build_views
from kfold_ens.training.evaluation import Compute, predict_logits
from kfold_ens.training.loader import evaluation_batches


def on_device(model: TrainedModel, compute: Compute) -> nn.Module:
    """The model's network, ready to predict, and only to predict."""
    network = fold_batch_norms(model.network())
    return network.to(compute.device, memory_format=memory_format(compute.device))


def predict(
    model: TrainedModel, network: nn.Module, tta: Tta, store: PixelStore, image_ids: Sequence[str], compute: Compute
) -> Logits:
    """Logits of these images, in their order, averaged over the views of ``tta``."""
    recipe = model.recipe
    workers = compute.workers_for(recipe.batch_size, recipe.image)
    views = [
        evaluation_batches(store, image_ids, view, recipe.batch_size, workers, compute.pin, name)
        for name, view in build_views(tta, recipe.image).items()
    ]
    logits_vnk = np.stack([predict_logits(network, batches, recipe.image, compute) for batches in views])
    return Logits(np.asarray(image_ids, dtype=object), average_views(tta, logits_vnk), model.classes)


def predict_fold(
    fold: int,
    tta: Tta,
    model_file: str,
    manifest_file: str,
    folds_file: str,
    store: PixelStore,
    compute: Compute,
    oof_file: str,
    test_file: str,
) -> None:
    """Write a fold model's logits for the images held out from it, and for the test images."""
    model = load_model(model_file)
    network = on_device(model, compute)
    folds = read_table(folds_file)
    held_out = folds.loc[folds["fold"] == str(fold), "image_id"].to_numpy()
    test = read_manifest(manifest_file, "test")["image_id"].to_numpy()
    write_logits(oof_file, predict(model, network, tta, store, held_out, compute))
    write_logits(test_file, predict(model, network, tta, store, test, compute))
